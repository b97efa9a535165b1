"""The residual encoder: a strong and plain network over the signal and its trend."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ecgfair.errors import ConfigurationError
from ecgfair.models.blocks import ResidualBranch
from ecgfair.models.encoder_base import Latents
from ecgfair.models.encoder_light import LightPartsEncoder
from ecgfair.signals.trend import trend


class ResidualEncoder(LightPartsEncoder):
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

    def layers(self) -> list[list[nn.Module]]:
        """Return the blocks of both branches, those of one time resolution together."""
        branches = zip(self.signal_branch.layers(), self.trend_branch.layers(), strict=True)
        return [signal + trend for signal, trend in branches]
