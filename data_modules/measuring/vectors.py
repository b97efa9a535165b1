"""Arithmetic on median beats of many records: each record is a vector of leads that moves in time.

Arrays are (records, leads, time), places (records,) or (records, width) samples, one row a record.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data_modules.measuring.median_beat import MEDIAN_BEAT_RATE
from data_modules.measuring.recorded import Floats

Samples = NDArray[np.int64]
Flags = NDArray[np.bool_]

MILLISECONDS: Final = 1000 / MEDIAN_BEAT_RATE
"""Milliseconds per sample of the median beat."""


def samples(milliseconds: float) -> int:
    """Return the nearest number of samples of the median beat."""
    return round(milliseconds / MILLISECONDS)


def smooth(rows: Floats, deviation: int, order: int = 0) -> Floats:
    """Return (..., time) smoothed by a Gaussian of a ``deviation`` in samples, or its derivative of an order."""
    return np.asarray(ndimage.gaussian_filter1d(rows, deviation, axis=-1, mode="nearest", order=order))


def length(rows: Floats) -> Floats:
    """Return (..., time) the length of the vector of all leads of (..., leads, time)."""
    return np.asarray(np.sqrt(np.einsum("...lt,...lt->...t", rows, rows)))


def take(rows: Floats, places: Samples) -> Floats:
    """Return (records, leads, width) of (records, leads, time) at (records, width) places."""
    return np.take_along_axis(rows, places[:, None], axis=2)


def at(rows: Floats, places: Samples) -> Floats:
    """Return (records,) of (records, time) at one place a record."""
    return np.asarray(np.take_along_axis(rows, places[:, None], axis=1)[:, 0])


def first_true(found: Flags) -> Samples:
    """Return the first place that is true on the last axis; 0 if none is."""
    return np.asarray(np.argmax(found, axis=-1))


def last_true(found: Flags) -> Samples:
    """Return the last place that is true on the last axis; the very last if none is."""
    return np.asarray(found.shape[-1] - 1 - np.argmax(found[..., ::-1], axis=-1))


def noise_between(halves: Floats, among: Flags) -> Floats:
    """Return (records,) how much the halves of the beats differ: half the mean length of the difference vector.

    Args:
        halves: (records, 2, leads, time).
        among: (records, time), the times that count.
    """
    difference = length(halves[:, 0] - halves[:, 1])
    return np.asarray((difference * among).sum(axis=1) / np.maximum(among.sum(axis=1), 1) / 2)
