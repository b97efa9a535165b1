"""The samples of maps beside the truth about them, and how well the ones agree with the other: AUROC and Dice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ecgfair.anomaly.maps import known_samples
from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.metrics.kernels.auroc import RankedScores

Over = Literal["leads_and_time", "time"]
OVERS: Final[tuple[Over, ...]] = get_args(Over)

_BINS: Final = 1024
"""Between which resamples of the pooled AUROC tell scores apart, half of them cut by each class."""


class SampleAuroc(NamedTuple):
    """How well maps rank true samples above others."""

    pooled: float
    """Of all samples of all records together; NaN without both classes."""
    by_record: Tensor
    """(B,) float64, of the samples of each record; NaN where it lacks a class."""

    @property
    def compared(self) -> Tensor:
        """(B,) bool: the records with both classes."""
        return ~self.by_record.isnan()

    @property
    def mean(self) -> float:
        """Over the records with both classes; NaN without any."""
        return float(self.by_record[self.compared].mean())


@dataclass(frozen=True, eq=False)
class MapSamples:
    """The samples that were recorded, one after the other.

    Args:
        scores: (M,).
        truth: (M,) bool.
        record: (M,) int64, 0 to ``records`` - 1.
        records: B.
    """

    scores: Tensor
    truth: Tensor
    record: Tensor
    records: int

    @classmethod
    def of(cls, maps: Tensor, truth: Tensor, recorded: Tensor | None, over: str) -> MapSamples:
        """Take the recorded samples of maps; see ``localisation.sample_auroc``.

        Raises:
            ConfigurationError: There is no such ``over``.
            ValueError: Shapes do not fit, or a map is NaN where the record was recorded.
        """
        if over not in OVERS:
            raise ConfigurationError(f"over is {over!r}, which is no kind of sample.{did_you_mean(over, OVERS)}")
        if truth.shape != maps.shape or truth.dtype != torch.bool:
            raise ValueError(
                f"truth is {truth.dtype} of the shape {tuple(truth.shape)}: expected bool of {tuple(maps.shape)}, that "
                "of the maps."
            )
        known = known_samples(maps, recorded)
        if recorded is not None and (failed := int((recorded & maps.isnan()).sum())):
            raise ValueError(
                f"The maps are NaN in {failed} of {int(recorded.sum())} recorded samples: expected numbers there; look "
                "for the records that the model fails on."
            )
        scores = maps.detach()
        if over == "time":
            scores = scores.masked_fill(~known, -torch.inf).amax(1)
            truth, known = (truth & known).any(1), known.any(1)
        record = torch.arange(len(maps), device=maps.device).view(-1, *[1] * (known.ndim - 1)).expand_as(known)
        return cls(scores[known], truth[known], record[known], len(maps))

    def sums(self, flags: Tensor) -> Tensor:
        """Count, (B,) float64, how many samples of each record have a flag; ``flags`` is (M,) bool."""
        return torch.bincount(self.record[flags], minlength=self.records).double()

    def auroc(self) -> SampleAuroc:
        """Rank all samples together, and those of each record."""
        groups = [(torch.zeros_like(self.record), 1), (self.record, self.records)]
        pooled, each = RankedScores.of_each(self.scores[:, None], self.truth[:, None], groups)
        ones = torch.ones(1, len(self.scores), device=self.scores.device)
        return SampleAuroc(float(pooled.auroc(ones)), each.auroc(ones)[0, :, 0])

    def resampled_auroc(self, point: float, weights: Tensor) -> Tensor:
        """Return (1 + R,) of the pooled AUROC, for (1 + R, B) weights of records.

        The first is the point estimate as given. Resamples are for its spread alone: they tell scores apart only where
        one of the bins ends between them, and so need a pair of histograms a record, whatever its length.
        """
        values = torch.full((len(weights),), point, dtype=torch.float64, device=weights.device)
        if len(weights) == 1 or math.isnan(point):
            return values
        of_class = [_quantiles(self.scores[flags], _BINS // 2) for flags in (self.truth, ~self.truth)]
        edges = torch.unique(torch.cat(of_class))
        bins = len(edges) + 1
        cell = self.record * bins + torch.bucketize(self.scores, edges)
        positive, negative = (
            weights[1:] @ torch.bincount(cell[flags], minlength=self.records * bins).view(-1, bins).double()
            for flags in (self.truth, ~self.truth)
        )
        won = (positive * (negative.cumsum(1) - negative / 2)).sum(1)
        values[1:] = (won / (positive.sum(1) * negative.sum(1))).clamp(0, 1)
        return values

    def best_dice(self) -> tuple[float, float]:
        """Return the best Dice coefficient and the highest threshold that has it."""
        true = int(self.truth.sum())
        if true == 0:
            return math.nan, math.nan
        ranked, order = self.scores.sort(descending=True)
        hits = self.truth[order].cumsum(0)
        marked = torch.arange(1, len(ranked) + 1, device=ranked.device)
        dice = 2 * hits.double() / (marked + true)
        dice[:-1].masked_fill_(ranked[:-1] == ranked[1:], -1.0)  # no threshold ends within a tie
        best = int((dice == dice.max()).nonzero()[0, 0])
        return float(dice[best]), float(ranked[best])

    def dice(self, threshold: float, weights: Tensor) -> Tensor:
        """Return (R,) Dice coefficients at a threshold, for (R, B) weights of records."""
        marked = self.scores >= threshold
        both, either = weights @ self.sums(marked & self.truth), weights @ (self.sums(marked) + self.sums(self.truth))
        value = (2 * both / either).clamp(max=1)  # 0 / 0 is the NaN of nothing marked and nothing true
        return torch.full_like(value, torch.nan) if math.isnan(threshold) else value


def _quantiles(scores: Tensor, count: int) -> Tensor:
    """At most so many of the scores, evenly spaced by rank."""
    ranks = torch.linspace(0, len(scores) - 1, min(count, len(scores)), dtype=torch.float64, device=scores.device)
    return scores.sort().values[ranks.round().long()]
