"""AUROC among records that are alike in something else, such as age.

Old people have more diseases and other ECGs. So a score that knows age alone ranks sick above healthy people, and so
does, to a degree, any score that has learnt age. Compared within strata of age, it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ecgfair.metrics.kernels.auroc import RankedScores, Ranking
from ecgfair.metrics.kernels.checks import check_groups

CHUNK_ELEMENTS: Final = 2**22
"""Float64 values of an array over strata (32 MiB); there are four of them."""


@dataclass(frozen=True, eq=False)
class StratifiedAuroc:
    """AUROC over the pairs within strata, and what has no such pair.

    Args:
        auroc: (R, G, C) float64 in [0, 1]; NaN where no stratum has both classes.
        pairs: (R, G, C) float64, the weight of the pairs compared.
        positives_left_out: (R, G, C) float64, the weight of the positive records without a negative one in their
            stratum, or without a stratum.
        negatives_left_out: (R, G, C) float64, likewise of the negative records.
    """

    auroc: Tensor
    pairs: Tensor
    positives_left_out: Tensor
    negatives_left_out: Tensor


def stratified_auroc(
    scores: Tensor, targets: Tensor, codes: Tensor, groups: int, strata: Tensor, weights: Tensor
) -> StratifiedAuroc:
    """Compute the AUROC of each label in each group from the pairs of records of the same stratum.

    A covariate-adjusted ROC curve averages those of the values of a covariate (Janes and Pepe 2009,
    doi:10.1093/biomet/asp002, who weight them by their positives). Here strata are weighted by their pairs, so that it
    is the weighted share of the pairs within strata in which the positive scores higher: Mann-Whitney statistics
    summed over strata, an idea of van Elteren (1960), whose weights differ. With one stratum it is the plain AUROC.

    What varies within a stratum is not adjusted for: broad strata of age leave some of its effect.

    Args:
        scores: (N, C), any real numbers, higher meaning positive; only their order counts.
        targets: (N, C), 0 or 1, of any type.
        codes: (N,) int64, the group of each record, 0 to ``groups`` - 1.
        groups: Number of groups, G.
        strata: (N,) whole numbers, equal for records that may be compared; -1 for a record to be compared with none.
        weights: (R, N), not negative.

    Raises:
        ValueError: Shapes do not fit, a score is NaN, a target is neither 0 nor 1, a code is no group, a stratum is
            below -1 or no whole number, a weight is negative or infinite.
    """
    return stratified_of_each(scores, targets, [(codes, groups)], strata, weights)[0]


def stratified_of_each(
    scores: Tensor, targets: Tensor, groupings: Sequence[tuple[Tensor, int]], strata: Tensor, weights: Tensor
) -> list[StratifiedAuroc]:
    """Do the same for the groups of several attributes; faster than one after the other.

    Args:
        scores: See ``stratified_auroc``.
        targets: Likewise.
        groupings: Codes and number of groups of each attribute.
        strata: See ``stratified_auroc``.
        weights: Likewise.

    Raises:
        ValueError: See ``stratified_auroc``.
    """
    for codes, groups in groupings:
        check_groups(len(scores), codes, groups, weights)
    _check_strata(strata, len(scores))
    numbers, stratum = torch.unique(strata, return_inverse=True)
    count = max(1, len(numbers))
    ranked = RankedScores.of_each(
        scores, targets, [(codes * count + stratum, groups * count) for codes, groups in groupings]
    )
    tables = []
    for _, groups in groupings:
        cells = ranked.pop(0)  # each is large, and done with
        rows = max(1, CHUNK_ELEMENTS // max(1, groups * count * scores.shape[1]))
        parts = [_joined(cells.measure(chunk), numbers, groups) for chunk in torch.split(weights, rows)]
        tables.append(StratifiedAuroc(*(torch.cat(part) for part in zip(*parts, strict=True))))
    return tables


def _joined(cells: Ranking, numbers: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum (R, G * S, C) over the S strata, in the order of ``StratifiedAuroc``."""
    shape = (groups, max(1, len(numbers)))
    won, positives, negatives = (
        part.view(len(part), *shape, part.shape[2]) for part in (cells.pairs_won, cells.positives, cells.negatives)
    )
    # An empty table has no stratum, and a record of the stratum -1 is in no pair.
    compared = (numbers >= 0)[:, None] if len(numbers) else won.new_zeros(1, 1, dtype=torch.bool)
    pairs = (positives * negatives * compared).sum(2)
    return (
        ((won * compared).sum(2) / pairs).clamp(0, 1),
        pairs,
        positives.masked_fill((negatives > 0) & compared, 0).sum(2),
        negatives.masked_fill((positives > 0) & compared, 0).sum(2),
    )


def _check_strata(strata: Tensor, records: int) -> None:
    """Refuse strata that are not a whole number a record."""
    if strata.shape != (records,) or strata.is_floating_point():
        raise ValueError(
            f"strata have the shape {tuple(strata.shape)} and the type {strata.dtype}: expected one whole number for "
            f"each of {records} records."
        )
    if count := int((strata < -1).sum()):
        raise ValueError(f"{count} of {records} strata are below -1: expected 0 upwards, or -1 for no stratum.")
