"""The beat view of a record: the shape of its beats, how single beats differ from it, and the rhythm they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from ecgfair.signals.aligned_beats import AlignedBeats, aligned_beats, beats_side_by_side, median_beats
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.baseline import without_baseline
from ecgfair.signals.disturbance import kept_leads
from ecgfair.signals.draws import Draws, Randomness, rand, randint, randn
from ecgfair.signals.rhythm_view import rhythm_view

LINEAR_TO: Final = 0.3
"""Millivolts: below, the view is proportional to the voltage; above, it grows like its logarithm, so that a tall R wave
does not outshout a P wave."""
MOST_SHIFT: Final = 2
"""Points, 20 ms, by which R peaks may be found too early or too late in training."""
MOST_BEATS: Final = 14
"""Single beats of a record that are shown."""
TRAINED_BEATS: Final = 6
"""Of these, how many are drawn in each training step: that is faster, and no two steps see the same record."""
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
    each: Tensor
    """(B, M, leads, ``POINTS``) single beats, asinh as above; at most ``MOST_BEATS``, evenly spread over the record."""
    column: Tensor
    """(B, M) int64, which column of ``rhythm`` each of these is; -1 where there is none."""
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
    each, column = _spread(aligned, beats)
    rhythm = rhythm_view(aligned, middle, beats, sampling_rate)
    return BeatView(shape, rhythm, each, column, (beats >= 0).any(dim=1))


def _spread(aligned: AlignedBeats, beats: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``BeatView.each`` and ``BeatView.column``."""
    known = beats >= 0
    counts = known.sum(dim=1, keepdim=True)
    slot = torch.arange(min(MOST_BEATS, max(int(counts.max()), 1)), device=beats.device)
    # Every beat of a record that has few of them; of one with more, as many at equal distances.
    rank = torch.where(counts > len(slot), slot * counts // len(slot), slot.expand(len(beats), -1))
    there = slot < counts
    place = known.nonzero(as_tuple=True)[1]
    first = counts.cumsum(0) - counts
    chosen = (first + rank)[there]
    each = aligned.beat.new_zeros(*there.shape, *aligned.beat.shape[1:])
    each[there] = torch.asinh(aligned.beat[chosen] / LINEAR_TO).nan_to_num()
    column = torch.full_like(rank, -1)
    column[there] = place[chosen]
    return each, column


def augmented_view(view: BeatView, augmentation: Augmentation, generator: Randomness = None) -> BeatView:
    """Return beat views as they might have come out: of another voltage and noise, R found elsewhere, leads missing.

    Args:
        view: The views.
        augmentation: Of the records; ``scaling``, ``noise`` and ``lead_dropout`` apply. Where all three are 0, nothing
            is changed.
        generator: Source of randomness, on the device of the view; the default one if None.
    """
    if not any((augmentation.scaling, augmentation.noise, augmentation.lead_dropout)):
        return view
    batch, channels, points = view.shape.shape
    leads, device = channels // 2, view.shape.device
    column, each = _drawn(view, generator)
    shift = randint(-MOST_SHIFT, MOST_SHIFT + 1, (batch, 1, 1), generator, device)
    place = (torch.arange(points, device=device) + shift).clamp(0, points - 1)
    factor = 1 + augmentation.scaling * randn((batch, 1, 1), generator, device)
    heard = view.shape[:, :leads].abs().amax(dim=-1) > 0
    kept = kept_leads((batch, leads), augmentation.lead_dropout, heard, device=device, generator=generator)

    def changed(beats: Tensor) -> Tensor:
        """Change beats (B, n * leads, points)."""
        beats = factor * beats.gather(-1, place.expand(beats.shape))
        noise = randn(beats.shape, generator, device)
        # Where there is nothing, nothing is added: a missing lead, what lies before the record, an empty slot, the
        # difference of a beat from itself.
        noise = noise * (beats != 0) * (augmentation.noise / LINEAR_TO / USUAL_BEATS**0.5)
        return (beats + noise) * kept.repeat(1, beats.shape[1] // leads)[..., None]

    shape, each = changed(view.shape), changed(each.flatten(1, 2)).view(each.shape)
    is_beat = view.rhythm[:, :1]
    off = RHYTHM_NOISE * _of_columns(view.rhythm[:, 1:].shape, generator, device)
    rhythm = torch.cat([is_beat, view.rhythm[:, 1:] + is_beat * off], dim=1) if augmentation.noise else view.rhythm
    return BeatView(shape, rhythm, each, column, view.has_beat)


def _of_columns(shape: Sequence[int], generator: Randomness, device: torch.device) -> Tensor:
    """Draw standard normal numbers (B, channels, K) of the columns of a rhythm view."""
    batch, channels, columns = shape
    if isinstance(generator, Draws):
        # Column by column: a record draws the same however many columns of padding its batch has.
        return randn((batch, columns, channels), generator, device).transpose(1, 2)
    return randn(shape, generator, device)


def _drawn(view: BeatView, generator: Randomness) -> tuple[Tensor, Tensor]:
    """Return the columns of a few beats of each record, drawn at random, and these beats."""
    there = view.column >= 0
    chance = rand(there.shape, generator, there.device)
    slots = (chance + there).topk(min(TRAINED_BEATS, there.shape[1]), dim=1).indices
    rows = torch.arange(len(there), device=there.device)[:, None]
    return view.column[rows, slots], view.each[rows, slots]
