"""A made ECG of which every wave is known, at any rate of the heart and of sampling."""

from __future__ import annotations

import torch
from torch import Tensor

GAINS = (1.0, -0.6, 0.4)
"""Of the leads."""
R_WIDTH, T_AT, T_HEIGHT = 0.02, 0.24, 0.3
"""Seconds; seconds from 0.06 s after R on to the top of T in a heart that beats once a second; of the height of R."""


def wave(time: Tensor, centre: float, width: float, height: float) -> Tensor:
    """A Gaussian of this standard deviation."""
    return height * (-0.5 * ((time - centre) / width).square()).exp()


def heart(rr: float = 1.0, sampling_rate: float = 100.0, *, first: float = 0.6, seconds: float = 10.0) -> Tensor:
    """A signal (1, 3, time) with R of 1 mV at ``first + k * rr``, and T waves stretched by the square root of RR."""
    time = torch.arange(round(seconds * sampling_rate), dtype=torch.float64) / sampling_rate
    signal, peak = torch.zeros_like(time), first - rr
    while peak < seconds + rr:
        signal += wave(time, peak - 0.16, 0.02, 0.12) + wave(time, peak, R_WIDTH, 1.0)
        signal += wave(time, peak + 0.06 + T_AT * rr**0.5, 0.04 * rr**0.5, T_HEIGHT)
        peak += rr
    return (torch.tensor(GAINS)[:, None] * signal)[None].float()


def peaks(rr: float = 1.0, sampling_rate: float = 100.0, *, first: float = 0.6, seconds: float = 10.0) -> Tensor:
    """The R peaks of ``heart``, (1, K)."""
    count = int((seconds - first) / rr - 1e-9) + 1
    return (sampling_rate * (first + rr * torch.arange(count, dtype=torch.float64))).round().long()[None]
