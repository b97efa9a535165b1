"""Cutting heartbeats out of the global signal, and what is known of their rhythm."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.signals.draws import Randomness, rand


class EveryBeat(NamedTuple):
    """All beats of all records of a batch, ``N`` of them, in the order of the records and of their columns of beats.

    Window ``i`` holds the samples ``start[i]`` to ``start[i] + length - 1`` of record ``record[i]``.
    """

    window: Tensor
    """(N, leads, length) in the signal's unit; NaN outside the record and where nothing was recorded."""
    record: Tensor
    """(N,) int64 row of the batch that a beat is of. A record without beats is in no row."""
    start: Tensor
    """(N,) int64 first sample of the window, counted in its record; negative where it begins before it."""
    recorded: Tensor
    """(N, leads, length) bool, False where ``window`` is NaN."""
    whole: Tensor
    """(N,) bool, True where the window lies inside the record, as all windows of ``random_beat`` do."""


class Rhythm(NamedTuple):
    """Where the beats of each record lie."""

    valid: Tensor
    """(B, K) bool: which columns hold a beat inside the signal."""
    first: Tensor
    """(B, 1) int64 sample of the first R peak; the length of the signal where there is none."""
    last: Tensor
    """(B, 1) int64 sample of the last R peak; -1 where there is none."""
    cycle: Tensor
    """(B, 1) float mean distance of two beats in samples; NaN for fewer than two beats."""


def random_beat(
    signal: Tensor, beats: Tensor, before: int, after: int, *, generator: Randomness = None
) -> tuple[Tensor, Tensor]:
    """Cut one random heartbeat of each record.

    Only beats whose whole window lies inside the signal are candidates. A record without any is kept: its window is
    zero and it is told apart, so that the caller can leave it out of the loss.

    Args:
        signal: (B, leads, time).
        beats: (B, K) sample index of the R peaks, padded with -1.
        before: Samples before the R peak.
        after: Samples from the R peak on.
        generator: Source of randomness; the default one if None.

    Returns:
        The windows (B, leads, before + after), and (B,) bool that is True where the record has a whole beat.
    """
    # A padded -1 minus `before` is negative and so never a candidate (before >= 0).
    candidate = (beats - before >= 0) & (beats >= 0) & (beats + after <= signal.shape[-1])
    noise = rand(beats.shape, generator, beats.device)
    chosen = torch.where(candidate, noise, -1.0).argmax(dim=1, keepdim=True)
    has_beat = candidate.any(dim=1)
    start = torch.where(has_beat, beats.gather(1, chosen)[:, 0] - before, 0)
    window = crop(signal, start, before + after)
    return torch.where(has_beat[:, None, None], window, 0.0), has_beat


def every_beat(signal: Tensor, beats: Tensor, before: int, after: int, recorded: Tensor | None = None) -> EveryBeat:
    """Cut all beats of all records, in one gather.

    A beat at the edge of its record is cut, too, and padded: no beat is left out.

    Args:
        signal: (B, leads, time); what was not recorded may be NaN.
        beats: (B, K) sample index of the R peaks, padded with -1.
        before: Samples before the R peak, at least 0.
        after: Samples from the R peak on, at least 1.
        recorded: (B, leads, time) bool, or a shape that broadcasts to it; where False the window is NaN. If None, all
            of the signal that is not NaN was recorded.

    Returns:
        The windows, of ``before + after`` samples each, and where they lie.

    Raises:
        ValueError: The window has no R peak in it, or an R peak lies outside the signal.
    """
    leads, time = signal.shape[1:]
    if before < 0 or after < 1:
        raise ValueError(
            f"A beat from {before} samples before its R peak to {after} after it does not hold the R peak: expected 0 "
            "or more before it and 1 or more after it."
        )
    record, column = (beats >= 0).nonzero(as_tuple=True)
    peak = beats[record, column]
    if (outside := (peak >= time).nonzero()).numel():
        row = int(outside[0])
        raise ValueError(
            f"Row {int(record[row])} of the batch has an R peak at sample {int(peak[row])}, expected one of 0 to "
            f"{time - 1}: cut the beats with the signal, and set those that are left out to -1."
        )
    start = peak - before
    position = start[:, None] + torch.arange(before + after, device=signal.device)
    inside = ((position >= 0) & (position < time))[:, None]
    place = (
        record[:, None, None],
        torch.arange(leads, device=signal.device)[:, None],
        position.clamp(0, time - 1)[:, None],
    )
    window = signal[place]
    known = inside & ~window.isnan()
    if recorded is not None:
        known = known & recorded.expand(signal.shape)[place]
    whole = (start >= 0) & (start + before + after <= time)
    return EveryBeat(window.masked_fill(~known, torch.nan), record, start, known, whole)


def rhythm(beats: Tensor, time: int) -> Rhythm:
    """Return where the beats of each record lie and how far apart they are.

    Args:
        beats: (B, K) sample index of the R peaks, padded with -1. What is not inside the signal is ignored.
        time: Samples of the signals.

    Returns:
        The first and the last beat, and the mean distance.
    """
    valid = (beats >= 0) & (beats < time)
    # A column more, without a beat, so that there is something to take the extremes of where K is 0.
    first = F.pad(beats.masked_fill(~valid, time), (0, 1), value=time).amin(dim=1, keepdim=True)
    last = F.pad(beats.masked_fill(~valid, -1), (0, 1), value=-1).amax(dim=1, keepdim=True)
    distances = valid.sum(dim=1, keepdim=True) - 1
    cycle = torch.where(distances > 0, (last - first) / distances.clamp(min=1), torch.nan)
    return Rhythm(valid, first, last, cycle)


def crop(signal: Tensor, start: Tensor, length: int) -> Tensor:
    """Cut a window of each record.

    Args:
        signal: (B, leads, time).
        start: (B,) int64 first sample of each window.
        length: Samples in a window; every window must lie inside the signal.

    Returns:
        (B, leads, length).
    """
    position = start[:, None] + torch.arange(length, device=signal.device)
    return signal.gather(2, position[:, None].expand(-1, signal.shape[1], -1))
