"""What the kinds of alteration share: the records at hand, random draws, windows of a beat, leads and time.

Everything is drawn for all records at once, and no function loops over records or beats. Times are in seconds from
the R peak, so that every sampling rate means the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.ecg import LEADS
from ecgfair.signals.draws import Randomness, rand, randn

FAR: Final = 2**30
"""Where padded R peaks are put: after every sample, so that peaks are in order and no window reaches one."""

LEAST_SPEED: Final = 0.1
"""A warp never reads a record slower than at this share of its speed, so that time never stands still or turns back."""

BEATS_AT_ONCE: Final = 16
"""Beats whose windows are held in memory together."""

LIMB_LEADS: Final = 6
"""The limb leads stand first in ``ecg.LEADS``, the chest leads V1 to V6 follow."""

Shape = Callable[[Tensor], Tensor]
"""From seconds since an R peak, (n, beats, time), to a window of the same shape."""


@dataclass(frozen=True)
class Records:
    """Some records of a batch, all to be altered in the same kind; ``n`` of them.

    Args:
        signal: (n, leads, time) millivolts.
        peaks: (n, K) int64 samples of the R peaks in ascending order, ``FAR`` where padded; at least one column.
        chosen: (n, K) bool, the beats to alter; never a padded one.
        sampling_rate: Hz.
        generator: Source of randomness; the default one if None.
    """

    signal: Tensor
    peaks: Tensor
    chosen: Tensor
    sampling_rate: float
    generator: Randomness = None

    @property
    def samples(self) -> Tensor:
        """Return (time,) the number of each sample, as float."""
        return torch.arange(self.signal.shape[-1], device=self.signal.device, dtype=torch.float32)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return (n, *shape) uniform draws."""
        draw = rand((len(self.signal), *shape), self.generator, self.signal.device)
        return low + (high - low) * draw

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return (n, *shape) draws whose logarithm is uniform."""
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def normal(self, *shape: int) -> Tensor:
        """Return (n, *shape) standard normal draws."""
        return randn((len(self.signal), *shape), self.generator, self.signal.device)

    def chance(self, share: float, *shape: int) -> Tensor:
        """Return (n, *shape) bool, True in this share of draws."""
        return self.uniform(0, 1, *shape) < share

    def some(self, share: Tensor | float, count: int) -> Tensor:
        """Return (n, count) bool, each True with this chance, (n, 1) or one number, and at least one of each record."""
        draw = self.uniform(0, 1, count)
        return (draw < share) | (draw == draw.amin(dim=1, keepdim=True))


def ordered_peaks(beats: Tensor, time: int) -> Tensor:
    """Sort R peaks and put what is none (padding, or outside the signal) last, as ``FAR``.

    Args:
        beats: (B, K) int64 sample index of the R peaks, padded with -1, in any order.
        time: Samples in the signal.

    Returns:
        (B, K + 1): one column more, so that a record without any beat has a column, too.
    """
    inside = torch.where((beats >= 0) & (beats < time), beats, FAR)
    return F.pad(inside, (0, 1), value=FAR).sort(dim=1).values


def over_beats(records: Records, shape: Shape, *, add: bool = False) -> Tensor:
    """Lay a window around the R peak of each chosen beat.

    Args:
        records: The records.
        shape: The window, 0 or more unless ``add``; its parameters are (n, 1, 1).
        add: Sum where windows overlap; otherwise the greatest counts.

    Returns:
        (n, time).
    """
    signal = records.signal
    window = signal.new_zeros((len(signal), signal.shape[-1]), dtype=torch.float32)
    for first in range(0, records.peaks.shape[1], BEATS_AT_ONCE):
        peaks, chosen = (of[:, first : first + BEATS_AT_ONCE, None] for of in (records.peaks, records.chosen))
        if chosen.any():
            since = (records.samples - peaks) / records.sampling_rate
            part = torch.where(chosen, shape(since), 0.0)
            window = window + part.sum(dim=1) if add else torch.maximum(window, part.amax(dim=1))
    return window


def smooth_step(x: Tensor) -> Tensor:
    """Return a smooth rise: 0 up to 0, 1 from 1 on."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def stretch(since: Tensor, start: Tensor | float, end: Tensor | float, ramp: float) -> Tensor:
    """Return a flat-topped window over ``start`` to ``end`` whose sides take ``ramp`` seconds; exactly 0 outside."""
    return smooth_step((since - start) / ramp + 0.5) * smooth_step((end - since) / ramp + 0.5)


def bell(x: Tensor) -> Tensor:
    """Return a Gaussian of standard deviation 1 lowered by its value at 4, so that it is exactly 0 from there on."""
    foot = math.exp(-8)
    return (torch.exp(-0.5 * x * x) - foot).clamp_min(0) / (1 - foot)


def lead_weights(records: Records) -> Tensor:
    """Draw how strongly, and with which sign, each lead sees something that is added to the heart's field.

    In the twelve standard leads the limb leads follow from two of them, as Einthoven's and Goldberger's equations
    have it, and the chest leads change smoothly from V1 to V6. A quarter of the draws each is mostly in the chest
    leads, mostly in the limb leads, in a few neighbouring chest leads (and rarely the limb leads), and in all leads.
    Any other set of leads gets independent weights, in a quarter of the draws for a few leads only.

    Returns:
        (n, leads), the greatest absolute value of each record 1.
    """
    leads = records.signal.shape[1]
    mode = records.uniform(0, 4, 1).floor()
    if leads != len(LEADS):
        weights = records.normal(leads) * torch.where(mode == 0, records.some(0.3, leads), True)
    else:
        one, two = records.normal(2, 1).unbind(dim=1)
        limb = torch.cat([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2], dim=1)
        place = torch.linspace(-1, 1, leads - LIMB_LEADS, device=records.signal.device)
        offset, slope, bow = records.normal(3, 1).unbind(dim=1)
        chest = offset + 1.5 * slope * place + 1.5 * bow * (place**2 - 0.4)
        near = bell((place - records.uniform(-1, 1, 1)) / records.log_uniform(0.15, 0.6, 1))
        limb = limb * torch.where(mode == 0, 0.1, 1.0) * torch.where(mode == 2, records.chance(0.3, 1), True)
        chest = chest * torch.where(mode == 1, 0.1, 1.0)
        # A few leads: the sign of the drawn offset, so that the wave points one way in all of them.
        weights = torch.cat([limb, torch.where(mode == 2, near * offset.sign(), chest)], dim=1)
    return weights / weights.abs().amax(dim=1, keepdim=True).clamp_min(1e-6)


def read_at(signal: Tensor, position: Tensor) -> Tensor:
    """Read a signal between its samples, by a straight line; before its first and after its last sample it is constant.

    Args:
        signal: (n, leads, time).
        position: (n, time') in samples.

    Returns:
        (n, leads, time').
    """
    last = signal.shape[-1] - 1
    position = position.clamp(0, last)
    before = position.floor()
    index = before.long()[:, None].expand(-1, signal.shape[1], -1)
    left, right = signal.gather(2, index), signal.gather(2, (index + 1).clamp(max=last))
    # Where the position is a sample, it is that sample to the last bit.
    return left + (position - before)[:, None].to(signal.dtype) * (right - left)


def source_times(displacement: Tensor) -> Tensor:
    """Return which time of a record is shown at each time, moved by so much that time still goes forward.

    Where the displacement falls faster than ``LEAST_SPEED`` allows, all of the record's displacement is lowered.

    Args:
        displacement: (n, time) in samples.

    Returns:
        (n, time) in samples, rising everywhere by at least about ``LEAST_SPEED`` a sample.
    """
    fall = -displacement.diff(dim=1).amin(dim=1, keepdim=True)
    share = torch.where(fall > 1 - LEAST_SPEED, (1 - LEAST_SPEED) / fall, 1.0)
    return torch.arange(displacement.shape[1], device=displacement.device) + share * displacement


def moved_beats(records: Records, moved: Tensor) -> Tensor:
    """Return the displacement that shows each beat at another time as it is, and takes the time from between beats.

    Args:
        records: The records.
        moved: (n, K) samples at which the R peaks shall be, in ascending order, ``FAR`` where padded.

    Returns:
        (n, time) in samples, see ``source_times``. It is constant from a quarter of an interval before a beat to 40 %
        of the one after it (of the old or the new interval, the shorter), so that the P wave, the QRS and most of the
        T wave keep their form. It is 0 before the first and after the last beat, if these are not moved.
    """
    shift = (records.peaks - moved).float()
    time = records.samples.to(moved.dtype).expand(len(moved), -1).contiguous()
    following = torch.searchsorted(moved, time, right=True)
    right = following.clamp(max=moved.shape[1] - 1)
    left = (following - 1).clamp_min(0)
    start = moved.gather(1, left)
    new = moved.gather(1, right) - start
    # Time is taken from what is left of the interval: where it grows, that is always more than it grows by.
    least = torch.minimum(new, records.peaks.gather(1, right) - records.peaks.gather(1, left))
    ramp = ((time - start - 0.4 * least) / (new - 0.65 * least).clamp_min(1)).clamp(0, 1)
    return shift.gather(1, left) * (1 - ramp) + shift.gather(1, right) * ramp


def baseline(records: Records) -> Tensor:
    """Return a slow baseline: the means of single seconds, joined by straight lines; (n, leads, time) millivolts."""
    time = records.signal.shape[-1]
    means = F.adaptive_avg_pool1d(records.signal, max(round(time / records.sampling_rate), 1))
    return F.interpolate(means, size=time, mode="linear", align_corners=False)
