"""Encoders: what stage 1 trains, the checkpoint holds and stage 2 starts from."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.models.blocks import ResidualBranch
from ecgfair.models.decoders import Decoder
from ecgfair.models.encoder_base import Encoder, Latents, PartSettings, RestorationParts
from ecgfair.models.fusion import ScaleFusion
from ecgfair.models.mcf import McfEncoder
from ecgfair.signals.trend import trend

__all__ = ["ENCODERS", "Encoder", "EncoderSpec", "Latents", "McfEncoder", "ResidualEncoder"]


class ResidualEncoder(Encoder):
    """The default encoder: one residual branch over the signal and a narrower one over its trend.

    Args:
        leads: Number of leads.
        widths: Channels of the blocks of the signal branch; time is halved by the stem and by each change of width.
        trend_widths: The same for the trend branch; it has to shorten time as often.
        trend_window: Samples in the moving average under the trend.
        dropout: Probability inside the blocks.

    Raises:
        ConfigurationError: The two branches shorten time differently.
    """

    def __init__(
        self,
        leads: int = 12,
        widths: Sequence[int] = (48, 64, 64, 128, 128, 192, 192),
        trend_widths: Sequence[int] = (16, 32, 48, 64),
        trend_window: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.leads = leads
        self.trend_window = trend_window
        self.signal_branch = ResidualBranch(leads, widths, dropout)
        self.trend_branch = ResidualBranch(leads, trend_widths, dropout)
        if self.signal_branch.stride != self.trend_branch.stride:
            raise ConfigurationError(
                f"The signal branch (widths {tuple(widths)}) shortens time {self.signal_branch.stride}-fold, the trend "
                f"branch (trend_widths {tuple(trend_widths)}) {self.trend_branch.stride}-fold: expected the same. "
                "Every change of width halves time once."
            )
        self.stride = self.signal_branch.stride
        self.signal_channels = self.signal_branch.channels
        self.channels = self.signal_branch.channels + self.trend_branch.channels

    def token_count(self, length: int) -> int:
        """Return ``ceil(length / stride)``: a token a stride."""
        return -(-length // self.stride)

    def forward(self, signal: Tensor, trend_of: Tensor | None = None) -> Latents:
        """Encode (B, leads, time) millivolts of any length; see the base class."""
        source = signal if trend_of is None else trend_of
        return Latents(self.signal_branch(signal), self.trend_branch(trend(source, self.trend_window)))

    def make_decoder(self, channels_in: int, channels_out: int, settings: PartSettings) -> Decoder:
        """Return a light decoder."""
        return Decoder(channels_in, channels_out, self.stride, settings.decoder_width, settings.dropout)

    def make_parts(self, settings: PartSettings) -> RestorationParts:
        """Return a residual branch for the beat, attention over any number of tokens, and light decoders."""
        channels, width, dropout = self.signal_channels, settings.decoder_width, settings.dropout
        local_encoder = ResidualBranch(self.leads, [*settings.local_widths, channels], dropout)
        return RestorationParts(
            local_encoder=local_encoder,
            fusion=ScaleFusion(channels, settings.fusion_heads, dropout),
            global_decoder=self.make_decoder(channels, settings.outputs, settings),
            local_decoder=Decoder(channels, settings.outputs, local_encoder.stride, width, dropout),
            trend_decoder=self.make_decoder(self.channels, self.leads, settings),
        )


ENCODERS: Final[dict[str, type[Encoder]]] = {"ResidualEncoder": ResidualEncoder, "McfEncoder": McfEncoder}
"""Every class an encoder checkpoint may name. Nothing else is ever built from one."""


@dataclass
class EncoderSpec:
    """An encoder by name, with the arguments of its constructor: plain values that fit into YAML and JSON.

    Args:
        name: One of ``ENCODERS``.
        arguments: Arguments of its constructor but for ``leads``, which the Preprocessing gives.
    """

    name: str = "ResidualEncoder"
    arguments: dict[str, Any] = field(default_factory=dict)

    def check_name(self) -> None:
        """Refuse a name that is not an encoder of this project.

        Raises:
            ConfigurationError: The name is not one of ``ENCODERS``.
        """
        if self.name not in ENCODERS:
            raise ConfigurationError(
                f"There is no encoder {self.name!r} in ecgfair.{did_you_mean(self.name, ENCODERS)}"
            )

    def build(self, leads: int) -> Encoder:
        """Return such an encoder with random weights.

        Raises:
            ConfigurationError: The name or an argument is unknown, or an argument has an impossible value.
        """
        self.check_name()
        known = set(inspect.signature(ENCODERS[self.name]).parameters) - {"leads"}
        for argument in self.arguments:
            if argument not in known:
                raise ConfigurationError(
                    f"{self.name} takes no argument {argument!r}.{did_you_mean(argument, sorted(known))}"
                )
        try:
            return ENCODERS[self.name](leads=leads, **self.arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigurationError(f"{self.name} can't be built from {self.arguments}: {error}") from error
