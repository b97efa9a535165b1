"""How fast records come: the training loader beside the usual ways to read the same records, in one run."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import pandas as pd
import torch
import wfdb
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from data_modules.preparing.prepare import prepare
from data_modules.readers.ptbxl import DATABASE, PtbXlReader
from data_modules.stores.store import RecordStore
from data_modules.streaming.datamodules import EcgDataModule
from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError

_LEAST_SECONDS: Final = 0.5
_SLOW: Final = 400
"""Records read by the ways that take a file a record: enough to tell their speed."""


@dataclass(frozen=True)
class Speed:
    """What one way reached: median, lowest and highest of its passes, in records a second."""

    way: str
    records: int
    median: float
    lowest: float
    highest: float


def benchmark_data(
    source: str,
    store: str | None = None,
    batch_size: int = 64,
    passes: int = 7,
    threads: int = 1,
    seed: int = 0,
) -> None:
    """Measure how many records a second become float32 millivolts, in one process, and print a table.

    Every way reads the same shuffled records, in batches, from files of this run that lie in the system's cache.

    Args:
        source: The official folder of PTB-XL; its records at 100 Hz are read.
        store: A store of it; without one, it is prepared into a temporary folder.
        batch_size: Records a batch.
        passes: Over the records, a way; the median counts.
        threads: Of PyTorch; 0 leaves it as many as it takes by itself, which suits a machine with nothing else to do.
        seed: Of the order.
    """
    if threads:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        if store is None:
            store = f"{folder}/store"
            prepare(PtbXlReader(source), store, Preprocessing())
        print_speeds(
            measure_speeds(Path(source), store, Path(folder), batch_size, passes, seed),
            batch_size,
            torch.get_num_threads(),
        )


def measure_speeds(
    source: Path, store: str, folder: Path, batch_size: int = 64, passes: int = 7, seed: int = 0
) -> list[Speed]:
    """Time each way.

    Args:
        source: The official folder of PTB-XL.
        store: A store of its records at 100 Hz.
        folder: Where the other ways' files are made.
        batch_size: Records a batch.
        passes: Passes over the records, a way.
        seed: Of the order.
    """
    data = EcgDataModule(store=store, batch_size=batch_size, seed=seed)
    positions = data.split["train"]
    if len(positions) < batch_size:
        raise ConfigurationError(f"{store} has {len(positions)} training records: expected a batch of {batch_size}.")
    signals = RecordStore(store).gather(positions)
    order = np.random.default_rng(seed).permutation(len(positions))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    few = batches[: max(1, _SLOW // batch_size)]
    scale = np.float32(data.preprocessing.scale)
    names = _file_names(source, data, positions)
    mapped, files, hdf5 = _write(folder, signals, scale)
    with h5py.File(hdf5) as opened:
        dataset = opened["signal"]
        ways: list[tuple[str, list[NDArray[np.int64]], Callable[[], Iterator[int]]]] = [
            ("training loader: signal, beats, attributes, labels", batches, lambda: _loader(data)),
            ("NumPy memory map, a batch at a time", batches, lambda: _memory_map(mapped, scale, batches)),
            ("NumPy memory map in a DataLoader, a batch at a time", batches, lambda: _wholes(mapped, scale, batches)),
            ("NumPy memory map in a DataLoader, a record at a time", batches, lambda: _items(mapped, scale, batches)),
            ("HDF5 file, a batch at a time", batches, lambda: _hdf5(dataset, scale, batches)),
            ("one .npy a record", few, lambda: _npy(files, few)),
            ("wfdb.rdsamp a record", few, lambda: _rdsamp(names, few)),
        ]
        return [_time(way, sum(map(len, of)), run, passes) for way, of, run in ways]


def print_speeds(speeds: list[Speed], batch_size: int, threads: int) -> None:
    """Print the table to stdout."""
    slowest = speeds[-1].median
    table = Table(
        title=f"Records a second to float32 millivolts; one process, batches of {batch_size}, {threads} torch threads"
    )
    for name in ("Way", "Records", "Records/s", "Lowest", "Highest", "Times rdsamp"):
        table.add_column(name, justify="left" if name == "Way" else "right")
    for speed in speeds:
        numbers = (f"{value:,.0f}" for value in (speed.records, speed.median, speed.lowest, speed.highest))
        table.add_row(speed.way, *numbers, f"{speed.median / slowest:,.0f}")
    Console().print(table)


def _time(way: str, records: int, run: Callable[[], Iterator[int]], passes: int) -> Speed:
    """Time passes over the records; a quick one is repeated within its pass until it can be timed."""
    rates = []
    sum(run())  # the first pass fills caches
    for _ in range(passes):
        read, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < _LEAST_SECONDS:
            counted = sum(run())
            if counted != records:
                raise RuntimeError(f"{way} gave {counted} of {records} records.")
            read += counted
        rates.append(read / seconds)
    return Speed(way, records, statistics.median(rates), min(rates), max(rates))


def _file_names(source: Path, data: EcgDataModule, positions: NDArray[np.int64]) -> list[str]:
    """Return each record's WFDB name without its suffix."""
    table = pd.read_csv(source / DATABASE, dtype=str, usecols=["ecg_id", "filename_lr"]).set_index("ecg_id")
    return [str(source / name) for name in table.loc[data.records(positions)["record_id"], "filename_lr"]]


def _write(folder: Path, signals: NDArray[np.int16], scale: np.float32) -> tuple[NDArray[np.int16], list[Path], Path]:
    """Write the same records for the other ways to read them."""
    raw, hdf5, single = folder / "signals.raw", folder / "signals.hdf5", folder / "npy"
    signals.tofile(raw)
    with h5py.File(hdf5, "w") as file:
        file.create_dataset("signal", data=signals)
    single.mkdir()
    files = [single / f"{number}.npy" for number in range(len(signals))]
    for number, path in enumerate(files):
        np.save(path, signals[number] * scale)
    return np.memmap(raw, dtype=np.int16, mode="r", shape=signals.shape), files, hdf5


def _loader(data: EcgDataModule) -> Iterator[int]:
    for batch in data.train_dataloader():
        yield len(data.on_after_batch_transfer(batch, 0)["signal"])


def _memory_map(mapped: NDArray[np.int16], scale: np.float32, batches: list[NDArray[np.int64]]) -> Iterator[int]:
    for batch in batches:
        yield len(torch.from_numpy(mapped[batch].astype(np.float32) * scale))


class _Items(Dataset[Any]):
    def __init__(self, mapped: NDArray[np.int16], scale: np.float32) -> None:
        self.mapped, self.scale = mapped, scale

    def __getitem__(self, item: int) -> NDArray[np.float32]:
        millivolts: NDArray[np.float32] = self.mapped[item].astype(np.float32) * self.scale
        return millivolts


def _items(mapped: NDArray[np.int16], scale: np.float32, batches: list[NDArray[np.int64]]) -> Iterator[int]:
    lists = [batch.tolist() for batch in batches]
    for batch in DataLoader(_Items(mapped, scale), batch_sampler=lists):
        yield len(batch)


class _Wholes(_Items):
    def __getitems__(self, items: list[int]) -> torch.Tensor:
        return torch.from_numpy(self.mapped[items])


def _wholes(mapped: NDArray[np.int16], scale: np.float32, batches: list[NDArray[np.int64]]) -> Iterator[int]:
    lists = [batch.tolist() for batch in batches]
    for batch in DataLoader(_Wholes(mapped, scale), batch_sampler=lists, collate_fn=lambda batch: batch):
        yield len(batch.float().mul_(float(scale)))


def _hdf5(dataset: Any, scale: np.float32, batches: list[NDArray[np.int64]]) -> Iterator[int]:
    for batch in batches:
        rows = np.argsort(batch)  # h5py takes positions in ascending order only
        signals = np.empty((len(batch), *dataset.shape[1:]), dtype=np.float32)
        signals[rows] = dataset[batch[rows]]
        yield len(torch.from_numpy(signals * scale))


def _npy(files: list[Path], batches: list[NDArray[np.int64]]) -> Iterator[int]:
    for batch in batches:
        yield len(torch.from_numpy(np.stack([np.load(files[row]) for row in batch])))


def _rdsamp(names: list[str], batches: list[NDArray[np.int64]]) -> Iterator[int]:
    for batch in batches:
        signals = [wfdb.rdsamp(names[row])[0].T.astype(np.float32) for row in batch]
        yield len(torch.from_numpy(np.stack(signals)))
