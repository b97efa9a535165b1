"""EcgDataModule: streams training, validation and test records of one RecordStore."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from data_modules.sampling import UnpaddedDistributedSampler
from data_modules.store import RecordStore
from ecgfair.ecg import ATTRIBUTES, SEX_COLUMN, UNKNOWN_SEX, AttributeStatistics, EcgBatch, Preprocessing
from ecgfair.errors import ConfigurationError, SplitError

HASHED_FOLDS = 10


class StoreDataset(Dataset[EcgBatch]):
    """Some records of a store; a batch is one gather.

    Args:
        store: The store.
        positions: (N,) positions in the store of the records, in order.
        labels: (len(store), C) float32 targets.
        statistics: What standardises the attributes.
        max_beats: R peaks kept a record; further ones are left out of the batch.
    """

    def __init__(
        self,
        store: RecordStore,
        positions: NDArray[np.int64],
        labels: NDArray[np.float32],
        statistics: AttributeStatistics,
        max_beats: int,
    ) -> None:
        self.store = store
        self.positions = positions
        table = store.records
        values = attribute_values(store)
        self.age = torch.from_numpy(values[positions, ATTRIBUTES.index("age")])
        sex = values[positions, SEX_COLUMN]
        self.sex = torch.from_numpy(np.where(np.isnan(sex), UNKNOWN_SEX, sex).astype(np.int64))
        mean, std = (np.asarray(value, dtype=np.float32) for value in (statistics.mean, statistics.std))
        self.attributes = torch.from_numpy((values[positions] - mean) / std)
        self.labels = torch.from_numpy(labels[positions])
        self.beats = torch.from_numpy(_padded_beats(table["beats"].combine_chunks(), max_beats)[positions])

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.positions)

    def __getitems__(self, items: Sequence[int]) -> EcgBatch:
        """Return a batch of records by their place in this dataset; ``signal`` is int16."""
        chosen = np.asarray(items, dtype=np.int64)
        rows = torch.from_numpy(chosen)
        index = self.positions[chosen]
        return EcgBatch(
            signal=torch.from_numpy(self.store.gather(index)),
            beats=self.beats[rows],
            attributes=self.attributes[rows],
            age=self.age[rows],
            sex=self.sex[rows],
            labels=self.labels[rows],
            index=torch.from_numpy(index),
        )

    def __getitem__(self, item: int) -> EcgBatch:
        """Return a batch of one."""
        return self.__getitems__([item])


class EcgDataModule(LightningDataModule):
    """Streams a RecordStore, split by folds.

    Model and callbacks learn what they need of the data (labels, prevalences, preprocessing, statistics) from the
    properties of this class, which the command line links, so that nothing is typed twice.

    Test records are read by ``test`` alone: ``predict`` covers all others.

    Args:
        store: Folder of the RecordStore, as ``python -m ecgfair prepare`` writes it.
        labels: Name of a label set of the store.
        min_likelihood: Least likelihood in percent of a label to count as positive. A likelihood of 0 is unknown, as
            that of nearly all statements of PTB-XL on form and rhythm, and always counts.
        train_folds: Folds trained on.
        validation_folds: Folds that choose the checkpoint.
        test_folds: Folds that only ``test`` reads. A store without folds is split by patient into ten.
        batch_size: Records a batch and process.
        num_workers: Processes that load batches; 0 loads in the training process.
        max_beats: R peaks kept a record.
        seed: Of the shuffling.

    Raises:
        StoreError: The store is missing or damaged.
        ConfigurationError: The store has no such label set, or a number can't work.
    """

    def __init__(
        self,
        store: str,
        labels: str = "superdiagnostic",
        min_likelihood: float = 0.0,
        train_folds: list[int] | None = None,
        validation_folds: list[int] | None = None,
        test_folds: list[int] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        max_beats: int = 40,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise ConfigurationError(f"data.{name} is {value}: expected {least} or more.")
        self.store = RecordStore(store)
        self.folds = {
            "train": [1, 2, 3, 4, 5, 6, 7, 8] if train_folds is None else train_folds,
            "validation": [9] if validation_folds is None else validation_folds,
            "test": [10] if test_folds is None else test_folds,
        }
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.max_beats = max_beats
        self.seed = seed
        self.label_names, self._labels = self.store.labels(labels, min_likelihood)
        self._datasets: dict[str, StoreDataset] = {}

    @property
    def preprocessing(self) -> Preprocessing:
        """How the signals of the store were prepared."""
        return self.store.preprocessing

    @cached_property
    def split(self) -> dict[str, NDArray[np.int64]]:
        """Positions in the store of the records of ``train``, ``validation``, ``test`` and ``predict``.

        Raises:
            SplitError: A part is empty, two parts share a fold, or a patient is in two parts.
        """
        table = self.store.records
        fold = _folds(table["fold"].to_pandas(), table["patient_id"].to_pandas())
        split = {part: np.flatnonzero(np.isin(fold, folds)) for part, folds in self.folds.items()}
        _check_split(split, self.folds, table["patient_id"].to_pandas(), fold)
        split["predict"] = np.flatnonzero(~np.isin(fold, self.folds["test"]))
        return split

    @cached_property
    def label_prevalence(self) -> list[float]:
        """Share of the training records positive, a label."""
        return [float(share) for share in self._labels[self.split["train"]].mean(axis=0, dtype=np.float64)]

    @cached_property
    def attribute_statistics(self) -> AttributeStatistics:
        """Mean and standard deviation of each attribute over the training records that have it."""
        values = pd.DataFrame(attribute_values(self.store)[self.split["train"]].astype(np.float64))
        mean = values.mean().fillna(0.0).to_numpy()
        std = values.std(ddof=0).fillna(1.0).to_numpy()
        std[std == 0] = 1.0
        mean[SEX_COLUMN], std[SEX_COLUMN] = 0.0, 1.0
        return AttributeStatistics(tuple(float(value) for value in mean), tuple(float(value) for value in std))

    @property
    def training_data(self) -> str:
        """Fingerprint of the training data: the store's and the folds trained on."""
        folds = ",".join(map(str, sorted(self.folds["train"])))
        return f"{self.store.fingerprint}:folds {folds}"

    def records(self, index: NDArray[np.int64]) -> pd.DataFrame:
        """Return ids, fold and demographics of the records at these positions, a row each in the same order."""
        columns = ["record_id", "patient_id", "fold", "age", "sex"]
        return cast("pd.DataFrame", self.store.records.select(columns).take(index).to_pandas())

    def train_dataloader(self) -> DataLoader[EcgBatch]:
        """Return the loader of the training records, shuffled anew every epoch."""
        dataset = self._dataset("train")
        replicas, rank = self._processes()
        sampler: DistributedSampler[Any] = DistributedSampler(dataset, replicas, rank, shuffle=True, seed=self.seed)
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader[EcgBatch]:
        """Return the loader of the validation records, each exactly once."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader[EcgBatch]:
        """Return the loader of the test records, each exactly once."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[EcgBatch]:
        """Return the loader of all records but the test records, each exactly once."""
        return self._evaluation_loader("predict")

    def on_after_batch_transfer(self, batch: EcgBatch, dataloader_idx: int) -> EcgBatch:  # Lightning's signature
        """Make millivolts of the int16 samples, once they are on the device."""
        batch["signal"] = to_millivolts(batch["signal"], self.preprocessing)
        return batch

    def _evaluation_loader(self, part: str) -> DataLoader[EcgBatch]:
        dataset = self._dataset(part)
        return self._loader(dataset, UnpaddedDistributedSampler(dataset, *self._processes()))

    def _dataset(self, part: str) -> StoreDataset:
        if part not in self._datasets:
            self._datasets[part] = StoreDataset(
                self.store, self.split[part], self._labels, self.attribute_statistics, self.max_beats
            )
        return self._datasets[part]

    def _loader(self, dataset: StoreDataset, sampler: DistributedSampler[Any]) -> DataLoader[EcgBatch]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=_as_is,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def _processes(self) -> tuple[int, int]:
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank


def to_millivolts(signal: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return float32 millivolts of stored samples; signals that are floating point already are left as they are."""
    return signal if signal.is_floating_point() else signal.float() * preprocessing.scale


def attribute_values(store: RecordStore) -> NDArray[np.float32]:
    """Return the attributes of a store as measured, (records, A) in the order of ``ATTRIBUTES``; NaN where missing."""
    columns = [store.records[name].to_pandas().to_numpy(dtype=np.float32, na_value=np.nan) for name in ATTRIBUTES]
    return np.stack(columns, axis=1)


def _padded_beats(beats: Any, width: int) -> NDArray[np.int64]:
    """Return (records, width) R peaks of a pyarrow list array, padded with -1."""
    counts = beats.value_lengths().to_numpy(zero_copy_only=False)
    values = beats.flatten().to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(counts)), counts)
    column = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    padded = np.full((len(counts), width), -1, dtype=np.int64)
    kept = column < width
    padded[row[kept], column[kept]] = values[kept]
    return padded


def _folds(fold: pd.Series[Any], patient: pd.Series[Any]) -> NDArray[np.int64]:
    """Return the fold of each record; where the source has none, one of ten by the patient's id."""
    missing = fold.isna()
    if not missing.any():
        return fold.to_numpy(dtype=np.int64)
    if not missing.all():
        raise SplitError(
            f"{int(missing.sum())} of {len(fold)} records have no fold: expected all or none. Give the source's table "
            "a fold for every record, or for none to split by patient."
        )
    # A cryptographic hash, since Python's own differs between processes.
    hashed = {name: int(hashlib.sha256(str(name).encode()).hexdigest(), 16) % HASHED_FOLDS + 1 for name in set(patient)}
    return patient.map(hashed).to_numpy(dtype=np.int64)


def _check_split(
    split: dict[str, NDArray[np.int64]], folds: dict[str, list[int]], patient: pd.Series[Any], fold: NDArray[np.int64]
) -> None:
    present = sorted({int(value) for value in fold})
    for part, positions in split.items():
        if len(positions) == 0 and folds[part]:
            raise SplitError(f"No record is in the {part} folds {folds[part]}: the store has the folds {present}.")
    parts = list(split)
    for first in range(len(parts)):
        for second in range(first + 1, len(parts)):
            one, other = parts[first], parts[second]
            shared = sorted(set(folds[one]) & set(folds[other]))
            if shared:
                raise SplitError(f"Fold {shared[0]} is in {one}_folds and in {other}_folds: expected each fold once.")
            both = set(patient.iloc[split[one]]) & set(patient.iloc[split[other]])
            if both:
                raise SplitError(
                    f"{len(both)} patients have records in {one} and in {other}, for example {min(both)!r}: expected "
                    "all records of a patient in one part. Mend the folds of the source."
                )


def _as_is(batch: Any) -> Any:
    """Stand in for a collate function: a batch is gathered whole, there is nothing to put together."""
    return batch
