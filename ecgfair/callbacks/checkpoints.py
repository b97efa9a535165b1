"""What a run keeps of its weights: the best and the last checkpoint, and the encoder for stage 2."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from ecgfair.errors import ConfigurationError
from ecgfair.training import PretrainModule
from ecgfair.training.checkpoint_io import remove_drafts

BEST: Final = "checkpoints/best.ckpt"
"""Where in the run folder the checkpoint lies that the validation folds chose."""

LAST: Final = "checkpoints/last.ckpt"
"""Where in the run folder the checkpoint lies that a run goes on from."""

ENCODER: Final = "encoder"
"""Where in the run folder the encoder checkpoint of the best epoch lies."""


def last_checkpoint(trainer: Trainer) -> Path | None:
    """Return the checkpoint that the run would go on from, None if it has none yet."""
    path = Path(trainer.default_root_dir) / LAST
    return path if path.is_file() else None


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/best.ckpt``, by a metric of the validation folds, and ``checkpoints/last.ckpt``.

    Args:
        monitor: Key of the metric.
        mode: Whether the best value is the least or the greatest.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"]) -> None:
        # Without the version counter the best checkpoint keeps its name, so that `test` finds it.
        super().__init__(
            monitor=monitor,
            mode=mode,
            filename="best",
            save_last=True,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Of the run, not of the verb: `test` logs into a folder of its own, and its checkpoints are those of `fit`.
        folder = Path(trainer.default_root_dir) / "checkpoints"
        self.dirpath = str(folder)
        if stage == TrainerFn.FITTING and trainer.is_global_zero:
            remove_drafts(folder)
        super().setup(trainer, pl_module, stage)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self._should_save_on_train_epoch_end(trainer):
            self._keep_last(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer):
            self._keep_last(trainer)

    def _should_save_on_train_epoch_end(self, trainer: Trainer) -> bool:
        """Save behind each validation, and at the end of epochs where there is none.

        The last of an epoch is saved before its training metrics are logged: who goes on from it finishes the epoch,
        and logs them. Saved after that, they would be lost to a process that dies in between.
        """
        return sum(trainer.num_val_batches) == 0

    def _keep_last(self, trainer: Trainer) -> None:
        """Write the last checkpoint where Lightning did not: it does beside a new best one only.

        Who goes on from that one would repeat all that followed the best epoch.
        """
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


class EncoderExport(Callback):
    """Writes the encoder checkpoint of stage 1 to ``encoder/`` at each best epoch and to ``encoder_last/`` at the end.

    Args:
        monitor: Key of the metric; the best value is the least.
    """

    def __init__(self, monitor: str = "val/loss") -> None:
        self.monitor = monitor
        self.best = math.inf

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            raise ConfigurationError(
                f"EncoderExport watches {self.monitor!r}, which validation did not log. Logged: "
                f"{', '.join(sorted(trainer.callback_metrics))}."
            )
        value = float(trainer.callback_metrics[self.monitor])
        if value < self.best:
            self.best = value
            self._write(trainer, pl_module, ENCODER)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, f"{ENCODER}_last")

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def _write(self, trainer: Trainer, pl_module: LightningModule, name: str) -> None:
        if not isinstance(pl_module, PretrainModule):
            raise ConfigurationError(
                f"EncoderExport belongs to a PretrainModule; this one is a {type(pl_module).__name__}."
            )
        if trainer.is_global_zero:
            pl_module.save_encoder(Path(trainer.default_root_dir) / name)
