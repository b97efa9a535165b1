"""The network of stage 1: it restores what was hidden, at both scales and from the trend, and predicts attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ecgfair.ecg import ATTRIBUTES
from ecgfair.models.blocks import KERNEL, MeanMaxPooling, ResidualBlock, ResidualBranch
from ecgfair.models.encoder import ResidualEncoder
from ecgfair.models.fusion import ScaleFusion


class Restored(NamedTuple):
    """A restored signal and how sure the network is of it."""

    signal: Tensor
    """(B, leads, time) millivolts."""
    log_variance: Tensor
    """(B, leads, time) logarithm of the expected squared error in mV^2, one value a lead and sample."""


class Restoration(NamedTuple):
    """All that the restoration network says of a batch."""

    whole: Restored
    """The global signal."""
    beat: Restored
    """The local signal."""
    from_trend: Tensor
    """(B, leads, time) millivolts: the global signal, restored with the help of its trend."""
    attributes: Tensor
    """(B, A) standardised attributes; the logit of being female in the column of sex."""


class Decoder(nn.Module):
    """Tokens back to a signal: one residual block, then every token becomes its stretch of samples.

    Light on purpose (as in He et al. 2022, masked autoencoders): what a decoder can't do, the encoder has to learn. The
    published decoders mirror the encoders and cost as much.

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
            nn.BatchNorm1d(width),
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


class RestorationNetwork(nn.Module):
    """The encoder and all that stage 1 needs around it and stage 2 does not.

    Three encoders with weights of their own (global, trend, local), the fusion of both scales, three decoders and the
    attribute head, after multi-scale cross-restoration (arXiv 2308.01639). The global and the trend encoder are the
    ``encoder`` that goes into the checkpoint.

    Args:
        encoder: The encoder to train.
        local_widths: Channels of the blocks of the beat's encoder; the last one is that of the encoder's signal latent.
        fusion_heads: Attention heads of the fusion.
        decoder_width: Channels inside the decoders.
        dropout: Probability inside the local encoder, the fusion and the decoders.
    """

    def __init__(
        self,
        encoder: ResidualEncoder,
        local_widths: Sequence[int] = (48, 96),
        fusion_heads: int = 2,
        decoder_width: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        leads, channels = encoder.leads, encoder.signal_channels
        self.encoder = encoder
        self.local_encoder = ResidualBranch(leads, [*local_widths, channels], dropout)
        self.fusion = ScaleFusion(channels, fusion_heads, dropout)
        # Two outputs a lead: the signal and its own log variance. The published form shares one over all leads.
        self.global_decoder = Decoder(channels, 2 * leads, encoder.stride, decoder_width, dropout)
        self.local_decoder = Decoder(channels, 2 * leads, self.local_encoder.stride, decoder_width, dropout)
        self.trend_decoder = Decoder(encoder.channels, leads, encoder.stride, decoder_width, dropout)
        self.attribute_head = nn.Sequential(
            MeanMaxPooling(),
            nn.Linear(2 * encoder.channels, encoder.channels),
            nn.SiLU(),
            nn.Linear(encoder.channels, len(ATTRIBUTES)),
        )

    def forward(self, signal: Tensor, beat: Tensor, has_beat: Tensor) -> Restoration:
        """Restore a batch.

        Args:
            signal: (B, leads, time) millivolts with hidden parts set to 0.
            beat: (B, leads, window) millivolts with hidden parts set to 0.
            has_beat: (B,) bool, False where ``beat`` is empty.

        Returns:
            The restoration. ``beat`` of records without one means nothing.
        """
        latents = self.encoder(signal)
        whole, local = self.fusion(latents.signal, self.local_encoder(beat), has_beat)
        # The trend meets the fused signal latent, as published. Attributes are read off what stage 2 will read.
        trend_tokens = latents._replace(signal=whole).features()
        return Restoration(
            whole=Restored(*self.global_decoder(whole, signal.shape[-1]).chunk(2, dim=1)),
            beat=Restored(*self.local_decoder(local, beat.shape[-1]).chunk(2, dim=1)),
            from_trend=self.trend_decoder(trend_tokens, signal.shape[-1]),
            attributes=self.attribute_head(latents.features()),
        )
