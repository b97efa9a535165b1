"""What the callback has to log of the toy records, by scikit-learn, fairlearn, SciPy and NumPy."""

from __future__ import annotations

import math
from functools import cache
from itertools import combinations, product

import numpy as np
from fairlearn.metrics import false_positive_rate, true_positive_rate
from scipy.stats import foldnorm
from sklearn.metrics import roc_auc_score, roc_curve

from tests.callbacks.toy import LABELS, probabilities_at, toy_records

ATTRIBUTES = ("sex", "age", "sex_x_age")
BINS = 10


@cache
def thresholds_of(epoch):
    """Youden's threshold of each label at an epoch; of several equally good ones the lowest."""
    records = toy_records()
    probabilities, targets = probabilities_at(records, epoch).double().numpy(), records["labels"].numpy()
    chosen = []
    for label in range(len(LABELS)):
        fpr, tpr, cuts = roc_curve(targets[:, label], probabilities[:, label], drop_intermediate=False)
        chosen.append(float(cuts[np.isclose(tpr - fpr, (tpr - fpr).max(), atol=1e-12)].min()))
    return chosen


def corrected_calibration_error(targets, probabilities):
    """The calibration error over bins of equal numbers, less what chance adds to each bin."""
    order = np.argsort(probabilities)
    n = len(order)
    bins = [order[[(2 * rank + 1) * BINS // (2 * n) == number for rank in range(n)]] for number in range(BINS)]
    total = 0.0
    for members in filter(len, bins):
        distance = abs((probabilities[members] - targets[members]).mean())
        spread = math.sqrt((probabilities[members] * (1 - probabilities[members])).sum()) / len(members)
        total += len(members) / n * (2 * distance - foldnorm(distance / spread, scale=spread).mean())
    return max(total, 0.0)


def groups_of(attribute):
    """Masks of the known groups."""
    records = toy_records()
    age, sex = records["age"].numpy(), records["sex"].numpy()
    masks = {
        "sex": [sex == 1, sex == 0],
        "age": [age < 40, (age >= 40) & (age < 65), (age >= 65) & (age < 80), age >= 80],
    }
    return [np.logical_and.reduce(parts) for parts in product(*(masks[name] for name in attribute.split("_x_")))]


@cache
def expected(stage="val", epoch=0, thresholds_from="epoch"):
    """Every scalar, with labels of at least one record of both classes.

    Args:
        stage: First part of the keys.
        epoch: Of the weights.
        thresholds_from: Epoch that chose the thresholds; ``None`` for none, by default the same epoch.
    """
    chosen = thresholds_of(epoch if thresholds_from == "epoch" else thresholds_from or 0)
    records = toy_records()
    targets, probabilities = records["labels"].numpy().astype(int), probabilities_at(records, epoch).double().numpy()

    def rate(measure):
        if thresholds_from is None:
            return lambda *_: math.nan
        return lambda truth, answers, label: measure(truth, (answers >= chosen[label]).astype(int), pos_label=1)

    statistics = {
        "auroc_gap": (lambda truth, answers, _: roc_auc_score(truth, answers), 1),
        "tpr_gap": (rate(true_positive_rate), 1),
        "fpr_gap": (rate(false_positive_rate), -1),
        "ece_gap": (lambda truth, answers, _: corrected_calibration_error(truth, answers), -1),
    }

    def table(measure, members):
        pairs = [(targets[members, label], probabilities[members, label], label) for label in range(len(LABELS))]
        return np.array([measure(*pair) if len(set(pair[0])) == 2 else math.nan for pair in pairs])

    overall = table(statistics["auroc_gap"][0], np.ones(len(targets), bool))
    scalars = dict(zip(("head", "medium", "tail"), overall, strict=True))
    scalars |= {"macro": overall.mean(), "common_rare_gap": overall[0] - overall[2]}
    scalars = {f"{stage}/auroc/{name}": value for name, value in scalars.items()}
    for attribute in ATTRIBUTES:
        groups = groups_of(attribute)
        for name, (measure, sign) in statistics.items():
            spread, worst = extremes([table(measure, members) for members in groups], sign)
            scalars[f"{stage}/fair/{attribute}/{name}"] = spread
            if name == "auroc_gap":
                scalars[f"{stage}/fair/{attribute}/worst_auroc"] = worst
    return scalars


def extremes(tables, sign):
    """The mean of the worst group minus that of the best, and that of the worst, over labels defined in all of them.

    Compared are the groups, of all choices, for which the number of shared labels times that of the groups but one is
    largest.
    """
    if np.isnan(tables).all():
        return math.nan, math.nan
    chosen = max(
        (groups for size in range(2, len(tables) + 1) for groups in combinations(tables, size)),
        key=lambda groups: ((len(groups) - 1) * (~np.isnan(sum(groups))).sum(), len(groups)),
    )
    means = [values[~np.isnan(sum(chosen))].mean() for values in chosen]
    worst, best = min(means, key=lambda mean: sign * mean), max(means, key=lambda mean: sign * mean)
    return worst - best, worst
