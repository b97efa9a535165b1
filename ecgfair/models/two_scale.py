"""The encoder of two scales: the record as a whole, and its beats."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from ecgfair.errors import ConfigurationError
from ecgfair.models.blocks import ResidualBlock
from ecgfair.models.residual import ResidualEncoder
from ecgfair.signals.aligned_beats import POINTS
from ecgfair.signals.beat_view import BeatView
from ecgfair.signals.rhythm_view import CHANNELS

BEAT_KERNEL = 7
"""Of the first convolution over a beat: 70 ms."""
RHYTHM_KERNEL = 5
"""Of the first convolution over the beats in their order."""
STAGE = 3
"""Modules that a stage over the beats is made of: a convolution, a norm and an activation."""


class ShapeBranch(nn.Module):
    """Residual blocks over the shape of beats, that keep where in the beat a feature is.

    Beats are aligned, so that each place is a wave: nothing is pooled over time, and a head has weights for every
    place.

    Args:
        leads: Number of leads; a shape has two channels a lead, see ``signals.beat_view``.
        widths: Channels of the first convolution, then of each block. Time is halved by all blocks but the first.
        dropout: Probability inside the blocks.

    Attributes:
        features: How many features a beat has.

    Raises:
        ConfigurationError: There are fewer than two widths, or one is not positive.
    """

    def __init__(self, leads: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ConfigurationError(
                f"beat_widths is {list(widths)}: expected the channels of the first convolution and of a block or "
                "more, 1 at least."
            )
        self.stem = nn.Conv1d(2 * leads, widths[0], BEAT_KERNEL, 1, BEAT_KERNEL // 2, bias=False)
        blocks: list[nn.Module] = []
        points = POINTS
        for place, (before, width) in enumerate(pairwise(widths)):
            stride = 1 if place == 0 else 2
            points = -(-points // stride)
            blocks.append(ResidualBlock(before, width, stride, dropout))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm1d(widths[-1])
        self.features = points * widths[-1]

    def forward(self, shape: Tensor) -> Tensor:
        """Map shapes (B, 2 * leads, ``POINTS``) to (B, features)."""
        tokens: Tensor = self.norm(self.blocks(self.stem(shape)))
        return F.silu(tokens).flatten(1)


class RhythmBranch(nn.Module):
    """Convolutions over the beats of a record in their order, and what they find on the mean and at most.

    Args:
        width: Channels of the convolutions.

    Attributes:
        features: How many features a rhythm has.

    Raises:
        ConfigurationError: The width is not positive.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ConfigurationError(f"rhythm_width is {width}: expected 1 channel or more.")
        stages: list[nn.Module] = []
        for before, kernel in ((CHANNELS, RHYTHM_KERNEL), (width, 3), (width, 3)):
            stages += [nn.Conv1d(before, width, kernel, 1, kernel // 2), nn.BatchNorm1d(width), nn.SiLU()]
        self.stages = nn.Sequential(*stages)
        self.features = 2 * width

    def forward(self, rhythm: Tensor) -> Tensor:
        """Map rhythm views (B, ``CHANNELS``, K) to (B, features); a record without beats has 0."""
        is_beat = rhythm[:, :1] > 0
        found = rhythm
        for first in range(0, len(self.stages), STAGE):
            # Beyond the last beat there is nothing, whether the record beside this one has more beats or not: left as
            # it is, the padding of a long batch would tell the beat next to it something else than the end of a batch.
            found = self.stages[first : first + STAGE](found) * is_beat
        mean = found.sum(dim=-1) / is_beat.sum(dim=-1).clamp(min=1)
        most = found.masked_fill(~is_beat, -torch.inf).amax(dim=-1)
        return torch.cat([mean, most.masked_fill(~is_beat.any(dim=-1), 0)], dim=1)


class TwoScaleEncoder(ResidualEncoder):
    """The default of stage 2: residual branches over the signal and its trend, and two over its beats.

    The beat view tells the shape of the waves, with little noise and each wave at its place, and the rhythm of the
    beats, so that few records teach much; the signal tells what no R peak leads to. The two scales are read by heads of
    their own, see ``DiagnosisNetwork``.

    Args:
        leads: Number of leads.
        widths: See ``ResidualEncoder``.
        trend_widths: Likewise.
        trend_window: Likewise.
        dropout: Likewise.
        beat_widths: See ``ShapeBranch``.
        rhythm_width: See ``RhythmBranch``.

    Raises:
        ConfigurationError: The branches of the signal shorten time differently, or widths are too few or not positive.
    """

    def __init__(
        self,
        leads: int = 12,
        widths: Sequence[int] = (32, 48, 48, 96, 96, 128),
        trend_widths: Sequence[int] = (16, 32, 48, 64),
        trend_window: int = 2,
        dropout: float = 0.1,
        beat_widths: Sequence[int] = (48, 48, 48, 96, 96),
        rhythm_width: int = 48,
    ) -> None:
        super().__init__(leads, widths, trend_widths, trend_window, dropout)
        self.shape_branch = ShapeBranch(leads, beat_widths, dropout)
        self.rhythm_branch = RhythmBranch(rhythm_width)
        self.beat_features = self.shape_branch.features + self.rhythm_branch.features

    @override
    def encode_beats(self, view: BeatView) -> Tensor:
        return torch.cat([self.shape_branch(view.shape), self.rhythm_branch(view.rhythm)], dim=1)

    @override
    def layers(self) -> list[list[nn.Module]]:
        """Return the blocks of all branches; those of the beats join the last groups."""
        groups = super().layers()
        branch = self.shape_branch
        beat: list[list[nn.Module]] = [[branch.stem, self.rhythm_branch], *([block] for block in branch.blocks)]
        beat[-1].append(branch.norm)
        while len(groups) < len(beat):
            groups.insert(0, [])
        for group, modules in zip(groups[-len(beat) :], beat, strict=True):
            group.extend(modules)
        return groups
