"""The prediction table: one row a record, all that an audit needs of a model, ours or any other.

A module that tells labels gives probabilities, one that scores anomalies gives scores, one that does both gives both.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, cast

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from ecgfair.callbacks.anomaly import AnomalyDetection
from ecgfair.callbacks.anomaly_records import AnomalyScorer, data_labels, no_scored_records, scored_records
from ecgfair.callbacks.epoch_measurement import data_of
from ecgfair.callbacks.fairness import Fairness
from ecgfair.callbacks.gather import all_records
from ecgfair.callbacks.measured import records_table
from ecgfair.callbacks.outputs import label_description, no_records, step_records
from ecgfair.callbacks.run_folder import leaves_files, run_folder
from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels.operating_points import OperatingPoints
from ecgfair.report.prediction_table import (
    ANOMALY_PERCENTILE,
    ANOMALY_SCORE,
    ANOMALY_TERM,
    Metadata,
    write_predictions,
)

FILE_NAME: Final = "predictions.parquet"


class PredictionTable(Callback):
    """Writes ``predictions.parquet`` into the run folder at the end of ``test`` and of ``predict``.

    Columns: record_id, patient_id, fold, age, sex, further ones of the store, ``probability/<label>`` and
    ``target/<label>`` for every label, and the fingerprint of the model. Every record is there once, in the order of
    the store, at any number of processes. The prevalences of the labels in what the module was trained on, where these
    are known, the thresholds that ``Fairness`` chose on validation records, and which data the records are of go into
    the file's metadata, so that ``audit`` needs this file alone.

    A module with ``anomaly_scores`` adds ``anomaly_score``, ``anomaly/<term>`` for every term of it, and
    ``anomaly_percentile`` (stranger than this share of normals) where ``AnomalyDetection`` calibrated on validation
    records. One that has no ``label_names`` of its own, as in stage 1, has no probabilities: the targets are then those
    of the data, and no prevalence is written, because the module has not learnt from labels.

    Args:
        columns: Further columns of the store's table of records, such as those of a device or a site to group by.
    """

    def __init__(self, columns: tuple[str, ...] = ()) -> None:
        self.columns = tuple(columns)
        self._batches: list[dict[str, Tensor]] = []
        self._scored: list[dict[str, Tensor]] = []

    @override
    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches, self._scored = [], []

    @override
    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches, self._scored = [], []

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
        self._keep("test_step", trainer, pl_module, outputs, batch, dataloader_idx)

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
        self._keep("predict_step", trainer, pl_module, outputs, batch, dataloader_idx)

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    @override
    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def _keep(
        self, step: str, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, dataloader_idx: int
    ) -> None:
        if isinstance(pl_module, AnomalyScorer):
            labels = len(data_labels(trainer, pl_module))
            self._scored.append(scored_records(step, pl_module, outputs, batch, labels, dataloader_idx))
        if _tells_labels(pl_module):
            self._batches.append(step_records(step, pl_module, outputs, batch, dataloader_idx))

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        records = scored = None
        if _tells_labels(pl_module):
            nobody = no_records(len(label_description(pl_module)[0]))
            records = all_records(nobody, self._batches, trainer)
        if isinstance(pl_module, AnomalyScorer):
            nobody = no_scored_records(len(data_labels(trainer, pl_module)), len(pl_module.anomaly_parts))
            scored = all_records(nobody, self._scored, trainer)
        self._batches, self._scored = [], []
        folder = run_folder(trainer)
        rows = scored if records is None else records
        if rows is None or not trainer.is_global_zero or not leaves_files(trainer):
            return
        table = records_table(rows, trainer, self.columns)
        if table is None:
            source = getattr(trainer, "datamodule", None)
            raise ConfigurationError(
                f"PredictionTable asks the data module for the ids of its records; {type(source).__name__} has no "
                "records(index, columns). Expected a data module of ecgfair."
            )
        if scored is not None:
            table = _with_scores(table, scored, cast("AnomalyScorer", pl_module).anomaly_parts, trainer)
        fingerprint = model_fingerprint(pl_module)
        if records is None:
            names, metadata = (
                data_labels(trainer, pl_module),
                Metadata(model_fingerprint=fingerprint, data=data_of(trainer)),
            )
        else:
            names, prevalence = label_description(pl_module)
            shares = None if prevalence is None else dict(zip(names, prevalence, strict=True))
            metadata = Metadata(shares, _operating_points(trainer), fingerprint, data_of(trainer))
        probabilities = None if records is None else records["probabilities"]
        write_predictions(folder / FILE_NAME, table, probabilities, rows["targets"], names, metadata)


def _tells_labels(pl_module: LightningModule) -> bool:
    """Whether to expect probabilities; a module that does neither is told by ``step_records`` what it lacks."""
    return hasattr(pl_module, "label_names") or not isinstance(pl_module, AnomalyScorer)


def _with_scores(
    table: pd.DataFrame, scored: dict[str, Tensor], terms: tuple[str, ...], trainer: Trainer
) -> pd.DataFrame:
    """Add the columns of the anomaly scores of the same records in the same order."""
    columns = {ANOMALY_SCORE: scored["score"].numpy()}
    columns |= {ANOMALY_TERM.format(term=term): scored["parts"][:, row].numpy() for row, term in enumerate(terms)}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set in the trainer's constructor
        if isinstance(callback, AnomalyDetection) and callback.calibration is not None:
            shares = callback.calibration.percentile(scored["score"], scored["age"], scored["sex"])
            columns[ANOMALY_PERCENTILE] = shares.numpy()
    return table.assign(**columns)


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
