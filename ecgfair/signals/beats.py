"""Cutting heartbeats out of the global signal."""

from __future__ import annotations

import torch
from torch import Tensor


def random_beat(
    signal: Tensor, beats: Tensor, before: int, after: int, *, generator: torch.Generator | None = None
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
    noise = torch.rand(beats.shape, device=beats.device, generator=generator)
    chosen = torch.where(candidate, noise, -1.0).argmax(dim=1, keepdim=True)
    has_beat = candidate.any(dim=1)
    start = torch.where(has_beat, beats.gather(1, chosen)[:, 0] - before, 0)
    window = crop(signal, start, before + after)
    return torch.where(has_beat[:, None, None], window, 0.0), has_beat


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
