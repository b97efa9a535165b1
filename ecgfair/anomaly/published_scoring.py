"""The published way to score (Jiang et al. 2023, arXiv 2308.01639), to be measured against.

Three passes a beat, one record at a time, the global branch repeated in each; a tenth of the global signal and more
than half of every beat are never hidden; the errors of visible samples count as well; where beats overlap, their errors
are added; a record without a whole beat has no score.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ecgfair.anomaly.evaluated import evaluated
from ecgfair.anomaly.maps import PUBLISHED_SMOOTHING, smooth
from ecgfair.anomaly.scores import AnomalyScores
from ecgfair.anomaly.terms import RESTORED_TERMS, Geometry
from ecgfair.losses.restoration import LOG_VARIANCE_LIMIT
from ecgfair.models.restoration import RestorationNetwork, Restored

PASSES: Final = 3
PATCHES: Final = 100
"""Patches of the global signal; each pass hides 30 others of them, so that 10 are never hidden."""
HIDDEN_OF_BEAT: Final = (20 / 480, 220 / 480)
"""Between which shares of a beat the three cuts lie."""


class PublishedScoring:
    """Scores records one by one, each beat in three passes of its own.

    Args:
        network: See ``scoring.AnomalyScoring``.
        geometry: Rate and window of a beat.
        trend_unmasked: Whether the trend is that of the signal before it is masked, as published.
    """

    def __init__(self, network: RestorationNetwork, geometry: Geometry, *, trend_unmasked: bool = True) -> None:
        self.network = network
        self.geometry = geometry
        self.trend_unmasked = trend_unmasked

    def __call__(self, signal: Tensor, recorded: Tensor, beats: Tensor, *, maps: bool = False) -> AnomalyScores:
        """Score a batch; see ``scoring.AnomalyScoring``. The score is NaN where no beat is whole."""
        recorded = recorded.expand(signal.shape)
        signal = signal.masked_fill(~recorded, 0)
        terms = signal.new_full((len(RESTORED_TERMS), len(signal)), torch.nan)
        where = torch.full_like(signal, torch.nan)
        with torch.no_grad(), evaluated(self.network):
            for number in range(len(signal)):
                starts = [
                    start
                    for start in (beats[number] - self.geometry.before).tolist()
                    if 0 <= start <= signal.shape[-1] - self.geometry.window
                ]
                if starts:
                    terms[:, number], where[number] = self._score_record(signal[number : number + 1], starts)
        has_beat = ~terms[0].isnan()
        if not maps:
            where_smoothed = None
        else:
            where_smoothed = smooth(where, PUBLISHED_SMOOTHING, self.geometry.sampling_rate, recorded & ~where.isnan())
        return AnomalyScores(terms.sum(0), dict(zip(RESTORED_TERMS, terms, strict=True)), has_beat, where_smoothed)

    def _score_record(self, signal: Tensor, starts: list[int]) -> tuple[Tensor, Tensor]:
        """Return the mean of each term over beats and passes, (3,), and the map, (leads, time), not smoothed."""
        window, time = self.geometry.window, signal.shape[-1]
        position = torch.arange(time, device=signal.device)
        turn = position * PATCHES // time % 10 // PASSES  # 3 where never hidden
        within = torch.arange(window, device=signal.device) / window
        low, high = HIDDEN_OF_BEAT
        cut = ((within - low) / (high - low) * PASSES).floor()
        has_beat = torch.ones(1, dtype=torch.bool, device=signal.device)
        terms, shared, added = [], torch.zeros_like(signal), torch.zeros_like(signal)
        for start in starts:
            beat = signal[..., start : start + window]
            for turn_now in range(PASSES):
                said = self.network(
                    signal.masked_fill(turn == turn_now, 0),
                    beat.masked_fill(cut == turn_now, 0),
                    has_beat,
                    signal if self.trend_unmasked else None,
                )
                whole, local = _weighted_error(said.whole, signal), _weighted_error(said.beat, beat)
                trend = (said.from_trend - signal).square()
                terms.append(torch.stack([whole.mean(), local.mean(), trend.mean()]))
                shared += (whole + trend) / (PASSES * len(starts))
                added[..., start : start + window] += local / PASSES
        return torch.stack(terms).mean(0), (shared + added)[0]


def _weighted_error(restored: Restored, target: Tensor) -> Tensor:
    log_variance = restored.log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
    return (restored.signal - target).square() * (-log_variance).exp()
