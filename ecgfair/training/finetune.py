"""Stage 2: from an encoder to many labels with a long tail."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor
from typing_extensions import override

from ecgfair.ecg import ATTRIBUTES, EcgBatch, Preprocessing
from ecgfair.errors import CheckpointError, ConfigurationError
from ecgfair.losses.attributes import attribute_losses
from ecgfair.losses.multi_label import AsymmetricLoss, multi_label_loss
from ecgfair.models.adversary import DemographicAdversary, ramp
from ecgfair.models.diagnosis import Diagnosis, DiagnosisNetwork
from ecgfair.models.encoder import Encoder, EncoderSpec
from ecgfair.signals.augmentation import Augmentation
from ecgfair.training.base import EcgModule, Optimisation
from ecgfair.training.encoder_checkpoint import load_encoder
from ecgfair.training.mitigation import MitigatedLoss, Mitigation, without


class FinetuneModule(EcgModule):
    """Stage 2: multi-label diagnosis from a pretrained or a fresh encoder, attributes as auxiliary targets.

    Args:
        preprocessing: How the signals are prepared; the data module's, linked by the command line.
        label_names: Names of the labels; linked as well.
        label_prevalence: Share of the training records positive, a label; linked as well.
        encoder: Folder of the encoder checkpoint to start from, or the specification of a fresh encoder.
        random_weights: Build the encoder of the checkpoint but do not load its weights: the control experiment that
            tells what pretraining brings.
        freeze_encoder: Train the heads alone.
        loss: Binary cross-entropy or asymmetric loss.
        gamma_positive: Of the asymmetric loss.
        gamma_negative: Of the asymmetric loss.
        clip: Of the asymmetric loss.
        attribute_weight: Factor of the auxiliary losses; 0 trains without them.
        dropout: Probability before the heads.
        augmentation: Random changes of the training signals.
        optimisation: Optimiser and schedule.
        mitigation: What training does against being worse for some groups; nothing if None.

    Raises:
        CheckpointError: The encoder checkpoint can't be used.
        PreprocessingMismatchError: It was trained on signals prepared in another way.
        ConfigurationError: A setting can't work.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        label_names: list[str],
        label_prevalence: list[float],
        encoder: str | EncoderSpec | None = None,
        random_weights: bool = False,
        freeze_encoder: bool = False,
        loss: Literal["bce", "asymmetric"] = "bce",
        gamma_positive: float = 0.0,
        gamma_negative: float = 2.0,
        clip: float = 0.05,
        attribute_weight: float = 0.1,
        dropout: float = 0.2,
        augmentation: Augmentation | None = None,
        optimisation: Optimisation | None = None,
        mitigation: Mitigation | None = None,
    ) -> None:
        super().__init__(preprocessing, optimisation or Optimisation())
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
        if not any(label_prevalence):
            raise ConfigurationError(
                f"No training record is positive for any of the {len(label_names)} labels: choose another label set "
                "(data.init_args.labels), other train_folds, or another store."
            )
        if attribute_weight < 0:
            raise ConfigurationError(f"attribute_weight is {attribute_weight}: expected 0 or more.")
        self.label_names = label_names
        self.label_prevalence = label_prevalence
        self.attribute_weight = attribute_weight
        self.augmentation = augmentation or Augmentation()
        self.freeze_encoder = freeze_encoder
        self.loss = multi_label_loss(loss, AsymmetricLoss(gamma_positive, gamma_negative, clip))
        self.network = DiagnosisNetwork(
            _start(encoder or EncoderSpec(), preprocessing, random_weights),
            label_prevalence,
            dropout,
            attributes=attribute_weight > 0,
        )
        if freeze_encoder:
            self.network.encoder.requires_grad_(False)
            self.train()
        self._set_mitigation(mitigation or Mitigation())

    def _set_mitigation(self, mitigation: Mitigation) -> None:
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
                cast("DiagnosisNetwork", self.network).label_head.in_features,
                mitigation.adversary_attributes,
                mitigation.adversary_hidden,
                mitigation.adversary_steps,
                mitigation.adversary_learning_rate,
            )

    @override
    def setup(self, stage: str) -> None:
        """Ask the data what the mitigation has to know of them.

        Raises:
            ConfigurationError: The data module can't say.
        """
        if stage == "fit" and self.mitigated_loss is not None:
            self.mitigated_loss.count(getattr(self.trainer, "datamodule", None))

    @override
    def train(self, mode: bool = True) -> Self:
        """Set training mode, but keep a frozen encoder as it was trained: no dropout, fixed batch-norm statistics."""
        super().train(mode)
        if self.freeze_encoder:
            self.network.encoder.eval()
        return self

    def forward(self, signal: Tensor) -> Diagnosis:
        """Diagnose (B, leads, time) millivolts."""
        diagnosis: Diagnosis = self.network(signal)
        return diagnosis

    def training_step(self, batch: EcgBatch, batch_idx: int) -> Tensor:
        """Return the loss of an augmented batch."""
        signal = self.augmentation(batch["signal"], self.preprocessing.sampling_rate)
        diagnosis = self(signal)
        losses = {"labels": self.loss(diagnosis.logits, batch["labels"])}
        total = losses["labels"]
        if self.mitigated_loss is not None:
            total = self.mitigated_loss(self.loss.each(diagnosis.logits, batch["labels"]), batch)
            losses["mitigated"] = total
        total = self._add_auxiliary(total, losses, diagnosis, batch)
        if self.adversary is not None:
            against = self._adversary_losses(self.adversary, diagnosis, batch)
            losses |= against
            total = total + sum(against.values())
        self.log_losses("train", total, losses, batch)
        return total

    def validation_step(self, batch: EcgBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss and the probabilities of whole records; callbacks measure them."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: EcgBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return what ``validation_step`` does."""
        return self._evaluate(batch, "test")

    def predict_step(self, batch: EcgBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return the probabilities (B, C)."""
        return {"probabilities": self(batch["signal"]).logits.sigmoid()}

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the names of the labels and the mitigation with the weights."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["mitigation"] = self.mitigation.switched_on()
        if self.adversary is not None:
            checkpoint["adversary_optimizer"] = self.adversary.optimizer_state()
        checkpoint["label_names"] = self.label_names

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

    def _evaluate(self, batch: EcgBatch, stage: str) -> dict[str, Tensor]:
        diagnosis = self(batch["signal"])
        losses = {"labels": self.loss(diagnosis.logits, batch["labels"])}
        total = self._add_auxiliary(losses["labels"], losses, diagnosis, batch)
        self.log_losses(stage, total, losses, batch)
        return {"loss": total, "probabilities": diagnosis.logits.sigmoid()}

    def _add_auxiliary(self, total: Tensor, losses: dict[str, Tensor], diagnosis: Diagnosis, batch: EcgBatch) -> Tensor:
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
    ) -> dict[str, Tensor]:
        """Let the adversary learn, and return how badly it tells what the features are to hide."""
        progress = 1.0
        if self._trainer is not None:
            progress = self.trainer.global_step / float(self.trainer.estimated_stepping_batches)
        hidden = self.mitigation.hidden_attributes
        target = without(batch["attributes"], [name for name in ATTRIBUTES if name not in hidden])
        adversary.learn(diagnosis.features, lambda said: torch.stack(attribute_losses(said, target)).sum())
        said = adversary(diagnosis.features, self.mitigation.adversary_strength * ramp(progress))
        of_age, of_sex = attribute_losses(said, target)
        both = {"age": of_age, "sex": of_sex}
        return {f"adversary_{name}": both[name] for name in hidden}


def _start(encoder: str | EncoderSpec, preprocessing: Preprocessing, random_weights: bool) -> Encoder:
    if isinstance(encoder, EncoderSpec):
        return encoder.build(len(preprocessing.leads))
    loaded, checkpoint = load_encoder(Path(encoder), preprocessing)
    return checkpoint.spec.build(len(preprocessing.leads)) if random_weights else loaded
