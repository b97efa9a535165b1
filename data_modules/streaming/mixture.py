"""MixtureDataModule: several stores as one, for pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_modules.stores.store import RecordStore
from data_modules.streaming.base import StoresDataModule
from data_modules.streaming.datamodules import record_rows
from ecgfair.errors import ConfigurationError


class MixtureDataModule(StoresDataModule):
    """Streams several stores that were prepared in the same way, as if they were one.

    Each store is split by its own folds, or by patient where it has none. The same patient id in two stores is two
    patients: one who is in both under two names can't be found, so keep stores that overlap out of one mixture.

    Args:
        stores: Folders or URIs of the stores.
        weights: Share of each store in the records drawn an epoch, relative to the others. An epoch has as many
            records as all stores together, so those of a store with a larger share than its own come more than once.
            If None, each record comes once.
        labels: Name of a label set that all stores have, with the same labels. If None, the first such, or no labels
            where there is none, which is enough for stage 1.
        min_likelihood: Least likelihood in percent of a label to count as positive; unknown ones, 0, always count.
        **settings: See ``StoresDataModule``.

    Raises:
        StoreError: A store is missing or damaged.
        PreprocessingMismatchError: Two stores were prepared in different ways; the message names both.
        ConfigurationError: The weights don't fit the stores, a store lacks the label set, or a setting can't work.
    """

    def __init__(
        self,
        stores: list[str],
        weights: list[float] | None = None,
        labels: str | None = None,
        min_likelihood: float = 0.0,
        **settings: Any,
    ) -> None:
        if not stores or len({name.rstrip("/") for name in stores}) < len(stores):
            raise ConfigurationError(f"data.stores is {stores}: expected at least one store, each once.")
        if weights is not None and (len(weights) != len(stores) or not all(0 < weight < np.inf for weight in weights)):
            raise ConfigurationError(
                f"data.weights is {weights} for {len(stores)} stores: expected a positive number for each."
            )
        opened = [RecordStore(name) for name in stores]
        for store, name in zip(opened[1:], stores[1:], strict=True):
            opened[0].preprocessing.require_same(store.preprocessing, stores[0], name)
        self.weights = weights
        self.store_names = _short_names(stores)
        chosen = _shared_label_set(opened) if labels is None else labels
        if chosen is None:
            labels_of = [(list[str](), np.zeros((len(store), 0), dtype=np.uint8)) for store in opened]
        else:
            labels_of = [store.labels(chosen, min_likelihood) for store in opened]
            _require_same_labels(chosen, [names for names, _ in labels_of], stores)
        super().__init__(opened, labels_of[0][0], [values for _, values in labels_of], **settings)

    @property
    def training_data(self) -> str:
        """Fingerprint of the training data: see ``StoresDataModule``, the stores in order, and the weights."""
        weights = "" if self.weights is None else f":weights {','.join(map(str, self.weights))}"
        return super().training_data + weights

    def records(self, index: NDArray[np.int64], columns: Sequence[str] = ()) -> pd.DataFrame:
        """Return ids, fold, demographics and the store of the records at these positions, a row each in this order.

        Ids begin with the store's name, since two stores may have the same.

        Args:
            index: Positions in all stores together.
            columns: Further columns; ``store`` is always there.

        Raises:
            ConfigurationError: A store lacks such a column.
        """
        columns = [name for name in columns if name != "store"]
        starts = np.cumsum([0, *(len(store) for store in self.stores)])
        source = np.searchsorted(starts, index, side="right") - 1
        tables = []
        for number, name in enumerate(self.store_names):
            at = np.flatnonzero(source == number)
            own = index[at] - starts[number]
            table = record_rows(self.stores[number], own, columns).set_index(at)
            for column in ("record_id", "patient_id"):
                table[column] = name + "/" + table[column]
            table.insert(2, "fold", self.record_folds[number][own])
            tables.append(table.assign(store=name))
        found: pd.DataFrame = pd.concat(tables).sort_index()
        return found

    def _training_weights(self) -> NDArray[np.float64] | None:
        balanced = super()._training_weights()
        if self.weights is None:
            return balanced
        sizes = [int(own.sum()) for own in self._in_training]
        each = np.ones(sum(sizes)) if balanced is None else balanced
        parts = np.split(each, np.cumsum(sizes)[:-1])
        return np.concatenate([part * (share / part.sum()) for part, share in zip(parts, self.weights, strict=True)])


def _short_names(stores: Sequence[str]) -> list[str]:
    """Return the last part of each address, or the whole addresses where two have the same."""
    short = [name.rstrip("/").rsplit("/", 1)[-1] for name in stores]
    return short if len(set(short)) == len(short) else list(stores)


def _shared_label_set(stores: Sequence[RecordStore]) -> str | None:
    """Return the first label set of the first store that all have with the same labels."""
    for name, labels in stores[0].label_sets.items():
        if labels and all(list(store.label_sets.get(name, ())) == list(labels) for store in stores):
            return name
    return None


def _require_same_labels(label_set: str, names: Sequence[list[str]], stores: Sequence[str]) -> None:
    for other, store in zip(names[1:], stores[1:], strict=True):
        if other != names[0]:
            raise ConfigurationError(
                f"The label set {label_set!r} is {', '.join(names[0])} in {stores[0]} but {', '.join(other)} in "
                f"{store}: expected the same labels in all stores. Leave data.labels out to train without."
            )
