"""How well scores rank records: exact AUROC and average precision, of all labels, groups and resamples at once.

Scores are sorted once. Then the records of a label and group fall into bags between the scores of its positives, and
whatever the weights of the records, both statistics follow from the weights of the bags: a resample costs sums alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ecgfair.metrics.kernels.checks import check_codes, check_scores, check_shapes, check_weights, refuse
from ecgfair.metrics.kernels.sorting import Bags, Cells, SortedLabels

CHUNK_ELEMENTS: Final = 2**24
"""Float64 values of all working arrays together (128 MiB)."""

MOST_COLUMNS: Final = 256
"""Weightings taken at a time on a processor: wider arrays leave its cache, which is slower."""

SORTED_AT_ONCE: Final = 2**20
"""Scores that are sorted together; bounds the memory of sorting."""


@dataclass(frozen=True, eq=False)
class AurocTable:
    """AUROC of each label under each weighting, with what it rests on.

    Args:
        auroc: (G, C) float64 in [0, 1]; NaN where the weighted records of a class are none.
        positives: (G, C) float64, sum of the weights of the positive records.
        negatives: (G, C) float64, likewise of the negative records.
    """

    auroc: Tensor
    positives: Tensor
    negatives: Tensor


def auroc(
    scores: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    probabilities: bool = False,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> AurocTable:
    """Compute the area under the receiver operating characteristic of each label, for each row of weights.

    It is the weighted share of (positive, negative) pairs in which the positive scores higher, a tie counting one half
    (the Mann-Whitney statistic: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747). Each label is sorted
    once, whatever the number of weightings. With whole-number weights every sum is exact, hence the result does not
    depend on the order of the records.

    Args:
        scores: (N, C), any real numbers, higher meaning positive; only their order counts.
        targets: (N, C), 0 or 1, of any type.
        weights: (G, N), not negative: a membership mask, counts of a resample, or any weights. ``None`` is one row of
            ones. Where the rows are groups that share no record, ``RankedScores`` is faster.
        probabilities: Also require the scores to lie in [0, 1].
        chunk_elements: Bounds the working memory: as many rows of weights are taken at a time as keep the working
            arrays below so many float64 values, at least one row.

    Returns:
        The (G, C) table, on the device of ``scores``.

    Raises:
        ValueError: Shapes do not fit, a score is NaN, a target is neither 0 nor 1, a weight is negative or infinite.
    """
    if weights is None:
        weights = torch.ones(1, *scores.shape[:1], device=scores.device)
    check_shapes(scores, targets, "scores")
    check_weights(len(scores), weights)
    one_group = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    ranked = RankedScores.of(scores, targets, one_group, 1, probabilities=probabilities)
    table = ranked.measure(weights, chunk_elements=chunk_elements)
    return AurocTable(table.auroc[:, 0], table.positives[:, 0], table.negatives[:, 0])


@dataclass(frozen=True, eq=False)
class Ranking:
    """What the order of the scores says of each label in each group, under each weighting.

    A pair is a positive and a negative record of the same group; its weight is the product of theirs.

    Args:
        pairs_won: (R, G, C) float64, the weight of the pairs in which the positive scores higher; half where tied.
        average_precision: (R, G, C) float64 in [0, 1]; NaN where a class has no weight.
        positives: (R, G, C) float64, sum of the weights of the positive records.
        negatives: (R, G, C) float64, likewise of the negative records.
    """

    pairs_won: Tensor
    average_precision: Tensor
    positives: Tensor
    negatives: Tensor

    @property
    def auroc(self) -> Tensor:
        """(R, G, C) float64 in [0, 1]; NaN where a class has no weight."""
        # 0 / 0 is the NaN of an absent class. Whole-number weights are rounded here alone, once; fractional ones may
        # end just outside [0, 1], hence the clamp, which leaves NaN as it is.
        return (self.pairs_won / (self.positives * self.negatives)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class RankedScores:
    """The records of every label and group, sorted once; serves every weighting.

    ``metrics.kernels.sorting`` says what cells and their rows are.

    Args:
        groups: G.
        labels: C.
        records: N.
        lengths: (C * G) rows of each cell, label by label.
        positives: The positive records of each row.
        negatives: The negative records of each row.
        tied: Of the negative records, those with just the score of a positive, for the rows ``tied_rows``.
        tied_rows: (T,) int64, rising.
    """

    groups: int
    labels: int
    records: int
    lengths: Tensor
    positives: Bags
    negatives: Bags
    tied: Bags
    tied_rows: Tensor

    @classmethod
    def of(
        cls, scores: Tensor, targets: Tensor, codes: Tensor, groups: int, *, probabilities: bool = False
    ) -> RankedScores:
        """Rank the scores of each label within each group.

        Args:
            scores: (N, C), any real numbers, higher meaning positive; only their order counts.
            targets: (N, C), 0 or 1, of any type.
            codes: (N,) int64, the group of each record, 0 to ``groups`` - 1.
            groups: Number of groups, G; a group may have no records.
            probabilities: Also require the scores to lie in [0, 1].

        Raises:
            ValueError: Shapes do not fit, a score is NaN, a target is neither 0 nor 1, a code is no group.
        """
        return cls.of_each(scores, targets, [(codes, groups)], probabilities=probabilities)[0]

    @classmethod
    def of_each(
        cls,
        scores: Tensor,
        targets: Tensor,
        groupings: Sequence[tuple[Tensor, int]],
        *,
        probabilities: bool = False,
    ) -> list[RankedScores]:
        """Rank the same scores within the groups of several attributes; faster than one after the other.

        Args:
            scores: See ``of``.
            targets: See ``of``.
            groupings: Codes and number of groups of each attribute, as in ``of``.
            probabilities: See ``of``.

        Raises:
            ValueError: See ``of``.
        """
        check_scores(scores, targets)
        if probabilities:
            outside = (scores < 0) | (scores > 1)
            refuse((outside, "scores lie outside [0, 1]", "probabilities; apply the sigmoid to logits"))
        for codes, groups in groupings:
            check_codes(len(scores), codes, groups)
        labels = max(1, SORTED_AT_ONCE // max(1, len(scores)))
        cells: list[list[Cells]] = [[Cells.none(scores.device)] for _ in groupings]
        for start in range(0, scores.shape[1], labels):
            some = slice(start, start + labels)
            by_score = SortedLabels.of(scores[:, some].detach().T, targets[:, some].detach().T == 1)
            for parts, (codes, groups) in zip(cells, groupings, strict=True):
                parts.append(by_score.cells(codes, groups))
        return [
            cls._of_cells(Cells.joined(parts), groups, scores)
            for parts, (_, groups) in zip(cells, groupings, strict=True)
        ]

    @classmethod
    def _of_cells(cls, cells: Cells, groups: int, scores: Tensor) -> RankedScores:
        """Keep what sums need."""
        rows, counts = torch.unique_consecutive(cells.tied_rows, return_counts=True)
        return cls(
            groups,
            scores.shape[1],
            len(scores),
            cells.lengths,
            Bags.of(cells.positives, cells.positive_counts),
            Bags.of(cells.negatives, cells.negative_counts),
            Bags.of(cells.tied, counts),
            rows,
        )

    def auroc(self, weights: Tensor) -> Tensor:
        """Compute the AUROC of each label in each group, as the function ``auroc`` defines it.

        Args:
            weights: See ``measure``.

        Returns:
            (R, G, C) float64 in [0, 1]; NaN where a class has no weight.
        """
        return self.measure(weights).auroc

    def average_precision(self, weights: Tensor) -> Tensor:
        """Compute the average precision of each label in each group.

        It is the mean, over the positives, of the precision among the records that score at least as high: the area
        under the precision-recall curve without interpolation, as scikit-learn defines it. Records with the same score
        are one threshold. A random score has the prevalence as its average precision, so that groups of different
        prevalence are not alike even where they are served alike.

        Args:
            weights: See ``measure``.

        Returns:
            (R, G, C) float64 in [0, 1]; NaN where a class has no weight. Without negatives every score would have 1,
            which says nothing of it.
        """
        return self.measure(weights).average_precision

    def measure(self, weights: Tensor, *, chunk_elements: int = CHUNK_ELEMENTS) -> Ranking:
        """Compute both statistics and their supports for each row of weights.

        Args:
            weights: (R, N), not negative: ones, counts of a resample, or any weights.
            chunk_elements: Bounds the working memory: as many rows of weights are taken at a time as keep the working
                arrays below so many float64 values, at least one row.

        Raises:
            ValueError: The shape does not fit, or a weight is negative or infinite.
        """
        check_weights(self.records, weights)
        rows = int(self.lengths.sum())
        columns = max(1, chunk_elements // max(1, self.records + 5 * rows))
        if weights.device.type == "cpu":
            columns = min(columns, MOST_COLUMNS)
        first = self.lengths.cumsum(0) - self.lengths
        spans = torch.stack([first, first + self.lengths], 1)[self.lengths > 1].tolist()
        chunks = torch.split(weights.detach(), columns)
        parts = [self._measured(chunk.T.double().contiguous(), spans) for chunk in chunks]
        shape = (self.labels, self.groups, len(weights))
        sums = [torch.cat(part, dim=1).view(shape).permute(2, 1, 0) for part in zip(*parts, strict=True)]
        return Ranking(*(part.contiguous() for part in sums))

    def _measured(self, by_record: Tensor, spans: list[list[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Measure some weightings.

        Args:
            by_record: (N, R) float64 weights.
            spans: First row and end of each cell of several rows.

        Returns:
            (C * G, R) each, in the order of ``Ranking``.
        """
        ends = self.lengths.cumsum(0)
        weight = self.positives.sums(by_record)
        negatives_above, positives_above = self.negatives.sums(by_record), weight.clone()
        for sums in (negatives_above, positives_above):
            for start, end in spans:
                sums[start:end].cumsum_(0)  # within a cell, lest the rounding of large ones spill over into small ones
        positives, negatives = positives_above[ends - 1], negatives_above[ends - 1]
        # 0 / 0 where nothing has weight down to a score: no positive of weight has it either, and it counts 0.
        precision = positives_above.div_(positives_above + negatives_above).nan_to_num_(0).mul_(weight)
        negatives_above.index_add_(0, self.tied_rows, self.tied.sums(by_record), alpha=-0.5)
        pairs_lost = negatives_above.mul_(weight)
        cells = Bags(torch.arange(len(weight), device=weight.device), ends - self.lengths)
        average_precision = (cells.sums(precision) / positives).clamp(0, 1)
        return (
            positives * negatives - cells.sums(pairs_lost),
            average_precision.masked_fill(negatives == 0, torch.nan),
            positives,
            negatives,
        )
