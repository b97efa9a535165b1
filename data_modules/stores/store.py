"""RecordStore: prepared records in a folder, read at random; ``store_writer`` makes one, whole or not at all.

A store holds ``manifest.json`` (preprocessing, label sets, counts, size and checksum of every other file),
``records.parquet`` (one row a record, in store order), ``rejected.parquet`` (what was left out, and why) and
``signals-00000.arrow`` and so on: uncompressed Arrow files with one fixed-size int16 row a record, leads by time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_modules.stores.intact import COMPARED_BYTES, Intact
from data_modules.stores.schema import RECORDS, RECORDS_SCHEMA, REJECTED
from data_modules.stores.shard import MAPPED_BYTES, Shard
from data_modules.stores.store_files import MANIFEST, StoreFiles, store_files
from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError, StoreError, did_you_mean

FORMAT_VERSION: Final = 2
_MOST_OPEN: Final = 400
"""Files of signals open at a time, of the 1,024 files that a process may commonly open."""

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

    Opening reads the manifest alone and compares the size of each file with it; a file of signals is compared by its
    checksum before it is first read, up to ``COMPARED_BYTES`` of signals, see ``Intact``; ``verify`` reads everything.

    Args:
        location: Folder of the store, or a URI such as ``s3://bucket/store``, see ``store_files``: its files are then
            fetched whole, at their first use, into a bounded cache on this machine.

    Attributes:
        files: Where its files lie.
        location: The folder or URI, as messages show it.
        manifest: What ``manifest.json`` says.
        preprocessing: How the signals were prepared.
        label_sets: Label set -> label -> the codes that make it positive.

    Raises:
        StoreError: The folder is no finished store, is of another format version, or a file is missing or incomplete.
    """

    def __init__(self, location: str | Path) -> None:
        self._given = location
        self.files = store_files(location)
        self.location = self.files.location
        self.manifest = read_manifest(self.files)
        self.preprocessing = Preprocessing.from_dict(self.manifest["preprocessing"])
        self.label_sets: dict[str, dict[str, list[str]]] = self.manifest["label_sets"]
        ends = np.cumsum([shard["rows"] for shard in self.manifest["shards"]], dtype=np.int64)
        self._starts = np.concatenate(([0], ends)).astype(np.int64)
        self._shards: OrderedDict[int, Shard] = OrderedDict()
        self._records: pa.Table | None = None
        self._check_files()
        self._bytes = sum(self.manifest["files"][shard["file"]]["bytes"] for shard in self.manifest["shards"])

    def __reduce__(self) -> tuple[Callable[..., RecordStore], tuple[str | Path]]:
        return RecordStore, (self._given,)

    def __len__(self) -> int:
        """Return the number of records."""
        return int(self._starts[-1])

    @property
    def path(self) -> Path:
        """The folder of a store that lies on this machine."""
        return Path(self.location)

    @property
    def source_name(self) -> str:
        """What the records are from."""
        return str(self.manifest["source_name"])

    @property
    def shard_starts(self) -> NDArray[np.int64]:
        """(shards + 1,) position of the first record of each file of signals, and the number of records."""
        return self._starts

    @property
    def records(self) -> pa.Table:
        """The whole table of records, see ``RECORDS_SCHEMA``; read at the first call. ``columns`` reads less."""
        if self._records is None:
            self._records = self.columns(RECORDS_SCHEMA.names)
        return self._records

    @property
    def column_names(self) -> list[str]:
        """Names of the columns of the table of records."""
        with self._parquet(RECORDS) as file:
            return list(file.schema_arrow.names)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Read some columns of the table of records, and nothing else of it.

        Raises:
            StoreError: The table can't be read, or has another number of rows than the manifest says.
        """
        table = self._read_table(RECORDS, list(names))
        if table.num_rows != len(self):
            raise StoreError(
                f"{self.location}/{RECORDS} has {table.num_rows} rows, {MANIFEST} says {len(self)}: "
                "prepare the store again."
            )
        return table

    @property
    def rejected(self) -> pa.Table:
        """The table of what was left out: ``record_id`` and ``reason``."""
        return self._read_table(REJECTED)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the manifest, which holds the checksum of every file: the same for the same content."""
        content = {name: value for name, value in self.manifest.items() if name != "ecgfair_version"}
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    def column_parts(self, name: str) -> Iterator[pa.Array]:
        """Yield one column of the table of records part by part, for what would be too much at once."""
        with self._parquet(RECORDS) as file:
            for batch in file.iter_batches(columns=[name], use_threads=False):
                yield batch.column(0)

    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.int16]:
        """Copy records out of the files of signals.

        Args:
            indices: (B,) positions in the store, in any order, repeated or not.

        Returns:
            (B, leads, time) int16, in the order of ``indices``; times ``preprocessing.scale`` these are millivolts.

        Raises:
            IndexError: A position is negative or beyond the last record.
            StoreError: A file of signals can't be read, or was changed since it was written.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(
                f"Positions {indices.min()} to {indices.max()} asked of {self.location}, "
                f"which has 0 to {len(self) - 1}."
            )
        numbers = np.searchsorted(self._starts, indices, side="right") - 1
        rows = indices - self._starts[numbers]
        signals = np.empty((indices.size, len(self.preprocessing.leads), self.preprocessing.length), dtype=np.int16)
        shards = {number: self._shard(number) for number in dict.fromkeys(numbers.tolist())}
        try:
            if len(shards) == 1:
                shards.popitem()[1].take(rows, signals)
            else:
                # A record at a time into its place is one copy; gathered by file and then put in order it would be two.
                for place, (number, row) in enumerate(zip(numbers.tolist(), rows.tolist(), strict=True)):
                    shards[number].read(row, signals[place])
        except OSError as error:
            raise StoreError(f"{self.location}: signals can't be read ({error}): copy the store again.") from error
        return signals

    def labels(self, label_set: str, min_likelihood: float = 0.0) -> tuple[list[str], NDArray[np.uint8]]:
        """Return one column of zeros and ones a label.

        Args:
            label_set: One of ``label_sets``.
            min_likelihood: Percent from which on a statement counts. A statement without a likelihood (0) always
                counts: in PTB-XL nearly all of form and rhythm have none, and a third of the diagnoses.

        Returns:
            The labels' names, and (records, labels) uint8.

        Raises:
            ConfigurationError: The store has no such label set, or the likelihood is no percentage.
        """
        if label_set not in self.label_sets:
            raise ConfigurationError(
                f"{self.location} has no label set {label_set!r}.{did_you_mean(label_set, self.label_sets)}"
            )
        labels = self.label_sets[label_set]
        return list(labels), self.positive(labels, min_likelihood)

    def positive(self, labels: Mapping[str, Sequence[str]], min_likelihood: float = 0.0) -> NDArray[np.uint8]:
        """Return (records, labels) uint8, 1 where a record has a code of the label.

        Args:
            labels: Label -> the codes that make it positive.
            min_likelihood: See ``labels``.

        Raises:
            ConfigurationError: The likelihood is no percentage.
        """
        if not 0 <= min_likelihood <= 100:
            raise ConfigurationError(f"min_likelihood is {min_likelihood:g}: expected 0 to 100 percent.")
        codes = list(dict.fromkeys(code for members in labels.values() for code in members))
        table = self.columns(["codes", "likelihoods"])
        stated = table.column("codes").combine_chunks()
        likelihoods = pc.list_flatten(table.column("likelihoods")).to_numpy()
        code = pc.index_in(pc.list_flatten(stated), value_set=pa.array(codes, pa.string())).fill_null(-1).to_numpy()
        row = pc.list_parent_indices(stated).to_numpy()
        counted = (code >= 0) & ((likelihoods >= min_likelihood) | (likelihoods == 0))
        code, row = code[counted], row[counted]
        positive = np.zeros((len(self), len(labels)), dtype=np.uint8)
        for column, members in enumerate(labels.values()):
            belongs = np.array([name in members for name in codes], dtype=bool)
            positive[row[belongs[code]], column] = 1
        return positive

    def verify(self) -> None:
        """Read every file, where it lies, and compare its checksum with the manifest's.

        Raises:
            StoreError: A file was changed or damaged; the message names it.
        """
        self._check_files()
        for name, entry in self.manifest["files"].items():
            if self.files.checksum(name) != entry["sha256"]:
                raise StoreError(
                    f"{self.location}/{name} is damaged: its SHA-256 is not the manifest's. Prepare the store again."
                )

    def _check_files(self) -> None:
        needed = [RECORDS, REJECTED, *(shard["file"] for shard in self.manifest["shards"])]
        sizes = self.files.sizes()
        for name in dict.fromkeys((*needed, *self.manifest["files"])):
            entry = self.manifest["files"].get(name)
            if entry is None or PurePath(name).name != name:
                raise StoreError(
                    f"{self.location}/{MANIFEST} is damaged: it does not list {name!r} among the store's files."
                )
            if sizes is None:
                continue  # not told there at once; each file is compared as it is fetched
            if name not in sizes:
                raise StoreError(f"{self.location}/{name} is missing: copy the store again, or prepare it again.")
            if sizes[name] != entry["bytes"]:
                raise StoreError(
                    f"{self.location}/{name} has {sizes[name]} bytes, {MANIFEST} says {entry['bytes']}: "
                    "copy the store again, or prepare it again."
                )

    def _read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        with self._parquet(name) as file:
            # Threads would each keep memory of their own for what they read.
            return file.read(columns, use_threads=False)

    @contextmanager
    def _parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        try:
            mapped = self.files.open(name, self.manifest["files"][name]).map()
            yield pq.ParquetFile(pa.BufferReader(pa.py_buffer(mapped)))
        except (pa.ArrowInvalid, OSError, ValueError) as error:
            raise StoreError(f"{self.location}/{name} can't be read ({error}): prepare the store again.") from error

    def _shard(self, number: int) -> Shard:
        """Open a file of signals at its first use. The one unused for longest is let go."""
        described = self.manifest["shards"][number]
        name, entry = described["file"], self.manifest["files"][described["file"]]
        if number in self._shards and self.files.keeps(entry, use=True):
            self._shards.move_to_end(number)
            self._shards[number].intact.check()
            return self._shards[number]
        shape = (described["rows"], len(self.preprocessing.leads), self.preprocessing.length)
        file = self.files.open(name, entry)
        intact = Intact(file, f"{self.location}/{name}", entry, at_once=self._bytes <= COMPARED_BYTES)
        intact.check()
        try:
            shard = Shard(
                file,
                intact,
                shape,
                is_mapped=self._bytes <= MAPPED_BYTES,
                is_random=self._bytes > _physical_memory() / 2,
            )
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise StoreError(
                f"{self.location}/{name} can't be read as {shape} signals ({error}): prepare the store again."
            ) from error
        self._shards.pop(number, None)
        self._let_go()
        self._shards[number] = shard
        return shard

    def _let_go(self) -> None:
        """Close what the cache no longer keeps, and the one unused for longest where too many are open."""
        files = self.manifest["files"]
        for number in list(self._shards):
            if not self.files.keeps(files[self.manifest["shards"][number]["file"]], use=False):
                del self._shards[number]
        while len(self._shards) >= _MOST_OPEN:
            self._shards.popitem(last=False)


def _physical_memory() -> float:
    """Return the machine's memory in bytes; infinite where it is not told."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def read_manifest(files: StoreFiles) -> dict[str, Any]:
    """Read and check ``manifest.json``, without a look at the other files.

    Raises:
        StoreError: It is missing, of another version, or not what a StoreWriter writes.
    """
    file = f"{files.location}/{MANIFEST}"
    try:
        manifest = json.loads(files.read(MANIFEST))
    except FileNotFoundError as error:
        raise StoreError(
            f"{files.location} is not a RecordStore, or an unfinished one: it has no {MANIFEST}. {_HOW_TO_PREPARE}"
        ) from error
    except ValueError as error:
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
