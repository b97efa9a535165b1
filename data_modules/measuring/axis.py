"""The frontal QRS axis of median beats, of many records at once."""

from __future__ import annotations

from typing import Final

import numpy as np

from data_modules.measuring.recorded import Floats
from data_modules.measuring.vectors import Samples, samples

_BASELINE: Final = samples(8) + 1, samples(30) + 1  # before QRS onset: the end of the PR segment
_AUGMENTED: Final = 2 / np.sqrt(3)  # aVF is sqrt(3)/2 as long as the vertical part of the heart's vector (Einthoven)
_BALANCED: Final = 0.05  # share of the whole area from which on the net area points somewhere


def qrs_axis(limb: Floats, qrs_onset: Samples, qrs_offset: Samples) -> Floats:
    """Tell the frontal QRS axis from the net areas of the QRS complex in I and aVF.

    It is ``atan2(2 / sqrt(3) * aVF, I)``: 0 points to the left arm, 90 to the feet (Novosel et al. 1999). On PTB-XL
    areas tell fascicular blocks better than amplitudes.

    Args:
        limb: (records, 2, time) millivolts of I and aVF in the median beats; NaN where not recorded.
        qrs_onset: (records,) first sample of the QRS complex.
        qrs_offset: (records,) its last.

    Returns:
        (records,) degrees from -180 to 180; NaN if a lead is missing, or what points up and down or left and right
        balances to less than 5 %.
    """
    time = np.arange(limb.shape[2])
    inside = (time >= qrs_onset[:, None]) & (time <= qrs_offset[:, None])
    places = (qrs_onset[:, None] - np.arange(*_BASELINE))[:, None]
    voltage = limb - np.take_along_axis(limb, places, axis=2).mean(axis=2, keepdims=True)
    vector = np.where(inside[:, None], voltage, 0) * np.array([[1], [_AUGMENTED]])
    left, down = vector.sum(axis=2).T
    whole = np.hypot(*np.abs(vector).sum(axis=2).T)
    return np.where(np.hypot(left, down) > _BALANCED * whole, np.degrees(np.arctan2(down, left)), np.nan)


def angle_between(first: Floats, second: Floats) -> Floats:
    """Return degrees from 0 to 180 between two directions in degrees."""
    return np.asarray(np.abs((first - second + 180) % 360 - 180))
