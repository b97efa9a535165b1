"""Encoders that stage 1 surrounds with light parts, which work at any length and for any stride."""

from __future__ import annotations

from ecgfair.models.blocks import ResidualBranch
from ecgfair.models.decoders import Decoder
from ecgfair.models.encoder_base import Encoder, PartSettings, RestorationParts
from ecgfair.models.fusion import ScaleFusion


class LightPartsEncoder(Encoder):
    """Base of the encoders whose parts say little of their own, so that the encoder has to learn the most.

    The parts need to know of an encoder no more than the base class states: its leads, its stride and its channels.
    """

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
