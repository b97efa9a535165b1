"""The network of stage 1: it restores what was hidden, at both scales and from the trend, and predicts attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ecgfair.ecg import ATTRIBUTES
from ecgfair.errors import ConfigurationError
from ecgfair.models.beat_network import BeatNetwork
from ecgfair.models.beat_restorer import BeatRestorer
from ecgfair.models.blocks import MeanMaxPooling
from ecgfair.models.dropout import RecordDropout
from ecgfair.models.encoder import Encoder, Latents
from ecgfair.models.encoder_base import PartSettings


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
    """(B, A) standardised attributes; in the column of sex what its loss makes of it, by default the logit of being
    female."""


class AlterationHead(nn.Module):
    """Tells whether a record was altered, and where; both from the encoder's tokens alone.

    Args:
        channels: Channels of a token.
        decoder: Maps tokens and a length to a logit a lead and sample.
        dropout: Probability before the logit of the record.
    """

    def __init__(self, channels: int, decoder: nn.Module, dropout: float = 0.2) -> None:
        super().__init__()
        self.record = nn.Sequential(MeanMaxPooling(), RecordDropout(dropout), nn.Linear(2 * channels, 1))
        self.decoder = decoder

    def forward(self, tokens: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Map (B, channels, T) to logits (B,) of the records and (B, leads, length) of their samples."""
        return self.record(tokens).squeeze(-1), self.decoder(tokens, length)


class RestorationNetwork(nn.Module):
    """The encoder and all that stage 1 needs around it and stage 2 does not.

    Three encoders with weights of their own (global, trend, local), the fusion of both scales, three decoders and the
    attribute head, after multi-scale cross-restoration (Jiang et al. 2023, arXiv 2308.01639). The global and the trend
    encoder are the ``encoder`` that goes into the checkpoint; the local one, the fusion and the decoders are of its
    family. ``forward`` is what training needs; scoring calls the steps it is made of, to repeat none of them.

    Args:
        encoder: The encoder to train.
        local_widths: Channels of the blocks of the beat's encoder; the last one is that of the encoder's signal latent.
            The parts around an McfEncoder have its own widths instead.
        fusion_heads: Attention heads of the fusion.
        decoder_width: Channels inside the decoders; again those around an McfEncoder have its own.
        dropout: Probability inside the local encoder, the fusion and the decoders; around an McfEncoder in the fusion
            alone.
        length: Samples of the global signal. The parts around an McfEncoder need it, others work at any length.
        window: Samples of a beat, likewise.
        shared_log_variance: The published form: one log variance a sample, the same for all leads, kept within -1 and 1
            by the hyperbolic tangent. Else one a lead and sample, without bounds.
        alteration_head: Build the head of ``tell_altered``.
        beat_network: Build the network that tells altered median beats, see ``BeatNetwork``.
        beat_restorer: Build what restores single beats, see ``BeatRestorer``.

    Raises:
        ConfigurationError: The encoder's channels can't be shared out among the heads, or a length that its parts need
            is missing; or single beats are to be restored by an encoder that does not read them.
    """

    def __init__(
        self,
        encoder: Encoder,
        local_widths: Sequence[int] = (48, 96),
        fusion_heads: int = 2,
        decoder_width: int = 128,
        dropout: float = 0.1,
        *,
        length: int | None = None,
        window: int | None = None,
        shared_log_variance: bool = False,
        alteration_head: bool = False,
        beat_network: bool = False,
        beat_restorer: bool = False,
    ) -> None:
        super().__init__()
        if fusion_heads < 1 or encoder.signal_channels % fusion_heads:
            raise ConfigurationError(
                f"fusion_heads is {fusion_heads}, the encoder's signal latent has {encoder.signal_channels} channels: "
                "expected a number of heads that divides the channels."
            )
        self.encoder = encoder
        self.shared_log_variance = shared_log_variance
        # Two outputs a lead: the signal and its own log variance. The published form shares one over all leads.
        outputs = encoder.leads + (1 if shared_log_variance else encoder.leads)
        settings = PartSettings(outputs, local_widths, fusion_heads, decoder_width, dropout, length, window)
        parts = encoder.make_parts(settings)
        self.local_encoder = parts.local_encoder
        self.fusion = parts.fusion
        self.global_decoder = parts.global_decoder
        self.local_decoder = parts.local_decoder
        self.trend_decoder = parts.trend_decoder
        self.attribute_head = nn.Sequential(
            MeanMaxPooling(),
            nn.Linear(2 * encoder.channels, encoder.channels),
            nn.SiLU(),
            nn.Linear(encoder.channels, len(ATTRIBUTES)),
        )
        self.alteration_head: AlterationHead | None = None
        if alteration_head:
            decoder = encoder.make_decoder(encoder.channels, encoder.leads, settings)
            self.alteration_head = AlterationHead(encoder.channels, decoder)
        self.beat_network = BeatNetwork(encoder.leads) if beat_network else None
        self.beat_restorer: BeatRestorer | None = None
        if beat_restorer:
            if not encoder.beat_embedding:
                raise ConfigurationError(
                    f"{type(encoder).__name__} does not read single beats: expected an encoder that does, such as "
                    "TwoScaleEncoder, or weights.single_beat and weights.single_beat_attributes 0."
                )
            self.beat_restorer = BeatRestorer(encoder.beat_embedding, encoder.leads)

    def forward(self, signal: Tensor, beat: Tensor, has_beat: Tensor, trend_of: Tensor | None = None) -> Restoration:
        """Restore a batch.

        Args:
            signal: (B, leads, time) millivolts with hidden parts set to 0.
            beat: (B, leads, window) millivolts with hidden parts set to 0.
            has_beat: (B,) bool, False where ``beat`` is empty.
            trend_of: (B, leads, time) millivolts: what the trend is computed of, ``signal`` if None. With the unmasked
                signal, as published, it tells what the mask hides.

        Returns:
            The restoration. ``beat`` of records without one means nothing.
        """
        length, window = signal.shape[-1], beat.shape[-1]
        latents = self.encode_global(signal, trend_of)
        whole, local = self.fuse(latents.signal, self.encode_beats(beat), has_beat)
        return Restoration(
            whole=self.restore_global(whole, length),
            beat=self.restore_beat(local, window),
            from_trend=self.restore_from_trend(whole, latents, length),
            # Attributes are read off what stage 2 will read.
            attributes=self.predict_attributes(latents),
        )

    def encode_global(self, signal: Tensor, trend_of: Tensor | None = None) -> Latents:
        """Return the latents of (B, leads, time) millivolts and of their trend, or of that of ``trend_of``."""
        latents: Latents = self.encoder(signal, trend_of)
        return latents

    def encode_beats(self, beat: Tensor) -> Tensor:
        """Map beats (B, leads, window) in millivolts to tokens (B, D, S)."""
        tokens: Tensor = self.local_encoder(beat)
        return tokens

    def fuse(self, global_tokens: Tensor, local_tokens: Tensor, has_beat: Tensor) -> tuple[Tensor, Tensor]:
        """Let both scales look at each other.

        Args:
            global_tokens: (B, D, T): the latent of the signal, without that of its trend.
            local_tokens: (B, D, S) of a beat of each record.
            has_beat: (B,) bool; where False, the tokens of the beat are not looked at.

        Returns:
            Both, fused, in the shapes they came in.
        """
        both: tuple[Tensor, Tensor] = self.fusion(global_tokens, local_tokens, has_beat)
        return both

    def fuse_beats(self, global_tokens: Tensor, local_tokens: Tensor) -> Tensor:
        """Return the fused tokens (B, D, S) of beats alone, where every record has one; see ``fuse``."""
        fused: Tensor = self.fusion.beats(global_tokens, local_tokens)  # type: ignore[operator]  # of the family's fusion
        return fused

    def restore_global(self, tokens: Tensor, length: int) -> Restored:
        """Map fused tokens (B, D, T) of the global signal to ``length`` restored samples."""
        return self._with_log_variance(self.global_decoder(tokens, length))

    def restore_beat(self, tokens: Tensor, window: int) -> Restored:
        """Map fused tokens (B, D, S) of a beat to ``window`` restored samples."""
        return self._with_log_variance(self.local_decoder(tokens, window))

    def restore_from_trend(self, fused_global: Tensor, latents: Latents, length: int) -> Tensor:
        """Restore the global signal with the help of its trend; it meets the fused signal latent, as published.

        Args:
            fused_global: (B, D, T) fused tokens of the global signal.
            latents: What ``encode_global`` returned; the latent of the trend is read of it.
            length: Samples of the signal.

        Returns:
            (B, leads, length) millivolts.
        """
        restored: Tensor = self.trend_decoder(latents._replace(signal=fused_global).features(), length)
        return restored

    def predict_attributes(self, latents: Latents) -> Tensor:
        """Return (B, A) standardised attributes, with what the loss of sex makes of its column."""
        attributes: Tensor = self.attribute_head(latents.features())
        return attributes

    def pooled(self, latents: Latents) -> Tensor:
        """Return mean and maximum over time of the features of both latents, (B, 2 * channels)."""
        pooled: Tensor = MeanMaxPooling()(latents.features())
        return pooled

    def tell_altered(self, latents: Latents, length: int) -> tuple[Tensor, Tensor]:
        """Tell whether each record was altered, and where.

        Args:
            latents: Of the records, as ``encode_global`` returns them.
            length: Samples of the records.

        Returns:
            Logits (B,) of the records, and (B, leads, length) of their samples.

        Raises:
            ConfigurationError: The network was built without this head.
        """
        if self.alteration_head is None:
            raise ConfigurationError(
                "The network has no head that tells altered signals: expected it to be built with alteration_head=True."
            )
        logits: tuple[Tensor, Tensor] = self.alteration_head(latents.features(), length)
        return logits

    def _with_log_variance(self, decoded: Tensor) -> Restored:
        leads = self.encoder.leads
        signal, log_variance = decoded[:, :leads], decoded[:, leads:]
        if self.shared_log_variance:
            log_variance = log_variance.tanh().expand(-1, leads, -1)
        return Restored(signal, log_variance)
