"""Which records are trained on where labels are few: a share of them in which every label is still there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ecgfair.errors import ConfigurationError

_LOOKED_AT: Final = 32
"""Units with the label that lags most that are compared; more cost time and change little."""


def stratified_subset(
    labels: NDArray[np.uint8], patients: NDArray[Any] | None, share: float, seed: int
) -> NDArray[np.bool_]:
    """Choose a share of records in which every label occurs, as often as the share allows.

    First come the records with most of the labels not yet there, until all are. Then, as in iterative stratification
    (Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011), a record of the
    label that lags most behind its share comes next, of the rarest one among equals; unlike there, it is the one of
    some such records that mends most of the other labels too. "No label" counts as one more label. All records are
    put into this order whatever the share is, so that of one seed a smaller share lies within a larger one.

    Args:
        labels: (N, C) 0 or 1; C may be 0.
        patients: (N,) of anything that can be sorted, equal for the records of a patient, which then come together;
            None for each record by itself.
        share: Of the records, above 0 and up to 1.
        seed: Of the order among records with the same labels.

    Returns:
        (N,) whether a record is chosen: the share, rounded to whole records, and what the last patient has beyond it.
        Of records by themselves, each brings a label that was not there until all are: so many records as there are
        labels, "no label" among them, keep every label that has a positive record.

    Raises:
        ConfigurationError: The share is no number above 0 and up to 1, or comes to less than one record.
    """
    records = len(labels)
    wanted = _budget(records, share)
    if wanted == records:
        return np.ones(records, dtype=np.bool_)
    unit, counts, sizes = _units(labels, patients)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    counts, sizes = counts[shuffled], sizes[shuffled]
    chosen = _first(_in_order(counts, sizes), sizes, wanted)
    taken = np.zeros(len(sizes), dtype=np.bool_)
    taken[shuffled[chosen]] = True
    mask: NDArray[np.bool_] = taken[unit]
    return mask


def check_share(share: float) -> None:
    """Refuse what is no share.

    Raises:
        ConfigurationError: It is not above 0 and up to 1.
    """
    if not 0 < share <= 1:  # NaN as well
        raise ConfigurationError(
            f"data.train_share is {share}: expected a share of the training records, above 0 and up to 1."
        )


def _budget(records: int, share: float) -> int:
    check_share(share)
    wanted = math.floor(records * share + 0.5)
    if wanted < 1:
        raise ConfigurationError(
            f"data.train_share is {share:g} of {records} training records, which is less than one: expected at least "
            f"{0.5 / max(records, 1):.2g}. Choose a larger share, or more train_folds."
        )
    return wanted


def _units(
    labels: NDArray[np.uint8], patients: NDArray[Any] | None
) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.int64]]:
    """Return the unit of each record, the units' counts of positives, of none in the last column, and their sizes."""
    records = len(labels)
    positive = np.empty((records, labels.shape[1] + 1), dtype=np.uint16)
    positive[:, :-1] = labels
    positive[:, -1] = ~labels.any(axis=1)
    if patients is None:
        return np.arange(records), positive, np.ones(records, dtype=np.int64)
    _, unit, sizes = np.unique(patients, return_inverse=True, return_counts=True)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    together = np.add.reduceat(positive[np.argsort(unit, kind="stable")], starts, axis=0)
    return unit, together, sizes


def _first(order: Iterator[int], sizes: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """Return the first units of an order that have as many records as wanted."""
    chosen, records = [], 0
    while records < wanted:
        chosen.append(next(order))
        records += int(sizes[chosen[-1]])
    return np.array(chosen, dtype=np.int64)


class _Queues:
    """The units that have a label and are not taken, a queue a label."""

    def __init__(self, counts: NDArray[np.uint16]) -> None:
        self.left = np.ones(len(counts), dtype=np.bool_)
        self._waiting = [np.flatnonzero(column) for column in counts.T]
        self._start = [0] * counts.shape[1]

    def next(self, label: int) -> NDArray[np.int64]:
        """Return the next few units of a label, or none."""
        waiting = self._waiting[label]
        while self._start[label] < len(waiting):
            block = waiting[self._start[label] : self._start[label] + 2 * _LOOKED_AT]
            there = np.flatnonzero(self.left[block])
            self._start[label] += int(there[0]) if len(there) else len(block)
            if len(there):
                return block[there[:_LOOKED_AT]]
        return waiting[:0]


def _in_order(counts: NDArray[np.uint16], sizes: NDArray[np.int64]) -> Iterator[int]:
    """Yield all units, so that any first few of them have the labels as all together do, see ``stratified_subset``."""
    total = counts.sum(axis=0, dtype=np.int64)
    rarest_first = np.argsort(total, kind="stable")
    rarest_first = rarest_first[total[rarest_first] > 0]
    covering = []
    for unit in _by_cover(counts, sizes, rarest_first.tolist()):
        covering.append(unit)
        yield unit
    yield from _by_lag(counts, sizes, rarest_first, np.array(covering, dtype=np.int64))


def _by_cover(counts: NDArray[np.uint16], sizes: NDArray[np.int64], rarest_first: list[int]) -> Iterator[int]:
    """Yield units by how many labels a record of them brings that were not there, until all are."""
    missing = dict.fromkeys(rarest_first)
    brings = np.count_nonzero(counts, axis=1)
    while missing:
        by_record = brings / sizes
        most = np.flatnonzero(by_record == by_record.max())
        unit = int(next(having for label in missing if len(having := most[counts[most, label] > 0]))[0])
        for label in [label for label in missing if counts[unit, label]]:
            brings -= counts[:, label] > 0
            del missing[label]
        yield unit


def _by_lag(
    counts: NDArray[np.uint16],
    sizes: NDArray[np.int64],
    rarest_first: NDArray[np.int64],
    taken: NDArray[np.int64],
) -> Iterator[int]:
    """Yield the units not taken, by the label that lags most behind its share."""
    of_label = 1 / counts.sum(axis=0, dtype=np.int64)[rarest_first]
    queues = _Queues(counts)
    queues.left[taken] = False
    # Of each label's positives, those taken and half the next one: that rounds to the nearest record, not up.
    share = (counts[taken].sum(axis=0, dtype=np.int64)[rarest_first] + 0.5) * of_label
    records, everything = int(sizes[taken].sum()), int(sizes.sum())
    for _ in range(len(sizes) - len(taken)):
        while not len(candidates := queues.next(int(rarest_first[place := int(np.argmin(share))]))):
            share[place] = np.inf
        # How far each label is ahead of the share of all records that is taken: the least sum mends most, by what a
        # record more of each adds to (taken - expected)^2 / expected.
        ahead = np.where(np.isinf(share), 0, share - records / everything)
        unit = int(candidates[np.argmin(counts[np.ix_(candidates, rarest_first)] @ ahead)])
        queues.left[unit] = False
        share += counts[unit, rarest_first] * of_label
        records += int(sizes[unit])
        yield unit
