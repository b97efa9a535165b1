"""Records of many labels, sorted by score and cut into the sets whose weights a ranking statistic needs.

A cell is one label in one group. It has a row for each distinct score of its positives, from the highest to the lowest,
and one last row for what lies below all of them. A record is in the first row whose score it reaches: a cell's rows
from the first to any other together hold the records that score at least as high.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass(frozen=True, eq=False)
class Bags:
    """Sets of records, one after the other.

    Args:
        records: Positions of the records.
        starts: Where each set begins in ``records``; it ends where the next one begins.
    """

    records: Tensor
    starts: Tensor

    @classmethod
    def of(cls, records: Tensor, counts: Tensor) -> Bags:
        """Cut records into sets of given sizes."""
        return cls(records, counts.cumsum(0) - counts)

    def sums(self, by_record: Tensor) -> Tensor:
        """Return (sets, R), the sums over the records of each set; ``by_record`` is (N, R) float64, contiguous."""
        if not len(self.records) or not by_record.shape[1]:
            return by_record.new_zeros(len(self.starts), by_record.shape[1])
        if by_record.shape[1] > 1:
            return embedding_bag(self.records, by_record, self.starts, mode="sum")
        # One weighting, as at the end of an epoch: a bag's overhead a record would be ten times its sum.
        edges = torch.cat([self.starts, self.starts.new_tensor([len(self.records)])])
        return torch.segment_reduce(by_record[:, 0].index_select(0, self.records), "sum", offsets=edges)[:, None]


@dataclass(frozen=True, eq=False)
class Cells:
    """Some cells, one after the other.

    Args:
        lengths: Rows of each cell.
        positives: The positive records by cell and falling score.
        positive_counts: How many of them each row has.
        negatives: Likewise the negative records.
        negative_counts: How many of them each row has.
        tied: Of the negative records, those with the score of a positive.
        tied_rows: The row of each of these, from 0.
    """

    lengths: Tensor
    positives: Tensor
    positive_counts: Tensor
    negatives: Tensor
    negative_counts: Tensor
    tied: Tensor
    tied_rows: Tensor

    @classmethod
    def none(cls, device: torch.device) -> Cells:
        """No cell at all, to begin with."""
        return cls(*(torch.zeros(0, dtype=torch.int64, device=device) for _ in range(7)))

    @classmethod
    def joined(cls, parts: list[Cells]) -> Cells:
        """Put cells one after the other."""
        rows, tied_rows = 0, []
        for part in parts:
            tied_rows.append(part.tied_rows + rows)
            rows += len(part.positive_counts)
        return cls(
            torch.cat([part.lengths for part in parts]),
            torch.cat([part.positives for part in parts]),
            torch.cat([part.positive_counts for part in parts]),
            torch.cat([part.negatives for part in parts]),
            torch.cat([part.negative_counts for part in parts]),
            torch.cat([part.tied for part in parts]),
            torch.cat(tied_rows),
        )


@dataclass(frozen=True, eq=False)
class SortedLabels:
    """Some labels' records, each label's by falling score, label after label.

    Args:
        records: (C * N,) positions of the records.
        positive: (C * N,) bool.
        scores: (C * N,) number of the distinct score, rising from 0; the next label goes on counting.
        labels: C.
    """

    records: Tensor
    positive: Tensor
    scores: Tensor
    labels: int

    @classmethod
    def of(cls, scores: Tensor, positive: Tensor) -> SortedLabels:
        """Sort (C, N) scores; ``positive`` is (C, N) bool."""
        values, order = scores.contiguous().sort(dim=1, descending=True, stable=True)  # the same records, the same bits
        is_new = torch.ones_like(values, dtype=torch.bool)
        is_new[:, 1:] = values[:, 1:] != values[:, :-1]
        return cls(order.view(-1), positive.gather(1, order).view(-1), is_new.view(-1).cumsum(0) - 1, len(scores))

    def cells(self, codes: Tensor, groups: int) -> Cells:
        """Cut each label into groups; ``codes`` is the group of each of the N records, 0 to ``groups`` - 1."""
        cell, records, positive, scores = self._by_cell(codes, groups)
        is_new = torch.ones_like(positive)
        is_new[1:] = (scores[1:] != scores[:-1]) | (cell[1:] != cell[:-1])
        score = is_new.cumsum(0) - 1  # its number, of all cells
        (begins,) = is_new.nonzero(as_tuple=True)
        (positives,) = positive.nonzero(as_tuple=True)
        (negatives,) = (~positive).nonzero(as_tuple=True)
        cell_of_score = cell.index_select(0, begins)
        of_a_positive = torch.zeros_like(begins)
        of_a_positive[score.index_select(0, positives)] = 1
        lengths = 1 + torch.bincount(cell_of_score[of_a_positive == 1], minlength=self.labels * groups)
        # As many rows lie before a record's as there are higher scores of positives, and one last row a cell.
        before = of_a_positive.cumsum(0) - of_a_positive + cell_of_score
        row, rows = before.index_select(0, score), int(lengths.sum())
        tied = negatives[of_a_positive.index_select(0, score.index_select(0, negatives)) == 1]
        return Cells(
            lengths,
            records.index_select(0, positives),
            torch.bincount(row.index_select(0, positives), minlength=rows),
            records.index_select(0, negatives),
            torch.bincount(row.index_select(0, negatives), minlength=rows),
            records.index_select(0, tied),
            row.index_select(0, tied),
        )

    def _by_cell(self, codes: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the cell, record, class and score of each entry, cell after cell, by falling score in each."""
        cell = torch.arange(self.labels, device=codes.device).repeat_interleave(len(codes))
        if groups == 1:
            return cell, self.records, self.positive, self.scores
        by_cell, order = (cell * groups + codes.index_select(0, self.records)).sort(stable=True)  # keeps their order
        records, positive = self.records.index_select(0, order), self.positive.index_select(0, order)
        return by_cell, records, positive, self.scores.index_select(0, order)
