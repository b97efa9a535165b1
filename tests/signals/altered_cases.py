"""A made ECG whose beats are known, to be altered."""

import math
from functools import lru_cache

import torch

from ecgfair.signals.alteration_records import FAR, Records, ordered_peaks

WAVES = ((-0.17, 0.022, 0.15), (-0.03, 0.008, -0.1), (0.0, 0.012, 1.2), (0.03, 0.009, -0.25), (0.28, 0.04, 0.3))
"""Seconds from the R peak, standard deviation in seconds and millivolts of P, Q, R, S and T."""


def directions(leads: int) -> torch.Tensor:
    """How strongly each lead sees each wave, (waves, leads): each points another way, and all are 1 in lead II."""
    spread = 0.4 * torch.randn(len(WAVES), leads, generator=torch.Generator().manual_seed(7))
    if leads != 12:
        return torch.linspace(0.5, 1.5, leads) + spread * (leads > 1)
    one, two = 0.7 + spread[:, :1], torch.ones(len(WAVES), 1)
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return torch.cat([*limb, torch.tensor([-0.6, -0.8, 0.3, 1.1, 1.2, 0.9]) + spread[:, 6:]], dim=1)


def ecg(batch: int = 60, leads: int = 12, rate: int = 100, time: int = 1000) -> Records:
    """Clean beats of slightly irregular intervals around a second; twelve leads obey Einthoven and Goldberger."""
    signal, peaks = made(batch, leads, rate, time)
    return Records(signal, peaks, peaks < FAR, rate, torch.Generator().manual_seed(1))


@lru_cache(maxsize=8)
def made(batch: int, leads: int, rate: int, time: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The signal and the R peaks of ``ecg``; made once, as no kind writes into what it is given."""
    generator = torch.Generator().manual_seed(0)
    intervals = (rate * (0.9 + 0.2 * torch.rand(batch, 2 * math.ceil(time / rate), generator=generator))).round().long()
    beats = intervals.cumsum(dim=1) - intervals[:, :1] // 2
    beats = torch.where(beats < time - rate // 2, beats, -1)
    since = (torch.arange(time) - beats[..., None]) / rate
    waves = torch.stack(
        [
            torch.where(beats[..., None] >= 0, height * torch.exp(-0.5 * ((since - phase) / width) ** 2), 0.0).sum(
                dim=1
            )
            for phase, width, height in WAVES
        ]
    )
    return torch.einsum("wbt,wl->blt", waves, directions(leads)), ordered_peaks(beats, time)
