"""Beats laid on each other, whatever the heart rate, and the beat that stands for all of a record."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.signals.medians import lower_median

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
    # Counted in points, since seconds are rounded, and a point at the very edge would come to lie outside.
    point = torch.arange(POINTS, device=signal.device) + round(FIRST * CLOCK)
    late = (point - round(_STRETCHED_FROM * CLOCK)).clamp(min=0)
    stretch = _rr(beats, sampling_rate).clamp(*_RR).sqrt()[record, None]
    place = beats[record, column, None] + sampling_rate / CLOCK * (point + late * (stretch - 1))
    time, width = signal.shape[-1], 2 * (round(sampling_rate / CLOCK) // 2) + 1
    if width > 1:
        signal = F.avg_pool1d(signal, width, stride=1, padding=width // 2, count_include_pad=False)
    before = place.floor().clamp(0, time - 1).long()
    share = (place - before)[:, None].to(signal.dtype)
    lead = torch.arange(signal.shape[1], device=signal.device)[:, None]
    first, second = (
        signal[record[:, None, None], lead, at.clamp(max=time - 1)[:, None]] for at in (before, before + 1)
    )
    inside = (place >= 0) & (place <= time - 1)
    # A point on a sample is that sample, also where the next one was not recorded.
    beat = torch.where(share == 0, first, first + share * (second - first))
    beat = beat.masked_fill(~inside[:, None], torch.nan)
    return AlignedBeats(beat, record, place)


def median_beats(aligned: AlignedBeats, records: int) -> Tensor:
    """Return the median of the beats of each record, (B, leads, ``POINTS``), NaN of a record without beats.

    Of an even number of beats it is the lower of the middle two.

    Args:
        aligned: The beats.
        records: How many records there are, B.
    """
    return lower_median(beats_side_by_side(aligned.beat, aligned.record, records))


def beats_side_by_side(values: Tensor, record: Tensor, records: int) -> Tensor:
    """Lay out what there is of each beat by record, (B, leads, points, most): ``most`` is the highest count, or 1.

    Args:
        values: (N, leads, points) of each beat.
        record: (N,) int64 record of each beat, not falling.
        records: How many records there are, B.

    Returns:
        NaN behind the last beat of a record that has fewer.
    """
    counts = torch.bincount(record, minlength=records)
    most = max(int(counts.max()), 1) if len(counts) else 1
    column = torch.arange(len(record), device=counts.device) - (counts.cumsum(0) - counts)[record]
    table = values.new_full((records, *values.shape[1:], most), torch.nan)
    table[record, ..., column] = values
    return table


def _rr(beats: Tensor, sampling_rate: float) -> Tensor:
    """Return the median RR interval of each record in seconds, (B,); 1 where there is none."""
    if beats.shape[1] < 2:
        return torch.ones(len(beats), device=beats.device)
    padding = torch.iinfo(beats.dtype).max
    # Padding comes last then, wherever it was.
    ordered = beats.masked_fill(beats < 0, padding).sort(dim=1).values
    distance = ordered.diff(dim=1).float().masked_fill(ordered[:, 1:] == padding, torch.nan)
    return lower_median(distance / sampling_rate).nan_to_num(1.0)
