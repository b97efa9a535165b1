"""What both stages share: the optimiser, its schedule, and the check that a checkpoint fits the data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from ecgfair.ecg import EcgBatch, Preprocessing
from ecgfair.errors import CheckpointError, ConfigurationError
from ecgfair.losses.mean import Mean
from ecgfair.models.diagnosis import DiagnosisNetwork
from ecgfair.models.restoration import RestorationNetwork
from ecgfair.signals.draws import Draws
from ecgfair.training.computing import Computing
from ecgfair.training.epoch_means import EpochMeans

Stage = Literal["train", "val", "test"]


@dataclass
class Optimisation:
    """AdamW with a one-cycle schedule over the whole run (Smith and Topin 2019).

    Args:
        learning_rate: Peak of the schedule.
        weight_decay: Of matrices and kernels; biases and norms are not decayed.
        warmup: Share of the steps until the peak, in (0, 1).
        encoder_scale: Factor on the learning rate of the encoder, to spare weights that are already good.
        layer_decay: Further factor on it for each layer of the encoder, counted from its output, whose own rate has
            none: layers near the signal learn most slowly (Howard and Ruder 2018, arXiv 1801.06146). 1 is off.
    """

    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    warmup: float = 0.3
    encoder_scale: float = 1.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that can't train."""
        for name in ("learning_rate", "encoder_scale"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"optimisation.{name} is {getattr(self, name)}: expected a positive number.")
        if not 0 < self.warmup < 1:
            raise ConfigurationError(f"optimisation.warmup is {self.warmup}: expected a share between 0 and 1.")
        if not 0 < self.layer_decay <= 1:
            raise ConfigurationError(
                f"optimisation.layer_decay is {self.layer_decay}: expected a factor above 0 and up to 1, which is off."
            )
        if self.weight_decay < 0:
            raise ConfigurationError(f"optimisation.weight_decay is {self.weight_decay}: expected 0 or more.")


class EcgModule(LightningModule):
    """Base of both stages.

    A stage builds its network in the constructor, states a loss in its steps, and measures nothing: callbacks do.

    Args:
        preprocessing: How the signals are prepared that it is to see.
        optimisation: Optimiser and schedule.
        computing: How the network is computed.
    """

    network: RestorationNetwork | DiagnosisNetwork

    def __init__(self, preprocessing: Preprocessing, optimisation: Optimisation, computing: Computing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.optimisation = optimisation
        self.computing = computing
        self._means: dict[Stage, EpochMeans] = {"train": EpochMeans(), "val": EpochMeans(), "test": EpochMeans()}
        self._told_training = False

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW and the one-cycle schedule, stepped every batch."""
        settings = self.optimisation
        groups = list(self._parameter_groups())
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in groups],
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=settings.warmup,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _parameter_groups(self) -> Iterator[dict[str, Any]]:
        settings = self.optimisation
        rates = self._encoder_rates()
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        for scale in dict.fromkeys([*rates.values(), None]):
            of_rate = [parameter for parameter in trained if rates.get(id(parameter)) == scale]
            for is_matrix, decay in ((True, settings.weight_decay), (False, 0.0)):
                chosen = [parameter for parameter in of_rate if (parameter.ndim > 1) == is_matrix]
                if chosen:
                    rate = settings.learning_rate * (1.0 if scale is None else scale)
                    yield {"params": chosen, "lr": rate, "weight_decay": decay}

    def _encoder_rates(self) -> dict[int, float]:
        """Return the factor on the learning rate of each parameter of the encoder, by its identity."""
        settings = self.optimisation
        layers = self.network.encoder.layers()
        return {
            id(parameter): settings.encoder_scale * settings.layer_decay ** (len(layers) - 1 - place)
            for place, layer in enumerate(layers)
            for module in layer
            for parameter in module.parameters()
        }

    def log_losses(self, stage: Stage, total: Mean, losses: Mapping[str, Mean]) -> None:
        """Note ``<stage>/loss`` and its terms; their means over all records of the epoch are logged at its end.

        Args:
            stage: ``train``, ``val`` or ``test``.
            total: What is minimised.
            losses: Its terms by name, unweighted.
        """
        named = {f"{stage}/loss/{name}": loss for name, loss in losses.items()}
        self._means[stage].add({f"{stage}/loss": total, **named})

    def _log_means(self, stage: Stage) -> None:
        # Every process has the same numbers already; Lightning warns of whoever does not ask for their mean.
        self.log_dict(self._means[stage].over_processes(), on_step=False, on_epoch=True, sync_dist=True, batch_size=1)

    def draws(self, batch: EcgBatch) -> Draws | None:
        """Return what the records of a training batch draw from in this step, a new source each time.

        What a record draws (masks, alterations, augmentation, dropout) follows from the run's seed, the step of the
        optimiser and the record's index alone. So it is the same in one process or several, in a batch or in the parts
        of it that gradients are accumulated over, and whether the run was interrupted before it or not.

        Args:
            batch: The batch.

        Returns:
            The source; None, torch's default generator, without a trainer: nobody then says which step it is.
        """
        if self._trainer is None:
            return None
        return Draws.of(self._seed, self.trainer.global_step, batch["index"])

    def on_fit_start(self) -> None:
        """Note the seed of the run, and let the network be computed as asked for."""
        self.computing.apply(self.network)
        seed = int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed() % 2**32))
        # Where nobody set one, every process has one of its own.
        self._seed: int = seed if self._trainer is None else self.trainer.strategy.broadcast(seed)

    def on_train_batch_start(self, batch: EcgBatch, batch_idx: int) -> None:
        """Seed torch's default generator by run, epoch, batch and process.

        It is for what no record can draw for itself (``draws``): the partners of mixup, who are of the same batch. They
        are the same whether the run was interrupted before this step or not, and processes do not draw alike.
        """
        step = (self._seed, self.current_epoch, batch_idx, self.global_rank)
        digest = hashlib.sha256(",".join(map(str, step)).encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        if batch_idx == 0:
            # Not at the start of the epoch: one that goes on in the middle starts as well.
            self._means["train"].clear()
            self._told_training = False

    def on_train_batch_end(self, outputs: Any, batch: EcgBatch, batch_idx: int) -> None:
        """Log the losses of the epoch behind its last batch: callbacks tell them before the module's own turn."""
        if self.trainer.is_last_batch or self.trainer.global_step == self.trainer.max_steps:
            self._log_means("train")
            self._told_training = True

    def on_train_epoch_end(self) -> None:
        """Log the losses of an epoch that ended before its last batch, or that a run which goes on finds finished."""
        if not self._told_training:
            self._log_means("train")

    def on_validation_epoch_start(self) -> None:
        """Begin the losses anew."""
        self._means["val"].clear()

    def on_validation_epoch_end(self) -> None:
        """Log the losses over all records."""
        self._log_means("val")

    def on_test_epoch_start(self) -> None:
        """Begin the losses anew."""
        self._means["test"].clear()

    def on_test_epoch_end(self) -> None:
        """Log the losses over all records."""
        self._log_means("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the preprocessing with the weights, and the losses of the epoch so far."""
        checkpoint["preprocessing"] = self.preprocessing.to_dict()
        checkpoint["epoch_means"] = self._means["train"].state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that were trained on signals prepared in another way, and a schedule of another length.

        Raises:
            CheckpointError: The checkpoint is not one of an ecgfair module.
            PreprocessingMismatchError: The preprocessings differ.
            ConfigurationError: The run that goes on is planned to be longer or shorter than the one that stopped.
        """
        if "preprocessing" not in checkpoint:
            raise CheckpointError("The checkpoint holds no preprocessing: expected one written by `ecgfair fit`.")
        found = Preprocessing.from_dict(checkpoint["preprocessing"])
        found.require_same(self.preprocessing, "the checkpoint", "the data")
        if self.global_rank == 0:
            self._means["train"].go_on(checkpoint.get("epoch_means", {}))
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            before = checkpoint["lr_schedulers"][0]["total_steps"]
            now = int(self.trainer.estimated_stepping_batches)
            if before != now:
                raise ConfigurationError(
                    f"The run of the checkpoint was planned for {before} steps, this one is for {now}: expected the "
                    "same, since the learning rate follows one cycle over the whole run. Go on with the same epochs, "
                    "data, batch size and devices, or start anew."
                )
