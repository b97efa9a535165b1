"""The encoder of two scales: the record as a whole, and the beat that stands for all of its beats."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from ecgfair.errors import ConfigurationError
from ecgfair.models.blocks import ResidualBlock
from ecgfair.models.residual import ResidualEncoder
from ecgfair.signals.aligned_beats import POINTS

BEAT_KERNEL = 7
"""Of the first convolution over a beat."""


class BeatBranch(nn.Module):
    """Residual blocks over a beat view, that keep where in the beat a feature is.

    Beats are aligned, so that each place is a wave: nothing is pooled over time, and a head has weights for every
    place.

    Args:
        leads: Number of leads; a view has two channels a lead, see ``signals.beat_view``.
        widths: Channels of the first convolution, then of each block. Time is halved by all blocks but the first.
        dropout: Probability inside the blocks.

    Attributes:
        features: How many features a beat has.

    Raises:
        ConfigurationError: There are fewer than two widths.
    """

    def __init__(self, leads: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ConfigurationError(
                f"beat_widths is {list(widths)}: expected the channels of the first convolution and of a block or more."
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

    def forward(self, view: Tensor) -> Tensor:
        """Map beat views (B, 2 * leads, ``POINTS``) to (B, features)."""
        tokens: Tensor = self.norm(self.blocks(self.stem(view)))
        return F.silu(tokens).flatten(1)


class TwoScaleEncoder(ResidualEncoder):
    """The default of stage 2: residual branches over the signal and its trend, and one over the beat view.

    The record tells rhythm and what happens once; the median beat tells the shape of the waves, with little noise and
    each wave at its place, so that few records teach much. The two are read by heads of their own, see
    ``DiagnosisNetwork``.

    Args:
        leads: Number of leads.
        widths: See ``ResidualEncoder``.
        trend_widths: Likewise.
        trend_window: Likewise.
        dropout: Likewise.
        beat_widths: See ``BeatBranch``.

    Raises:
        ConfigurationError: The branches of the signal shorten time differently, or there are too few widths.
    """

    def __init__(
        self,
        leads: int = 12,
        widths: Sequence[int] = (32, 48, 48, 96, 96, 128),
        trend_widths: Sequence[int] = (16, 32, 48, 64),
        trend_window: int = 2,
        dropout: float = 0.1,
        beat_widths: Sequence[int] = (48, 48, 48, 96, 96),
    ) -> None:
        super().__init__(leads, widths, trend_widths, trend_window, dropout)
        self.beat_branch = BeatBranch(leads, beat_widths, dropout)
        self.beat_features = self.beat_branch.features

    @override
    def encode_beat(self, view: Tensor) -> Tensor:
        features: Tensor = self.beat_branch(view)
        return features

    @override
    def layers(self) -> list[list[nn.Module]]:
        """Return the blocks of all branches; those of the beat join the last groups, with the shallowest first."""
        groups = super().layers()
        branch = self.beat_branch
        beat: list[list[nn.Module]] = [[branch.stem], *([block] for block in branch.blocks)]
        beat[-1].append(branch.norm)
        while len(groups) < len(beat):
            groups.insert(0, [])
        for group, modules in zip(groups[-len(beat) :], beat, strict=True):
            group.extend(modules)
        return groups
