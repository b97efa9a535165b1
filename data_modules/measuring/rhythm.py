"""Heart rate and RR variability of one ECG, and how far to trust them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from data_modules.measuring.beats import CONTRAST, JudgedBeats

ECTOPIC: Final = 0.2
"""Relative difference of two successive RR intervals from which more does not count as more variability."""

_FEWEST: Final = 3  # differences of successive RR intervals; fewer tell no variability


@dataclass(frozen=True)
class Rhythm:
    """What the distances of the beats tell; None and a quality of 0 where that can't be told.

    Args:
        heart_rate: Beats per minute.
        rr_variability: See ``rhythm``.
        heart_rate_quality: 0 to 1.
        rr_variability_quality: 0 to 1.
    """

    heart_rate: float | None = None
    rr_variability: float | None = None
    heart_rate_quality: float = 0.0
    rr_variability_quality: float = 0.0


def rhythm(beats: JudgedBeats, sampling_rate: float) -> Rhythm:
    """Tell heart rate and RR variability from the distances of the beats.

    The heart rate comes from the median RR interval. RR variability is the mean of
    ``|rr[i+1] - rr[i]| / mean(rr[i], rr[i+1])`` over successive RR intervals, each at most ``ECTOPIC``: the mean
    absolute successive difference (von Neumann et al. 1941), relative, so that the heart rate has no part in it, and
    capped, so that an ectopic beat, which makes two or three large differences, does not pass for the steady
    irregularity of atrial fibrillation. It has no unit; it lies between 0 and 0.2.

    The quality of the heart rate is the share of beats that the activity of all leads does not contradict (see
    ``JudgedBeats``), times how clearly the beats stand out, from 0 at the contrast below which no beats are told
    towards 1. That of the variability falls with the third power of that share, because a false or missed beat spoils
    three differences, and is ``n / (n + 1)`` times as high, where ``n`` differences are known.

    Args:
        beats: The R peaks.
        sampling_rate: Hz.
    """
    rr = beats.rr
    if not np.isfinite(rr).any():
        return Rhythm()
    agreed = beats.peaks.size / (beats.peaks.size + beats.contradictions)
    clear = max(0.0, 1 - CONTRAST / beats.contrast)
    found = Rhythm(60 * sampling_rate / float(np.nanmedian(rr)), heart_rate_quality=agreed * clear)
    relative = 2 * np.abs(np.diff(rr)) / (rr[1:] + rr[:-1])
    relative = relative[np.isfinite(relative)]
    if relative.size < _FEWEST:
        return found
    return Rhythm(
        heart_rate=found.heart_rate,
        rr_variability=float(np.minimum(relative, ECTOPIC).mean()),
        heart_rate_quality=found.heart_rate_quality,
        rr_variability_quality=agreed**3 * clear * relative.size / (relative.size + 1),
    )
