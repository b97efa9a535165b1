"""What every encoder offers: latents of a signal, and the parts that stage 1 builds around it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ecgfair.signals.beat_view import BeatView


class Latents(NamedTuple):
    """What an encoder makes of a signal; both have the same number of tokens ``T`` over time."""

    signal: Tensor
    """(B, D, T) latent of the global signal."""
    trend: Tensor
    """(B, E, T) latent of its trend."""

    def features(self) -> Tensor:
        """Return both beside each other, (B, D + E, T): what a head reads."""
        return torch.cat([self.signal, self.trend], dim=1)


@dataclass(frozen=True)
class PartSettings:
    """What the parts around an encoder are made from. Each family of encoders says what it reads of it.

    Args:
        outputs: Channels that the decoders of both scales return: the leads and their log variance.
        local_widths: Channels of the blocks of the beat's encoder, but for the last.
        fusion_heads: Attention heads of the fusion.
        decoder_width: Channels inside the decoders.
        dropout: Probability inside the parts.
        length: Samples of the global signal; None where the fusion does not ask.
        window: Samples of a beat; None where the fusion does not ask.
    """

    outputs: int
    local_widths: Sequence[int]
    fusion_heads: int
    decoder_width: int
    dropout: float
    length: int | None = None
    window: int | None = None


class RestorationParts(NamedTuple):
    """The parts that stage 1 needs around an encoder, of the same family as the encoder; stage 2 needs none."""

    local_encoder: nn.Module
    """Maps a beat (B, leads, window) to its tokens (B, signal_channels, S)."""
    fusion: nn.Module
    """Maps the tokens of both scales and ``has_beat`` (B,) to both, fused, in their shapes."""
    global_decoder: nn.Module
    """Maps fused tokens (B, signal_channels, T) and a length to (B, outputs, length)."""
    local_decoder: nn.Module
    """The same for a beat."""
    trend_decoder: nn.Module
    """Maps the fused tokens beside those of the trend (B, channels, T) and a length to (B, leads, length)."""


class Encoder(nn.Module, ABC):
    """Base of all encoders: one branch over the signal and one over its trend."""

    leads: int
    """Leads of a signal."""
    stride: int
    """Samples between two tokens."""
    signal_channels: int
    """Channels of the latent of the signal."""
    channels: int
    """Channels of both latents together."""
    beat_embedding: int = 0
    """Numbers that a single beat becomes; 0 where the encoder does not read single beats."""
    beat_features: tuple[int, ...] = ()
    """Features of each branch over beats; none where the encoder does not read them."""

    @abstractmethod
    def token_count(self, length: int) -> int:
        """Return the number of tokens of a signal of so many samples, at least 1."""

    @abstractmethod
    def forward(self, signal: Tensor, trend_of: Tensor | None = None) -> Latents:
        """Encode a signal of any length.

        The trend is computed here, of the signal as given unless told otherwise. So a masked signal has a masked trend,
        and no caller leaks through the trend what the mask hides without saying so.

        Args:
            signal: (B, leads, time) millivolts.
            trend_of: (B, leads, time) millivolts: what to compute the trend of, in place of ``signal``. The unmasked
                signal gives the published form, whose trend tells what the mask hides.

        Returns:
            Latents of ``token_count(time)`` tokens.
        """

    def taught_by_labels(self, *, single_beats: bool) -> list[nn.Module]:
        """Return the modules that no task of stage 1 reaches, so that stage 1 leaves them as they are.

        Args:
            single_beats: Whether stage 1 learns from single beats.
        """
        return []

    def embed_beats(self, beats: Tensor) -> Tensor:
        """Map single beats (N, leads, ``POINTS``), see ``BeatView.each``, to (N, ``beat_embedding``).

        Raises:
            NotImplementedError: The encoder does not read single beats.
        """
        raise NotImplementedError(f"{type(self).__name__} does not read single beats.")

    def encode_beats(self, view: BeatView) -> tuple[Tensor, ...]:
        """Map beat views to (B, features) of each branch, in the order of ``beat_features``.

        Raises:
            NotImplementedError: The encoder has no branch for beats.
        """
        raise NotImplementedError(f"{type(self).__name__} has no branch for beats.")

    @abstractmethod
    def layers(self) -> list[list[nn.Module]]:
        """Return the modules in groups from the signal to the tokens: what learns at one rate where rates differ.

        Every parameter is in exactly one group. Modules that look at the signal from equally deep, in whatever branch,
        are in the same group.
        """

    @abstractmethod
    def make_decoder(self, channels_in: int, channels_out: int, settings: PartSettings) -> nn.Module:
        """Return what maps tokens (B, channels_in, T) and a length to (B, channels_out, length); weights are random."""

    @abstractmethod
    def make_parts(self, settings: PartSettings) -> RestorationParts:
        """Return what stage 1 needs around this encoder, with random weights.

        Raises:
            ConfigurationError: A setting that the family needs is missing or impossible.
        """
