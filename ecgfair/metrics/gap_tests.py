"""Whether the largest gap between the groups of an attribute could be chance: of each label, and of their mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd
import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError
from ecgfair.groups import UNKNOWN, Grouping
from ecgfair.metrics.chance.multiplicity import benjamini_hochberg, holm
from ecgfair.metrics.chance.permutation import GapTest, permutation_test
from ecgfair.metrics.fairness import FairnessConfig
from ecgfair.metrics.fairness_report import MACRO
from ecgfair.metrics.kernels.checks import check_predictions
from ecgfair.metrics.kernels.weighted import group_sums
from ecgfair.metrics.predictions import Predictions

DEFAULT_PERMUTATIONS: Final = 1000

COLUMNS: Final = (
    "attribute",
    "label",
    "statistic",
    "gap",
    "expected",
    "upper",
    "p",
    "p_holm",
    "p_bh",
    "lowest",
    "highest",
    "groups",
    "reason",
)
"""One line an attribute, statistic and label: the largest gap seen; the mean and the 95 % quantile of the largest gap
if there were no disparity; its p-value, as it is and adjusted for the number of labels; the groups at both ends."""


def gap_tests(
    predictions: Predictions, config: FairnessConfig, permutations: int = DEFAULT_PERMUTATIONS
) -> pd.DataFrame:
    """Test the largest gap in AUROC, and with thresholds in TPR and FPR, of every attribute.

    Compared are the known groups in which a label has the support. The line of ``macro`` is about means over labels
    that all compared groups have in common, see ``permutation.compared_groups``; it is one test, hence not adjusted.
    P-values are adjusted over the labels of one attribute and statistic, not over attributes and statistics: whoever
    looks at several of these has that many chances to err.

    Args:
        predictions: What is tested.
        config: Its support and its seed.
        permutations: How many, at least 100.

    Returns:
        The columns ``COLUMNS``.

    Raises:
        ConfigurationError: There are too few permutations.
        ValueError: Probabilities or targets are not what they should be; see ``checks``.
    """
    if permutations < 100:
        raise ConfigurationError(f"permutations is {permutations}: expected at least 100.")
    check_predictions(predictions.probabilities.nan_to_num(0.0), predictions.targets)
    lines = [line for grouping in predictions.groupings for line in _lines(predictions, grouping, config, permutations)]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _lines(
    predictions: Predictions, grouping: Grouping, config: FairnessConfig, permutations: int
) -> Iterator[dict[str, object]]:
    eligible = _eligible(predictions, grouping, config.min_support)
    thresholds = predictions.thresholds
    predicted = None
    if thresholds is not None:
        predicted = (predictions.probabilities >= thresholds).double().masked_fill(thresholds.isnan(), torch.nan)
    found = permutation_test(
        predictions.probabilities.nan_to_num(0.0),
        predictions.targets,
        grouping.codes,
        len(grouping.names),
        predictions.units,
        eligible=eligible,
        predictions=predicted,
        permutations=permutations,
        seed=config.seed,
    )
    supported, failed = eligible.sum(0).tolist(), predictions.probabilities.isnan().any(0).tolist()
    for statistic, test in found.labels.items():
        reasons = [
            _reason(count, gap, is_nan)
            for count, gap, is_nan in zip(supported, test.observed.tolist(), failed, strict=True)
        ]
        adjusted = holm(test.p).tolist(), benjamini_hochberg(test.p).tolist()
        head = grouping, statistic
        yield from _rows(*head, list(predictions.label_names), test, adjusted, supported, reasons)
        macro = found.macro[statistic]
        compared = int(found.compared.sum())
        alone = macro.p.tolist(), macro.p.tolist()
        lacking = found.labels[statistic].observed.isnan()  # of the shared ones, those without a threshold
        labels = int((found.shared & ~lacking).sum())
        why = f"{labels} of {len(supported)} labels" if labels else "no two groups share a label with support"
        yield from _rows(*head, [MACRO], macro, alone, [compared], [why])


def _rows(
    grouping: Grouping,
    statistic: str,
    labels: list[str],
    test: GapTest,
    adjusted: tuple[list[float], list[float]],
    groups: list[int],
    reasons: list[str],
) -> Iterator[dict[str, object]]:
    columns = (test.observed, test.expected, test.upper, test.p)
    names = (*grouping.names, "")  # -1 is none
    for label, gap, expected, upper, p, p_holm, p_bh, low, high, count, reason in zip(
        labels,
        *(column.tolist() for column in columns),
        *adjusted,
        test.lowest.tolist(),
        test.highest.tolist(),
        groups,
        reasons,
        strict=True,
    ):
        values = (grouping.attribute, label, statistic, gap, expected, upper, p, p_holm, p_bh)
        yield dict(zip(COLUMNS, (*values, names[low], names[high], count, reason), strict=True))


def _eligible(predictions: Predictions, grouping: Grouping, needed: int) -> Tensor:
    """(G, C) bool: the known groups with the support in a label that the model did not fail on."""
    positive = predictions.targets.double()
    ones = positive.new_ones(1, len(positive))
    groups = grouping.codes, len(grouping.names)
    counts = [group_sums(of_class, *groups, ones)[0] for of_class in (positive, 1 - positive)]
    enough = (torch.minimum(*counts) >= needed) & ~predictions.probabilities.isnan().any(0)
    known = torch.tensor([name != UNKNOWN for name in grouping.names], device=enough.device)
    return enough & known[:, None]


def _reason(groups: int, gap: float, failed: bool) -> str:
    if failed:
        return "a probability is NaN"
    if groups < 2:
        return "fewer than two known groups have the support"
    return "" if gap == gap else "no threshold"
