"""From tokens back to a signal."""

from __future__ import annotations

from torch import Tensor, nn

from ecgfair.models.blocks import KERNEL, ResidualBlock
from ecgfair.models.norms import BatchNorm


class Decoder(nn.Module):
    """Tokens back to a signal: one residual block, then every token becomes its stretch of samples.

    Light on purpose (as in He et al. 2022, masked autoencoders): what a decoder can't do, the encoder has to learn. The
    published decoders mirror the encoders and cost as much: ``ecgfair.models.mcf.McfDecoder``.

    Args:
        channels_in: Channels of a token.
        channels_out: Channels of the result.
        stride: Samples a token.
        width: Channels inside.
        dropout: Probability inside the block.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, width: int, dropout: float) -> None:
        super().__init__()
        self.channels_out = channels_out
        self.stretch = nn.Sequential(
            nn.Conv1d(channels_in, width, 1, bias=False),
            ResidualBlock(width, width, 1, dropout),
            BatchNorm(width),
            nn.SiLU(),
            nn.Conv1d(width, channels_out * stride, 1),
        )
        # Stretches are drawn one by one: this smooths their seams.
        self.smooth = nn.Conv1d(channels_out, channels_out, KERNEL, padding=KERNEL // 2)

    def forward(self, tokens: Tensor, length: int) -> Tensor:
        """Map (B, channels_in, T) to (B, channels_out, length); ``length`` is at most ``T * stride``."""
        batch, _, count = tokens.shape
        stretches = self.stretch(tokens).view(batch, self.channels_out, -1, count)
        smoothed: Tensor = self.smooth(stretches.transpose(2, 3).flatten(2))
        return smoothed[..., :length]
