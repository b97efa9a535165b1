"""What disturbs a recording without changing its diagnosis: a wandering baseline, mains hum, time that isn't even.

All of it is drawn for all records at once. What is added happens at an electrode and reaches each lead in which that
electrode has a part, so that in the twelve standard leads Einthoven's law (III = II - I) and Goldberger's equations
hold of it (Malmivuo and Plonsey, Bioelectromagnetism, 1995, chapter 15). Any other set of leads is disturbed lead by
lead.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

from ecgfair.ecg import LEADS
from ecgfair.signals.alteration_records import read_at
from ecgfair.signals.draws import Randomness, rand, randn

WANDER: Final = (0.05, 0.5)
"""Hz, lowest and highest frequency of a wandering baseline: breathing, sweat and slow movement."""
WAVES: Final = 3
"""Waves that a wandering baseline is the sum of."""
MAINS: Final = (50.0, 60.0)
"""Hz, the frequencies of mains."""
TURN: Final = 2.0
"""Seconds, at least, from one speed of a warp to the opposite one: longer than a beat, which so keeps its form."""


class Warped(NamedTuple):
    """Records read at other times."""

    signal: Tensor
    """(B, leads, time) millivolts."""
    recorded: Tensor | None
    """(B, leads, time) bool, False wherever a sample that was not recorded has a part; None if it was not given."""


def wander(
    shape: tuple[int, int, int],
    amplitude: float,
    sampling_rate: float,
    *,
    device: torch.device | None = None,
    generator: Randomness = None,
) -> Tensor:
    """Draw wandering baselines: sums of three slow waves, of which each electrode has its own share and phase.

    Args:
        shape: (B, leads, time). Twelve leads are taken for ``ecg.LEADS``, in that order.
        amplitude: Millivolts. The height of a record, which its strongest lead reaches, is uniform from 0 to this.
        sampling_rate: Hz.
        device: Device of the result.
        generator: Source of randomness; the default one if None.

    Returns:
        (B, leads, time) float32 millivolts.
    """
    batch, leads, time = shape
    low, high = math.log(WANDER[0]), math.log(WANDER[1])
    frequency = (low + (high - low) * rand((batch, WAVES, 1), generator, device)).exp()
    waves = _cosine_and_sine(frequency * torch.arange(time, device=device) / sampling_rate)
    drawn = _product(_in_leads(batch, leads, 2 * WAVES, device, generator), waves)
    # The greatest value, not the sum of the waves' heights, so that the height of a short window is as stated.
    return _levels(batch, amplitude, device, generator) * drawn / _greatest(drawn.abs().amax(dim=(1, 2), keepdim=True))


def mains(
    shape: tuple[int, int, int],
    amplitude: float,
    sampling_rate: float,
    *,
    device: torch.device | None = None,
    generator: Randomness = None,
) -> Tensor:
    """Draw mains hum of 50 or 60 Hz, each in half of the records; each electrode has its own share and phase.

    A frequency above half the sampling rate is left out: a recorder that samples so slowly must have filtered it. At
    100 Hz, for example, half of the records get nothing, and what the others get of 50 Hz, exactly at half the rate,
    alternates from sample to sample, its size following the phase.

    Args:
        shape: (B, leads, time). Twelve leads are taken for ``ecg.LEADS``, in that order.
        amplitude: Millivolts. The height of the hum in a record's strongest lead is uniform from 0 to this.
        sampling_rate: Hz.
        device: Device of the result.
        generator: Source of randomness; the default one if None.

    Returns:
        (B, leads, time) float32 millivolts.
    """
    batch, leads, time = shape
    first = rand((batch, 1, 1), generator, device) < 0.5
    # Not in torch's default type, which is double in a training in double precision: the rest is drawn in float32.
    frequency = torch.where(first, MAINS[0], MAINS[1]).to(torch.float32)
    waves = _cosine_and_sine(frequency * torch.arange(time, device=device) / sampling_rate)
    parts = _in_leads(batch, leads, 2, device, generator)
    height = _greatest(parts.norm(dim=2, keepdim=True).amax(dim=1, keepdim=True))
    level = _levels(batch, amplitude, device, generator) * (frequency <= sampling_rate / 2)
    return _product(level * (parts / height), waves)


def warped_times(
    shape: tuple[int, int],
    change: float,
    sampling_rate: float,
    *,
    device: torch.device | None = None,
    generator: Randomness = None,
) -> Tensor:
    """Draw at which time of a record each sample is read, so that its speed changes smoothly and its length stays.

    The displacement is a sum of sines that are 0 at both ends, of random size, scaled so that no step from one sample
    to the next differs from 1 by more than drawn.

    Args:
        shape: (B, time).
        change: Greatest relative change of speed, from 0 to 0.5; that of a record is uniform from 0 to this. Steps are
            therefore 0.5 samples or more: time always goes forward.
        sampling_rate: Hz.
        device: Device of the result.
        generator: Source of randomness; the default one if None.

    Returns:
        (B, time) float32 in samples, rising from 0 to ``time - 1``.
    """
    batch, time = shape
    sample = torch.arange(time, device=device, dtype=torch.float32)
    waves = max(int((time - 1) / sampling_rate / TURN), 1)
    number = torch.arange(1, waves + 1, device=device, dtype=torch.float32)
    # Divided by its number each wave changes the speed alike.
    size = randn((batch, waves), generator, device) / number
    level = _levels(batch, change, device, generator)[:, 0]
    if time < 3:
        # Both ends stay, and there is nothing between them.
        return sample.expand(batch, -1)
    # Summed, not multiplied as matrices, which some settings round so much that steps are no longer smooth.
    sines = torch.sin(math.pi * number[:, None] * sample / (time - 1))
    displacement = (size[:, :, None] * sines).sum(dim=1)
    step = displacement.diff(dim=1).abs().amax(dim=1, keepdim=True)
    # Sines are not quite 0 at the end in floating point.
    return (sample + level / _greatest(step) * displacement).clamp(0, time - 1)


def warped(signal: Tensor, position: Tensor, recorded: Tensor | None = None) -> Warped:
    """Read records at other times, by a straight line between samples.

    Args:
        signal: (B, leads, time) millivolts, finite.
        position: (B, time) in samples.
        recorded: (B, leads, time) bool; None if everything was recorded.
    """
    # A straight line between recorded samples is exactly 1; where one that was not recorded has a part, it is less.
    known = None if recorded is None else read_at(recorded.float(), position) >= 1
    return Warped(read_at(signal, position), known)


def kept_leads(
    shape: tuple[int, int],
    probability: float,
    recorded: Tensor | None = None,
    *,
    device: torch.device | None = None,
    generator: Randomness = None,
) -> Tensor:
    """Draw which leads are kept. One that was recorded always is, if there is any.

    Args:
        shape: (B, leads).
        probability: Chance of each lead to be dropped.
        recorded: (B, leads) bool, which leads have anything recorded; None if all have.
        device: Device of the result.
        generator: Source of randomness; the default one if None.

    Returns:
        (B, leads) bool.
    """
    chance = rand(shape, generator, device)
    if recorded is not None:
        # Below every draw: a lead without signal is never the one that stays in place of a lead with signal.
        chance = chance.masked_fill(~recorded, -1.0)
    # The lead with the highest draw stays, whatever the probability.
    return (chance >= probability) | (chance == chance.amax(dim=1, keepdim=True))


_PARTS: Final = (
    # RA, LA, LL
    (-1, 1, 0),
    (-1, 0, 1),
    (0, -1, 1),
    (1, -1 / 2, -1 / 2),
    (-1 / 2, 1, -1 / 2),
    (-1 / 2, -1 / 2, 1),
)
"""The part of each limb electrode in each limb lead; a chest lead is its own electrode less the mean of the three."""


def _in_leads(batch: int, leads: int, columns: int, device: torch.device | None, generator: Randomness) -> Tensor:
    """Draw (B, leads, columns) weights: standard normal ones of electrodes, as the leads between them see them."""
    if leads != len(LEADS):
        return randn((batch, leads, columns), generator, device)
    limb = torch.tensor(_PARTS, dtype=torch.float32, device=device)
    electrodes = randn((batch, limb.shape[1] + leads - len(limb), columns), generator, device)
    arms_and_leg, chest = electrodes[:, : limb.shape[1]], electrodes[:, limb.shape[1] :]
    return torch.cat([_product(limb, arms_and_leg), chest - arms_and_leg.mean(dim=1, keepdim=True)], dim=1)


def _cosine_and_sine(turns: Tensor) -> Tensor:
    """Return (B, 2 waves, time) of whole turns (B, waves, time)."""
    angle = 2 * math.pi * turns
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def _product(one: Tensor, other: Tensor) -> Tensor:
    """Return a product of matrices in float32, in a training with mixed precision, too."""
    with torch.autocast(one.device.type, enabled=False):
        return one @ other


def _levels(batch: int, most: float, device: torch.device | None, generator: Randomness) -> Tensor:
    """Draw (B, 1, 1) strengths, so that faint and strong disturbances are met and not one alone."""
    return most * rand((batch, 1, 1), generator, device)


def _greatest(value: Tensor) -> Tensor:
    """Return a greatest value as something to divide by."""
    return value.clamp_min(torch.finfo(value.dtype).tiny)
