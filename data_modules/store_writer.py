"""StoreWriter: a RecordStore is written beside its place and moved there when it is whole."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_modules.records import LabelSets, Rejected
from data_modules.store import (
    FORMAT_VERSION,
    MANIFEST,
    RECORDS,
    RECORDS_SCHEMA,
    REJECTED,
    REJECTED_SCHEMA,
    checksum,
    read_manifest,
)
from ecgfair import __version__
from ecgfair.ecg import Preprocessing
from ecgfair.errors import RecordError, StoreError

_STEPS: Final = np.iinfo(np.int16)


@dataclass(frozen=True)
class StoreRow:
    """One row of ``records.parquet``; its fields are the columns of ``RECORDS_SCHEMA``."""

    record_id: str
    patient_id: str
    age: float | None
    sex: int | None
    fold: int | None
    recorded_at: str | None
    codes: list[str]
    likelihoods: list[float]
    beats: list[int]
    heart_rate: float | None
    pr: float | None
    qrs: float | None
    qt: float | None
    qtc: float | None
    notes: list[str]


def to_int16(signal: NDArray[np.floating[Any]], scale: float) -> NDArray[np.int16]:
    """Round millivolts to integer steps of ``scale``.

    Args:
        signal: (leads, time) finite millivolts.
        scale: Millivolts a step.

    Raises:
        RecordError: A voltage is beyond what int16 holds; clipping it would draw a plateau nobody's heart made.
    """
    steps = np.rint(signal / scale)
    beyond = int(np.count_nonzero((steps < _STEPS.min) | (steps > _STEPS.max)))
    if beyond:
        raise RecordError(
            f"voltage too high: {beyond} samples, up to {np.abs(signal).max():.6g} mV, are beyond "
            f"{_STEPS.max * scale:g} mV, the most that int16 holds at {scale:g} mV a step."
        )
    return np.asarray(steps, dtype=np.int16)


class StoreWriter:
    """Writes a RecordStore; nothing is at ``path`` until all of it is, and nothing stays anywhere after an error.

    To be used as a context manager. Memory is bounded by one shard. The same rows in the same order make the same
    bytes.

    Args:
        path: Folder to write; its parents are made.
        preprocessing: How the signals were prepared.
        label_sets: Label set -> label -> codes.
        source_name: What the records are from.
        shard_rows: Records a file of signals.
        overwrite: Replace the store that is there, once the new one is whole.

    Raises:
        StoreError: Something is at ``path`` already and is not to be overwritten, or is no store.
    """

    def __init__(
        self,
        path: str | Path,
        preprocessing: Preprocessing,
        label_sets: LabelSets,
        source_name: str,
        shard_rows: int = 2048,
        *,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path).absolute()
        self._preprocessing = preprocessing
        self._label_sets = label_sets
        self._source_name = source_name
        self._overwrite = overwrite
        self._partial = self.path.with_name(f"{self.path.name}.partial-{os.getpid()}")
        self._signals = np.empty((shard_rows, len(preprocessing.leads), preprocessing.length), dtype=np.int16)
        self._rows: list[StoreRow] = []
        self._shards: list[dict[str, Any]] = []
        self._rejected: list[Rejected] = []
        self._positives: Counter[str] = Counter()
        self._check_place()

    def __enter__(self) -> Self:
        shutil.rmtree(self._partial, ignore_errors=True)  # of a dead process that had this number
        with self._writing():
            self._partial.mkdir(parents=True)
            self._table = pq.ParquetWriter(self._partial / RECORDS, RECORDS_SCHEMA, compression="zstd")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with self._writing():
                    self._finish()
            else:
                self._table.close()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def append(self, row: StoreRow, signal: NDArray[np.int16]) -> None:
        """Add a record.

        Args:
            row: What is known about it.
            signal: (leads, time) steps of ``preprocessing.scale`` millivolts.
        """
        self._signals[len(self._rows)] = signal
        self._rows.append(row)
        self._positives.update(row.codes)
        if len(self._rows) == len(self._signals):
            with self._writing():
                self._flush()

    def reject(self, rejected: Rejected) -> None:
        """Note a record that was left out."""
        self._rejected.append(rejected)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say what a full disk or a forbidden folder means for the store."""
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.path} can't be written ({error}): make room, or choose another folder.") from error

    def _check_place(self) -> None:
        if not os.path.lexists(self.path):
            return
        if not self._overwrite:
            raise StoreError(f"{self.path} is there already: remove it, choose another folder, or say overwrite.")
        read_manifest(self.path)  # what is no store is somebody's work, and never removed

    def _flush(self) -> None:
        """Write the rows gathered so far as one shard and one row group."""
        if not self._rows:
            return
        name = f"signals-{len(self._shards):05d}.arrow"
        values = pa.array(self._signals[: len(self._rows)].reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, self._signals[0].size)
        layout = {
            "layout": "leads, time",
            "leads": json.dumps(list(self._preprocessing.leads)),
            "length": str(self._preprocessing.length),
            "sampling_rate": str(self._preprocessing.sampling_rate),
            "millivolts_per_step": repr(self._preprocessing.scale),
        }
        schema = pa.schema([pa.field("signal", column.type, nullable=False)], metadata=layout)
        with pa.OSFile(str(self._partial / name), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch([column], schema=schema))
        self._table.write_table(pa.Table.from_pylist([asdict(row) for row in self._rows], RECORDS_SCHEMA))
        self._shards.append({"file": name, "rows": len(self._rows)})
        self._rows.clear()

    def _finish(self) -> None:
        self._flush()
        self._table.close()
        rejected = pa.Table.from_pylist([asdict(entry) for entry in self._rejected], REJECTED_SCHEMA)
        pq.write_table(rejected, self._partial / REJECTED, compression="zstd")
        names = [RECORDS, REJECTED, *(shard["file"] for shard in self._shards)]
        manifest = {
            "format_version": FORMAT_VERSION,
            "ecgfair_version": __version__,
            "source_name": self._source_name,
            "preprocessing": self._preprocessing.to_dict(),
            "label_sets": {
                name: {label: list(codes) for label, codes in labels.items()}
                for name, labels in self._label_sets.items()
            },
            "counts": {
                "records": sum(shard["rows"] for shard in self._shards),
                "rejected": len(self._rejected),
                "positives": dict(sorted(self._positives.items())),
            },
            "shards": self._shards,
            "files": {name: self._entry(name) for name in names},
        }
        (self._partial / MANIFEST).write_text(
            json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        self._move()

    def _entry(self, name: str) -> dict[str, Any]:
        path = self._partial / name
        return {"bytes": path.stat().st_size, "sha256": checksum(path)}

    def _move(self) -> None:
        """Put the finished folder in its place; an old store stays until the new one stands where it stood."""
        self._check_place()
        old = self.path.with_name(f"{self.path.name}.old-{os.getpid()}")
        replaces = os.path.lexists(self.path)
        if replaces:
            self.path.rename(old)
        try:
            self._partial.rename(self.path)
        except OSError:
            if replaces:
                old.rename(self.path)
            raise
        if replaces:
            shutil.rmtree(old)
