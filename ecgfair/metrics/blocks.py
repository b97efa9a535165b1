"""Values of a report together with their resamples, from which intervals and differences between models are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ecgfair.metrics.chance.intervals import Support, confidence_interval, gap_interval
from ecgfair.metrics.fairness_report import Row
from ecgfair.metrics.statistics import WITHOUT_INTERVALS


@dataclass(frozen=True, eq=False)
class Resampled:
    """n statistics in [0, 1] on the records and on resamples of their patients.

    Args:
        values: (1 + R, n) float64: on the records, then on R resamples.
        support: (n,) the patients each rests on; ``None`` for extremes over groups, which have no interval: their
            resamples are biased away from equality.
    """

    values: Tensor
    support: Support | None

    def minus(self, other: Resampled) -> Tensor:
        """(1 + R, n) these values minus others under the same resamples."""
        return self.values - other.values


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of one kind.

    Args:
        rows: n rows; their values and intervals are filled in.
        found: What they report.
        minus: What is subtracted from it, where they report differences.
    """

    rows: Sequence[Row]
    found: Resampled
    minus: Resampled | None = None

    @property
    def reported(self) -> Tensor:
        """(1 + R, n) values."""
        return self.found.values if self.minus is None else self.found.minus(self.minus)

    @property
    def has_intervals(self) -> bool:
        """Whether there are resamples, of something that they tell the spread of."""
        if self.found.support is None or len(self.found.values) < 2:
            return False
        return bool(self.rows) and self.rows[0].statistic not in WITHOUT_INTERVALS

    def interval(self) -> tuple[Tensor, Tensor]:
        """(n,) lower and upper ends of the 95 % intervals."""
        if self.minus is None:
            return confidence_interval(self.found.values, self.found.support, bounded=True)
        return gap_interval(self.found.values, self.minus.values, self.found.support, self.minus.support)

    def finished(self) -> list[Row]:
        """Return the rows with their values and, where patients were resampled, intervals."""
        columns = {"value": self.reported[0].tolist()}
        if self.has_intervals:
            low, high = self.interval()
            columns |= {"low": low.tolist(), "high": high.tolist()}
        names = list(columns)
        return [
            row._replace(**dict(zip(names, found, strict=True)))
            for row, *found in zip(self.rows, *columns.values(), strict=True)
        ]


def means_over(values: Tensor, patients: Tensor, among: Tensor) -> Resampled:
    """Average over a fixed set of labels.

    Args:
        values: (1 + R, n, C).
        patients: (n, C) what the labels rest on.
        among: (n, C) bool: which labels. They are the same in every resample, or resamples would measure other things.

    Returns:
        n means; NaN where there are no labels.
    """
    sums = torch.where(among, values, 0).sum(2)  # 0 / 0 is the NaN of a mean over nothing
    return Resampled(sums / among.sum(1), Support.of_mean(patients * among))


def extremes(values: Sequence[float], like: Tensor) -> Resampled:
    """Hold values that are the largest or smallest of several."""
    return Resampled(torch.tensor([list(values)], dtype=torch.float64, device=like.device), None)
