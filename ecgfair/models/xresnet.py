"""The published residual network of the PTB-XL benchmark: "xresnet1d101" (Strodthoff et al. 2020, arXiv 2004.13701).

It is the image network of He et al. 2019 (arXiv 1812.01187, there ResNet-D) over time: a stem of three convolutions and
a maximum, then stages of bottlenecks whose shortcut averages where time is halved. In the form of the benchmark every
stage has the same width, 64 channels inside and 256 outside, and kernels span 5 samples.

Published with a head of one hidden layer of 128 units (``hidden`` of ``DiagnosisNetwork``), a dropout of 0.5 before the
last layer, and signals of 100 Hz that were cut into crops of 2.5 s. Here it reads signals of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from ecgfair.errors import ConfigurationError
from ecgfair.models.encoder_base import Latents
from ecgfair.models.encoder_light import LightPartsEncoder
from ecgfair.models.norms import BatchNorm

EXPANSION: Final = 4
"""Channels that a bottleneck gives, per channel inside it."""


def _normed(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Return a convolution and its batch norm; time becomes ``ceil(time / stride)``, since the kernel is odd."""
    convolution = nn.Conv1d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
    return [convolution, BatchNorm(channels_out)]


class Bottleneck(nn.Module):
    """A narrow convolution between two that change the number of channels, beside a shortcut.

    Args:
        channels_in: Channels in.
        width: Channels of the narrow convolution; four times as many come out.
        kernel: Samples of the narrow convolution; odd.
        stride: 1, or 2 to halve time.
    """

    def __init__(self, channels_in: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        channels_out = EXPANSION * width
        self.residual = nn.Sequential(
            *_normed(channels_in, width, 1),
            nn.ReLU(),
            *_normed(width, width, kernel, stride),
            nn.ReLU(),
            *_normed(width, channels_out, 1),
        )
        shortcut: list[nn.Module] = []
        if stride != 1:
            # A strided convolution of one sample would leave out every other: the mean looks at all.
            shortcut.append(nn.AvgPool1d(stride, stride, ceil_mode=True))
        if channels_in != channels_out:
            shortcut += _normed(channels_in, channels_out, 1)
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels_in, T) to (B, 4 * width, ceil(T / stride))."""
        shortcut: Tensor = self.shortcut(features)
        residual: Tensor = self.residual(features)
        return F.relu(shortcut + residual)


class XResNetEncoder(LightPartsEncoder):
    """The published xresnet1d101, without its head; other depths by ``layers``.

    It has no branch for the trend: ``Latents.trend`` has no channels, and stage 1 restores the signal from its trend
    by the latent of the signal alone.

    Args:
        leads: Number of leads.
        layers: Bottlenecks of each stage; every stage but the first halves time.
        width: Channels inside the bottlenecks of every stage and after the stem; its first two convolutions have half
            as many.
        kernel: Samples of the stem's convolutions and of the narrow ones; odd.
        zero_last_norm: Start with batch norms that silence every bottleneck, so that at first the shortcuts alone speak
            (Goyal et al. 2017). The published constructor does so, but the published training draws all weights once
            more before its first step and sets these norms to 1: false is what its results started from.

    Raises:
        ConfigurationError: There are no layers, or a number is impossible.
    """

    def __init__(
        self,
        leads: int = 12,
        layers: Sequence[int] = (3, 4, 23, 3),
        width: int = 64,
        kernel: int = 5,
        zero_last_norm: bool = True,
    ) -> None:
        super().__init__()
        _check(leads, layers, width, kernel)
        self.leads = leads
        stem: list[nn.Module] = []
        for place, (before, after) in enumerate(pairwise([leads, width // 2, width // 2, width])):
            stem += [*_normed(before, after, kernel, 2 if place == 0 else 1), nn.ReLU()]
        self.stem = nn.Sequential(*stem, nn.MaxPool1d(3, 2, 1))
        self.signal_channels = self.channels = EXPANSION * width
        # The stem halves time twice, and every stage but the first once more.
        self.stride = 2 ** (1 + len(layers))
        stages: list[nn.Module] = []
        for count in layers:
            before, stride = (self.channels, 2) if stages else (width, 1)
            others = (Bottleneck(self.channels, width, kernel, 1) for _ in range(count - 1))
            stages.append(nn.Sequential(Bottleneck(before, width, kernel, stride), *others))
        self.stages = nn.Sequential(*stages)
        self._initialise(zero_last_norm=zero_last_norm)

    def _initialise(self, *, zero_last_norm: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)
            if zero_last_norm and isinstance(module, Bottleneck):
                nn.init.zeros_(module.residual[-1].weight)  # type: ignore[arg-type]  # of a batch norm

    def token_count(self, length: int) -> int:
        """Return ``ceil(length / stride)``: a token a stride."""
        return -(-length // self.stride)

    def forward(self, signal: Tensor, trend_of: Tensor | None = None) -> Latents:
        """Encode (B, leads, time) millivolts of any length; ``trend_of`` is not read, see the base class."""
        tokens: Tensor = self.stages(self.stem(signal))
        return Latents(tokens, tokens.new_empty(len(tokens), 0, tokens.shape[-1]))

    def layers(self) -> list[list[nn.Module]]:
        """Return the stem, then each stage."""
        return [[self.stem], *([stage] for stage in self.stages)]


def _check(leads: int, layers: Sequence[int], width: int, kernel: int) -> None:
    """Refuse what no network can be built from."""
    if not layers or any(count < 1 for count in layers):
        raise ConfigurationError(
            f"layers of XResNetEncoder are {tuple(layers)}: expected one stage or more, of 1 bottleneck or more each."
        )
    if leads < 1:
        raise ConfigurationError(f"leads of XResNetEncoder is {leads}: expected 1 or more.")
    if width < 2 or width % 2:
        raise ConfigurationError(
            f"width of XResNetEncoder is {width}: expected an even number, since the stem starts with half of it."
        )
    if kernel < 1 or kernel % 2 == 0:
        raise ConfigurationError(
            f"kernel of XResNetEncoder is {kernel}: expected an odd number, so that it has a middle sample."
        )
