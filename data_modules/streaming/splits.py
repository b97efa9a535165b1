"""Which records are trained on: a store's folds or those made of its patients, and no patient in two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_modules.stores.store import RecordStore
from ecgfair.errors import SplitError

HASHED_FOLDS: Final = 10
_BLOCK: Final = 65_536  # ids made Python strings at a time

Folds = Mapping[str, Sequence[int]]
"""Part (``train``, ``validation``, ``test``) -> the folds it is made of."""


def check_folds(folds: Folds) -> None:
    """Refuse parts that share a fold.

    Raises:
        SplitError: Two parts share one; the message names it.
    """
    owner: dict[int, str] = {}
    for part, numbers in folds.items():
        for number in numbers:
            if owner.setdefault(number, part) != part:
                raise SplitError(
                    f"Fold {number} is in {owner[number]}_folds and in {part}_folds: expected each fold once."
                )


def record_folds(store: RecordStore, folds: Folds) -> NDArray[np.int8]:
    """Return the fold of each record of a store, checked; where the source has none, one of ten by the patient's id.

    Args:
        store: The store.
        folds: What the folds will be used for.

    Returns:
        (records,) folds, from 1.

    Raises:
        SplitError: Some records have a fold and some have none, a part has no record, or a patient is in two parts.
    """
    table = store.columns(["patient_id", "fold"])
    # Two million ids as Python strings would take more memory than all numbers of the store.
    encoded = pc.dictionary_encode(table["patient_id"]).combine_chunks()
    patient, ids = encoded.indices.to_numpy(), encoded.dictionary
    missing = table["fold"].null_count
    if missing == len(store):
        fold: NDArray[np.int8] = _hashed(ids)[patient]
    elif missing == 0:
        fold = table["fold"].to_numpy()
    else:
        raise SplitError(
            f"{missing} of {len(store)} records of {store.location} have no fold: expected all or none. Give the "
            "source's table a fold for every record, or for none to split by patient."
        )
    _check_parts(store, fold, folds)
    _check_patients(patient, ids, fold, folds)
    return fold


def _hashed(ids: Any) -> NDArray[np.int8]:
    """Return a fold for each id, by a cryptographic hash, since Python's own differs between processes."""
    folds = np.empty(len(ids), dtype=np.int8)
    for start in range(0, len(ids), _BLOCK):
        block = ids.slice(start, _BLOCK).to_pylist()
        folds[start : start + len(block)] = [
            int.from_bytes(hashlib.sha256(name.encode()).digest()) % HASHED_FOLDS + 1 for name in block
        ]
    return folds


def _check_parts(store: RecordStore, fold: NDArray[np.int8], folds: Folds) -> None:
    present = np.unique(fold).tolist()
    for part, numbers in folds.items():
        if numbers and not set(numbers) & set(present):
            raise SplitError(
                f"No record of {store.location} is in the {part} folds {list(numbers)}: it has the folds {present}. "
                f"Choose among these with data.{part}_folds."
            )


def _check_patients(patient: NDArray[np.int32], ids: Any, fold: NDArray[np.int8], folds: Folds) -> None:
    parts = list(folds)
    has = np.zeros((len(parts), len(ids)), dtype=bool)
    for row, part in enumerate(parts):
        has[row, patient[np.isin(fold, folds[part])]] = True
    twice = has.sum(axis=0) > 1
    if not twice.any():
        return
    first, second = next(
        (one, other)
        for one in range(len(parts))
        for other in range(one + 1, len(parts))
        if (has[one] & has[other]).any()
    )
    both = np.flatnonzero(has[first] & has[second])
    example = pc.min(ids.take(pa.array(both))).as_py()
    raise SplitError(
        f"{len(both)} patients have records in {parts[first]} and in {parts[second]}, for example {example!r}: "
        "expected all records of a patient in one part. Mend the folds of the source."
    )
