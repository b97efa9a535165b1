"""ECGs whose waves are known because they are drawn: a sum of bells for each beat, in leads that obey Einthoven."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ecgfair.ecg import LEADS

BELLS = {"P": (-0.16, 0.022, 0.15), "R": (0.0, 0.012, 1.0), "S": (0.032, 0.011, -0.3), "T": (0.26, 0.045, 0.35)}
"""Seconds after R, standard deviation in seconds, millivolts."""

P_WAVE = (-0.22, -0.10)
QRS = (-0.035, 0.06)
T_END = 0.37
"""Seconds after R; what is outside them is below 3 % of the height of a bell."""


@dataclass(frozen=True)
class Drawn:
    """Records (B, 12, time) and their R peaks (B, K), every ``rr`` seconds."""

    signal: Tensor
    beats: Tensor
    rate: float
    rr: float


def drawn(
    records: int = 3, rate: float = 100, *, rr: float = 0.9, seconds: float = 10, noise: float = 0.004, p: float = 1.0
) -> Drawn:
    """Draw records that differ in voltage and noise, on a baseline that wanders."""
    generator = torch.Generator().manual_seed(7)
    length = round(seconds * rate)
    time = torch.arange(length, dtype=torch.float64) / rate
    peaks = (torch.arange(0.45, seconds - 0.1, rr, dtype=torch.float64) * rate).round()
    beat = torch.zeros(length, dtype=torch.float64)
    for name, (centre, width, height) in BELLS.items():
        places = peaks[:, None] / rate + centre
        bells = torch.exp(-(((time - places) / width) ** 2) / 2).sum(dim=0)
        beat += bells * height * (p if name == "P" else 1.0)
    wander = 0.05 * torch.sin(2 * torch.pi * 0.2 * time)

    def lead(voltage: Tensor) -> Tensor:
        return voltage[:, None] * beat + wander + noise * torch.randn(records, length, generator=generator).double()

    voltage = 0.7 + 0.3 * torch.rand(records, 8, generator=generator).double()
    one, two = lead(0.6 * voltage[:, 0]), lead(1.1 * voltage[:, 1])
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    chest = [lead(sign * voltage[:, 2 + place]) for place, sign in enumerate((-1, -1, 1, 1, 1, 1))]
    signal = torch.stack(limb + chest, dim=1).float()
    assert signal.shape[1] == len(LEADS)
    beats = torch.full((records, 40), -1)
    beats[:, : len(peaks)] = peaks.long()
    return Drawn(signal, beats, rate, rr)


def dilated(truth: Tensor, samples: int) -> Tensor:
    """Return (B, leads, time) bool that is True within ``samples`` of True."""
    grown = torch.nn.functional.max_pool1d(truth.float(), 2 * samples + 1, stride=1, padding=samples)
    return grown > 0


def spans(truth: Tensor) -> list[tuple[int, int]]:
    """Return the first and the last sample of each run of True in (time,)."""
    padded = torch.cat((torch.zeros(1), truth.float(), torch.zeros(1))).diff()
    starts, ends = (torch.nonzero(padded == step)[:, 0].tolist() for step in (1, -1))
    return [(start, end - 1) for start, end in zip(starts, ends, strict=True)]
