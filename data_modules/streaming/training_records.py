"""Which records of the training folds are trained on: all, those of one label alone, a share of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_modules.stores.store import RecordStore
from data_modules.streaming.low_label import check_share, stratified_subset
from data_modules.streaming.only_label import fingerprint, only_label
from ecgfair.errors import ConfigurationError


@dataclass(frozen=True)
class TrainingRecords:
    """Which records of the training folds are trained on; see ``StoresDataModule`` for the settings.

    Args:
        only: Name of the label whose records alone are trained on; None for all.
        column: Of that label.
        share: Of these records, by store.
        seed: Of the choice of the share.

    Raises:
        ConfigurationError: The share is no number above 0 and up to 1.
    """

    only: str | None
    column: int | None
    share: float
    seed: int

    def __post_init__(self) -> None:
        """Refuse a share that can't be one, before any record is looked at."""
        check_share(self.share)

    @property
    def are_fewer(self) -> bool:
        """Whether a setting leaves some records of the training folds out."""
        return self.only is not None or self.share < 1

    def masks(
        self,
        stores: Sequence[RecordStore],
        labels: Sequence[NDArray[np.uint8]],
        record_folds: Sequence[NDArray[np.int8]],
        train_folds: Sequence[int],
    ) -> list[NDArray[np.bool_]]:
        """Return which records are trained on, (records,) a store.

        Args:
            stores: The stores.
            labels: (records, C) 0 or 1 of each.
            record_folds: (records,) fold of each record, a store.
            train_folds: Folds trained on.

        Raises:
            ConfigurationError: A store has records in these folds, but none is left.
        """
        masks = []
        for store, values, folds in zip(stores, labels, record_folds, strict=True):
            mask = np.isin(folds, train_folds)
            # A store may have no record at all in the training folds, if none are asked for.
            if mask.any():
                mask = self._of_label(store, values, mask, train_folds)
                mask = self._of_share(store, values, mask)
            masks.append(mask)
        return masks

    def fingerprint(self, masks: Sequence[NDArray[np.bool_]]) -> str:
        """Return what was asked for, how many records that is, and a digest of which."""
        only = "" if self.only is None else f":only {self.only}"
        share = "" if self.share == 1 else f":share {self.share} seed {self.seed}"
        return f"{only}{share}, {fingerprint(masks)}"

    def _of_label(
        self, store: RecordStore, labels: NDArray[np.uint8], mask: NDArray[np.bool_], train_folds: Sequence[int]
    ) -> NDArray[np.bool_]:
        if self.column is None:
            return mask
        left: NDArray[np.bool_] = mask & only_label(labels, self.column)
        if not left.any():
            raise ConfigurationError(
                f"None of the {int(mask.sum())} records of {store.location} in the folds {list(train_folds)} has "
                f"{self.only!r} as its only positive label: expected some to train on. Choose another label or label "
                "set, or leave data.train_only out."
            )
        return left

    def _of_share(self, store: RecordStore, labels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if self.share == 1:
            return mask
        encoded = pc.dictionary_encode(store.columns(["patient_id"])["patient_id"]).combine_chunks()
        patient = encoded.indices.to_numpy()
        left = np.zeros_like(mask)
        left[mask] = stratified_subset(labels[mask], patient[mask], self.share, self.seed)
        return left
