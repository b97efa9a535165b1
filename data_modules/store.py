"""RecordStore: prepared records in a folder, read by memory mapping; StoreWriter makes one, whole or not at all.

A store holds ``manifest.json`` (preprocessing, label sets, counts, size and checksum of every other file),
``records.parquet`` (one row a record, in store order), ``rejected.parquet`` (what was left out, and why) and
``signals-00000.arrow`` and so on: uncompressed Arrow files with one fixed-size int16 row a record, leads by time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError, StoreError, did_you_mean

FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
RECORDS: Final = "records.parquet"
REJECTED: Final = "rejected.parquet"

RECORDS_SCHEMA: Final = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        ("age", pa.float32()),
        ("sex", pa.int8()),
        ("fold", pa.int8()),
        ("recorded_at", pa.string()),
        ("codes", pa.list_(pa.string())),
        ("likelihoods", pa.list_(pa.float32())),
        ("beats", pa.list_(pa.int32())),
        ("heart_rate", pa.float32()),
        ("pr", pa.float32()),
        ("qrs", pa.float32()),
        ("qt", pa.float32()),
        ("qtc", pa.float32()),
        ("notes", pa.list_(pa.string())),
    ]
)
"""Columns of ``records.parquet``; units as in ``ecgfair.ecg``, beats in samples, likelihoods in percent (0 unknown)."""

REJECTED_SCHEMA: Final = pa.schema(
    [pa.field("record_id", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)]
)

_MANIFEST_TYPES: Final = {
    "format_version": int,
    "ecgfair_version": str,
    "source_name": str,
    "preprocessing": dict,
    "label_sets": dict,
    "counts": dict,
    "shards": list,
    "files": dict,
}
_HOW_TO_PREPARE: Final = "`python -m ecgfair prepare` writes one."


class RecordStore:
    """A prepared data set on disk. Memory does not grow with it, and a DataLoader worker receives just its path.

    Opening reads the manifest alone and compares the size of each file with it; ``verify`` reads everything.

    Args:
        path: Folder of the store.

    Attributes:
        path: The folder.
        manifest: What ``manifest.json`` says.
        preprocessing: How the signals were prepared.
        label_sets: Label set -> label -> the codes that make it positive.

    Raises:
        StoreError: The folder is no finished store, is of another format version, or a file is missing or incomplete.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self.preprocessing = Preprocessing.from_dict(self.manifest["preprocessing"])
        self.label_sets: dict[str, dict[str, list[str]]] = self.manifest["label_sets"]
        ends = np.cumsum([shard["rows"] for shard in self.manifest["shards"]], dtype=np.int64)
        self._starts = np.concatenate(([0], ends)).astype(np.int64)
        self._shards: dict[int, NDArray[np.int16]] = {}
        self._records: pa.Table | None = None
        self._check_files()

    def __reduce__(self) -> tuple[Callable[..., RecordStore], tuple[Path]]:
        return RecordStore, (self.path,)

    def __len__(self) -> int:
        """Return the number of records."""
        return int(self._starts[-1])

    @property
    def records(self) -> pa.Table:
        """The table of records, see ``RECORDS_SCHEMA``; read at the first call."""
        if self._records is None:
            self._records = self._read_table(RECORDS)
            if self._records.num_rows != len(self):
                raise StoreError(
                    f"{self.path / RECORDS} has {self._records.num_rows} rows, {MANIFEST} says {len(self)}: "
                    "prepare the store again."
                )
        return self._records

    @property
    def rejected(self) -> pa.Table:
        """The table of what was left out: ``record_id`` and ``reason``."""
        return self._read_table(REJECTED)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the manifest, which holds the checksum of every file: the same for the same content."""
        content = {name: value for name, value in self.manifest.items() if name != "ecgfair_version"}
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.int16]:
        """Copy records out of the mapped files, one indexing operation a shard.

        Args:
            indices: (B,) positions in the store, in any order, repeated or not.

        Returns:
            (B, leads, time) int16, in the order of ``indices``; times ``preprocessing.scale`` these are millivolts.

        Raises:
            IndexError: A position is negative or beyond the last record.
            StoreError: A file of signals can't be read.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(
                f"Positions {indices.min()} to {indices.max()} asked of {self.path}, which has 0 to {len(self) - 1}."
            )
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        present = np.unique(shards)
        if present.size == 1:
            only = int(present[0])
            taken: NDArray[np.int16] = np.take(self._shard(only), indices - self._starts[only], axis=0)
            return taken
        signals = np.empty((indices.size, len(self.preprocessing.leads), self.preprocessing.length), dtype=np.int16)
        for shard in present.tolist():
            rows = np.flatnonzero(shards == shard)
            signals[rows] = np.take(self._shard(shard), indices[rows] - self._starts[shard], axis=0)
        return signals

    def labels(self, label_set: str, min_likelihood: float = 0.0) -> tuple[list[str], NDArray[np.float32]]:
        """Return one column of zeros and ones a label.

        Args:
            label_set: One of ``label_sets``.
            min_likelihood: Percent from which on a statement counts. A statement without a likelihood (0) always
                counts: in PTB-XL nearly all of form and rhythm have none, and a third of the diagnoses.

        Returns:
            The labels' names, and (records, labels) float32.

        Raises:
            ConfigurationError: The store has no such label set.
        """
        if label_set not in self.label_sets:
            raise ConfigurationError(
                f"{self.path} has no label set {label_set!r}.{did_you_mean(label_set, self.label_sets)}"
            )
        labels = self.label_sets[label_set]
        codes = list(dict.fromkeys(code for members in labels.values() for code in members))
        belongs = np.array([[code in members for members in labels.values()] for code in codes], dtype=np.float32)
        stated = self.records.column("codes").combine_chunks()
        likelihoods = pc.list_flatten(self.records.column("likelihoods")).to_numpy()
        column = pc.index_in(pc.list_flatten(stated), value_set=pa.array(codes, pa.string())).fill_null(-1).to_numpy()
        row = pc.list_parent_indices(stated).to_numpy()
        counted = (column >= 0) & ((likelihoods >= min_likelihood) | (likelihoods == 0))
        positive = np.zeros((len(self), len(codes)), dtype=np.float32)
        positive[row[counted], column[counted]] = 1
        return list(labels), np.minimum(positive @ belongs.reshape(len(codes), len(labels)), 1)

    def verify(self) -> None:
        """Read every file and compare its checksum with the manifest's.

        Raises:
            StoreError: A file was changed or damaged; the message names it.
        """
        self._check_files()
        for name, entry in self.manifest["files"].items():
            if checksum(self.path / name) != entry["sha256"]:
                raise StoreError(
                    f"{self.path / name} is damaged: its SHA-256 is not the manifest's. Prepare the store again."
                )

    def _check_files(self) -> None:
        needed = [RECORDS, REJECTED, *(shard["file"] for shard in self.manifest["shards"])]
        for name in dict.fromkeys((*needed, *self.manifest["files"])):
            entry = self.manifest["files"].get(name)
            if entry is None or PurePath(name).name != name:
                raise StoreError(
                    f"{self.path / MANIFEST} is damaged: it does not list {name!r} among the store's files."
                )
            path = self.path / name
            if not path.is_file():
                raise StoreError(f"{path} is missing: copy the store again, or prepare it again.")
            if path.stat().st_size != entry["bytes"]:
                raise StoreError(
                    f"{path} has {path.stat().st_size} bytes, {MANIFEST} says {entry['bytes']}: "
                    "copy the store again, or prepare it again."
                )

    def _read_table(self, name: str) -> pa.Table:
        try:
            return pq.ParquetFile(self.path / name).read()
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"{self.path / name} can't be read ({error}): prepare the store again.") from error

    def _shard(self, number: int) -> NDArray[np.int16]:
        """Map a shard at its first use; (rows, leads, time), read-only."""
        if number not in self._shards:
            entry = self.manifest["shards"][number]
            path = self.path / entry["file"]
            shape = (entry["rows"], len(self.preprocessing.leads), self.preprocessing.length)
            try:
                signals = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column("signal").flatten().to_numpy()
                self._shards[number] = signals.reshape(shape)
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                raise StoreError(
                    f"{path} can't be read as {shape} signals ({error}): prepare the store again."
                ) from error
        return self._shards[number]


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and check ``manifest.json``, without a look at the other files.

    Raises:
        StoreError: It is missing, of another version, or not what a StoreWriter writes.
    """
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"{path} is not a RecordStore, or an unfinished one: it has no {MANIFEST}. {_HOW_TO_PREPARE}"
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} can't be read ({error}): prepare the store again.") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{file} has format version {version!r}, this ecgfair reads {FORMAT_VERSION}: "
            "prepare the store again, or use the ecgfair that wrote it."
        )
    values: dict[str, Any] = manifest
    wrong = [name for name, kind in _MANIFEST_TYPES.items() if not isinstance(values.get(name), kind)]
    if wrong:
        raise StoreError(f"{file} is damaged: {', '.join(wrong)} missing or of another type. Prepare the store again.")
    return values


def checksum(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
