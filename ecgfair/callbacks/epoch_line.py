"""One line on the terminal an epoch: short enough for a log on a cluster, enough to see a run go well or badly."""

from __future__ import annotations

import time

import rich
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override


class EpochLine(Callback):
    """Prints epoch, seconds, losses and, where they are measured, macro AUROCs."""

    KEYS = (
        "train/loss",
        "val/loss",
        "val/auroc/macro",
        "val/auroc/tail",
        "val/fair/sex/worst_auroc",
        "val/anomaly/auroc",
    )

    def __init__(self) -> None:
        self._started = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that goes on may finish an epoch first that it does not start.
        self._started = time.monotonic()

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Validation runs inside the training epoch, so its metrics are there. Every process has to ask: what is asked
        # for first is reduced over all of them.
        metrics = trainer.callback_metrics
        if not trainer.is_global_zero:
            return
        values = [f"{key} {float(metrics[key]):.4f}" for key in self.KEYS if key in metrics]
        seconds = time.monotonic() - self._started
        line = f"epoch {trainer.current_epoch} of {trainer.max_epochs}, {seconds:.1f} s  {'  '.join(values)}"
        # One epoch stays one line in a log too, which has no width.
        rich.get_console().print(line, soft_wrap=True, highlight=False)
