"""The beat view of a record: the shape of its beats, how single beats differ from it, and the rhythm they make."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from ecgfair.signals.aligned_beats import aligned_beats, beats_side_by_side, median_beats
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.baseline import without_baseline
from ecgfair.signals.disturbance import kept_leads
from ecgfair.signals.rhythm_view import rhythm_view

LINEAR_TO: Final = 0.3
"""Millivolts: below, the view is proportional to the voltage; above, it grows like its logarithm, so that a tall R wave
does not outshout a P wave."""
MOST_SHIFT: Final = 2
"""Points, 20 ms, by which R peaks may be found too early or too late in training."""
USUAL_BEATS: Final = 10
"""In ten seconds: the median of so many has less noise than one by the square root of it."""
RHYTHM_NOISE: Final = 0.03
"""Standard deviation of what is added to the numbers of the rhythm view in training."""


class BeatView(NamedTuple):
    """What is to be seen of the beats of a batch."""

    shape: Tensor
    """(B, 2 * leads, ``POINTS``) without unit: asinh of millivolts / ``LINEAR_TO`` of the median beat, then of the mean
    absolute difference of single beats from it; 0 where nothing was recorded."""
    rhythm: Tensor
    """(B, ``rhythm_view.CHANNELS``, K), K at least 1, see ``rhythm_view``."""
    has_beat: Tensor
    """(B,) bool; of a record without beats all else is 0."""

    def repeated(self, times: int) -> BeatView:
        """Return the view of each record so many times in a row."""
        return BeatView(*(part.repeat_interleave(times, dim=0) for part in self))


def beat_view(signal: Tensor, recorded: Tensor, beats: Tensor, sampling_rate: float) -> BeatView:
    """Return what all beats of a record have in common, where they differ, and when they came.

    Beats are laid on each other at their R peaks (``signals.aligned_beats``). Their median has next to no noise and has
    every wave at its place, so that little has to be learned about where to look.

    Args:
        signal: (B, leads, time) millivolts.
        recorded: Bool, of that shape or one that broadcasts to it.
        beats: (B, K) int64 sample index of the R peaks, rising, padded with -1.
        sampling_rate: Hz.
    """
    if not beats.shape[1]:
        # A column without a beat, so that there is something to take the mean and the maximum of.
        beats = beats.new_full((len(beats), 1), -1)
    known = signal.masked_fill(~recorded.expand(signal.shape), torch.nan)
    aligned = aligned_beats(without_baseline(known, sampling_rate), beats, sampling_rate)
    middle = median_beats(aligned, len(signal))
    apart = (aligned.beat - middle[aligned.record]).abs()
    differ = beats_side_by_side(apart, aligned.record, len(signal)).nanmean(dim=-1)
    shape = torch.asinh(torch.cat([middle, differ], dim=1) / LINEAR_TO).nan_to_num()
    return BeatView(shape, rhythm_view(aligned, middle, beats, sampling_rate), (beats >= 0).any(dim=1))


def augmented_view(view: BeatView, augmentation: Augmentation, generator: torch.Generator | None = None) -> BeatView:
    """Return beat views as they might have come out: of another voltage and noise, R found elsewhere, leads missing.

    Args:
        view: The views.
        augmentation: Of the records; ``scaling``, ``noise`` and ``lead_dropout`` apply. Where all three are 0, nothing
            is changed.
        generator: Source of randomness, on the device of the view; the default one if None.
    """
    if not any((augmentation.scaling, augmentation.noise, augmentation.lead_dropout)):
        return view
    shape = view.shape
    batch, channels, points = shape.shape
    device = shape.device
    shift = torch.randint(-MOST_SHIFT, MOST_SHIFT + 1, (batch, 1), device=device, generator=generator)
    place = (torch.arange(points, device=device) + shift).clamp(0, points - 1)
    shape = shape.gather(-1, place[:, None].expand(-1, channels, -1))
    heard = shape.abs().amax(dim=-1, keepdim=True) > 0
    factor = 1 + augmentation.scaling * torch.randn(batch, 1, 1, device=device, generator=generator)
    noise = torch.randn(shape.shape, device=device, generator=generator)
    shape = factor * shape + heard * noise * (augmentation.noise / LINEAR_TO / USUAL_BEATS**0.5)
    leads = channels // 2
    kept = kept_leads(
        (batch, leads), augmentation.lead_dropout, heard[:, :leads, 0], device=device, generator=generator
    )
    shape = shape * torch.cat([kept, kept], dim=1)[:, :, None]
    is_beat = view.rhythm[:, :1]
    off = RHYTHM_NOISE * torch.randn(view.rhythm[:, 1:].shape, device=device, generator=generator)
    rhythm = torch.cat([is_beat, view.rhythm[:, 1:] + is_beat * off], dim=1) if augmentation.noise else view.rhythm
    return BeatView(shape, rhythm, view.has_beat)
