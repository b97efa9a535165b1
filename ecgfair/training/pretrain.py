"""Stage 1: learn what a heartbeat looks like, from signals, age and sex alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ecgfair.ecg import AttributeStatistics, EcgBatch, Preprocessing
from ecgfair.errors import ConfigurationError
from ecgfair.losses.attributes import attribute_losses
from ecgfair.losses.restoration import trend_restoration_loss, uncertain_restoration_loss
from ecgfair.models.encoder import EncoderSpec
from ecgfair.models.restoration import RestorationNetwork
from ecgfair.signals.beats import random_beat
from ecgfair.signals.masking import patch_mask, span_mask
from ecgfair.training.base import EcgModule, Optimisation
from ecgfair.training.encoder_checkpoint import EncoderCheckpoint, save_encoder

VALIDATION_SEED = 9
"""Validation hides the same samples in every epoch and run, so that epochs differ by their weights alone."""


@dataclass
class Masking:
    """What stage 1 hides.

    Args:
        patch_seconds: Length of a hidden patch of the global signal.
        global_ratio: Share of the global signal hidden.
        shared: Share of the records whose leads all hide the same patches; the others hide in each lead on its own.
        local_ratio: Share of the beat hidden, in one span.
        before_seconds: Start of a beat before its R peak.
        after_seconds: End of a beat after its R peak.
    """

    patch_seconds: float = 0.5
    global_ratio: float = 0.3
    shared: float = 0.5
    local_ratio: float = 0.3
    before_seconds: float = 0.28
    after_seconds: float = 0.68

    def __post_init__(self) -> None:
        """Refuse windows without length."""
        for name in ("patch_seconds", "before_seconds", "after_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"masking.{name} is {getattr(self, name)}: expected a positive length.")


@dataclass
class PretrainWeights:
    """Factors of the five losses of stage 1. The published ones are all 1; 0 switches a loss off.

    Args:
        whole: Masked restoration of the global signal.
        beat: Masked restoration of a beat, the local signal.
        trend: Restoration from the trend.
        measures: Prediction of age, heart rate and intervals.
        sex: Prediction of sex.
    """

    whole: float = 1.0
    beat: float = 1.0
    trend: float = 1.0
    measures: float = 1.0
    sex: float = 1.0


class PretrainModule(EcgModule):
    """Stage 1: masked restoration at two scales that are fused, restoration from the trend, attribute prediction.

    Args:
        preprocessing: How the signals are prepared; the data module's, linked by the command line.
        attribute_statistics: What standardises the attributes; linked as well.
        training_data: Fingerprint of the training data; linked as well.
        encoder: The encoder to train.
        local_widths: Channels of the blocks of the beat's encoder, without its last.
        decoder_width: Channels inside the decoders.
        masking: What is hidden.
        weights: Factors of the losses.
        optimisation: Optimiser and schedule.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        attribute_statistics: AttributeStatistics | None = None,
        training_data: str = "",
        encoder: EncoderSpec | None = None,
        local_widths: Sequence[int] = (48, 96),
        decoder_width: int = 128,
        masking: Masking | None = None,
        weights: PretrainWeights | None = None,
        optimisation: Optimisation | None = None,
    ) -> None:
        super().__init__(preprocessing, optimisation or Optimisation())
        self.encoder_spec = encoder or EncoderSpec()
        self.encoder_checkpoint = EncoderCheckpoint(
            self.encoder_spec, preprocessing, attribute_statistics or AttributeStatistics(), training_data
        )
        self.masking = masking or Masking()
        self.weights = weights or PretrainWeights()
        self.network = RestorationNetwork(
            self.encoder_spec.build(len(preprocessing.leads)), local_widths, decoder_width=decoder_width
        )

    def save_encoder(self, folder: Path | str) -> None:
        """Write the encoder checkpoint that stage 2 starts from."""
        save_encoder(folder, self.network.encoder, self.encoder_checkpoint)

    def losses(self, batch: EcgBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the five losses of a batch, unweighted, each a scalar, named as in ``PretrainWeights``.

        Args:
            batch: The batch.
            generator: Source of the masks and of the choice of beats, on the batch's device; the default one if None.
        """
        rate, masking = self.preprocessing.sampling_rate, self.masking
        signal, recorded = batch["signal"], batch["recorded"]
        device = signal.device
        patch = max(round(masking.patch_seconds * rate), 1)
        hidden = patch_mask(
            _shape(signal), patch, masking.global_ratio, masking.shared, device=device, generator=generator
        )
        before, after = round(masking.before_seconds * rate), round(masking.after_seconds * rate)
        # What was not recorded is not a number in the window that is cut, or its place would be lost.
        cut, has_beat = random_beat(
            signal.masked_fill(~recorded, torch.nan), batch["beats"], before, after, generator=generator
        )
        beat = cut.nan_to_num()
        # Where there is no beat, nothing is hidden, and so nothing is counted.
        hidden_in_beat = has_beat[:, None, None] & span_mask(
            _shape(beat), masking.local_ratio, device=device, generator=generator
        )

        restoration = self.network(signal.masked_fill(hidden, 0), beat.masked_fill(hidden_in_beat, 0), has_beat)

        whole, local = restoration.whole, restoration.beat
        # Nobody knows what was never recorded.
        counted, counted_in_beat = hidden & recorded, hidden_in_beat & ~cut.isnan()
        measures, sex = attribute_losses(restoration.attributes, batch["attributes"])
        return {
            "whole": uncertain_restoration_loss(whole.signal, whole.log_variance, signal, counted),
            "beat": uncertain_restoration_loss(local.signal, local.log_variance, beat, counted_in_beat),
            "trend": trend_restoration_loss(restoration.from_trend, signal, counted),
            "measures": measures,
            "sex": sex,
        }

    def training_step(self, batch: EcgBatch, batch_idx: int) -> Tensor:
        """Return the weighted sum of the losses."""
        return self._total(self.losses(batch), batch, "train")

    def validation_step(self, batch: EcgBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return the same on masks that depend on the batch's number alone."""
        generator = torch.Generator(batch["signal"].device).manual_seed(VALIDATION_SEED + batch_idx)
        return {"loss": self._total(self.losses(batch, generator), batch, "val")}

    def _total(self, losses: dict[str, Tensor], batch: EcgBatch, stage: str) -> Tensor:
        weighted = [getattr(self.weights, name) * loss for name, loss in losses.items()]
        total = torch.stack(weighted).sum()
        self.log_losses(stage, total, losses, batch)
        return total


def _shape(signal: Tensor) -> tuple[int, int, int]:
    batch, leads, time = signal.shape
    return batch, leads, time
