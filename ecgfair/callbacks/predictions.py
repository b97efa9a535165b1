"""The prediction table: one row a record, all that an audit needs of a model, ours or any other."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from ecgfair.callbacks.gather import all_records
from ecgfair.callbacks.outputs import label_description, step_records
from ecgfair.errors import ConfigurationError

FILE_NAME: Final = "predictions.parquet"


@runtime_checkable
class RecordSource(Protocol):
    """A data module that can name the records it streams."""

    def records(self, index: NDArray[Any]) -> pd.DataFrame:
        """Return record_id, patient_id, fold, age and sex of the records at these positions, a row each."""
        ...


class PredictionTable(Callback):
    """Writes ``predictions.parquet`` into the run folder at the end of ``test`` and of ``predict``.

    Columns: record_id, patient_id, fold, age, sex, ``probability/<label>`` and ``target/<label>`` for every label, and
    the fingerprint of the model. Every record is there once, in the order of the store, at any number of processes.
    """

    def __init__(self) -> None:
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
        source = trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer's entry points
        if not isinstance(source, RecordSource):
            raise ConfigurationError(
                f"PredictionTable asks the data module for the ids of its records; {type(source).__name__} has no "
                "records(index). Expected a data module of ecgfair."
            )
        names, _ = label_description(pl_module)
        table = source.records(records["index"].numpy()).reset_index(drop=True)
        columns = {
            f"{kind}/{name}": records[field][:, column].numpy()
            for column, name in enumerate(names)
            for kind, field in (("probability", "probabilities"), ("target", "targets"))
        }
        table = pd.concat([table, pd.DataFrame(columns)], axis=1)
        table["model_fingerprint"] = model_fingerprint(pl_module)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{FILE_NAME}.partial"
        table.to_parquet(partial, index=False)
        # A reader never sees half a table, and an interrupted run keeps the one before.
        partial.replace(folder / FILE_NAME)


def model_fingerprint(module: LightningModule) -> str:
    """Return a SHA-256 of all weights and buffers of a module, by name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
