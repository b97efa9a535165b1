"""Could the largest gap between groups be chance? A permutation test, and the gap to be expected without a disparity.

The largest of several noisy values minus the smallest is above 0 even where all groups are served alike, and the more
so the more and the smaller the groups. So the gap seen is set beside the gaps of the same records after they were dealt
out to the groups anew: positive and negative records separately, because a label may be more common in one group than
in another.

The AUROC of a group depends on the order of the scores within the group alone. A model may score one group higher than
another, the ill and the healthy alike, and still rank both equally well. That is no gap; nor must it enter the
comparison through records dealt into another group. So before dealing, a score is replaced by its place among its own
group's negatives (placement values: Pepe and Cai 2004, doi:10.1111/j.0006-341X.2004.00200.x), which leaves every
group's AUROC as it is. Rates at fixed thresholds need no such step: yes and no have no distribution but their share.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

import torch
from torch import Tensor

from ecgfair.metrics.chance.dealing import DealtLabel, aligned_scores, random_orders
from ecgfair.metrics.statistics import AUROC, FPR, TPR

CHUNK_ELEMENTS: Final = 2**18
"""Values of a working array, permutations times records (2 MiB)."""

UPPER: Final = 0.95
"""The quantile of the gaps under no disparity that is reported."""

_TOLERANCE: Final = 1e-9
"""Gaps that differ less are the same: their terms were only added in another order."""


@dataclass(frozen=True, eq=False)
class GapTest:
    """The largest gap of one statistic between groups, and what chance makes of it.

    Every field is (C,); undefined where fewer than two groups are compared (NaN, or -1 for a group).

    Args:
        observed: Highest value of a group minus the lowest.
        expected: Mean of that gap under no disparity.
        upper: Its 95 % quantile under no disparity.
        p: Share of permutations with a gap at least as large, the records as they are counted in.
        lowest: int64, position of the group with the lowest value, the first one if several have it.
        highest: int64, likewise of the highest.
    """

    observed: Tensor
    expected: Tensor
    upper: Tensor
    p: Tensor
    lowest: Tensor
    highest: Tensor


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """The tests of all statistics.

    Args:
        labels: By statistic (``auroc``, and with predictions ``tpr`` and ``fpr``), every label by itself.
        macro: By statistic, of the mean over the ``shared`` labels of each of the ``compared`` groups; fields are (1,).
        compared: (G,) bool, see ``compared_groups``.
        shared: (C,) bool, likewise. A mean of rates is without those that have no threshold.
    """

    labels: dict[str, GapTest]
    macro: dict[str, GapTest]
    compared: Tensor
    shared: Tensor


def permutation_test(
    scores: Tensor,
    targets: Tensor,
    codes: Tensor,
    groups: int,
    patients: Tensor,
    *,
    eligible: Tensor,
    predictions: Tensor | None = None,
    permutations: int = 1000,
    seed: int = 0,
    align: bool = True,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> PermutationTest:
    """Test for each label, and for their mean, whether the largest gap between the groups exceeds chance.

    Patients are dealt out, not records: those of a patient stay together, but for the few patients who stand where one
    group ends and the next begins. All labels use the same orders of the patients, so labels depend on each other in
    the permutations much as they do in the records, and means over labels are tested too. Where a label is more common
    in some groups, a patient's positive and negative records may come to different groups; of records that resemble
    each other this makes gaps a little larger than chance does, and the test the more cautious.

    The p-value is (1 + permutations with a gap at least as large) / (1 + permutations), hence never 0 (Phipson and
    Smyth 2010, doi:10.2202/1544-6115.1585). It is not adjusted for the number of labels: see ``multiplicity``.

    Args:
        scores: (N, C), higher meaning positive. Only their order counts.
        targets: (N, C), 0 or 1.
        codes: (N,) int64, group of each record, 0 to ``groups`` - 1.
        groups: Number of groups, G.
        patients: (N,) int64, any number that is the same for the records of a patient.
        eligible: (G, C) bool: which groups are compared in a label. Leave out the unknown group and those of too little
            support; a label's other records have no part in its test.
        predictions: (N, C), 0 or 1: what thresholds make of the scores. A column with a NaN has no threshold.
        permutations: How many.
        seed: Makes the permutations repeatable; they are the same on every device.
        align: Put scores in place among their group's negatives first. Without it, the test is of whether positives
            and negatives are scored alike in all groups.
        chunk_elements: Bounds the working memory.

    Returns:
        The tests, on the device of ``scores``.

    Raises:
        ValueError: Shapes do not fit, there is no permutation, a group that is to be compared lacks positive or
            negative records, or has a score that is NaN.
    """
    _check(scores, targets, codes, groups, patients, eligible, predictions, permutations)
    eligible = eligible & (eligible.sum(0) > 1)
    positive, values = targets.detach() == 1, scores.detach().double()
    predicted = torch.zeros_like(positive) if predictions is None else predictions.detach() == 1
    statistics = (AUROC,) if predictions is None else (AUROC, TPR, FPR)
    labels: dict[int, DealtLabel] = {}
    for label in eligible.any(0).nonzero()[:, 0].tolist():
        column, of_label = values[:, label].contiguous(), positive[:, label]
        column = aligned_scores(column, of_label, codes, groups) if align else column
        labels[label] = DealtLabel.of(column, of_label, predicted[:, label], codes, eligible[:, label])

    shape = (1 + permutations, len(statistics), groups, scores.shape[1])  # the records as they are come first
    table = torch.full(shape, torch.nan, dtype=torch.float64, device=scores.device)
    for label, dealt in labels.items():
        table[:1, :, :, label] = _values(dealt, *dealt.as_they_are(codes), statistics)
    first = 1
    for order, place in random_orders(patients, permutations, seed, chunk_elements):
        for label, dealt in labels.items():
            rows = slice(first, first + len(order))
            table[rows, :, :, label] = _values(dealt, *dealt.dealt(order, place), statistics)
        first += len(order)
    return _tests(table, statistics, eligible, predictions)


def compared_groups(eligible: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the groups whose means over labels are compared, and the labels, which are eligible in all of them.

    A group with few eligible labels would leave few to compare all others by. So groups are taken by how many labels
    they have, as many groups as make the number of shared labels times that of the groups but one largest; of equal
    choices, the one with more groups. Supports alone decide, never scores.

    Args:
        eligible: (G, C) bool.

    Returns:
        (G,) and (C,) bool; both empty of True if no two groups share a label.
    """
    by_labels = eligible.sum(1).argsort(descending=True, stable=True)
    shared = eligible[by_labels].long().cummin(0).values
    worth = shared.sum(1) * torch.arange(len(eligible), device=eligible.device)
    most = int(worth.max()) if len(worth) else 0
    compared = torch.zeros(len(eligible), dtype=torch.bool, device=eligible.device)
    if not most:
        return compared, torch.zeros(eligible.shape[1], dtype=torch.bool, device=eligible.device)
    last = int((worth == most).nonzero()[-1])
    compared[by_labels[: last + 1]] = True
    return compared, shared[last] == 1


def _values(dealt: DealtLabel, of_positives: Tensor, of_negatives: Tensor, statistics: tuple[str, ...]) -> Tensor:
    """(B, statistics, G) of one label."""
    found = [dealt.aurocs(of_positives, of_negatives)]
    if len(statistics) > 1:
        found += dealt.rates(of_positives, of_negatives)
    return torch.stack(found, 1)


def _tests(table: Tensor, statistics: tuple[str, ...], eligible: Tensor, predictions: Tensor | None) -> PermutationTest:
    """Test each statistic of a table (1 + B, statistics, G, C)."""
    compared, shared = compared_groups(eligible)
    labels, macro = {}, {}
    for at, statistic in enumerate(statistics):
        values, among = table[:, at], shared
        if statistic != AUROC and predictions is not None:
            lacks_threshold = predictions.isnan().any(0)
            values, among = values.masked_fill(lacks_threshold, torch.nan), shared & ~lacks_threshold
        labels[statistic] = _gap_test(values)
        macro[statistic] = _gap_test(
            values[:, :, among].mean(2, keepdim=True).masked_fill(~compared[:, None], torch.nan)
        )
    return PermutationTest(labels, macro, compared, shared)


def _gap_test(values: Tensor) -> GapTest:
    """Test the gaps of values (1 + B, G, C), NaN where a group is not compared."""
    missing = values.isnan()
    low, high = values.masked_fill(missing, torch.inf), values.masked_fill(missing, -torch.inf)
    undefined = missing[0].all(0)
    gaps = (high.amax(1) - low.amin(1)).masked_fill(undefined, torch.nan)
    observed, null = gaps[0], gaps[1:]
    quantile = null.sort(0).values[ceil(UPPER * len(null)) - 1]
    reached = 1 + (null >= observed - _TOLERANCE).sum(0)
    return GapTest(
        observed,
        null.mean(0),
        quantile,
        (reached.double() / len(gaps)).masked_fill(undefined, torch.nan),
        low[0].argmin(0).masked_fill(undefined, -1),
        high[0].argmax(0).masked_fill(undefined, -1),
    )


def _check(
    scores: Tensor,
    targets: Tensor,
    codes: Tensor,
    groups: int,
    patients: Tensor,
    eligible: Tensor,
    predictions: Tensor | None,
    permutations: int,
) -> None:
    """Refuse what would give p-values without a meaning."""
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}: expected at least 1, such as 1000.")
    records, labels = scores.shape if scores.ndim == 2 else (-1, -1)
    shapes = {"targets": (targets, (records, labels)), "codes": (codes, (records,)), "patients": (patients, (records,))}
    shapes |= {"eligible": (eligible, (groups, labels))}
    if predictions is not None:
        shapes["predictions"] = (predictions, (records, labels))
    for name, (found, expected) in shapes.items():
        if tuple(found.shape) != expected:
            raise ValueError(
                f"{name} has the shape {tuple(found.shape)}: expected {expected} for scores of the shape "
                f"{tuple(scores.shape)} and {groups} groups."
            )
    if records and not 0 <= int(codes.min()) <= int(codes.max()) < groups:
        raise ValueError(f"codes go from {int(codes.min())} to {int(codes.max())}: expected 0 to {groups - 1}.")
    taking_part = eligible[codes]
    if count := int((taking_part & (targets != 0) & (targets != 1)).sum()):
        raise ValueError(f"{count} targets of groups to compare are neither 0 nor 1: leave uncertain records out.")
    if count := int((taking_part & scores.isnan()).sum()):
        raise ValueError(f"{count} scores of groups to compare are NaN: leave their labels out of eligible.")
    for name, has in (("positive", targets == 1), ("negative", targets == 0)):
        members = torch.zeros(groups, labels, dtype=torch.int64, device=scores.device).index_add_(0, codes, has.long())
        if count := int((eligible & (members == 0)).sum()):
            raise ValueError(
                f"eligible names {count} groups and labels without a {name} record: expected at least one, better the "
                "support that the report asks for."
            )
