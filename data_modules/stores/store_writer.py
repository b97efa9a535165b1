"""StoreWriter: a RecordStore is written part by part beside its place, and goes on there if it was stopped.

``STORE.partial`` holds what a stopped preparation has done: ``plan.json`` (what is being prepared, and how), ``parts/``
(the tables of each part, and ``00000.json``, written last, which says that the part is done) and ``store/``, the store
to be. A part is the records at a fixed range of the reader's positions, so its bytes do not depend on where a
preparation was stopped, nor on how many processes worked.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from data_modules.records import LabelSets, Rejected
from data_modules.stores.schema import RECORDS, RECORDS_SCHEMA, REJECTED, REJECTED_SCHEMA, StoreRow
from data_modules.stores.store import FORMAT_VERSION, read_manifest
from data_modules.stores.store_files import MANIFEST, store_files
from ecgfair import __version__
from ecgfair.ecg import Preprocessing
from ecgfair.errors import SourceError, StoreError

_PLAN: Final = "plan.json"
_PARTS: Final = "parts"
_STORE: Final = "store"
_OLD: Final = "old"
_UNFINISHED: Final = ".unfinished"


@dataclass(frozen=True)
class Part:
    """What came of a range of the reader's positions.

    Args:
        rows: A row a record.
        signals: (leads, time) int16 steps of ``preprocessing.scale`` millivolts, a record each.
        rejected: What was left out.
    """

    rows: Sequence[StoreRow]
    signals: Sequence[NDArray[np.int16]]
    rejected: Sequence[Rejected]


class StoreWriter:
    """Writes a RecordStore; nothing is at ``path`` until all of it is.

    To be used as a context manager: leaving it without an error finishes the store. After an error or a kill what was
    done stays in ``path.partial``, and a writer of the same plan goes on there: the caller writes parts from ``done``
    on. A writer of another plan starts anew. Memory is bounded by one part, and the same parts make the same bytes.

    Args:
        path: Folder to write; its parents are made.
        preprocessing: How the signals were prepared.
        label_sets: Label set -> label -> codes.
        source_name: What the records are from.
        plan: Whatever else the parts depend on, for comparing with a preparation that was stopped; JSON values.
        overwrite: Replace the store that is there, once the new one is whole.

    Attributes:
        done: Parts there already; 0 at a fresh start.
        started_anew: What differs from a stopped preparation that was therefore thrown away; empty if none was.
        finished: Whether the stopped preparation had already put the whole store in its place.

    Raises:
        StoreError: Something is at ``path`` already and is not to be overwritten, or is no store; or another process
            is preparing it.
    """

    def __init__(
        self,
        path: str | Path,
        preprocessing: Preprocessing,
        label_sets: LabelSets,
        source_name: str,
        plan: Mapping[str, Any] | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path).absolute()
        if "://" in str(path):
            raise StoreError(
                f"{path} is a URI: prepare into a folder of this machine, then say "
                f"`python -m ecgfair publish FOLDER {path}`."
            )
        if not self.path.name:
            raise StoreError(f"{path} can't be a store: name a folder in it.")
        self.done = 0
        self.started_anew: tuple[str, ...] = ()
        self.finished = False
        self._preprocessing = preprocessing
        self._overwrite = overwrite
        self._partial = self.path.with_name(f"{self.path.name}.partial")
        self._parts, self._store = self._partial / _PARTS, self._partial / _STORE
        self._lock = FileLock(self._partial.with_suffix(".partial.lock"), blocking=False)
        self._plan = {
            "format_version": FORMAT_VERSION,
            "ecgfair_version": __version__,
            "source_name": source_name,
            "preprocessing": preprocessing.to_dict(),
            "label_sets": {
                name: {label: list(codes) for label, codes in labels.items()} for name, labels in label_sets.items()
            },
            **(plan or {}),
        }
        if not self._was_moved():
            self._check_place()

    def __enter__(self) -> Self:
        with self._writing():
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout as error:
                if not Path(self._lock.lock_file).exists():  # told as held where it can't be made
                    raise StoreError(f"{self.path} can't be written: choose another folder.") from error
                raise StoreError(
                    f"{self.path} is being prepared by another process: wait for it, or choose another folder."
                ) from error
            try:
                self._begin()
            except BaseException:
                self._release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None and not self.finished:
                with self._writing():
                    self._finish()
        except SourceError:
            self._give_up()
            raise
        finally:
            if self.finished or (error is not None and self.done == 0) or isinstance(error, SourceError):
                self._give_up()
            self._release()

    def write(self, part: Part) -> None:
        """Write the next part, ``done``, and count it as done once all of it is on disk."""
        with self._writing():
            number = self.done
            name = f"signals-{number:05d}.arrow"
            if part.rows:
                _replace(self._store / name, lambda path: self._write_signals(path, part.signals))
            for kind, table in (
                (RECORDS, pa.Table.from_pylist([vars(row) for row in part.rows], RECORDS_SCHEMA)),
                (REJECTED, pa.Table.from_pylist([vars(row) for row in part.rejected], REJECTED_SCHEMA)),
            ):
                _replace(self._parts / f"{number:05d}.{kind}", partial(pq.write_table, table))
            entry = {
                "rows": len(part.rows),
                "rejected": len(part.rejected),
                "positives": dict(sorted(Counter(code for row in part.rows for code in row.codes).items())),
                "shard": {"file": name, "rows": len(part.rows)} if part.rows else None,
                "entry": self._entry(name) if part.rows else None,
            }
            _replace(self._marker(number), lambda path: path.write_text(json.dumps(entry), encoding="utf-8"))
            self.done += 1

    def counts(self) -> tuple[int, int]:
        """Return how many records are stored and how many rejected, in the parts done so far."""
        parts = [self._read_marker(number) for number in range(self.done)]
        return sum(part["rows"] for part in parts), sum(part["rejected"] for part in parts)

    def reasons(self) -> list[str]:
        """Return why records were rejected, in the parts done so far."""
        tables = [pq.read_table(self._parts / f"{number:05d}.{REJECTED}") for number in range(self.done)]
        return [reason for table in tables for reason in table["reason"].to_pylist()]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say what a full disk or a forbidden folder means for the store."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.path} can't be written ({error}): make room and start again, which goes on where this "
                "stopped, or choose another folder."
            ) from error

    def _check_place(self) -> None:
        if not os.path.lexists(self.path):
            return
        if not self._overwrite:
            raise StoreError(
                f"{self.path} is there already: remove it, choose another folder, or say --overwrite true."
            )
        try:
            read_manifest(store_files(self.path))
        except StoreError as error:
            raise StoreError(
                f"{self.path} is there and not a RecordStore of this ecgfair, so it is not overwritten: remove it, "
                " or choose another folder."
            ) from error

    def _was_moved(self) -> bool:
        """Whether a preparation of the same plan was stopped after its last step but before it cleaned up."""
        return not self._store.exists() and self._read_plan() == self._plan and (self.path / MANIFEST).is_file()

    def _read_plan(self) -> dict[str, Any] | None:
        try:
            plan = json.loads((self._partial / _PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return plan if isinstance(plan, dict) else None

    def _begin(self) -> None:
        """Find out what is done already, and remove what is not wholly done."""
        plan = self._read_plan()
        if self._was_moved():
            self.finished = True
            return
        if plan == self._plan:
            while self._is_done(self.done):
                self.done += 1
            kept = {f"signals-{number:05d}.arrow" for number in range(self.done)}
            for path in self._store.iterdir():
                if path.name not in kept:
                    path.unlink()
            return
        if plan is not None:
            self.started_anew = tuple(name for name in self._plan if plan.get(name) != self._plan[name])
        self._put_old_back()
        self._check_place()  # once more, since another process may have finished before this one had the lock
        if self._partial.exists():
            self._check_own()
            # First, or a start that is killed while it removes the parts would leave a plan that counts them as done.
            (self._partial / _PLAN).unlink(missing_ok=True)
            shutil.rmtree(self._partial)
        try:
            self._parts.mkdir(parents=True)
            self._store.mkdir()
            _replace(self._partial / _PLAN, lambda path: path.write_text(json.dumps(self._plan), encoding="utf-8"))
        except BaseException:
            self._give_up()  # nothing is in it yet, and without a plan nothing could go on from it
            raise

    def _is_done(self, number: int) -> bool:
        if not self._marker(number).is_file():
            return False
        shard = self._read_marker(number)["shard"]
        return shard is None or (self._store / shard["file"]).is_file()

    def _check_own(self) -> None:
        """Make sure that what is to be removed is a stopped preparation and nobody's work."""
        own = {_PARTS, _STORE, _OLD, _PLAN, f"{_PLAN}{_UNFINISHED}"}
        foreign = sorted(path.name for path in self._partial.iterdir() if path.name not in own)
        if foreign:
            raise StoreError(
                f"{self._partial} holds {foreign[0]!r}, which is of no stopped preparation: move it away, or choose "
                "another folder."
            )

    def _put_old_back(self) -> None:
        """Undo the first half of replacing an old store, where a preparation was killed between the halves."""
        old = self._partial / _OLD
        if old.exists() and not os.path.lexists(self.path):
            old.rename(self.path)

    def _marker(self, number: int) -> Path:
        return self._parts / f"{number:05d}.json"

    def _read_marker(self, number: int) -> dict[str, Any]:
        marker: dict[str, Any] = json.loads(self._marker(number).read_text(encoding="utf-8"))
        return marker

    def _write_signals(self, path: Path, signals: Sequence[NDArray[np.int16]]) -> None:
        values = pa.array(np.stack(signals).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, signals[0].size)
        layout = {
            "layout": "leads, time",
            "leads": json.dumps(list(self._preprocessing.leads)),
            "length": str(self._preprocessing.length),
            "sampling_rate": str(self._preprocessing.sampling_rate),
            "millivolts_per_step": repr(self._preprocessing.scale),
        }
        schema = pa.schema([pa.field("signal", column.type, nullable=False)], metadata=layout)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch([column], schema=schema))

    def _finish(self) -> None:
        parts = [self._read_marker(number) for number in range(self.done)]
        self._gather_tables(RECORDS, RECORDS_SCHEMA)
        self._gather_tables(REJECTED, REJECTED_SCHEMA)
        self._check_ids()
        positives: Counter[str] = Counter()
        for part in parts:
            positives.update(part["positives"])
        files = {name: self._entry(name) for name in (RECORDS, REJECTED)}
        manifest = {
            "format_version": FORMAT_VERSION,
            "ecgfair_version": __version__,
            "source_name": self._plan["source_name"],
            "preprocessing": self._plan["preprocessing"],
            "label_sets": self._plan["label_sets"],
            "counts": {
                "records": sum(part["rows"] for part in parts),
                "rejected": sum(part["rejected"] for part in parts),
                "positives": dict(sorted(positives.items())),
            },
            "shards": [part["shard"] for part in parts if part["shard"]],
            "files": files | {part["shard"]["file"]: part["entry"] for part in parts if part["shard"]},
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        _replace(self._store / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))
        self._move()

    def _gather_tables(self, name: str, schema: pa.Schema) -> None:
        """Put the parts' tables into one, a row group a part."""
        with pq.ParquetWriter(self._store / name, schema, compression="zstd") as writer:
            for number in range(self.done):
                writer.write_table(pq.read_table(self._parts / f"{number:05d}.{name}", schema=schema))

    def _check_ids(self) -> None:
        ids = pq.read_table(self._store / RECORDS, columns=["record_id"])["record_id"]
        if pc.count_distinct(ids).as_py() == len(ids):
            return
        counted = pc.value_counts(ids.combine_chunks())
        twice = pc.filter(counted.field("values"), pc.greater(counted.field("counts"), 1))
        raise SourceError(
            f"{len(twice)} record ids of {self._plan['source_name']} are there more than once, for example "
            f"{twice[0].as_py()!r}: expected each id once. This is a fault of the reader."
        )

    def _entry(self, name: str) -> dict[str, Any]:
        return {"bytes": (self._store / name).stat().st_size, "sha256": store_files(self._store).checksum(name)}

    def _move(self) -> None:
        """Put the finished folder in its place; an old store stays until the new one stands where it stood."""
        self._check_place()
        old = self._partial / _OLD
        if os.path.lexists(self.path):
            self.path.rename(old)
        try:
            self._store.rename(self.path)
        except OSError:
            self._put_old_back()
            raise
        self._give_up()

    def _give_up(self) -> None:
        """Remove what nobody can go on with; the plan goes last, since it tells a new start how far this one came."""
        for folder in (self._parts, self._store, self._partial / _OLD, self._partial):
            shutil.rmtree(folder, ignore_errors=True)

    def _release(self) -> None:
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and rename it when it is on disk: it is there wholly or not at all."""
    unfinished = path.with_name(f"{path.name}{_UNFINISHED}")
    write(unfinished)
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)
