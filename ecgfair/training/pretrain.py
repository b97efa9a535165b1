"""Stage 1: learn what a heartbeat looks like, from signals, age and sex alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.anomaly.published_scoring import PublishedScoring
from ecgfair.anomaly.reference import NormalReference
from ecgfair.anomaly.scores import AnomalyScores
from ecgfair.anomaly.scoring import AnomalyScoring, Scoring
from ecgfair.anomaly.terms import Geometry
from ecgfair.ecg import AttributeStatistics, EcgBatch, Preprocessing
from ecgfair.errors import ConfigurationError
from ecgfair.losses.attributes import attribute_losses
from ecgfair.losses.mean import Mean, precise
from ecgfair.losses.restoration import trend_restoration_loss, uncertain_restoration_loss
from ecgfair.models.dropout import drawing_from
from ecgfair.models.encoder import EncoderSpec
from ecgfair.models.restoration import RestorationNetwork
from ecgfair.signals.alteration import Alteration
from ecgfair.signals.beats import random_beat
from ecgfair.signals.draws import Draws, Randomness, copies_of, randn
from ecgfair.signals.mask_schemes import hide
from ecgfair.signals.masking import span_mask
from ecgfair.signals.normalisation import min_max
from ecgfair.training.base import EcgModule, Optimisation, Stage
from ecgfair.training.beat_task import altered_beat_loss
from ecgfair.training.computing import Computing
from ecgfair.training.encoder_checkpoint import EncoderCheckpoint, save_encoder
from ecgfair.training.pretrain_settings import Choices, Masking, PretrainWeights
from ecgfair.training.single_beat_task import single_beat_losses

VALIDATION_SEED = 9
"""Validation hides the same samples of a record in every epoch and run, and in whatever batch, so that epochs differ by
their weights alone."""

GAIN_SPREAD = 0.1
"""Standard deviation of the gain, around 1, of records that are told from altered ones: two copies of a record side by
side would else be told apart by their voltage alone."""


class PretrainModule(EcgModule):
    """Stage 1: masked restoration at two scales that are fused, restoration from the trend, attribute prediction.

    Beside these published tasks it can learn to tell records that were altered at random from those that were not, and
    where (``weights.altered``), and likewise median beats (``weights.altered_beat``). What it restores badly or takes
    for altered is an anomaly.

    Args:
        preprocessing: How the signals are prepared; the data module's, linked by the command line.
        attribute_statistics: What standardises the attributes; linked as well.
        training_data: Fingerprint of the training data; linked as well.
        encoder: The encoder to train.
        local_widths: Channels of the blocks of the beat's encoder, without its last.
        decoder_width: Channels inside the decoders.
        masking: What is hidden.
        weights: Factors of the losses.
        choices: Published choices to go back to.
        alteration: How records are altered.
        scoring: What anomaly scores are made of.
        optimisation: Optimiser and schedule.
        computing: How the network is computed.

    Raises:
        ConfigurationError: Settings can't work together.
    """

    network: RestorationNetwork

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
        choices: Choices | None = None,
        alteration: Alteration | None = None,
        scoring: Scoring | None = None,
        optimisation: Optimisation | None = None,
        computing: Computing | None = None,
    ) -> None:
        super().__init__(preprocessing, optimisation or Optimisation(), computing or Computing())
        self.encoder_spec = encoder or EncoderSpec()
        self.encoder_checkpoint = EncoderCheckpoint(
            self.encoder_spec, preprocessing, attribute_statistics or AttributeStatistics(), training_data
        )
        self.masking = masking or Masking()
        self.weights = weights or PretrainWeights()
        self.choices = choices or Choices()
        self.alteration = alteration or Alteration()
        self.scoring = scoring or Scoring()
        if self.weights.altered_beat and self.choices.scale != "millivolts":
            # Rescaled leads have another shape than the beats that the task is learned on.
            raise ConfigurationError(
                f"weights.altered_beat is {self.weights.altered_beat} and choices.scale {self.choices.scale}: the task "
                "of altered beats is one of millivolts. Set altered_beat to 0, or scale to millivolts."
            )
        rate = preprocessing.sampling_rate
        before, after = (round(seconds * rate) for seconds in (self.masking.before_seconds, self.masking.after_seconds))
        self.geometry = Geometry(rate, before, after)
        self.network = RestorationNetwork(
            self.encoder_spec.build(len(preprocessing.leads)),
            local_widths,
            decoder_width=decoder_width,
            length=preprocessing.length,
            window=self.geometry.window,
            shared_log_variance=self.choices.log_variance == "shared",
            alteration_head=self.weights.altered > 0,
            beat_network=self.weights.altered_beat > 0,
            beat_restorer=self.weights.reads_single_beats,
        )
        # Weights without a task: several processes would wait for their gradients.
        for module in self.network.encoder.taught_by_labels(single_beats=self.weights.reads_single_beats):
            module.requires_grad_(False)
        self.reference = NormalReference(
            self.scoring.measured, 2 * self.network.encoder.channels, len(preprocessing.leads)
        )
        self._scored = self._make_scoring()

    def save_encoder(self, folder: Path | str) -> None:
        """Write the encoder checkpoint that stage 2 starts from.

        Raises:
            ConfigurationError: The encoder has learned from rescaled leads, and stage 2 shows it millivolts.
        """
        if self.choices.scale != "millivolts":
            raise ConfigurationError(
                f"choices.scale is {self.choices.scale}: such an encoder can't start stage 2, which sees millivolts. "
                "Leave the callback EncoderExport out, or train with scale: millivolts."
            )
        save_encoder(folder, self.network.encoder, self.encoder_checkpoint)

    def losses(self, batch: EcgBatch, generator: Randomness = None) -> dict[str, Mean]:
        """Return the losses of a batch, unweighted, named as in ``PretrainWeights``.

        Args:
            batch: The batch.
            generator: Source of all randomness, on the batch's device; the default one if None. Dropout alone is drawn
                from torch's default generator unless it is ``Draws`` of the batch's records.
        """
        losses: dict[str, Mean] = {}
        if self.weights.restores:
            losses |= self._restoration_losses(batch, generator)
        if self.weights.altered:
            losses |= self._alteration_losses(batch, generator)
        if self.network.beat_network is not None:
            rate = self.preprocessing.sampling_rate
            losses["altered_beat"] = altered_beat_loss(self.network.beat_network, batch, rate, generator)
        if self.network.beat_restorer is not None:
            rate = self.preprocessing.sampling_rate
            losses |= single_beat_losses(self.network.encoder, self.network.beat_restorer, batch, rate, generator)
        return losses

    def _restoration_losses(self, batch: EcgBatch, generator: Randomness) -> dict[str, Mean]:
        """Hide, restore and compare; predict attributes on the way."""
        signal, recorded = self._scaled(batch), batch["recorded"].expand(batch["signal"].shape)
        rate, beats = self.preprocessing.sampling_rate, batch["beats"]
        hidden = hide(_shape(signal), self.masking.mixture, rate, beats, recorded, generator=generator)
        # What was not recorded is not a number in the window that is cut, or its place would be lost.
        cut, has_beat = random_beat(
            signal.masked_fill(~recorded, torch.nan),
            beats,
            self.geometry.before,
            self.geometry.after,
            generator=generator,
        )
        beat = cut.nan_to_num()
        # Where there is no beat, nothing is hidden, and so nothing is counted.
        hidden_in_beat = has_beat[:, None, None] & span_mask(
            _shape(beat), self.masking.local_ratio, device=signal.device, generator=generator
        )
        with drawing_from(generator):
            restoration = self.network(
                signal.masked_fill(hidden, 0),
                beat.masked_fill(hidden_in_beat, 0),
                has_beat,
                signal if self.choices.trend == "unmasked" else None,
            )
        if self.choices.error == "all":
            hidden, hidden_in_beat = torch.ones_like(hidden), has_beat[:, None, None].expand(beat.shape)
        # Nobody knows what was never recorded.
        counted, counted_in_beat = hidden & recorded, hidden_in_beat & ~cut.isnan()
        whole, local = restoration.whole, restoration.beat
        measures, sex = attribute_losses(
            restoration.attributes, batch["attributes"], sex=self.choices.sex, measures=self.choices.measures
        )
        return {
            "whole": uncertain_restoration_loss(whole.signal, whole.log_variance, signal, counted),
            "beat": uncertain_restoration_loss(local.signal, local.log_variance, beat, counted_in_beat),
            "trend": trend_restoration_loss(restoration.from_trend, signal, counted),
            "measures": measures,
            "sex": sex,
        }

    def _alteration_losses(self, batch: EcgBatch, generator: Randomness) -> dict[str, Mean]:
        """Show every record as it is and altered; tell which is which, and where."""
        signal, recorded = batch["signal"], batch["recorded"].expand(batch["signal"].shape)
        altered, changed = self.alteration(signal, batch["beats"], self.preprocessing.sampling_rate, generator)
        changed = changed & recorded
        recorded = torch.cat([recorded, recorded])
        both = torch.cat([signal, altered]).masked_fill(~recorded, 0)
        if self.choices.scale == "min_max":
            both = min_max(both, recorded)
        own = copies_of(generator, 2)
        gain = 1 + GAIN_SPREAD * randn((len(both), 1, 1), own, both.device)
        with drawing_from(own):
            logit, where = self.network.tell_altered(self.network.encode_global(both * gain), both.shape[-1])
        is_altered = torch.cat([torch.zeros_like(logit[: len(signal)]), changed.flatten(1).any(dim=1).to(logit.dtype)])
        truth = torch.cat([torch.zeros_like(changed), changed]).to(where.dtype)
        by_sample = F.binary_cross_entropy_with_logits(precise(where), precise(truth), reduction="none")
        by_record = F.binary_cross_entropy_with_logits(precise(logit), precise(is_altered))
        return {
            "altered": Mean.over(by_record, len(logit)),
            "altered_map": Mean.of(by_sample, recorded),
        }

    def training_step(self, batch: EcgBatch, batch_idx: int) -> Tensor:
        """Return the weighted sum of the losses."""
        return self._total(self.losses(batch, self.draws(batch)), "train").over_processes()

    def validation_step(self, batch: EcgBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return the same on masks that depend on the records alone."""
        return {"loss": self._total(self._repeatable_losses(batch), "val").value}

    def test_step(self, batch: EcgBatch, batch_idx: int) -> dict[str, Tensor | AnomalyScores]:
        """Return the losses as in validation, and the anomaly scores."""
        loss = self._total(self._repeatable_losses(batch), "test")
        return {"loss": loss.value, "anomaly": self.anomaly_scores(batch)}

    def predict_step(self, batch: EcgBatch, batch_idx: int) -> dict[str, AnomalyScores]:
        """Return the anomaly scores."""
        return {"anomaly": self.anomaly_scores(batch)}

    @property
    def anomaly_parts(self) -> tuple[str, ...]:
        """Names of the terms of the anomaly score."""
        return self.scoring.names

    def anomaly_scores(self, batch: EcgBatch, *, maps: bool = False) -> AnomalyScores:
        """Score a batch, the same way whichever batch a record is in; see ``anomaly.scoring``.

        Args:
            batch: The batch.
            maps: Make maps too.

        Raises:
            ConfigurationError: Scores are told in standard deviations of training records, and ``fit_reference`` was
                never called.
        """
        return self._scored(self._scaled(batch), batch["recorded"], batch["beats"], maps=maps)

    def fit_reference(self, batches: Sequence[EcgBatch]) -> None:
        """Take from training records what scores and features are usual; nothing if scores do not ask for it.

        Args:
            batches: Of training records, on the module's device.
        """
        if isinstance(self._scored, AnomalyScoring) and self.scoring.standardise:
            self._scored.fit_reference([(self._scaled(batch), batch["recorded"], batch["beats"]) for batch in batches])

    def _make_scoring(self) -> AnomalyScoring | PublishedScoring:
        unmasked = self.choices.trend == "unmasked"
        if self.scoring.scheme == "published":
            return PublishedScoring(self.network, self.geometry, trend_unmasked=unmasked)
        return AnomalyScoring(self.network, self.scoring, self.geometry, self.reference, trend_unmasked=unmasked)

    def _scaled(self, batch: EcgBatch) -> Tensor:
        return min_max(batch["signal"], batch["recorded"]) if self.choices.scale == "min_max" else batch["signal"]

    def _repeatable_losses(self, batch: EcgBatch) -> dict[str, Mean]:
        return self.losses(batch, Draws.of(VALIDATION_SEED, 0, batch["index"]))

    def _total(self, losses: dict[str, Mean], stage: Stage) -> Mean:
        total = Mean.sum_of(getattr(self.weights, name) * loss for name, loss in losses.items())
        self.log_losses(stage, total, losses)
        return total


def _shape(signal: Tensor) -> tuple[int, int, int]:
    batch, leads, time = signal.shape
    return batch, leads, time
