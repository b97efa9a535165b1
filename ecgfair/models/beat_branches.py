"""Branches over the beats of a record: the shape of the median beat, every beat by itself, and the rhythm they make."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecgfair.errors import ConfigurationError
from ecgfair.models.blocks import ResidualBlock
from ecgfair.models.dropout import by_slot
from ecgfair.models.norms import BatchNorm
from ecgfair.signals.aligned_beats import POINTS
from ecgfair.signals.beat_view import BeatView
from ecgfair.signals.rhythm_view import CHANNELS

BEAT_KERNEL = 7
"""Of the first convolution over a beat: 70 ms."""
RHYTHM_KERNEL = 5
"""Of the first convolution over the beats in their order."""
LEAST_VARIANCE = 1e-4
"""Added before a square root, whose slope has no bound at 0: the beats of a record may be all alike."""


class ShapeBranch(nn.Module):
    """Residual blocks over aligned beats, that keep where in the beat a feature is.

    Beats are aligned, so that each place is a wave: nothing is pooled over time, and a head has weights for every
    place.

    Args:
        channels: Of a beat: one a lead, or two, see ``BeatView.shape``.
        widths: Channels of the first convolution, then of each block. Time is halved by all blocks but the first.
        dropout: Probability inside the blocks.
        setting: What the widths are called where they are set, for the error.

    Attributes:
        features: How many features a beat has.

    Raises:
        ConfigurationError: There are fewer than two widths, or one is not positive.
    """

    def __init__(self, channels: int, widths: Sequence[int], dropout: float, *, setting: str = "shape_widths") -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ConfigurationError(
                f"{setting} is {list(widths)}: expected the channels of the first convolution and of a block or more, "
                "1 at least."
            )
        self.stem = nn.Conv1d(channels, widths[0], BEAT_KERNEL, 1, BEAT_KERNEL // 2, bias=False)
        blocks: list[nn.Module] = []
        points = POINTS
        for place, (before, width) in enumerate(pairwise(widths)):
            stride = 1 if place == 0 else 2
            points = -(-points // stride)
            blocks.append(ResidualBlock(before, width, stride, dropout))
        self.blocks = nn.Sequential(*blocks)
        self.norm = BatchNorm(widths[-1])
        self.features = points * widths[-1]

    def forward(self, beats: Tensor) -> Tensor:
        """Map beats (N, channels, ``POINTS``) to (N, features)."""
        tokens: Tensor = self.norm(self.blocks(self.stem(beats)))
        return F.silu(tokens).flatten(1)

    def layers(self) -> list[list[nn.Module]]:
        """Return the stem, then each block, the norm with the last of them."""
        groups: list[list[nn.Module]] = [[self.stem], *([block] for block in self.blocks)]
        groups[-1].append(self.norm)
        return groups


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
        kernels = ((CHANNELS, RHYTHM_KERNEL), (width, 3), (width, 3))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, width, kernel, 1, kernel // 2) for before, kernel in kernels
        )
        self.norms = nn.ModuleList(BatchNorm(width) for _ in kernels)
        self.features = 2 * width

    def forward(self, rhythm: Tensor) -> Tensor:
        """Map rhythm views (B, ``CHANNELS``, K) to (B, features); a record without beats has 0."""
        is_beat = rhythm[:, 0] > 0
        found = rhythm
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            # Beyond the last beat there is nothing, however long the padding: neither for the next convolution nor for
            # the statistics of the norm.
            beats = F.silu(norm(convolution(found).transpose(1, 2)[is_beat]))
            found = _in_rows(beats, is_beat).transpose(1, 2)
        mean = found.sum(dim=-1) / is_beat.sum(dim=-1, keepdim=True).clamp(min=1)
        most = found.masked_fill(~is_beat[:, None], -torch.inf).amax(dim=-1)
        return torch.cat([mean, most.masked_fill(~is_beat.any(dim=-1, keepdim=True), 0)], dim=1)


class EachBeatBranch(nn.Module):
    """Every beat by one network, told when it came; then what its beats have in common, how they differ, and at most.

    Args:
        leads: Number of leads.
        widths: Of the network over a beat, see ``ShapeBranch``.
        embedding: Numbers that a beat becomes.
        dropout: Probability inside the blocks.

    Attributes:
        features: How many features the beats of a record have.

    Raises:
        ConfigurationError: A width is impossible.
    """

    def __init__(self, leads: int, widths: Sequence[int], embedding: int, dropout: float) -> None:
        super().__init__()
        if embedding < 1:
            raise ConfigurationError(f"beat_embedding is {embedding}: expected 1 or more.")
        self.shape = ShapeBranch(leads, widths, dropout, setting="beat_widths")
        self.embed = nn.Linear(self.shape.features, embedding)
        told = embedding + CHANNELS
        self.mix = nn.Sequential(BatchNorm(told), nn.Linear(told, embedding), nn.SiLU())
        self.features = 3 * embedding

    def embed_beats(self, beats: Tensor) -> Tensor:
        """Map single beats (N, leads, ``POINTS``) to (N, embedding)."""
        embedded: Tensor = self.embed(self.shape(beats))
        return embedded

    def forward(self, view: BeatView) -> Tensor:
        """Map beat views of B records to (B, features); a record without beats has 0."""
        there = view.column >= 0
        place = view.column.clamp(min=0)[:, None].expand(-1, CHANNELS, -1)
        timing = view.rhythm.gather(-1, place).transpose(1, 2)[there]
        # A batch without a beat goes the same way, as a batch of none: other processes may have some, and wait for it.
        with by_slot(there):
            found = self.mix(torch.cat([self.embed_beats(view.each[there]), timing], dim=1))
        rows = _in_rows(found, there)
        mask = there[..., None]
        count = mask.sum(dim=1).clamp(min=1)
        mean = rows.sum(dim=1) / count
        spread = (((rows - mean[:, None]) * mask).square().sum(dim=1) / count + LEAST_VARIANCE).sqrt()
        most = rows.masked_fill(~mask, -torch.inf).amax(dim=1)
        return torch.cat([mean, spread, most], dim=1).masked_fill(~there.any(dim=1, keepdim=True), 0)


def _in_rows(values: Tensor, where: Tensor) -> Tensor:
    """Return values (N, D) at the N places that a mask (B, K) has, (B, K, D), 0 elsewhere."""
    rows = values.new_zeros(*where.shape, values.shape[-1])
    rows[where] = values
    return rows
