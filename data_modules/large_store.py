"""Whether a store of millions of records opens at once and is read with little memory: made of sparse files, timed."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from data_modules.stores.intact import COMPARED_BYTES
from data_modules.stores.schema import RECORDS, RECORDS_SCHEMA, REJECTED, REJECTED_SCHEMA
from data_modules.stores.store import FORMAT_VERSION, RecordStore
from data_modules.stores.store_files import MANIFEST, store_files
from data_modules.streaming.datamodules import EcgDataModule
from ecgfair import __version__
from ecgfair.ecg import Preprocessing

_SHARD_RECORDS: Final = 4096
_HOLE: Final = 1 << 20
_CODES: Final = ("NORM", "AFIB", "LBBB", "LVH", "PVC")


def benchmark_store(records: int = 2_000_000, batch_size: int = 256, folder: str | None = None) -> None:
    """Open a store of sparse files, read all its training records shuffled, and print seconds and memory.

    Args:
        records: Records of 12 x 1000 samples.
        batch_size: Records a batch.
        folder: Where to make the store; a temporary folder if left out. Sparse files need next to no room, and a
            store that is there already is used.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(folder or f"{temporary}/store")
        if not (path / MANIFEST).is_file():
            make_sparse_store(path, records)
        measured = read_apart(path, batch_size)
    table = Table(title=f"A store of {records:,} records, 12 x 1000 samples; one process, batches of {batch_size}")
    table.add_column("What")
    table.add_column("Measured", justify="right")
    for what, value in measured.items():
        table.add_row(what, f"{value:,.2f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)


def make_sparse_store(path: Path, records: int, seed: int = 0) -> None:
    """Write a store whose signals are zero and take no room on disk; everything else is made up.

    The checksums of a store so large that nobody compares them before reading are made up as well: ``verify`` would say
    so.
    """
    preprocessing = Preprocessing()
    size = len(preprocessing.leads) * preprocessing.length
    path.mkdir(parents=True)
    starts = range(0, records, _SHARD_RECORDS)
    shards: list[dict[str, Any]] = [
        {"file": f"signals-{number:05d}.arrow", "rows": min(_SHARD_RECORDS, records - start)}
        for number, start in enumerate(starts)
    ]
    zeros = np.zeros(_SHARD_RECORDS * size, dtype=np.int16)
    generator = np.random.default_rng(seed)
    with pq.ParquetWriter(path / RECORDS, RECORDS_SCHEMA, compression="zstd") as writer:
        for start, shard in zip(starts, shards, strict=True):
            column = pa.FixedSizeListArray.from_arrays(pa.array(zeros[: shard["rows"] * size]), size)
            schema = pa.schema([pa.field("signal", column.type, nullable=False)])
            with (path / shard["file"]).open("wb") as file:
                sink = pa.PythonFile(_Sparse(file), mode="w")
                with pa.ipc.new_file(sink, schema) as arrow:
                    arrow.write_batch(pa.record_batch([column], schema=schema))
                file.truncate()
            writer.write_table(_rows(start, shard["rows"], generator))
    pq.write_table(REJECTED_SCHEMA.empty_table(), path / REJECTED)
    files = [RECORDS, REJECTED, *(shard["file"] for shard in shards)]
    sizes = {name: (path / name).stat().st_size for name in files}
    is_compared = sum(sizes[shard["file"]] for shard in shards) <= COMPARED_BYTES
    checksum = store_files(path).checksum if is_compared else lambda _: "0" * 64
    manifest = {
        "format_version": FORMAT_VERSION,
        "ecgfair_version": __version__,
        "source_name": "made of nothing",
        "preprocessing": preprocessing.to_dict(),
        "label_sets": {"all": {code: [code] for code in _CODES}},
        "counts": {"records": records, "rejected": 0, "positives": {}},
        "shards": shards,
        "files": {name: {"bytes": bytes_, "sha256": checksum(name)} for name, bytes_ in sizes.items()},
    }
    (path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def read_apart(path: Path, batch_size: int, most_batches: int | None = None) -> dict[str, float | int]:
    """Open a store and read its training records shuffled in a process of its own, whose memory is then known.

    Returns:
        Seconds and megabytes, by what they are of.
    """
    arguments = json.dumps([str(path), batch_size, most_batches])
    command = [sys.executable, "-m", "data_modules.large_store", arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # this very file
    measured: dict[str, float | int] = json.loads(done.stdout)
    return measured


def _read(path: str, batch_size: int, most_batches: int | None) -> dict[str, float | int]:
    before = _peak()
    started = time.perf_counter()
    RecordStore(path)
    opened = time.perf_counter()
    data = EcgDataModule(store=path, batch_size=batch_size)
    loader = iter(data.train_dataloader())
    seen = len(data.on_after_batch_transfer(next(loader), 0)["signal"])
    first = time.perf_counter()
    for number, batch in enumerate(loader, start=2):
        seen += len(data.on_after_batch_transfer(batch, 0)["signal"])
        if number == most_batches:
            break
    return {
        "seconds to open the store": opened - started,
        "seconds from there to the first batch": first - opened,
        "records read, shuffled": seen,
        "seconds to read them": time.perf_counter() - first,
        "megabytes of memory before": before,
        "megabytes of memory at most": _peak(),
    }


def _peak() -> int:
    """Return the most memory this process ever held, pages of mapped files included, in megabytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux counts what the parent held at the start into ru_maxrss of its child.
        kilobytes = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]
        return int(int(kilobytes) * 1024 / 1e6)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)


def _rows(start: int, count: int, generator: np.random.Generator) -> pa.Table:
    numbers = np.arange(start, start + count)
    beats = generator.integers(0, 1000, (count, 12), dtype=np.int32)
    codes = np.asarray(_CODES)[generator.integers(0, len(_CODES), count)]
    values: dict[str, Any] = {
        "record_id": pa.array(numbers).cast(pa.string()),
        "patient_id": pa.array(numbers // 2).cast(pa.string()),
        "age": generator.uniform(18, 90, count).astype(np.float32),
        "sex": generator.integers(0, 2, count).astype(np.int8),
        "fold": (numbers // 2 % 10 + 1).astype(np.int8),
        "codes": pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32), pa.array(codes)),
        "likelihoods": pa.ListArray.from_arrays(
            np.arange(count + 1, dtype=np.int32), pa.array(np.full(count, 100, dtype=np.float32))
        ),
        "beats": pa.ListArray.from_arrays(np.arange(0, 12 * count + 1, 12, dtype=np.int32), beats.reshape(-1)),
        "complete": np.ones(count, dtype=bool),
        **{
            name: generator.normal(100, 10, count).astype(np.float32)
            for name in ("heart_rate", "pr", "qrs", "qt", "qtc")
        },
    }
    columns = [
        pa.array(values[field.name], field.type) if field.name in values else pa.nulls(count, field.type)
        for field in RECORDS_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=RECORDS_SCHEMA)


class _Sparse:
    """A file in which large blocks, all zero here, are holes."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        block = memoryview(data)
        if block.nbytes < _HOLE:
            return self._file.write(block)
        self._file.seek(block.nbytes, 1)
        return block.nbytes

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True


if __name__ == "__main__":
    json.dump(_read(*json.loads(sys.argv[1])), sys.stdout)
