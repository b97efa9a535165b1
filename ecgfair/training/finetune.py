"""Stage 2: from an encoder to many labels with a long tail."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from ecgfair.ecg import ATTRIBUTES, AttributeStatistics, EcgBatch, Preprocessing
from ecgfair.errors import CheckpointError, ConfigurationError
from ecgfair.losses.attributes import attribute_losses
from ecgfair.losses.mean import Mean, precise
from ecgfair.models.adversary import DemographicAdversary, ramp
from ecgfair.models.conditioning import Conditioning
from ecgfair.models.diagnosis import Diagnosis, DiagnosisNetwork
from ecgfair.models.dropout import drawing_from
from ecgfair.models.encoder import Encoder, EncoderSpec
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.beat_view import BeatView
from ecgfair.signals.windows import Windows, mean_probability_logits
from ecgfair.training.base import EcgModule, Optimisation, Stage
from ecgfair.training.computing import Computing
from ecgfair.training.encoder_checkpoint import EncoderCheckpoint, load_encoder, save_encoder
from ecgfair.training.label_loss import LabelLoss
from ecgfair.training.mitigation import MitigatedLoss, Mitigation, without
from ecgfair.training.showing import Showing


class FinetuneModule(EcgModule):
    """Stage 2: multi-label diagnosis from a pretrained or a fresh encoder, attributes as auxiliary targets.

    Args:
        preprocessing: How the signals are prepared; the data module's, linked by the command line.
        label_names: Names of the labels; linked as well.
        label_prevalence: Share of the training records positive, a label; linked as well.
        training_records: How many training records there are; linked as well.
        attribute_statistics: What standardises the attributes; linked as well.
        training_data: Fingerprint of the training data; linked as well.
        encoder: Folder of the encoder checkpoint to start from, or the specification of a fresh encoder.
        random_weights: Build the encoder of the checkpoint but do not load its weights: the control experiment that
            tells what pretraining brings.
        freeze_encoder: Train the heads alone; with the linear heads of ``hidden`` 0 that is a linear probe. Branches
            that no task of stage 1 reaches (``Encoder.taught_by_labels``) then stay as they were drawn.
        loss: Loss of the labels.
        attribute_weight: Factor of the auxiliary losses; 0 trains without them.
        dropout: Probability before the heads.
        beat_dropout: Probability before the head of the beats, of an encoder that reads them.
        hidden: Units of a hidden layer in the label head, see ``DiagnosisNetwork``; 0 is a linear head.
        conditioning: What the label heads are told of the patient; nothing if None.
        augmentation: Random changes of the training signals.
        mixup: Alpha of ``signals.mixup``; 0 is off. The targets of attributes stay those of the record itself.
        windows: Windows that a record is cut into for evaluation; the whole record if None.
        optimisation: Optimiser and schedule.
        mitigation: What training does against being worse for some groups; nothing if None.
        computing: How the network is computed.

    Raises:
        CheckpointError: The encoder checkpoint can't be used.
        PreprocessingMismatchError: It was trained on signals prepared in another way.
        ConfigurationError: A setting can't work.
    """

    network: DiagnosisNetwork

    def __init__(
        self,
        preprocessing: Preprocessing,
        label_names: list[str],
        label_prevalence: list[float],
        training_records: int = 0,
        attribute_statistics: AttributeStatistics | None = None,
        training_data: str = "",
        encoder: str | EncoderSpec | None = None,
        random_weights: bool = False,
        freeze_encoder: bool = False,
        loss: LabelLoss | None = None,
        attribute_weight: float = 0.1,
        dropout: float = 0.2,
        beat_dropout: float = 0.4,
        hidden: int = 0,
        conditioning: Conditioning | None = None,
        augmentation: Augmentation | None = None,
        mixup: float = 0.0,
        windows: Windows | None = None,
        optimisation: Optimisation | None = None,
        mitigation: Mitigation | None = None,
        computing: Computing | None = None,
    ) -> None:
        super().__init__(preprocessing, optimisation or Optimisation(), computing or Computing())
        if not label_names:
            raise ConfigurationError(
                "The data have no labels: stage 2 needs a label set. Prepare the store from a source that has one, or "
                "name one by data.init_args.labels."
            )
        if len(label_names) != len(label_prevalence):
            raise ConfigurationError(
                f"There are {len(label_names)} label names and {len(label_prevalence)} prevalences: expected one of "
                "each a label."
            )
        if not 0 <= attribute_weight < float("inf"):
            raise ConfigurationError(f"attribute_weight is {attribute_weight}: expected 0 or more.")
        self.label_names = label_names
        self.label_prevalence = label_prevalence
        self.attribute_statistics = attribute_statistics or AttributeStatistics()
        self.training_data = training_data
        self.attribute_weight = attribute_weight
        self.freeze_encoder = freeze_encoder
        loss = loss or LabelLoss()
        # Without training records (`test` on another source) there is nothing to count: no loss is minimised then.
        self.loss = loss.build(label_prevalence, max(training_records, 1))
        self.encoder_spec, built = _start(encoder or EncoderSpec("TwoScaleEncoder"), preprocessing, random_weights)
        self.network = DiagnosisNetwork(
            built,
            label_prevalence,
            dropout,
            attributes=attribute_weight > 0,
            hidden=hidden,
            conditioning=conditioning,
            beat_dropout=beat_dropout,
            logit_adjustment=loss.logit_adjustment,
        )
        self.showing = Showing(
            preprocessing.sampling_rate,
            augmentation or Augmentation(),
            mixup,
            windows or Windows(),
            self.attribute_statistics if self.network.conditioning is not None else None,
            views=bool(built.beat_features),
        )
        if freeze_encoder:
            self.network.encoder.requires_grad_(False)
            self.train()
        self._set_mitigation(mitigation or Mitigation(), conditioning or Conditioning())

    def _set_mitigation(self, mitigation: Mitigation, conditioning: Conditioning) -> None:
        if told := sorted(set(mitigation.hidden_attributes) & set(conditioning.inputs)):
            raise ConfigurationError(
                f"conditioning.inputs and mitigation.adversary_attributes both name {', '.join(told)}: what the heads "
                "are told can't be hidden from them. Take it out of one of the two."
            )
        self.mitigation = mitigation
        self.mitigated_loss = (
            MitigatedLoss(mitigation, len(self.label_names)) if mitigation.changes_label_loss else None
        )
        self.adversary: DemographicAdversary | None = None
        if mitigation.adversary_strength:
            if self.freeze_encoder:
                raise ConfigurationError(
                    f"mitigation.adversary_strength is {mitigation.adversary_strength} while freeze_encoder is true: a "
                    "frozen encoder can't learn to hide anything. Train the encoder, or set the strength to 0."
                )
            self.adversary = DemographicAdversary(
                self.network.features,
                mitigation.adversary_attributes,
                mitigation.adversary_hidden,
                mitigation.adversary_steps,
                mitigation.adversary_learning_rate,
            )

    def save_encoder(self, folder: Path | str) -> None:
        """Write the encoder as it is now: what was learned on one source can start stage 2 on another."""
        checkpoint = EncoderCheckpoint(
            self.encoder_spec, self.preprocessing, self.attribute_statistics, self.training_data
        )
        save_encoder(folder, self.network.encoder, checkpoint)

    @override
    def setup(self, stage: str) -> None:
        """Ask the data what training has to know of them.

        Raises:
            ConfigurationError: There is nothing to learn from, or the data module can't say.
        """
        if stage != "fit":
            return
        if not any(self.label_prevalence):
            raise ConfigurationError(
                f"No training record is positive for any of the {len(self.label_names)} labels: choose another label "
                "set (data.init_args.labels), other train_folds, or another store."
            )
        if self.mitigated_loss is not None:
            self.mitigated_loss.count(getattr(self.trainer, "datamodule", None))

    @override
    def train(self, mode: bool = True) -> Self:
        """Set training mode, but keep a frozen encoder as it was trained: no dropout, fixed batch-norm statistics."""
        super().train(mode)
        if self.freeze_encoder:
            self.network.encoder.eval()
        return self

    def forward(
        self,
        signal: Tensor,
        attributes: Tensor | None = None,
        view: BeatView | None = None,
    ) -> Diagnosis:
        """Diagnose (B, leads, time) millivolts; see ``DiagnosisNetwork``."""
        diagnosis: Diagnosis = self.network(signal, attributes, view)
        return diagnosis

    def training_step(self, batch: EcgBatch, batch_idx: int) -> Tensor:
        """Return the loss of an augmented batch."""
        self.loss.set_progress(self._progress())
        draws = self.draws(batch)
        shown, labels = self.showing.augmented(batch, draws)
        with drawing_from(draws):
            diagnosis = self(*shown)
        losses = {"labels": self._label_loss(diagnosis, labels)}
        total = losses["labels"]
        if self.mitigated_loss is not None:
            each = torch.stack([self.loss.each(precise(logits), labels) for logits in diagnosis.by_scale]).mean(0)
            total = self.mitigated_loss(each, batch)
            losses["mitigated"] = total
        total = self._add_auxiliary(total, losses, diagnosis, batch)
        if self.adversary is not None:
            against = self._adversary_losses(self.adversary, diagnosis, batch)
            losses |= against
            total = Mean.sum_of([total, *against.values()])
        self.log_losses("train", total, losses)
        return total.over_processes()

    def validation_step(self, batch: EcgBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss and the probabilities of whole records; callbacks measure them."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: EcgBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return what ``validation_step`` does."""
        return self._evaluate(batch, "test")

    def predict_step(self, batch: EcgBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return the probabilities (B, C)."""
        return {"probabilities": self._diagnose(batch).logits.sigmoid()}

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the names of the labels and the mitigation with the weights."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["mitigation"] = self.mitigation.switched_on()
        if self.adversary is not None:
            checkpoint["adversary_optimizer"] = self.adversary.optimizer_state()
        checkpoint["label_names"] = self.label_names
        checkpoint["label_prevalence"] = self.label_prevalence

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of other labels, or trained under another mitigation.

        Raises:
            CheckpointError: They differ, or the checkpoint is not one of a FinetuneModule.
            PreprocessingMismatchError: The preprocessings differ.
        """
        super().on_load_checkpoint(checkpoint)
        found = checkpoint.get("label_names")
        if found is None:
            raise CheckpointError(
                "The checkpoint holds no labels: expected one of stage 2, written by a FinetuneModule."
            )
        if found != self.label_names:
            differing = sorted(set(found) ^ set(self.label_names))[:5]
            raise CheckpointError(
                f"The checkpoint has {len(found)} labels, the data {len(self.label_names)}, in another order or with "
                f"others{' (' + ', '.join(differing) + ')' if differing else ''}: expected the same. Choose the label "
                "set it was trained on (--data.init_args.labels)."
            )
        before, now = checkpoint.get("mitigation", {}), self.mitigation.switched_on()
        if before != now:
            raise CheckpointError(
                f"The checkpoint was trained with the mitigation {before or 'off'}, the configuration has "
                f"{now or 'off'}: expected the same. Take model.init_args.mitigation from the config.yaml of its run "
                "folder."
            )
        if self.adversary is not None:
            self.adversary.go_on(checkpoint["adversary_optimizer"])
        # Of the records that it was trained on, wherever it is tested.
        self.label_prevalence = checkpoint.get("label_prevalence", self.label_prevalence)

    def _evaluate(self, batch: EcgBatch, stage: Stage) -> dict[str, Tensor]:
        diagnosis = self._diagnose(batch)
        losses = {"labels": self._label_loss(diagnosis, batch["labels"])}
        total = self._add_auxiliary(losses["labels"], losses, diagnosis, batch)
        self.log_losses(stage, total, losses)
        return {"loss": total.value, "probabilities": diagnosis.logits.sigmoid()}

    def _diagnose(self, batch: EcgBatch) -> Diagnosis:
        """Diagnose records as they are; of several windows, by their mean probability."""
        shown, windows = self.showing.windows_of(batch)
        found = self(*shown)
        by_scale = tuple(
            mean_probability_logits(logits.view(-1, windows, logits.shape[-1])) for logits in found.by_scale
        )
        attributes = None if found.attributes is None else _mean_of(found.attributes, windows)
        logits = torch.stack(by_scale).mean(0)
        return Diagnosis(logits, attributes, _mean_of(found.features, windows), by_scale)

    def _label_loss(self, diagnosis: Diagnosis, labels: Tensor) -> Mean:
        """Every scale is taught by itself: the mean of logits would let one scale rest on the other."""
        losses = [self.loss(logits, labels) for logits in diagnosis.by_scale]
        return losses[0] if len(losses) == 1 else 1 / len(losses) * Mean.sum_of(losses)

    def _progress(self) -> float:
        """Return the share of the training that is done."""
        return 1.0 if self._trainer is None else self.trainer.global_step / self.trainer.estimated_stepping_batches

    def _add_auxiliary(self, total: Mean, losses: dict[str, Mean], diagnosis: Diagnosis, batch: EcgBatch) -> Mean:
        """Return the total with the auxiliary losses, which are added to its terms."""
        if diagnosis.attributes is None:
            return total
        hidden = self.mitigation.hidden_attributes
        measures, sex = attribute_losses(diagnosis.attributes, without(batch["attributes"], hidden))
        losses["measures"] = measures
        if "sex" not in hidden:
            losses["sex"] = sex
        return total + self.attribute_weight * (measures + sex)

    def _adversary_losses(
        self, adversary: DemographicAdversary, diagnosis: Diagnosis, batch: EcgBatch
    ) -> dict[str, Mean]:
        """Let the adversary learn, and return how badly it tells what the features are to hide."""
        hidden = self.mitigation.hidden_attributes
        target = without(batch["attributes"], [name for name in ATTRIBUTES if name not in hidden])
        adversary.learn(diagnosis.features, lambda said: Mean.sum_of(attribute_losses(said, target)).over_processes())
        said = adversary(diagnosis.features, self.mitigation.adversary_strength * ramp(self._progress()))
        of_age, of_sex = attribute_losses(said, target)
        both = {"age": of_age, "sex": of_sex}
        return {f"adversary_{name}": both[name] for name in hidden}


def _mean_of(values: Tensor, windows: int) -> Tensor:
    """Return the mean over the windows of each record, (B, D)."""
    return values.view(-1, windows, values.shape[-1]).mean(1)


def _start(
    encoder: str | EncoderSpec, preprocessing: Preprocessing, random_weights: bool
) -> tuple[EncoderSpec, Encoder]:
    leads = len(preprocessing.leads)
    if isinstance(encoder, EncoderSpec):
        return encoder, encoder.build(leads)
    loaded, checkpoint = load_encoder(Path(encoder), preprocessing)
    return checkpoint.spec, checkpoint.spec.build(leads) if random_weights else loaded
