"""The building blocks of one-dimensional residual networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecgfair.errors import ConfigurationError
from ecgfair.models.dropout import RecordDropout
from ecgfair.models.norms import BatchNorm

KERNEL = 7
STEM_KERNEL = 15


class SqueezeExcitation(nn.Module):
    """Re-weighs the channels by their mean over time (Hu et al. 2018).

    Args:
        channels: Channels in and out.
        reduction: Channels per hidden unit.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, max(channels // reduction, 4))
        self.excite = nn.Linear(self.squeeze.out_features, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels, T) to the same shape."""
        weight: Tensor = self.excite(F.silu(self.squeeze(features.mean(dim=-1)))).sigmoid()
        return features * weight[..., None]


class ResidualBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016) with squeeze-and-excitation.

    Args:
        channels_in: Channels in.
        channels_out: Channels out.
        stride: 1, or 2 to halve time.
        dropout: Probability between the convolutions.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.stride = stride
        self.residual = nn.Sequential(
            BatchNorm(channels_in),
            nn.SiLU(),
            nn.Conv1d(channels_in, channels_out, KERNEL, stride, KERNEL // 2, bias=False),
            BatchNorm(channels_out),
            nn.SiLU(),
            RecordDropout(dropout),
            nn.Conv1d(channels_out, channels_out, KERNEL, 1, KERNEL // 2, bias=False),
            SqueezeExcitation(channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            # ceil_mode keeps the shortcut as long as the strided convolution, for odd lengths too.
            pool: nn.Module = nn.AvgPool1d(stride, stride, ceil_mode=True) if stride != 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv1d(channels_in, channels_out, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels_in, T) to (B, channels_out, ceil(T / stride))."""
        shortcut: Tensor = self.shortcut(features)
        residual: Tensor = self.residual(features)
        return shortcut + residual


class ResidualBranch(nn.Module):
    """A strided stem and residual blocks: a signal to tokens.

    Args:
        channels_in: Leads.
        widths: Channels of the stem and first block, then of each further block. Time is halved by the stem and by
            every block that changes the width.
        dropout: Probability inside the blocks.

    Raises:
        ConfigurationError: There are no widths.
    """

    def __init__(self, channels_in: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        if not widths:
            raise ConfigurationError("An encoder branch has no widths: expected at least one number of channels.")
        self.channels = widths[-1]
        self.stride = 2
        self.stem = nn.Conv1d(channels_in, widths[0], STEM_KERNEL, 2, STEM_KERNEL // 2, bias=False)
        blocks: list[nn.Module] = []
        for before, width in zip([widths[0], *widths], widths, strict=False):
            stride = 1 if width == before else 2
            blocks.append(ResidualBlock(before, width, stride, dropout))
            self.stride *= stride
        self.blocks = nn.Sequential(*blocks)
        self.norm = BatchNorm(self.channels)

    def forward(self, signal: Tensor) -> Tensor:
        """Map (B, channels_in, time) to tokens (B, channels, ceil(time / stride))."""
        tokens: Tensor = self.norm(self.blocks(self.stem(signal)))
        return F.silu(tokens)

    def layers(self) -> list[list[nn.Module]]:
        """Return the stem, then the blocks in groups of one time resolution, the norm with the last of them.

        Branches that shorten time alike have as many groups, however many blocks each has.
        """
        groups: list[list[nn.Module]] = [[self.stem], []]
        for block in self.blocks:
            if block.stride != 1:
                groups.append([])
            groups[-1].append(block)
        groups[-1].append(self.norm)
        return groups


class MeanMaxPooling(nn.Module):
    """Tokens of any number to one vector: their mean over time (what is there) beside their maximum (what occurs)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, channels, T) to (B, 2 * channels)."""
        return torch.cat([tokens.mean(dim=-1), tokens.amax(dim=-1)], dim=1)
