"""How strange the beats of a record are, laid on each other: against normal shapes, and against one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from ecgfair.anomaly.maps import average_overlaps
from ecgfair.anomaly.normal_beats import NormalBeats
from ecgfair.anomaly.terms import ALTERED_BEAT, SHAPE, VARIATION, Terms
from ecgfair.signals.aligned_beats import AlignedBeats, aligned_beats
from ecgfair.signals.baseline import without_baseline

_LEAST: Final = 1e-6
"""Below any squared deviation, so that there is a logarithm of it."""


class BeatTerms:
    """Measures the terms ``shape``, ``variation`` and ``altered_beat``.

    ``shape`` is how far the record's median beat is from what the principal components of normal beats can express, as
    the logarithm of the mean square; its map says where in a beat, alike in all beats of a record. ``variation`` is how
    much single beats differ from that median beat, in multiples of the record's own noise; its map points at the beats
    that are unlike the others, and between beats at whatever is not at rest, in equal parts by lead and over all leads.
    ``altered_beat`` is the logit, of a network that learned to tell, that the median beat was altered.

    Args:
        normal: What normal beats look like.
        sampling_rate: Hz.
        network: Maps shapes of median beats to logits, for ``altered_beat``; without it there is no such term.
    """

    def __init__(self, normal: NormalBeats, sampling_rate: float, network: nn.Module | None = None) -> None:
        self.normal = normal
        self.network = network
        self.sampling_rate = sampling_rate

    def fit(self, batches: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Take what is usual from training records: (signal, recorded, beats) of each batch, as in ``add``."""
        signals, found, first = [], [], 0
        for signal, recorded, beats in batches:
            level, aligned = self._prepared(signal, recorded.expand(signal.shape), beats)
            signals.append(level)
            found.append(aligned._replace(record=aligned.record + first))
            first += len(signal)
        self.normal.fit(torch.cat(signals), AlignedBeats(*(torch.cat(part) for part in zip(*found, strict=True))))

    def add(self, found: Terms, signal: Tensor, recorded: Tensor, beats: Tensor, *, maps: bool) -> None:
        """Add the terms, and the maps of the first two.

        Args:
            found: What they are added to.
            signal: (B, leads, time) millivolts.
            recorded: (B, leads, time) bool.
            beats: (B, K) int64, padded with -1.
            maps: Make maps too.
        """
        level, aligned = self._prepared(signal, recorded, beats)
        deviation = self.normal.deviation(level, aligned)
        batch, _, time = signal.shape
        found.terms[SHAPE] = deviation.shape.square().nanmean(dim=(1, 2)).clamp_min(_LEAST).log()
        # Of a record the mean over its beats and points, each of which counts by its logarithm. Sums in float64: the
        # order in which a device adds them then does not show in the result.
        each = deviation.variation.log1p()
        total, count = (
            torch.zeros(batch, dtype=torch.float64, device=signal.device).index_add_(0, aligned.record, part.double())
            for part in (each.nansum((1, 2)), (~each.isnan()).sum((1, 2)))
        )
        found.terms[VARIATION] = (total / count).to(each.dtype)
        if self.network is not None:
            logits: Tensor = self.network(deviation.shapes.nan_to_num())
            found.terms[ALTERED_BEAT] = logits.masked_fill(deviation.shapes.isnan().flatten(1).all(dim=1), torch.nan)
        if maps:
            placed = _placed(deviation.shape[aligned.record], aligned, batch, time)
            # The median beat has a value there, from the other beats.
            found.maps[SHAPE] = placed.masked_fill(~recorded, torch.nan)
            placed = _placed(deviation.variation, aligned, batch, time)
            lead = torch.where(placed.isnan(), deviation.between, placed)
            # Most of what happens to single beats happens in all leads, and in the mean over them there is less noise.
            found.maps[VARIATION] = (lead + lead.nanmean(dim=1, keepdim=True)) / 2

    def _prepared(self, signal: Tensor, recorded: Tensor, beats: Tensor) -> tuple[Tensor, AlignedBeats]:
        level = without_baseline(signal.masked_fill(~recorded, torch.nan), self.sampling_rate)
        return level, aligned_beats(level, beats, self.sampling_rate)


def _placed(values: Tensor, aligned: AlignedBeats, batch: int, time: int) -> Tensor:
    """Put values (N, leads, points) of aligned beats where the beats are: (B, leads, time), NaN elsewhere."""
    if not len(values):
        return values.new_full((batch, values.shape[1], time), torch.nan)
    start = aligned.place[:, 0].ceil().long()
    width = int((aligned.place[:, -1].floor().long() - start).max()) + 1
    sample = start[:, None] + torch.arange(width, device=start.device)
    # Points rise along a beat: the first one that is not before the sample.
    point = torch.searchsorted(aligned.place.contiguous(), sample.to(aligned.place.dtype)).clamp(
        max=values.shape[2] - 1
    )
    inside = sample <= aligned.place[:, -1:]
    spread = values.gather(2, point[:, None].expand(-1, values.shape[1], -1)).masked_fill(~inside[:, None], torch.nan)
    return average_overlaps(spread, aligned.record, start, batch, time)[0]
