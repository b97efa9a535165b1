"""The prediction table: one row a record, all that an audit needs of a model, ours or any other."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from ecgfair.callbacks.fairness import Fairness
from ecgfair.callbacks.gather import all_records
from ecgfair.callbacks.measured import records_table
from ecgfair.callbacks.outputs import label_description, step_records
from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels.operating_points import OperatingPoints
from ecgfair.report.prediction_table import Metadata, write_predictions

FILE_NAME: Final = "predictions.parquet"


class PredictionTable(Callback):
    """Writes ``predictions.parquet`` into the run folder at the end of ``test`` and of ``predict``.

    Columns: record_id, patient_id, fold, age, sex, further ones of the store, ``probability/<label>`` and
    ``target/<label>`` for every label, and the fingerprint of the model. Every record is there once, in the order of
    the store, at any number of processes. The labels' training prevalences and the thresholds that ``Fairness`` chose
    on validation records go into the file's metadata, so that ``audit`` needs this file alone.

    Args:
        columns: Further columns of the store's table of records, such as those of a device or a site to group by.
    """

    def __init__(self, columns: tuple[str, ...] = ()) -> None:
        self.columns = tuple(columns)
        self._batches: list[dict[str, Tensor]] = []

    @override
    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches = []

    @override
    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches = []

    @override
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._batches.append(step_records("test_step", pl_module, outputs, batch, dataloader_idx))

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._batches.append(step_records("predict_step", pl_module, outputs, batch, dataloader_idx))

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    @override
    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        records = all_records(self._batches, trainer, pl_module)
        self._batches = []
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        table = records_table(records, trainer, self.columns)
        if table is None:
            source = getattr(trainer, "datamodule", None)
            raise ConfigurationError(
                f"PredictionTable asks the data module for the ids of its records; {type(source).__name__} has no "
                "records(index, columns). Expected a data module of ecgfair."
            )
        names, prevalence = label_description(pl_module)
        metadata = Metadata(
            dict(zip(names, prevalence, strict=True)), _operating_points(trainer), model_fingerprint(pl_module)
        )
        answers = records["probabilities"], records["targets"]
        write_predictions(folder / FILE_NAME, table, *answers, names, metadata)


def _operating_points(trainer: Trainer) -> OperatingPoints | None:
    """The thresholds that came with the weights, if a callback keeps them."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set in the trainer's constructor
        if isinstance(callback, Fairness):
            return callback.operating_points
    return None


def model_fingerprint(module: LightningModule) -> str:
    """Return a SHA-256 of all weights and buffers of a module, by name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
