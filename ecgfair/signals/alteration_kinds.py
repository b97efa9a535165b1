"""The kinds of alteration: generic changes of voltage, time and leads. None of them is modelled on a diagnosis.

Each takes records and returns them altered. Ranges are wide and, for strengths, log-uniform, so that faint changes are
as common as strong ones. Voltages are in millivolts, times in seconds from the R peak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.ecg import LEADS
from ecgfair.signals.alteration_records import (
    FAR,
    LIMB_LEADS,
    Records,
    baseline,
    bell,
    lead_weights,
    moved_beats,
    over_beats,
    read_at,
    smooth_step,
    source_times,
    stretch,
)


def bump(records: Records) -> Records:
    """Add a smooth wave at one phase of each chosen beat."""
    phase, width = records.uniform(-0.3, 0.55, 1, 1), records.log_uniform(0.012, 0.12, 1, 1)
    wave = over_beats(records, lambda since: bell((since - phase) / width))
    return _add(records, records.log_uniform(0.06, 0.7, 1) * lead_weights(records), wave)


def plateau(records: Records) -> Records:
    """Add a flat-topped deflection to each chosen beat, in two of three records right after the QRS."""
    start = torch.where(
        records.chance(2 / 3, 1, 1), records.uniform(0.04, 0.08, 1, 1), records.uniform(-0.3, 0.4, 1, 1)
    )
    end = start + records.log_uniform(0.08, 0.35, 1, 1)
    wave = over_beats(records, lambda since: stretch(since, start, end, 0.06))
    return _add(records, records.log_uniform(0.05, 0.5, 1) * lead_weights(records), wave)


def scale(records: Records) -> Records:
    """Multiply one stretch of each chosen beat by a factor that may be 0 or negative, in all or in some leads.

    It is multiplied as it stands above or below the baseline; otherwise every offset would be a step at its ends.
    """
    start = records.uniform(-0.3, 0.4, 1, 1)
    end = start + records.log_uniform(0.06, 0.35, 1, 1)
    window = over_beats(records, lambda since: stretch(since, start, end, 0.04))
    seen = records.chance(0.5, 1) | (lead_weights(records).abs() > 0.3)
    change = (records.uniform(-1.2, 2.5, 1) - 1) * seen
    added = change[:, :, None] * window[:, None] * (records.signal - baseline(records))
    return replace(records, signal=records.signal + added)


def turn(records: Records) -> Records:
    """Turn the heart's field in one part of each chosen beat: the QRS, what follows it, or both.

    What most of a record's leads say together moves in three dimensions. Here these are its three strongest components,
    which are turned around a random axis by 12 to 143 degrees, and in 4 of 10 records stretched along each of them. So
    the leads stay consistent with each other, and the angle between QRS and T wave changes.
    """
    centred = records.signal - baseline(records)
    dimensions = min(3, centred.shape[1])
    covariance = (centred @ centred.transpose(1, 2)).double()
    basis = torch.linalg.eigh(covariance).eigenvectors[:, :, -dimensions:]
    # Which way a component points is up to the library: here its greatest lead is positive, on every machine.
    greatest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    basis = (basis * torch.where(greatest < 0, -1.0, 1.0)).to(centred.dtype)
    matrix = _rotation(records)[:, :dimensions, :dimensions]
    stretched = (0.4 * records.normal(dimensions)).exp()
    matrix = torch.where(records.chance(0.4, 1, 1), matrix * stretched[:, None], matrix)
    part = records.uniform(0, 3, 1, 1).floor()
    start = torch.where(part == 1, 0.06, -0.06) + records.uniform(-0.02, 0.02, 1, 1)
    end = torch.where(part == 0, 0.06, 0.5) + records.uniform(-0.03, 0.03, 1, 1)
    window = over_beats(records, lambda since: stretch(since, start, end, 0.05))
    moved = (matrix - torch.eye(dimensions, device=matrix.device)).to(centred.dtype) @ (basis.transpose(1, 2) @ centred)
    return replace(records, signal=records.signal + window[:, None].to(centred.dtype) * (basis @ moved))


def _rotation(records: Records) -> Tensor:
    """Draw (n, 3, 3) rotations around random axes by 0.2 to 2.5 (Rodrigues' formula)."""
    axis = F.normalize(records.normal(3), dim=1)
    angle = records.log_uniform(0.2, 2.5, 1, 1)
    x, y, z = axis.unbind(dim=1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    return torch.eye(3, device=cross.device) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross


def warp(records: Records) -> Records:
    """Stretch and squeeze time around one phase of each chosen beat; the rest of the beat stays in place."""
    phase, width = records.uniform(-0.1, 0.45, 1, 1), records.log_uniform(0.03, 0.15, 1, 1)
    strength = records.uniform(-0.9, 0.9, 1, 1) * width * records.sampling_rate

    def shape(since: Tensor) -> Tensor:
        x = (since - phase) / width
        return strength * x * bell(x)

    source = source_times(over_beats(records, shape, add=True))
    return replace(records, signal=read_at(records.signal, source))


def rhythm(records: Records) -> Records:
    """Move one beat, earlier in 7 of 10 records, by 15 to 50 % of the interval; the other R peaks stay in place."""
    peaks = records.peaks
    # Not the first and not the last beat: these have no interval on one side.
    inner = (peaks[:, 1:] < FAR).sum(dim=1, keepdim=True) - 1
    beat = 1 + torch.minimum((records.uniform(0, 1, 1) * inner).long(), inner - 1)
    here, earlier, later = (peaks.gather(1, beat + step) for step in (0, -1, 1))
    share = records.uniform(0.15, 0.5, 1)
    # Whole samples, so that reading between samples doesn't soften the QRS.
    step = torch.where(records.chance(0.7, 1), -share * (here - earlier), share * (later - here)).round().long()
    return _retimed(records, peaks.scatter_add(1, beat, step))


def jitter(records: Records) -> Records:
    """Make the intervals between beats irregular, flatten what precedes each QRS, in 7 of 10 records add a ripple."""
    peaks = records.peaks
    between = torch.where(peaks[:, 1:] < FAR, peaks.diff(dim=1), 0).double()
    spread = records.uniform(0.05, 0.25, 1)
    longer = (spread * records.normal(between.shape[1])).exp().clamp(0.6, 1.5)
    irregular = between * longer
    # The first and the last beat stay where they are.
    irregular = irregular * between.sum(dim=1, keepdim=True) / irregular.sum(dim=1, keepdim=True).clamp_min(1)
    moved = peaks[:, :1] + F.pad(irregular.cumsum(dim=1), (1, 0)).round().long()
    retimed = _retimed(_flattened(records, -0.26, -0.05), torch.where(peaks < FAR, moved, FAR))
    # A ripple whose phase drifts as a random walk.
    rate = records.sampling_rate
    walk = records.samples / rate + 0.02 * records.normal(len(records.samples)).cumsum(dim=1) / math.sqrt(rate)
    ripple = torch.sin(2 * math.pi * (records.uniform(4, 8, 1) * walk + records.uniform(0, 1, 1)))
    strength = records.log_uniform(0.02, 0.1, 1) * records.chance(0.7, 1)
    return _add(retimed, strength * lead_weights(records), ripple)


def rate(records: Records) -> Records:
    """Show the record 1.25 to 2 times slower or faster.

    What a faster record lacks at its end is repeated from its beginning. The seam lies between two beats, at the same
    phase of both intervals, and one passes into the other over 80 ms.
    """
    time = records.signal.shape[-1]
    speed = torch.where(records.chance(0.5, 1), records.log_uniform(0.5, 0.8, 1), records.log_uniform(1.25, 2.0, 1))
    start = records.uniform(0, 1, 1) * (time - 1) * (1 - speed).clamp_min(0)
    position = start + speed * records.samples

    last = (records.peaks < FAR).sum(dim=1, keepdim=True) - 1
    seam_after, seam_before = (
        records.peaks.gather(1, beat) * 0.65 + records.peaks.gather(1, beat - 1) * 0.35
        for beat in (torch.ones_like(last), last)
    )
    past = (speed > 1) & (position >= seam_before)
    into = (position - seam_after).remainder((seam_before - seam_after).clamp_min(1))
    repeated = read_at(records.signal, torch.where(past, seam_after + into, position))
    running_out = read_at(records.signal, torch.where(past, seam_before + into, position))
    passed = torch.where(past, smooth_step(into / (0.08 * records.sampling_rate)), 1.0)[:, None]
    return replace(records, signal=running_out + passed * (repeated - running_out))


def leads(records: Records) -> Records:
    """Exchange two leads, invert one, or attenuate some."""
    signal = records.signal
    count = signal.shape[1]
    mode = records.uniform(0, 3, 1).floor()
    order = records.uniform(0, 1, count).argsort(dim=1)
    one, other = order[:, :1], order[:, -1:]
    place = torch.arange(count, device=signal.device).expand(len(signal), -1)
    exchanged = place.scatter(1, one, other).scatter(1, other, one)
    # One lead alone has none to be exchanged with.
    place = torch.where((mode == 0) & (count > 1), exchanged, place)
    inverted = (mode == 1) | ((mode == 0) & (count == 1))
    gain = torch.where(inverted & (torch.arange(count, device=signal.device) == one), -1.0, 1.0)
    weak = torch.where(records.some(0.3, count), records.log_uniform(0.1, 0.5, 1), 1.0)
    gain = torch.where(mode == 2, weak, gain)
    return replace(records, signal=signal.gather(1, place[:, :, None].expand_as(signal)) * gain[:, :, None])


def amplitude(records: Records) -> Records:
    """Scale all leads of a record, or its limb or chest leads (some leads, where there are not twelve)."""
    signal = records.signal
    count = signal.shape[1]
    factor = torch.where(records.chance(0.5, 1), records.log_uniform(0.3, 0.6, 1), records.log_uniform(1.6, 3.0, 1))
    if count == len(LEADS):
        some = (torch.arange(count, device=signal.device) < LIMB_LEADS) == records.chance(0.5, 1)
    else:
        some = records.some(0.5, count)
    gain = torch.where(records.chance(0.5, 1) | some, factor, 1.0)
    return replace(records, signal=signal * gain[:, :, None])


def noise(records: Records) -> Records:
    """Add a burst of noise of 0.2 to 3 seconds in some leads, white in half of the records, else smoothed."""
    signal = records.signal
    count, time = signal.shape[1:]
    length = time / records.sampling_rate
    start = records.uniform(0, max(length - 0.6, 0.0), 1)
    end = start + records.uniform(0.2, 3, 1)
    burst = stretch(records.samples / records.sampling_rate, start, end, 0.08)
    white = records.normal(count, time)
    width = 2 * round(0.015 * records.sampling_rate) + 1
    smooth = F.avg_pool1d(white, width, stride=1, padding=width // 2)
    ragged = torch.where(records.chance(0.5, 1, 1), smooth, white)
    strength = records.log_uniform(0.04, 0.3, 1) * records.some(records.uniform(0.1, 1, 1), count)
    return replace(records, signal=signal + (strength[:, :, None] * burst[:, None] * ragged).to(signal.dtype))


class Kind(NamedTuple):
    """A kind of alteration."""

    alter: Callable[[Records], Records]
    """Returns the records altered."""
    least_beats: int
    """R peaks that a record must have to be altered so."""


KINDS: Final = {
    "bump": Kind(bump, 1),
    "plateau": Kind(plateau, 1),
    "scale": Kind(scale, 1),
    "turn": Kind(turn, 1),
    "warp": Kind(warp, 1),
    "rhythm": Kind(rhythm, 3),
    "jitter": Kind(jitter, 3),
    "rate": Kind(rate, 3),
    "leads": Kind(leads, 0),
    "amplitude": Kind(amplitude, 0),
    "noise": Kind(noise, 0),
}
"""By name, in the order in which the two kinds of one record are applied: after ``rate`` nothing asks for beats, which
then are no longer where they were."""


def _add(records: Records, weights: Tensor, wave: Tensor) -> Records:
    """Add a wave (n, time) to each lead by its weight (n, leads), in millivolts."""
    added = weights[:, :, None] * wave[:, None]
    return replace(records, signal=records.signal + added.to(records.signal.dtype))


def _retimed(records: Records, moved: Tensor) -> Records:
    """Show the beats at other times, see ``moved_beats``."""
    source = source_times(moved_beats(records, moved))
    return replace(records, signal=read_at(records.signal, source), peaks=moved)


def _flattened(records: Records, start: float, end: float) -> Records:
    """Replace a stretch of every beat, in seconds from the R peak, by a straight line between its ends.

    A line and not zero: zero would be a step wherever the baseline is not at zero.
    """
    signal, rate = records.signal, records.sampling_rate
    time = records.samples.to(records.peaks.dtype).expand(len(signal), -1).contiguous()
    following = torch.searchsorted(records.peaks, time).clamp(max=records.peaks.shape[1] - 1)
    peak = records.peaks.gather(1, following)
    left, right = peak + round(start * rate), peak + round(end * rate)
    last = signal.shape[-1] - 1
    at_left, at_right = (
        signal.gather(2, side.clamp(0, last)[:, None].expand(-1, signal.shape[1], -1)) for side in (left, right)
    )
    part = ((time - left) / (right - left).clamp_min(1)).clamp(0, 1)[:, None].to(signal.dtype)
    line = at_left + part * (at_right - at_left)
    window = stretch((time - peak) / rate, start, end, 0.06)[:, None].to(signal.dtype)
    return replace(records, signal=signal + window * (line - signal))
