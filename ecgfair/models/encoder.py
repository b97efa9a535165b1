"""Encoders: what stage 1 trains, the checkpoint holds and stage 2 starts from."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.models.blocks import ResidualBranch
from ecgfair.signals.trend import trend


class Latents(NamedTuple):
    """What an encoder makes of a signal; both have the same number of tokens ``T`` over time."""

    signal: Tensor
    """(B, D, T) latent of the global signal."""
    trend: Tensor
    """(B, E, T) latent of its trend."""

    def features(self) -> Tensor:
        """Return both beside each other, (B, D + E, T): what a head reads."""
        return torch.cat([self.signal, self.trend], dim=1)


class ResidualEncoder(nn.Module):
    """The default encoder: one residual branch over the signal and a narrower one over its trend.

    The trend is computed here, from the signal as given. So a masked signal has a masked trend, and no caller can
    leak through the trend what the mask hides.

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

    def forward(self, signal: Tensor) -> Latents:
        """Encode a signal of any length.

        Args:
            signal: (B, leads, time) millivolts.

        Returns:
            Latents of ``ceil(time / stride)`` tokens.
        """
        return Latents(self.signal_branch(signal), self.trend_branch(trend(signal, self.trend_window)))


ENCODERS: Final[dict[str, type[ResidualEncoder]]] = {"ResidualEncoder": ResidualEncoder}
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

    def build(self, leads: int) -> ResidualEncoder:
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
