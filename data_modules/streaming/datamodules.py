"""EcgDataModule: streams one RecordStore of any source; and one by name for each source, which checks that it is it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_modules.labels.label_map import read_label_map
from data_modules.labels.mapped_labels import mapped_labels
from data_modules.stores.store import RecordStore
from data_modules.streaming.base import StoresDataModule
from ecgfair.errors import ConfigurationError, did_you_mean

RECORD_COLUMNS = ("record_id", "patient_id", "age", "sex")


def record_rows(store: RecordStore, index: NDArray[np.int64], columns: Sequence[str]) -> pd.DataFrame:
    """Return ids, demographics and further columns of a store's records at these positions, in this order.

    Raises:
        ConfigurationError: There is no such column.
    """
    for name in columns:
        if name not in store.column_names:
            raise ConfigurationError(
                f"{store.location} has no column {name!r} in its table of records."
                f"{did_you_mean(name, store.column_names)}"
            )
    # The fold is that of the data module, which splits a store that has none.
    names = [name for name in dict.fromkeys([*RECORD_COLUMNS, *columns]) if name != "fold"]
    return cast("pd.DataFrame", store.columns(names).take(index).to_pandas())


class EcgDataModule(StoresDataModule):
    """Streams a RecordStore, split by folds.

    Args:
        store: Folder or URI of the RecordStore, as ``python -m ecgfair prepare`` writes it.
        labels: Name of a label set of the store. If None, the usual one of its source, else its first one; a store
            without label sets has no labels, which is enough for stage 1.
        min_likelihood: Least likelihood in percent of a label to count as positive. A likelihood of 0 is unknown, as
            that of nearly all statements of PTB-XL on form and rhythm, and always counts.
        label_map: Name of a map to another vocabulary, to test a model on labels that it was not trained on:
            ``snomed_to_scp`` tells SNOMED CT codes as statements of PTB-XL, see ``labels.label_map``. ``labels`` then
            names the label set of that vocabulary which the model was trained on; label sets of the store are not
            used. What the map can't tell is logged in one line. If None, the labels are those of the store.
        **settings: See ``StoresDataModule``.

    Raises:
        StoreError: The store is missing or damaged.
        ConfigurationError: The store or the map has no such label set, the store is of another source, or a setting
            can't work.
    """

    source: ClassVar[str | None] = None
    """``RecordStore.source_name`` of the stores it streams; any if None."""
    usual_labels: ClassVar[str] = "superdiagnostic"

    def __init__(
        self,
        store: str,
        labels: str | None = None,
        min_likelihood: float = 0.0,
        label_map: str | None = None,
        **settings: Any,
    ) -> None:
        self.store = RecordStore(store)
        if self.source not in (None, self.store.source_name):
            raise ConfigurationError(
                f"{store} holds records of {self.store.source_name!r}: {type(self).__name__} expects {self.source!r}. "
                "Choose the data module of that source, or EcgDataModule for any."
            )
        self.label_map = label_map
        names, values = self._labels_of(labels, min_likelihood)
        super().__init__([self.store], names, [values], **settings)

    def _labels_of(self, labels: str | None, min_likelihood: float) -> tuple[list[str], NDArray[np.uint8]]:
        """Return the labels' names and (records, labels) uint8."""
        label_map = None if self.label_map is None else read_label_map(self.label_map)
        label_sets = self.store.label_sets if label_map is None else label_map.label_sets
        chosen = labels or (self.usual_labels if self.usual_labels in label_sets else next(iter(label_sets), None))
        if chosen is None:
            return [], np.zeros((len(self.store), 0), dtype=np.uint8)
        if label_map is None:
            return self.store.labels(chosen, min_likelihood)
        return mapped_labels(self.store, label_map, chosen, min_likelihood)

    def records(self, index: NDArray[np.int64], columns: Sequence[str] = ()) -> pd.DataFrame:
        """Return ids, fold and demographics of the records at these positions, a row each in the same order.

        Args:
            index: Positions.
            columns: Further columns of the store's table of records.

        Raises:
            ConfigurationError: There is no such column.
        """
        table = record_rows(self.store, index, columns)
        table.insert(2, "fold", self.record_folds[0][index])
        return table


class PtbXlDataModule(EcgDataModule):
    """Streams a store of PTB-XL: superdiagnostic labels and the folds of its authors, if not told otherwise."""

    source = "PTB-XL"


class Code15DataModule(EcgDataModule):
    """Streams a store of CODE-15 %: its six abnormalities, if not told otherwise, split by patient into ten folds."""

    source = "CODE-15 %"
    usual_labels = "abnormalities"


class WfdbFolderDataModule(EcgDataModule):
    """Streams a store of WFDB records as the PhysioNet challenges ship them: the labels that those scored."""

    source = "WFDB folder"
    usual_labels = "scored"


class OwnRecordsDataModule(EcgDataModule):
    """Streams a store of one's own records: the first label set and the folds that its table names, or none."""

    source = "own records"
