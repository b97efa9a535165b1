"""The rhythm view of a record: of every beat, when it came and how alike its waves are to those of the others."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ecgfair.signals.aligned_beats import CLOCK, FIRST, POINTS, AlignedBeats
from ecgfair.signals.medians import lower_median

SEGMENTS: Final[dict[str, tuple[float, float]]] = {"P": (-0.28, -0.08), "QRS": (-0.06, 0.10), "ST-T": (0.12, 0.50)}
"""Seconds from R, on the clock of aligned beats, between which a wave lies."""
OF_BEAT: Final = ("difference", "similarity", "size")
"""What is told of a wave: how far it is from that of the median beat, its correlation with it, and how large it is."""
OF_RECORD: Final = ("is_beat", "rate", "before", "after", "irregularity")
CHANNELS: Final = len(OF_RECORD) + len(SEGMENTS) * len(OF_BEAT) + 1

LEAST_MV: Final = 0.02
"""Millivolts added to the size of a record's beat: what is smaller is noise."""
LEAST_WAVE_MV: Final = 0.01
LEAST_STEP_MV: Final = 0.003
LEAST_SPREAD: Final = 0.01
FURTHEST: Final = 1.5
"""The logarithm of an RR interval over the median one is not believed to be further from 0."""
RR: Final = (0.25, 2.5)
"""Seconds: nor are median RR intervals outside of these believed."""


def rhythm_view(aligned: AlignedBeats, middle: Tensor, beats: Tensor, sampling_rate: float) -> Tensor:
    """Describe every beat by a few numbers, of which the order of beats makes a rhythm.

    A premature beat comes early and has another P wave or another QRS complex; in fibrillation no P wave is like
    another, and no interval. Logarithms and shares make the numbers alike in size: a small network learns from them.

    Args:
        aligned: All beats of the batch, NaN where nothing was recorded.
        middle: (B, leads, ``POINTS``) their medians by record.
        beats: (B, K) int64 sample index of the R peaks, rising, padded with -1.
        sampling_rate: Hz.

    Returns:
        (B, ``CHANNELS``, K): 1 at a beat; the logarithm of the median RR interval in seconds; that of the interval
        before the beat, and of the one after it, over the median; half the logarithm of the spread of these; then for
        each of ``SEGMENTS`` what ``OF_BEAT`` names; and how rough the segment before the QRS complex is, which flutter
        and fibrillation make it. 0 where there is no beat or no such interval.
    """
    known = beats >= 0
    record, column = known.nonzero(as_tuple=True)
    view = middle.new_zeros(len(beats), CHANNELS, beats.shape[1])
    timing = _timing(beats, known, sampling_rate)[record, :, column]
    view[record, :, column] = torch.cat([timing, _waves(aligned, middle)], dim=1)
    return view


def _timing(beats: Tensor, known: Tensor, sampling_rate: float) -> Tensor:
    """Return (B, ``OF_RECORD``, K)."""
    interval = (beats[:, 1:] - beats[:, :-1]).float() / sampling_rate
    interval = interval.masked_fill(~(known[:, 1:] & known[:, :-1]), torch.nan)
    none = interval.new_full((len(beats), 1), torch.nan)
    usual = lower_median(torch.cat([interval, none], dim=1))[:, None]
    change = (interval / usual).log().clamp(-FURTHEST, FURTHEST)
    count = (~change.isnan()).sum(dim=1, keepdim=True)
    apart = (change - change.nanmean(dim=1, keepdim=True)).nan_to_num()
    spread = (apart.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    irregular = torch.where(count > 1, (spread + LEAST_SPREAD).log() / 2 + 1, 0.0)
    parts = [
        known.float(),
        usual.nan_to_num(1.0).clamp(*RR).log().expand(known.shape),
        torch.cat([none, change], dim=1).nan_to_num(),
        torch.cat([change, none], dim=1).nan_to_num(),
        irregular.expand(known.shape),
    ]
    return torch.stack(parts, dim=1)


def _waves(aligned: AlignedBeats, middle: Tensor) -> Tensor:
    """Return (N, 10): three numbers a segment, and the roughness of the first."""
    beat, usual = aligned.beat, middle[aligned.record]
    size = _rms(middle).nan_to_num()[aligned.record] + LEAST_MV
    apart = beat - usual
    # A wandering baseline lifts a beat as a whole, which is no difference.
    apart = apart - lower_median(apart)[..., None]
    told = []
    for start, end in SEGMENTS.values():
        place = slice(*(min(round((seconds - FIRST) * CLOCK), POINTS) for seconds in (start, end)))
        own, other = (_levelled(part[..., place]) for part in (beat, usual))
        alike = (own * other).nansum(dim=(1, 2))
        lengths = own.square().nansum(dim=(1, 2)).sqrt() * other.square().nansum(dim=(1, 2)).sqrt()
        told += [
            (3 * _rms(apart[..., place]) / size).log1p(),
            alike / (lengths + 1e-6),
            ((_rms(own) + LEAST_WAVE_MV) / size).log() / 2 + 0.5,
        ]
    first, last = (round((seconds - FIRST) * CLOCK) for seconds in SEGMENTS["P"])
    step = beat[..., first:last].diff(dim=-1)
    told.append((_rms(step) + LEAST_STEP_MV).log() / 2 + 2)
    return torch.stack(told, dim=1).nan_to_num()


def _levelled(part: Tensor) -> Tensor:
    return part - part.nanmean(dim=-1, keepdim=True)


def _rms(part: Tensor) -> Tensor:
    """Return the root mean square over leads and points, (N,); NaN where nothing was recorded."""
    return part.square().nanmean(dim=(1, 2)).sqrt()
