import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.metrics import (
    MetricFrame,
    equal_opportunity_difference,
    equal_opportunity_ratio,
    equalized_odds_difference,
    equalized_odds_ratio,
    false_negative_rate,
    false_positive_rate,
    true_positive_rate,
)
from hypothesis import given, settings
from sklearn.metrics import average_precision_score, brier_score_loss, precision_score, roc_auc_score
from torchmetrics.functional.classification import multilabel_auroc

from ecgfair.groups import Grouping
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.fairness_frame import FairnessFrame
from ecgfair.metrics.predictions import Predictions
from tests.metrics.cases import GROUPS, names, points_at, random_predictions, small_predictions

OF_SCORES = {"auroc": roc_auc_score, "average_precision": average_precision_score, "brier": brier_score_loss}
OF_DECISIONS = {
    "tpr": true_positive_rate,
    "fpr": false_positive_rate,
    "fnr": false_negative_rate,
    "ppv": precision_score,
}
CONFIG = FairnessConfig(min_support=1, details=True)


def frame_of(predictions, config=CONFIG):
    return FairnessFrame(evaluate(predictions, config))


def defined(frame, column):
    """The values of a view for which there is a statistic."""
    return frame[column].dropna()


def theirs(predictions, label, statistic):
    """MetricFrame over the known groups with both classes of the label and, for precision, a predicted positive."""
    truth = predictions.targets[:, label].numpy()
    score = predictions.probabilities[:, label].numpy()
    decided = (score >= 0.5).astype(int)
    groups = np.array(GROUPS)[predictions.groupings[0].codes.numpy()]
    kept = np.zeros(len(truth), dtype=bool)
    for group in GROUPS[:-1]:
        members = groups == group
        has_both = len(np.unique(truth[members])) == 2
        kept |= members & (has_both and (statistic != "ppv" or decided[members].any()))
    if not kept.any():
        return None
    metric = OF_SCORES.get(statistic) or OF_DECISIONS[statistic]
    values = score if statistic in OF_SCORES else decided
    return MetricFrame(metrics=metric, y_true=truth[kept], y_pred=values[kept], sensitive_features=groups[kept])


@settings(deadline=None, max_examples=15)
@given(small_predictions(labels=1))
def test_groups_differences_and_ratios_equal_fairlearn_where_it_is_defined_and_are_nan_elsewhere(predictions):
    frame = frame_of(predictions)
    views = [frame.difference(), frame.ratio(), frame.group_min(), frame.group_max()]
    for position, label in enumerate(predictions.label_names):
        for statistic in (*OF_SCORES, *OF_DECISIONS):
            reference = theirs(predictions, position, statistic)
            ours = frame.by_group.xs(("site", label), level=("attribute", "label"))[statistic]
            known = ours.drop("unknown").dropna()
            assert list(known.index) == ([] if reference is None else sorted(reference.by_group.index))
            difference, ratio, smallest, largest = (view.loc[("site", label), statistic] for view in views)
            if reference is None:
                assert np.isnan([difference, ratio, smallest, largest]).all()
                continue
            np.testing.assert_allclose(known, reference.by_group.loc[known.index].astype(float), atol=1e-12)
            assert smallest == pytest.approx(reference.group_min())
            assert largest == pytest.approx(reference.group_max())
            if len(known) < 2:
                assert np.isnan([difference, ratio]).all()  # fairlearn has 0 and 1 for a group beside itself
                continue
            assert difference == pytest.approx(reference.difference(method="between_groups"), abs=1e-12)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0
                assert ratio == pytest.approx(reference.ratio(method="between_groups"), nan_ok=True)


@settings(deadline=None, max_examples=20)
@given(small_predictions(labels=1))
def test_equalized_odds_and_equal_opportunity_equal_fairlearn(predictions):
    frame = frame_of(predictions)
    difference, ratio = frame.difference(), frame.ratio()
    for position, label in enumerate(predictions.label_names):
        reference = theirs(predictions, position, "tpr")
        found = [
            view.loc[("site", label), name]
            for name in ("equalized_odds", "equal_opportunity")
            for view in (difference, ratio)
        ]
        if reference is None or len(reference.by_group) < 2:
            assert np.isnan(found).all()
            continue
        groups = np.array(GROUPS)[predictions.groupings[0].codes.numpy()]
        kept = np.isin(groups, reference.by_group.index)
        truth = predictions.targets[:, position].numpy()[kept]
        decided = (predictions.probabilities[:, position].numpy()[kept] >= 0.5).astype(int)
        sensitive = {"sensitive_features": groups[kept]}
        assert found[0] == pytest.approx(equalized_odds_difference(truth, decided, **sensitive), abs=1e-12)
        assert found[2] == pytest.approx(equal_opportunity_difference(truth, decided, **sensitive), abs=1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            by_rate = [
                MetricFrame(metrics=rate, y_true=truth, y_pred=decided, **sensitive).ratio(method="between_groups")
                for rate in (true_positive_rate, false_positive_rate)
            ]
            assert found[3] == pytest.approx(equal_opportunity_ratio(truth, decided, **sensitive), nan_ok=True)
            if not np.isnan(by_rate).any():
                assert found[1] == pytest.approx(equalized_odds_ratio(truth, decided, **sensitive))
        if np.isnan(by_rate).any():  # a rate that is 0 in every group is equal in all: the other one decides
            assert found[1] == pytest.approx(np.nanmin(by_rate) if not np.isnan(by_rate).all() else np.nan, nan_ok=True)


def test_overall_equals_scikit_learn_and_the_macro_auroc_torchmetrics():
    predictions = random_predictions(labels=5)
    report = evaluate(predictions, CONFIG)
    overall = FairnessFrame(report).overall
    for position, label in enumerate(predictions.label_names):
        truth, score = predictions.targets[:, position].numpy(), predictions.probabilities[:, position].numpy()
        for statistic, metric in OF_SCORES.items():
            assert overall.loc[label, statistic] == pytest.approx(metric(truth, score), abs=1e-6)
        for statistic, metric in OF_DECISIONS.items():
            assert overall.loc[label, statistic] == pytest.approx(metric(truth, (score >= 0.5).astype(int)))
    macro = multilabel_auroc(predictions.probabilities, predictions.targets.long(), 5, average="macro", thresholds=None)
    assert report.scalars("val")["val/auroc/macro"] == pytest.approx(float(macro), abs=1e-6)


def test_an_unknown_group_has_values_and_a_gap_but_no_part_in_the_extremes():
    predictions = random_predictions(records=800)
    codes = predictions.groupings[0].codes
    rows = codes == GROUPS.index("unknown")
    worst = predictions.probabilities.clone()
    worst[rows] = 1 - predictions.targets[rows]  # every unknown record is misjudged
    with_bad_unknown = random_predictions(records=800)
    with_bad_unknown = Predictions(**{**_fields(with_bad_unknown), "probabilities": worst})
    bad, good = frame_of(with_bad_unknown), frame_of(predictions)
    assert (bad.by_group.xs("unknown", level="group")["auroc"] == 0).all()
    assert (bad.gap.xs("unknown", level="group")["auroc"] < -0.4).all()
    for view in ("difference", "ratio", "group_min", "group_max"):
        pd.testing.assert_frame_equal(getattr(bad, view)(), getattr(good, view)())
    for predicted in (bad, good):
        assert {row.group for row in predicted.report.select("site", "auroc", "worst")} <= set(GROUPS[:-1])
    assert (
        bad.report.scalars("val")["val/fair/site/worst_auroc"]
        == good.report.scalars("val")["val/fair/site/worst_auroc"]
    )


def test_gaps_are_signed_differences_to_the_reference():
    frame = frame_of(random_predictions(), FairnessConfig(min_support=1, details=True, reference={"site": "b"}))
    for group in GROUPS:
        ours, theirs, gap = (
            view.xs(name, level="group")["tpr"]
            for view, name in ((frame.by_group, group), (frame.by_group, "b"), (frame.gap, group))
        )
        np.testing.assert_allclose(gap, ours - theirs)
    assert frame.gap["tpr"].min() < 0 < frame.gap["tpr"].max()


def test_a_view_has_a_line_for_every_label_even_if_nothing_of_it_is_defined():
    targets = torch.tensor([[1, 0], [0, 0], [1, 0], [0, 0]])
    probabilities = torch.tensor([[0.9, 0.1], [0.1, 0.2], [0.8, 0.3], [0.2, 0.4]])
    grouping = Grouping("site", ("a", "b", "unknown"), torch.tensor([0, 0, 1, 1]))
    frame = frame_of(Predictions(probabilities, targets, names(2), [grouping], operating_points=points_at(0.5, 0.5)))
    assert list(frame.overall.index) == names(2)
    assert frame.overall.loc["label1"].isna().all()
    assert len(frame.by_group) == 6
    assert list(frame.difference().index) == [("site", "label0"), ("site", "label1")]
    assert frame.difference().loc[("site", "label0"), "auroc"] == 0


def test_without_groups_there_is_overall_and_nothing_else():
    frame = frame_of(random_predictions(attributes=()))
    assert len(frame.overall) == 4
    for view in (frame.by_group, frame.gap, frame.difference(), frame.ratio(), frame.group_min()):
        assert view.empty


def _fields(predictions):
    return {name: getattr(predictions, name) for name in type(predictions).__dataclass_fields__}
