"""Stops a training whose loss or weights are no numbers any more, before that gets into a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from ecgfair.callbacks.checkpoints import last_checkpoint
from ecgfair.callbacks.gather import gather_rows
from ecgfair.callbacks.measured import records_table
from ecgfair.ecg import EcgBatch
from ecgfair.errors import DivergedError

VALIDATION_LOSS = "val/loss"


class FiniteLoss(Callback):
    """Stops where a training loss is NaN or infinite, names the records of its batch, and keeps the last checkpoint.

    The loss is looked at before its gradients are taken, so the weights are those before the step. Of several processes
    all stop together, and the records are those of the process whose loss it was: that costs one reduction of one
    number a batch, and on a GPU waiting for the loss. A gradient that is not finite shows in the loss of the next
    batch; so that no checkpoint is written in between, weights are looked at before each one is.

    A validation loss that is not finite does not stop a training: nothing is learned from it, and the epoch can't be
    the best. It is told in a warning.
    """

    def __init__(self) -> None:
        self._index: Tensor | None = None

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: EcgBatch, batch_idx: int
    ) -> None:
        """Remember which records the batch has."""
        self._index = batch["index"]

    @override
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look at the loss.

        Raises:
            DivergedError: It is not finite, here or in another process.
        """
        is_ours = not bool(torch.isfinite(loss.detach()).all())
        if not trainer.strategy.reduce_boolean_decision(is_ours, all=False):
            return
        names = self._record_names(trainer, is_ours)
        raise DivergedError(
            f"The training loss is not finite at epoch {trainer.current_epoch}, step {trainer.global_step}, in the "
            f"batch of the records {', '.join(names)}. {_kept(trainer)} Look at these records "
            "(`python -m ecgfair inspect STORE RECORD`), clip gradients (--trainer.gradient_clip_val) or lower the "
            "learning rate: the same settings would come to the same loss."
        )

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of a validation loss that is not finite, unless that is the weights' fault.

        Raises:
            DivergedError: A weight is not finite.
        """
        value = trainer.callback_metrics.get(VALIDATION_LOSS)
        if value is not None and not trainer.sanity_checking and not bool(torch.isfinite(value)):
            _check_weights(trainer, pl_module)
            rank_zero_warn(
                f"{VALIDATION_LOSS} is {float(value)} at epoch {trainer.current_epoch}, step {trainer.global_step}: "
                "training goes on, but this epoch can't be the best by it."
            )

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look at the weights; every process has the same.

        Raises:
            DivergedError: One is not finite.
        """
        _check_weights(trainer, pl_module)

    def _record_names(self, trainer: Trainer, is_ours: bool) -> list[str]:
        """Return the ids of the records of all processes whose loss it was; every process is asked."""
        own = torch.zeros(0, dtype=torch.int64) if self._index is None else self._index.cpu()
        index = gather_rows({"index": own if is_ours else own[:0]}, trainer)["index"]
        table = records_table({"index": index}, trainer)
        if table is None:
            return [f"at position {position}" for position in index.tolist()]
        return [str(name) for name in table["record_id"]]


def _check_weights(trainer: Trainer, pl_module: LightningModule) -> None:
    for name, value in pl_module.named_parameters():
        if not bool(torch.isfinite(value).all()):
            raise DivergedError(
                f"The weight {name} is not finite at epoch {trainer.current_epoch}, step {trainer.global_step}, "
                f"after a gradient that was not. {_kept(trainer)} Clip gradients (--trainer.gradient_clip_val) or "
                "lower the learning rate: the same settings would come to the same weights."
            )


def _kept(trainer: Trainer) -> str:
    kept = last_checkpoint(trainer)
    return f"The last good checkpoint is {kept}." if kept is not None else "There is no checkpoint yet."
