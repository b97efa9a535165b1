"""The beat view of a record: its median beat, and how single beats differ from it."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ecgfair.signals.aligned_beats import aligned_beats, beats_side_by_side, median_beats
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.baseline import without_baseline
from ecgfair.signals.disturbance import kept_leads

LINEAR_TO: Final = 0.3
"""Millivolts: below, the view is proportional to the voltage; above, it grows like its logarithm, so that a tall R wave
does not outshout a P wave."""
MOST_SHIFT: Final = 2
"""Points, 20 ms, by which R peaks may be found too early or too late in training."""
USUAL_BEATS: Final = 10
"""In ten seconds: the median of so many has less noise than one by the square root of it."""


def beat_view(signal: Tensor, recorded: Tensor, beats: Tensor, sampling_rate: float) -> tuple[Tensor, Tensor]:
    """Return what all beats of a record have in common, and where they differ.

    Beats are laid on each other at their R peaks (``signals.aligned_beats``). Their median has next to no noise and has
    every wave at its place; the mean absolute difference from it tells premature beats, alternation and noise. Heart
    rate and rhythm are not in it.

    Args:
        signal: (B, leads, time) millivolts.
        recorded: Bool, of that shape or one that broadcasts to it.
        beats: (B, K) int64 sample index of the R peaks, padded with -1.
        sampling_rate: Hz.

    Returns:
        (B, 2 * leads, ``POINTS``) without unit: asinh of millivolts / ``LINEAR_TO``, medians, then differences; 0 where
        nothing was recorded. And (B,) bool: whether the record has a beat at all; its view is 0 if not.
    """
    known = signal.masked_fill(~recorded.expand(signal.shape), torch.nan)
    aligned = aligned_beats(without_baseline(known, sampling_rate), beats, sampling_rate)
    middle = median_beats(aligned, len(signal))
    apart = (aligned.beat - middle[aligned.record]).abs()
    differ = beats_side_by_side(apart, aligned.record, len(signal)).nanmean(dim=-1)
    view = torch.cat([middle, differ], dim=1)
    return torch.asinh(view / LINEAR_TO).nan_to_num(), ~middle.flatten(1).isnan().all(dim=1)


def augmented_view(view: Tensor, augmentation: Augmentation, generator: torch.Generator | None = None) -> Tensor:
    """Return beat views as they might have come out: of another voltage and noise, R found elsewhere, leads missing.

    Args:
        view: (B, 2 * leads, ``POINTS``), see ``beat_view``.
        augmentation: Of the records; ``scaling``, ``noise`` and ``lead_dropout`` apply. Where all three are 0,
            nothing is changed.
        generator: Source of randomness, on the device of the view; the default one if None.

    Returns:
        Of the same shape.
    """
    strengths = (augmentation.scaling, augmentation.noise, augmentation.lead_dropout)
    if not any(strengths):
        return view
    batch, channels, points = view.shape
    device = view.device
    shift = torch.randint(-MOST_SHIFT, MOST_SHIFT + 1, (batch, 1), device=device, generator=generator)
    place = (torch.arange(points, device=device) + shift).clamp(0, points - 1)
    view = view.gather(-1, place[:, None].expand(-1, channels, -1))
    factor = 1 + augmentation.scaling * torch.randn(batch, 1, 1, device=device, generator=generator)
    noise = torch.randn(view.shape, device=device, generator=generator)
    heard = view.abs().amax(dim=-1, keepdim=True) > 0
    view = factor * view + heard * noise * (augmentation.noise / LINEAR_TO / USUAL_BEATS**0.5)
    leads = channels // 2
    kept = kept_leads(
        (batch, leads), augmentation.lead_dropout, heard[:, :leads, 0], device=device, generator=generator
    )
    return view * torch.cat([kept, kept], dim=1)[:, :, None]
