"""Beats laid on each other, whatever the heart rate, and the beat that stands for all of a record."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CLOCK: Final = 100
"""Points a second of an aligned beat, at any sampling rate: what is left of a median of beats lies below 50 Hz."""
FIRST: Final = -0.28
"""Seconds before R, where an aligned beat begins: with the P wave."""
LAST: Final = 0.5
"""Seconds after R, where it ends in a heart that beats once a second: with the T wave."""
POINTS: Final = round((LAST - FIRST) * CLOCK)
"""Points of an aligned beat."""
_STRETCHED_FROM: Final = 0.06
"""Seconds after R; what lies before does not lengthen much with the RR interval."""
_RR: Final = (0.3, 2.0)
"""Seconds: shorter and longer intervals than these are not believed."""


class AlignedBeats(NamedTuple):
    """All beats of all records of a batch, ``N`` of them, each on the clock of its record."""

    beat: Tensor
    """(N, leads, ``POINTS``) in the signal's unit; NaN outside the record and where nothing was recorded."""
    record: Tensor
    """(N,) int64 row of the batch that a beat is of."""
    place: Tensor
    """(N, ``POINTS``) sample of the record that a point lies at, a fraction, rising along a beat."""


def aligned_beats(signal: Tensor, beats: Tensor, sampling_rate: float) -> AlignedBeats:
    """Cut all beats of all records, time after the QRS complex stretched by the square root of the RR interval.

    That is Bazett's formula (1920), so that T waves of slow and of fast hearts lie on each other. The interval is the
    median of the record; that of a record with fewer than two beats is taken for 1 s. A signal of a higher rate than
    the clock's is averaged over a point's time.

    Args:
        signal: (B, leads, time); NaN where nothing was recorded.
        beats: (B, K) int64 sample index of the R peaks, padded with -1.
        sampling_rate: Hz.
    """
    record, column = (beats >= 0).nonzero(as_tuple=True)
    second = torch.arange(POINTS, device=signal.device) / CLOCK + FIRST
    late = (second - _STRETCHED_FROM).clamp(min=0)
    stretch = _rr(beats, sampling_rate).clamp(*_RR).sqrt()[record, None]
    place = beats[record, column, None] + sampling_rate * (second + late * (stretch - 1))
    time, width = signal.shape[-1], 2 * (round(sampling_rate / CLOCK) // 2) + 1
    signal = F.avg_pool1d(signal, width, stride=1, padding=width // 2, count_include_pad=False)
    before = place.floor().clamp(0, max(time - 2, 0)).long()
    share = (place - before)[:, None].to(signal.dtype)
    lead = torch.arange(signal.shape[1], device=signal.device)[:, None]
    first, second_sample = (
        signal[record[:, None, None], lead, at.clamp(max=time - 1)[:, None]] for at in (before, before + 1)
    )
    inside = (place >= 0) & (place <= time - 1)
    beat = (first + share * (second_sample - first)).masked_fill(~inside[:, None], torch.nan)
    return AlignedBeats(beat, record, place)


def median_beats(aligned: AlignedBeats, records: int) -> Tensor:
    """Return the median of the beats of each record, (B, leads, ``POINTS``), NaN of a record without beats.

    Args:
        aligned: The beats.
        records: How many records there are, B.
    """
    counts = torch.bincount(aligned.record, minlength=records)
    most = int(counts.max()) if len(counts) else 0
    leads = aligned.beat.shape[1]
    if not most:
        return aligned.beat.new_full((records, leads, POINTS), torch.nan)
    rows = torch.arange(len(aligned.record), device=counts.device)
    column = rows - (counts.cumsum(0) - counts)[aligned.record]
    table = aligned.beat.new_full((records, most, leads, POINTS), torch.nan)
    table[aligned.record, column] = aligned.beat
    return table.nanmedian(dim=1).values


def _rr(beats: Tensor, sampling_rate: float) -> Tensor:
    """Return the median RR interval of each record in seconds, (B,); 1 where there is none."""
    if beats.shape[1] < 2:
        return torch.ones(len(beats), device=beats.device)
    distance = beats.diff(dim=1).float().masked_fill((beats[:, 1:] < 0) | (beats[:, :-1] < 0), torch.nan)
    return (distance / sampling_rate).nanmedian(dim=1).values.nan_to_num(1.0)
