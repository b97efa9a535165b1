"""What all data modules share: parts made of folds, statistics of the training records, loaders, and going on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from data_modules.stores.store import RecordStore
from data_modules.streaming.balancing import Sampling, count_by_group, demographic_groups
from data_modules.streaming.datasets import StoreDataset, StoreRecords, as_is, finish
from data_modules.streaming.only_label import find_label
from data_modules.streaming.sampling import UnpaddedDistributedSampler
from data_modules.streaming.splits import check_folds, record_folds
from data_modules.streaming.training_records import TrainingRecords
from data_modules.streaming.training_sampler import TrainingLoader, TrainingSampler, shard_numbers
from ecgfair.ecg import ATTRIBUTES, SEX_COLUMN, AttributeStatistics, EcgBatch, Preprocessing
from ecgfair.errors import ConfigurationError

ONE_DATABASE: Final = ("PTB-XL", "CODE-15 %")
"""Sources of which all stores hold the same patients; of the others each store may hold anybody."""


class StoresDataModule(LightningDataModule):
    """Streams one RecordStore, or several in a row, split by folds.

    Model and callbacks learn what they need of the data (labels, prevalences, preprocessing, statistics) from the
    properties of this class, which the command line links, so that nothing is typed twice.

    Test records are read by ``test`` alone: ``predict`` covers all others. A checkpoint holds where its epoch stood,
    and a run that goes on from it trains on the rest of that epoch's records in the order they would have come in.

    Args:
        stores: The stores; all have one Preprocessing.
        label_names: Names of the labels.
        labels: (records, C) uint8 of each store.
        train_folds: Folds trained on, 1 to 8 if None; none at all if empty, to test a model on a whole store.
        validation_folds: Folds that choose the checkpoint, 9 if None; may be empty as well.
        test_folds: Folds that only ``test`` reads, 10 if None. A store without folds is split by patient into ten.
        batch_size: Records a batch and process.
        num_workers: Processes that load batches; 0 loads in the training process.
        max_beats: R peaks kept a record.
        seed: Of the shuffling.
        sampling: How training records are drawn; each once an epoch if None.
        train_only: Train on the records alone whose only positive label is this one, such as ``NORM``. All that is
            said of the training records (prevalence, statistics, groups, sampling, fingerprint) is then said of
            these; validation, test and prediction are as without. If None, on all records of the training folds.
        train_share: Train on this share of each store's training records alone, above 0 and up to 1, chosen by patient
            so that every label keeps a positive record if it can, see ``low_label.stratified_subset``. The rest is as
            with ``train_only``.
        train_share_seed: Of that choice; of one seed, a smaller share lies within a larger one.

    Raises:
        StoreError: A store is missing or damaged.
        SplitError: Two parts share a fold.
        ConfigurationError: A setting can't work; or, once records are asked for, a store has none to train on.
    """

    def __init__(
        self,
        stores: Sequence[RecordStore],
        label_names: list[str],
        labels: Sequence[NDArray[np.uint8]],
        train_folds: list[int] | None = None,
        validation_folds: list[int] | None = None,
        test_folds: list[int] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        max_beats: int = 40,
        seed: int = 0,
        sampling: Sampling | None = None,
        train_only: str | None = None,
        train_share: float = 1.0,
        train_share_seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("max_beats", max_beats, 1),
            ("train_share_seed", train_share_seed, 0),
        ):
            if value < least:
                raise ConfigurationError(f"data.{name} is {value}: expected {least} or more.")
        self.stores = list(stores)
        self.label_names = label_names
        self.folds = {
            "train": [1, 2, 3, 4, 5, 6, 7, 8] if train_folds is None else train_folds,
            "validation": [9] if validation_folds is None else validation_folds,
            "test": [10] if test_folds is None else test_folds,
        }
        check_folds(self.folds)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.max_beats = max_beats
        self.seed = seed
        self.sampling = sampling or Sampling()
        self.train_only = train_only
        only = None if train_only is None else find_label(train_only, label_names)
        self._chosen = TrainingRecords(train_only, only, train_share, train_share_seed)
        self._labels = list(labels)
        self._sampler: TrainingSampler | None = None
        self._stopped: dict[str, Any] = {}

    @property
    def preprocessing(self) -> Preprocessing:
        """How the signals were prepared."""
        return self.stores[0].preprocessing

    @cached_property
    def record_folds(self) -> list[NDArray[np.int8]]:
        """(records,) fold of each record, a store.

        Raises:
            SplitError: See ``splits.record_folds``.
        """
        return [record_folds(store, self.folds) for store in self.stores]

    @cached_property
    def split(self) -> dict[str, NDArray[np.int64]]:
        """Positions in all stores together of the records of ``train``, ``validation``, ``test`` and ``predict``.

        Raises:
            SplitError: A part has no record of a store, or a patient is in two parts.
            ConfigurationError: ``train_only`` or ``train_share`` leaves no record of a store to train on.
        """
        fold = np.concatenate(self.record_folds)
        split = {part: np.flatnonzero(np.isin(fold, numbers)) for part, numbers in self.folds.items()}
        split["train"] = np.flatnonzero(np.concatenate(self._in_training))
        split["predict"] = np.flatnonzero(~np.isin(fold, self.folds["test"]))
        return split

    @cached_property
    def label_prevalence(self) -> list[float]:
        """Share of the training records positive, a label."""
        trained = self._in_training
        counts = (labels[own].sum(axis=0, dtype=np.int64) for labels, own in zip(self._labels, trained, strict=True))
        positives = sum(counts)
        return [float(share) for share in positives / max(self.training_records, 1)]

    @cached_property
    def attribute_statistics(self) -> AttributeStatistics:
        """Mean and standard deviation of each attribute over the training records that have it."""
        mean, std = [], []
        for column in range(len(ATTRIBUTES)):
            values = self._of_training([records.attributes[:, column] for records in self._records])
            known = values[~np.isnan(values)]
            is_scaled = column != SEX_COLUMN and len(known) > 0
            mean.append(float(known.mean(dtype=np.float64)) if is_scaled else 0.0)
            std.append((float(known.std(dtype=np.float64)) if is_scaled else 1.0) or 1.0)
        return AttributeStatistics(tuple(mean), tuple(std))

    @property
    def data_identity(self) -> tuple[str, ...]:
        """What tells the data from others, a text a store: the database it is of, else the store's fingerprint.

        PTB-XL prepared in another way, or in part, has the same patients in the same folds.
        """
        return tuple(
            store.source_name if store.source_name in ONE_DATABASE else store.fingerprint for store in self.stores
        )

    @property
    def training_data(self) -> str:
        """Fingerprint of the training data: the stores', the folds trained on, which of their records if not all."""
        folds = ",".join(map(str, sorted(self.folds["train"])))
        chosen = self._chosen.fingerprint(self._in_training) if self._chosen.are_fewer else ""
        return f"{'+'.join(store.fingerprint for store in self.stores)}:folds {folds}{chosen}"

    @property
    def training_records(self) -> int:
        """How many records are trained on."""
        return len(self.split["train"])

    def group_counts(
        self, attribute: str, age_edges: Sequence[int], *, as_drawn: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Count the training records and their positives by group, for a loss that weighs groups.

        Args:
            attribute: ``sex``, ``age`` or ``sex_x_age``.
            age_edges: First year of each age band but the youngest.
            as_drawn: Count a record as often as an epoch draws it on average (see ``Sampling``), not once.

        Returns:
            Records (G,) and positives (G, C), float64, in the order of ``groups.group_by_demographics``.

        Raises:
            ConfigurationError: There is no such demographic, or no training record.
        """
        self._require("train")
        return count_by_group(
            demographic_groups(self._training_attributes(), attribute, age_edges),
            lambda column: self._of_training([labels[:, column] for labels in self._labels]),
            len(self.label_names),
            self._training_weights() if as_drawn else None,
        )

    def records(self, index: NDArray[np.int64], columns: Sequence[str] = ()) -> pd.DataFrame:
        """Return ids, fold, demographics and further columns of the records at these positions, in the same order."""
        raise NotImplementedError

    def training_sample(self, records: int) -> Iterator[EcgBatch]:
        """Yield batches of training records, each record once and as it is evaluated, on the CPU.

        Args:
            records: How many, at most: evenly spread over the training records in the order of the store.
        """
        positions = self.split["train"]
        chosen = np.unique(np.linspace(0, len(positions) - 1, min(records, len(positions))).round().astype(np.int64))
        dataset = self._dataset("train")
        for start in range(0, len(chosen), self.batch_size):
            batch = dataset.__getitems__(chosen[start : start + self.batch_size].tolist())
            yield finish(batch, self.preprocessing)

    def train_dataloader(self) -> DataLoader[EcgBatch]:
        """Return the loader of the training records, in a new order every epoch, see ``TrainingSampler``.

        Raises:
            ConfigurationError: There is none, because ``train_folds`` is empty.
        """
        self._require("train")
        dataset = self._dataset("train")
        replicas, rank = self._processes()
        self._sampler = TrainingSampler(
            dataset,
            replicas,
            rank,
            seed=self.seed,
            weights=self._training_weights(),
            shards=self._of_training(shard_numbers(self.stores)) if self.sampling.window else None,
            window=self.sampling.window,
        )
        return TrainingLoader(dataset, self._sampler, self._go_on, **self._loader_settings())

    def val_dataloader(self) -> DataLoader[EcgBatch]:
        """Return the loader of the validation records, each exactly once."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader[EcgBatch]:
        """Return the loader of the test records, each exactly once.

        Raises:
            ConfigurationError: There is none, because ``test_folds`` is empty.
        """
        self._require("test")
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[EcgBatch]:
        """Return the loader of all records but the test records, each exactly once."""
        return self._evaluation_loader("predict")

    def on_after_batch_transfer(self, batch: EcgBatch, dataloader_idx: int) -> EcgBatch:  # Lightning's signature
        """Make millivolts of the int16 samples, once they are on the device, in the precision of the training."""
        finished = finish(batch, self.preprocessing)
        return finished if self.trainer is None else self.trainer.precision_plugin.convert_input(finished)

    def state_dict(self) -> dict[str, Any]:
        """Return where the epoch stands by the batches trained on, which are fewer than those that workers read."""
        if self._sampler is None or self.trainer is None:
            return {}
        # Lightning counts a batch as processed once its step is done, and goes on behind the last one processed.
        processed = self.trainer.fit_loop.epoch_loop.batch_progress.state_dict()["current"]["processed"]
        state = {**self._sampler.state_dict(), "seen": self._seen(processed)}
        return {"sampler": state, "training_data": self.training_data}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep where the epoch stood, for when training goes on; nothing else needs it."""
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._stopped = state_dict

    def _go_on(self) -> None:
        """Set the sampler to where Lightning counts on in this epoch, at its start or after a checkpoint.

        Raises:
            ConfigurationError: The rest of the epoch that stopped is not to be had.
        """
        if self._sampler is None or self.trainer is None:
            return
        stopped, self._stopped = self._stopped, {}
        done = self.trainer.fit_loop.batch_idx + 1
        self._sampler.seen = self._seen(done)
        if done == 0 or not stopped:
            return
        if stopped["training_data"] != self.training_data:
            raise ConfigurationError(
                "The epoch can't go on where it stopped, because the training data have changed. Go on with the same "
                "stores and folds, or from the end of an epoch."
            )
        self._sampler.load_state_dict(stopped["sampler"])
        if self._sampler.seen != self._seen(done):
            raise ConfigurationError(
                f"The epoch stopped after {self._sampler.seen} records in {done} steps, which "
                f"{self._sampler.num_replicas} processes with batches of {self.batch_size} do not come to: expected "
                "the same product of processes and batch_size. Set batch_size so, or go on from the end of an epoch."
            )

    def _seen(self, batches: int) -> int:
        """Return how many records of the epoch all processes together have had after so many batches each."""
        sampler = self._sampler
        assert sampler is not None  # noqa: S101  # both callers have looked
        return min(batches * self.batch_size * sampler.num_replicas, sampler.total_size)

    def _training_weights(self) -> NDArray[np.float64] | None:
        """Return how often to draw each training record; None for each once."""
        if self.sampling.balance == "none":
            return None
        return self.sampling.weights(self._of_training(self._labels), self._training_attributes())

    def _training_attributes(self) -> NDArray[np.float32]:
        return self._of_training([records.attributes for records in self._records])

    @cached_property
    def _in_training(self) -> list[NDArray[np.bool_]]:
        """Which records are trained on, a mask a store."""
        return self._chosen.masks(self.stores, self._labels, self.record_folds, self.folds["train"])

    def _require(self, part: str) -> None:
        """Refuse to train or test where no record is to be had for it."""
        if not len(self.split[part]):
            raise ConfigurationError(
                f"data.{part}_folds is {self.folds[part]}, so there is no record to {part} on: name folds of the store."
            )

    def _of_training(self, columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the rows of the training records, of columns that are given a store each."""
        return np.concatenate([column[own] for column, own in zip(columns, self._in_training, strict=True)])

    @cached_property
    def _records(self) -> list[StoreRecords]:
        return [
            StoreRecords(store, labels, self.max_beats) for store, labels in zip(self.stores, self._labels, strict=True)
        ]

    def _dataset(self, part: str) -> StoreDataset:
        return StoreDataset(self._records, self.split[part], self.attribute_statistics)

    def _evaluation_loader(self, part: str) -> DataLoader[EcgBatch]:
        dataset = self._dataset(part)
        sampler = UnpaddedDistributedSampler(dataset, *self._processes())
        return DataLoader(dataset, sampler=sampler, **self._loader_settings())

    def _loader_settings(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "collate_fn": as_is,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.num_workers > 0,
        }

    def _processes(self) -> tuple[int, int]:
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank
