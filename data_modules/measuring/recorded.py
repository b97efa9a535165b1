"""The part of an ECG that was recorded: without padding, missing leads and dropouts, which stores write as NaN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Indices = NDArray[np.int32]

_BRIDGED: Final = 0.02  # seconds; a straight line over a shorter dropout hides no wave
_LACKING: Final = 0.1  # share of the part by which a lead may lack more than the best lead; else it is left out


@dataclass(frozen=True)
class Recorded:
    """What was recorded of an ECG, from the first to the last sample of any lead.

    Args:
        rows: (leads, time) millivolts of the leads that were recorded, finite: dropouts are bridged by straight lines.
        leads: Which rows of the given signal these are.
        start: The sample of the given signal at which ``rows`` begin.
        gaps: (time,) whether some lead of ``rows`` has a dropout of more than 20 ms.
        silence: (time,) whether all of them have.
    """

    rows: Floats
    leads: list[int]
    start: int
    gaps: NDArray[np.bool_]
    silence: NDArray[np.bool_]


def recorded_part(signal: NDArray[np.floating], sampling_rate: float) -> Recorded:
    """Return what of a signal was recorded.

    Leads that lack a tenth more of the recording than the best lead does are left out.

    Args:
        signal: (leads, time) millivolts; NaN or infinite where nothing was recorded.
        sampling_rate: Hz.
    """
    given = np.atleast_2d(np.asarray(signal, dtype=np.float64))
    finite = np.isfinite(given)
    ever = np.flatnonzero(finite.any(axis=0))
    if not ever.size:
        none = np.zeros(0, dtype=np.bool_)
        return Recorded(np.zeros((0, 0)), [], 0, none, none)
    span = slice(int(ever[0]), int(ever[-1]) + 1)
    lacking = 1 - finite[:, span].mean(axis=1)
    leads = np.flatnonzero((lacking <= lacking.min() + _LACKING) & (lacking < 1))
    rows, missing = given[leads, span], ~finite[leads, span]
    for row in np.flatnonzero(missing.any(axis=1)):
        holes = missing[row]
        rows[row, holes] = np.interp(np.flatnonzero(holes), np.flatnonzero(~holes), rows[row, ~holes])
    if missing.any():
        longer = np.ones((1, int(_BRIDGED * sampling_rate) + 1), dtype=np.bool_)
        missing = ndimage.binary_opening(missing, longer)
    gaps, silence = np.logical_or.reduce(missing), np.logical_and.reduce(missing)
    return Recorded(rows, leads.tolist(), span.start, gaps, silence)


def median_of_rows(rows: Floats) -> Floats:
    """Return the median along the first axis; three times as fast as ``np.median``, which can't use vector units."""
    ordered = np.sort(rows, axis=0)
    return np.asarray((ordered[(len(rows) - 1) // 2] + ordered[len(rows) // 2]) / 2)
