"""StoreDataset: batches of records out of one store or several, gathered, never collected record by record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from data_modules.stores.store import RecordStore
from ecgfair.ecg import (
    ATTRIBUTES,
    MISSING_SAMPLE,
    SEX_COLUMN,
    UNKNOWN_SEX,
    AttributeStatistics,
    EcgBatch,
    Preprocessing,
)

_AGE_COLUMN = ATTRIBUTES.index("age")


class StoreRecords:
    """What batches need of one store, in few bytes a record: 28 of attributes, 2 a beat, 1 a label.

    Args:
        store: The store.
        labels: (len(store), C) 0 or 1.
        max_beats: R peaks kept a record; further ones are left out of the batch.

    Attributes:
        attributes: (len(store), A) float32 as measured, in the order of ``ATTRIBUTES``; NaN where missing.
        labels: As given.
    """

    def __init__(self, store: RecordStore, labels: NDArray[np.uint8], max_beats: int) -> None:
        self.store = store
        self.labels = labels
        pool = pa.default_memory_pool()
        # Arrow keeps the memory of what it has read and dropped, such as the labels' codes and the patients' ids.
        pool.release_unused()
        self.attributes = np.empty((len(store), len(ATTRIBUTES)), dtype=np.float32)
        # A column at a time: what is read is larger than what is kept of it.
        for column, name in enumerate(ATTRIBUTES):
            self.attributes[:, column] = store.columns([name])[name].to_numpy()
        self._complete = store.columns(["complete"])["complete"].to_numpy().astype(bool)
        self._beats, self._beat_starts = _all_beats(store)
        pool.release_unused()
        self._columns = np.arange(max_beats)

    def rows(self, index: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return a batch's fields but ``index``, with ``signal`` in int16 steps and ``attributes`` as measured.

        Args:
            index: (B,) positions in the store.

        Returns:
            See ``EcgBatch``; ``recorded`` is (B, 1, 1) if all samples of the batch were recorded, else of the shape of
            the signal, which is 0 where it is False.
        """
        signal = self.store.gather(index)
        recorded = self._complete[index][:, None, None]
        if not recorded.all():
            recorded = signal != MISSING_SAMPLE
            np.multiply(signal, recorded, out=signal)
        attributes = self.attributes[index]
        sex = attributes[:, SEX_COLUMN]
        return {
            "signal": signal,
            "recorded": recorded,
            "beats": self._padded_beats(index),
            "attributes": attributes,
            "age": attributes[:, _AGE_COLUMN].copy(),
            "sex": np.where(np.isnan(sex), np.float32(UNKNOWN_SEX), sex).astype(np.int64),
            "labels": self.labels[index].astype(np.float32),
        }

    def _padded_beats(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(self._beats):
            return np.full((len(index), len(self._columns)), -1, dtype=np.int64)
        places = self._beat_starts[index, None] + self._columns
        padded = self._beats.take(places, mode="clip").astype(np.int64)
        padded[places >= self._beat_starts[index + 1, None]] = -1
        return padded


class StoreDataset(Dataset[EcgBatch]):
    """Some records of one store, or of several in a row; a batch is one gather a store.

    On its way to the device a batch is small: ``signal`` is int16, and ``recorded`` is (B, 1, 1) where all samples of
    the batch were recorded. ``finish`` makes an ``EcgBatch`` of it.

    Args:
        stores: The stores, in order.
        positions: (N,) positions of the records in all stores together, in order.
        statistics: What standardises the attributes.
    """

    def __init__(
        self, stores: Sequence[StoreRecords], positions: NDArray[np.int64], statistics: AttributeStatistics
    ) -> None:
        self.stores = list(stores)
        self.positions = positions
        self._starts = np.cumsum([0, *(len(records.store) for records in self.stores)])
        self._mean, self._std = (np.asarray(value, dtype=np.float32) for value in (statistics.mean, statistics.std))

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.positions)

    def __getitems__(self, items: Sequence[int]) -> EcgBatch:
        """Return a batch of records by their place in this dataset."""
        index = self.positions[np.asarray(items, dtype=np.int64)]
        rows = self.stores[0].rows(index) if len(self.stores) == 1 else self._mixed_rows(index)
        rows["attributes"] = (rows["attributes"] - self._mean) / self._std
        rows["index"] = index
        return cast("EcgBatch", {name: torch.from_numpy(values) for name, values in rows.items()})

    def __getitem__(self, item: int) -> EcgBatch:
        """Return a batch of one."""
        return self.__getitems__([item])

    def _mixed_rows(self, index: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        source = np.searchsorted(self._starts, index, side="right") - 1
        places = {number: np.flatnonzero(source == number) for number in np.unique(source).tolist()}
        parts = {number: self.stores[number].rows(index[at] - self._starts[number]) for number, at in places.items()}
        mixed = {}
        for name in next(iter(parts.values())):
            shape = np.broadcast_shapes(*(rows[name].shape[1:] for rows in parts.values()))
            kind = next(iter(parts.values()))[name].dtype
            mixed[name] = np.empty((len(index), *shape), dtype=kind)
            for number, at in places.items():
                mixed[name][at] = parts[number][name]
        return mixed


def _all_beats(store: RecordStore) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.int64]]:
    """Return the R peaks of all records one after the other, and (records + 1,) where those of each begin."""
    kind = np.min_scalar_type(store.preprocessing.length)
    beats, counts = [np.zeros(0, dtype=kind)], [np.zeros(1, dtype=np.int64)]
    for part in store.column_parts("beats"):  # as a whole it takes several times what is kept
        beats.append(part.flatten().to_numpy().astype(kind))
        counts.append(pc.list_value_length(part).fill_null(0).to_numpy(zero_copy_only=False))
    return np.concatenate(beats), np.cumsum(np.concatenate(counts))


def finish(batch: EcgBatch, preprocessing: Preprocessing) -> EcgBatch:
    """Make millivolts of the int16 samples of a batch, and ``recorded`` of their shape without a copy."""
    signal = batch["signal"]
    if not signal.is_floating_point():
        batch["signal"] = to_millivolts(signal, preprocessing)
    batch["recorded"] = batch["recorded"].expand(signal.shape)
    return batch


def to_millivolts(signal: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return float32 millivolts of stored samples."""
    # In place: on a CPU a third faster than one multiplication of integers by a float.
    return signal.float().mul_(preprocessing.scale)


def as_is(batch: Any) -> Any:
    """Stand in for a collate function: a batch is gathered whole, there is nothing to put together."""
    return batch
