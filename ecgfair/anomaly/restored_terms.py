"""How badly hidden samples are restored: of the global signal, of each beat, and from the trend."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from ecgfair.anomaly.maps import average_overlaps
from ecgfair.anomaly.terms import BEAT, TREND, WHOLE, Geometry, Terms
from ecgfair.losses.restoration import LOG_VARIANCE_LIMIT
from ecgfair.models.encoder import Latents
from ecgfair.models.restoration import RestorationNetwork, Restored
from ecgfair.signals.beats import EveryBeat, every_beat
from ecgfair.signals.covering import covering_masks, covering_phases, covering_spans

BEATS_AT_ONCE: Final = 2048
"""Beats, each with one span hidden, that pass the network together; more would take memory and no less time."""


class _Errors(NamedTuple):
    """What hidden samples add to a term, and to its map; both NaN where a sample was not recorded or not hidden."""

    to_term: Tensor
    to_map: Tensor


class RestoredTerms:
    """The terms ``whole``, ``beat`` and ``trend``.

    All samples of the record are hidden once, in ``passes`` passes that the records of a batch go through together,
    and all samples of every beat once in as many spans, each beside the record's global signal in one of these passes.

    Args:
        network: In evaluation mode.
        geometry: Rate and window of a beat.
        cover: See ``scoring.Scoring``.
        passes: See ``scoring.Scoring``.
        patch_seconds: See ``scoring.Scoring``.
        likelihood: Add the log variance to the weighted error.
        trend_unmasked: See ``scoring.AnomalyScoring``.
    """

    def __init__(
        self,
        network: RestorationNetwork,
        geometry: Geometry,
        *,
        cover: Literal["patches", "phases"],
        passes: int,
        patch_seconds: float,
        likelihood: bool,
        trend_unmasked: bool,
    ) -> None:
        self.network = network
        self.geometry = geometry
        self.cover = cover
        self.passes = passes
        self.patch = max(round(patch_seconds * geometry.sampling_rate), 1)
        self.likelihood = likelihood
        self.trend_unmasked = trend_unmasked

    def __call__(self, signal: Tensor, recorded: Tensor, beats: Tensor, asked: set[str], *, maps: bool) -> Terms:
        """Return the terms asked for, and their maps.

        Args:
            signal: (B, leads, time), 0 where nothing was recorded.
            recorded: (B, leads, time) bool.
            beats: (B, K) int64, padded with -1.
            asked: Names of terms; others of this class may be there as well.
            maps: Make maps too.
        """
        found = Terms.none(beats, signal.shape[-1])
        hidden = self.masks(signal, beats)
        latents = self._encoded(signal, hidden)
        every = every_beat(signal.masked_fill(~recorded, torch.nan), beats, self.geometry.before, self.geometry.after)
        if asked & {WHOLE, TREND}:
            self._add_global(found, signal, recorded & hidden, latents, every, asked)
        if BEAT in asked:
            self._add_beats(found, signal.shape, latents, every, maps=maps)
        return found

    def masks(self, signal: Tensor, beats: Tensor) -> Tensor:
        """Return what each pass hides, (passes, B, leads, time) bool; every sample exactly once."""
        batch, leads, time = signal.shape
        if self.cover == "patches":
            masks = covering_masks(leads, time, self.patch, self.passes, device=signal.device)[:, None]
        else:
            masks = covering_phases(beats, time, self.passes, self.geometry.before, self.patch)[:, :, None]
        return masks.expand(self.passes, batch, leads, time)

    def _encoded(self, signal: Tensor, hidden: Tensor) -> Latents:
        """Encode all passes together; record b in pass p is row ``p * B + b``."""
        seen = signal.masked_fill(hidden, 0).flatten(0, 1)
        trend_of = signal.expand(hidden.shape).flatten(0, 1) if self.trend_unmasked else None
        return self.network.encode_global(seen, trend_of)

    def _add_global(
        self, found: Terms, signal: Tensor, counted: Tensor, latents: Latents, every: EveryBeat, asked: set[str]
    ) -> None:
        batch, _, time = signal.shape
        target = signal.expand(counted.shape).flatten(0, 1)
        fused = self._fused_global(latents, every, batch)
        shape = counted.shape
        if WHOLE in asked:
            errors = self._errors(self.network.restore_global(fused, time), target, counted.flatten(0, 1))
            # Each sample is hidden in one pass: the others are NaN there.
            found.terms[WHOLE] = errors.to_term.view(shape).nanmean(dim=(0, 2, 3))
            found.maps[WHOLE] = errors.to_map.view(shape).nanmean(dim=0)
        if TREND in asked:
            restored = self.network.restore_from_trend(fused, latents, time)
            squared = (restored - target).square().masked_fill(~counted.flatten(0, 1), torch.nan).view(shape)
            found.terms[TREND] = squared.nanmean(dim=(0, 2, 3))
            found.maps[TREND] = squared.nanmean(dim=0).sqrt()

    def _fused_global(self, latents: Latents, every: EveryBeat, batch: int) -> Tensor:
        """Fuse each record in each pass with its middle beat, hidden alike; (passes * B, D, T)."""
        middle, has = middle_beats(every, batch)
        beat = every.window[middle] if len(every.window) else every.window.new_zeros(batch, *every.window.shape[1:])
        spans = self._spans(beat)
        # Row 0 is of another record: where there is no beat, the network gets zeros, as in training.
        masked = beat.nan_to_num().masked_fill(spans | ~has[:, None, None], 0).flatten(0, 1)
        global_tokens, _ = self.network.fuse(latents.signal, self.network.encode_beats(masked), has.repeat(self.passes))
        return global_tokens

    def _add_beats(self, found: Terms, shape: torch.Size, latents: Latents, every: EveryBeat, *, maps: bool) -> None:
        batch, leads, time = shape
        to_term = every.window.new_full((batch,), torch.nan)
        if len(every.window):
            at_once = max(BEATS_AT_ONCE // self.passes, 1)
            rows = torch.arange(len(every.window), device=every.window.device)
            chunks = [
                self._beat_errors(latents, every, rows[first : first + at_once], batch)
                for first in range(0, len(rows), at_once)
            ]
            mean = torch.cat([errors.to_term for errors in chunks]).nanmean(dim=(1, 2))
            to_term = _mean_by_record(mean, every.record, batch)
            if maps:
                values = torch.cat([errors.to_map for errors in chunks])
                found.maps[BEAT], _ = average_overlaps(values, every.record, every.start, batch, time)
        elif maps:
            found.maps[BEAT] = every.window.new_full((batch, leads, time), torch.nan)
        found.terms[BEAT] = to_term

    def _beat_errors(self, latents: Latents, every: EveryBeat, rows: Tensor, batch: int) -> _Errors:
        """Restore every span of these beats; span s beside its record in pass s."""
        beat, record = every.window[rows], every.record[rows]
        spans = self._spans(beat)
        target = beat.nan_to_num()
        local = self.network.encode_beats(target.masked_fill(spans, 0).flatten(0, 1))
        passes = torch.arange(self.passes, device=beat.device)[:, None]
        beside = latents.signal[(passes * batch + record).flatten()]
        tokens = self.network.fuse_beats(beside, local)
        counted = (spans & every.recorded[rows]).flatten(0, 1)
        errors = self._errors(
            self.network.restore_beat(tokens, self.geometry.window),
            target.expand(spans.shape).flatten(0, 1),
            counted,
        )
        return _Errors(*(part.view(spans.shape).nanmean(dim=0) for part in errors))

    def _spans(self, beat: Tensor) -> Tensor:
        """Return what each pass hides of beats (N, leads, window): (passes, N, leads, window) bool."""
        spans = covering_spans(beat.shape[1], beat.shape[2], self.passes, beat.device)
        return spans[:, None].expand(self.passes, *beat.shape)

    def _errors(self, restored: Restored, target: Tensor, counted: Tensor) -> _Errors:
        log_variance = restored.log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        weighted = (restored.signal - target).square() * (-log_variance).exp()
        to_term = weighted + log_variance if self.likelihood else weighted
        # In a map the root: the expected errors differ a hundredfold between a QRS and a pause.
        return _Errors(*(part.masked_fill(~counted, torch.nan) for part in (to_term, weighted.sqrt())))


def middle_beats(every: EveryBeat, batch: int) -> tuple[Tensor, Tensor]:
    """Return for each of ``batch`` records the row of its beat in the middle, by order, (B,), and whether it has one.

    A beat that lies wholly inside the record goes before one that does not. The row of a record without beats is 0.
    """
    rows = torch.arange(len(every.record), device=every.record.device)
    counts = torch.zeros(batch, dtype=torch.int64, device=every.record.device).index_add_(
        0, every.record, torch.ones_like(every.record)
    )
    first = counts.cumsum(0) - counts
    place = (rows - first[every.record]) - (counts[every.record] - 1) / 2
    cost = place.abs() + 1e6 * ~every.whole
    best = torch.full((batch,), torch.inf, dtype=cost.dtype, device=cost.device)
    best = best.scatter_reduce(0, every.record, cost, "amin")
    # Of two beats at the same distance from the middle the earlier one.
    is_best = cost == best[every.record]
    middle = torch.full((batch,), len(every.record), dtype=torch.int64, device=rows.device)
    middle = middle.scatter_reduce(0, every.record[is_best], rows[is_best], "amin")
    has = counts > 0
    return torch.where(has, middle, 0), has


def _mean_by_record(values: Tensor, record: Tensor, batch: int) -> Tensor:
    """Average (N,) over the beats of each record, NaN where there is none that is known."""
    known = ~values.isnan()
    sums = torch.zeros(batch, dtype=torch.float64, device=values.device).index_add_(
        0, record, values.masked_fill(~known, 0).double()
    )
    counts = torch.zeros(batch, dtype=torch.float64, device=values.device).index_add_(0, record, known.double())
    return (sums / counts).to(values.dtype)
