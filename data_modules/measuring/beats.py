"""Beats of one ECG: where the R peaks are.

R peaks come from neurokit2. What it finds in one lead is checked against the activity of all leads, because one lead
can be flat, noisy or without an R wave.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, Literal

import neurokit2 as nk
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy import signal as sps

from data_modules.measuring.recorded import Floats, Indices, Recorded, median_of_rows, recorded_part

LEAD_PREFERENCE: Final = ("II", "MLII", "V5", "aVR", "I", "V1", "V6", "aVF", "III", "V2", "V4", "V3", "aVL")
"""Leads to look for R peaks in: II as usual in rhythm analysis, then leads that see the heart from other directions.
``MLII`` is the modified lead II of ambulatory recorders. Leads of other names come last, in the order of the signal."""

MINIMUM_DURATION: Final = 2.0
"""Seconds. A shorter signal holds too few beats to tell a rhythm or a typical beat."""

MINIMUM_RATE: Final = 50
"""Hz. A signal of a lower rate holds no QRS complex that could be told from other waves."""

CONTRAST: Final = 2.5
"""Activity of typical beats over the median activity below which no beats are told; white noise stays below 2.3, all of
PTB-XL above."""

_FLAT: Final = 0.02  # millivolts from trough to crest; below it a lead holds no QRS complex but rounding and hum
_QRS_BAND: Final = (5.0, 35.0)  # Hz; most energy of QRS complexes, little of T waves, baseline wander and mains hum
_ACTIVITY_WINDOW: Final = 0.1  # seconds, about one QRS complex
_NEAR: Final = 0.1  # seconds around an R peak in which the activity of its QRS complex peaks
_REFRACTORY: Final = 0.2  # seconds around an R peak in which no second QRS complex can start
_FALSE_BEAT: Final = 0.3  # share of the activity of typical beats below which a found beat is none but a T wave, say
_MISSED_BEAT: Final = 0.5  # share of it above which a place without a found beat must hold one
_EDGE_BEAT: Final = 0.5  # share of it that a beat at an edge must reach, where half of a T wave may look like one
_PAD: Final = 1.0  # seconds mirrored at both edges, since neurokit2 finds no beat in the first 0.3 s


def _lead_order(leads: Sequence[str]) -> list[int]:
    names = {name.lower(): row for row, name in reversed(list(enumerate(leads)))}
    preferred = [names[name.lower()] for name in LEAD_PREFERENCE if name.lower() in names]
    return preferred + [row for row in range(len(leads)) if row not in preferred]


@lru_cache(maxsize=32)  # designing a filter takes as long as using it
def butterworth(
    kind: Literal["bandpass", "highpass", "lowpass"], cutoff: float | tuple[float, float], sampling_rate: float
) -> Floats:
    """Return the second-order sections of a Butterworth filter of order 2; cut-offs and rate in Hz."""
    return np.asarray(sps.butter(2, cutoff, kind, fs=sampling_rate, output="sos"))


def _activity(signal: Floats, sampling_rate: float) -> Floats:
    """Return (time,) how steep the leads are on the whole, where 1 is about the height of a QRS complex.

    Each lead counts relative to its own steepest parts, and the median over leads ignores the few that are noisy.
    """
    high = min(_QRS_BAND[1], 0.45 * sampling_rate)
    band = butterworth("bandpass", (_QRS_BAND[0], high), sampling_rate)
    steepness = np.abs(np.gradient(sps.sosfiltfilt(band, signal, axis=1), axis=1))
    steepness = ndimage.uniform_filter1d(steepness, max(1, round(_ACTIVITY_WINDOW * sampling_rate)), axis=1)
    height = np.percentile(steepness, 95, axis=1, keepdims=True)
    usable = height[:, 0] > 0
    if not usable.any():
        return np.zeros(signal.shape[1])
    return median_of_rows(steepness[usable] / height[usable])


def _neurokit_peaks(lead: Floats, sampling_rate: float) -> Indices:
    """Return the R peaks that neurokit2 finds in one lead."""
    pad = min(round(_PAD * sampling_rate), lead.size - 1)
    padded = np.pad(lead, pad, mode="reflect")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            clean = nk.ecg_clean(padded, sampling_rate=sampling_rate)
            found = nk.ecg_peaks(clean, sampling_rate=sampling_rate)[1]["ECG_R_Peaks"]
        except (ValueError, IndexError, ZeroDivisionError):  # what neurokit2 raises where it finds nothing
            return np.zeros(0, dtype=np.int32)
    return _folded(np.asarray(found, dtype=np.int64) - pad, lead.size, round(_REFRACTORY * sampling_rate))


def _folded(peaks: NDArray[np.int64], size: int, refractory: int) -> Indices:
    """Return the peaks inside the signal, those just outside mapped back to the beat that they are the mirror of."""
    peaks = peaks[(peaks > -refractory) & (peaks < size + refractory)]
    peaks = np.unique(size - 1 - np.abs(size - 1 - np.abs(peaks)))
    apart = np.diff(peaks, prepend=-refractory - 1) >= refractory
    return peaks[apart].astype(np.int32)


@dataclass(frozen=True)
class JudgedBeats:
    """R peaks and how well they fit the activity of all leads.

    Args:
        peaks: (K,) int32 sample index of each R peak, ascending.
        rr: (K - 1,) samples from each beat to the next; NaN where nothing was recorded for a while in between.
        contradictions: How many beats of the search were dropped because the leads are quiet there, plus how many
            places hold a QRS complex but no beat.
        contrast: Activity of the typical beat over the median activity: 2.3 at most in white noise, 18 in the median
            of PTB-XL.
    """

    peaks: Indices
    rr: Floats = field(default_factory=lambda: np.zeros(0))
    contradictions: float = np.inf
    contrast: float = 0.0


def _judge(peaks: Indices, activity: Floats, sampling_rate: float) -> JudgedBeats:
    """Drop beats where the leads are quiet; count them, and the active places without a beat."""
    if peaks.size < 2:
        return JudgedBeats(peaks)
    near, refractory = round(_NEAR * sampling_rate), round(_REFRACTORY * sampling_rate)
    heights = ndimage.maximum_filter1d(activity, 2 * near + 1)[peaks]
    typical = np.percentile(heights, 75)
    at_edge = (peaks < refractory) | (peaks >= activity.size - refractory)
    quiet = heights < np.where(at_edge, _EDGE_BEAT, _FALSE_BEAT) * typical
    contradictions = np.count_nonzero(quiet & ~at_edge)  # at an edge also a true beat may be cut off
    peaks = peaks[~quiet]
    if peaks.size < 2:
        return JudgedBeats(peaks)
    rest = activity.copy()
    rest[:refractory] = rest[-refractory:] = 0
    for peak in peaks:
        rest[max(0, peak - refractory) : peak + refractory] = 0
    missed, _ = sps.find_peaks(rest, height=_MISSED_BEAT * typical, distance=max(1, refractory))
    contrast = float(typical / max(np.median(activity), 1e-12))
    return JudgedBeats(peaks, contradictions=float(contradictions + missed.size), contrast=contrast)


def rr_intervals(peaks: Indices, part: Recorded) -> Floats:
    """Return (K - 1,) samples between successive R peaks; NaN where no lead was recorded for a while in between.

    Args:
        peaks: (K,) sample index of each R peak in ``part.rows``, ascending.
        part: What was recorded.
    """
    silent = np.cumsum(part.silence)[peaks]
    return np.where(np.diff(silent) > 0, np.nan, np.diff(peaks))


def find_beats(signal: NDArray[np.floating], leads: Sequence[str], sampling_rate: float) -> JudgedBeats:
    """Find the R peaks of one ECG.

    neurokit2 (Makowski et al. 2021) searches lead II. Its beats are accepted if the activity of all leads together
    agrees: no beat where the leads are quiet, no QRS complex without a beat. Otherwise the leads of
    ``LEAD_PREFERENCE`` are tried in turn, and if none agrees wholly the best one is taken.

    Args:
        signal: (leads, time) millivolts; NaN where nothing was recorded, where no beats are looked for.
        leads: Names of the rows of ``signal``.
        sampling_rate: Hz.

    Returns:
        The R peaks in samples of ``signal``; none for one that is too short, flat or holds no heart beats.
    """
    none = JudgedBeats(np.zeros(0, dtype=np.int32))
    part = recorded_part(signal, sampling_rate)
    rows = part.rows
    if sampling_rate < MINIMUM_RATE or rows.shape[1] < MINIMUM_DURATION * sampling_rate:
        return none
    alive = [row for row in _lead_order([leads[row] for row in part.leads]) if np.ptp(rows[row]) > _FLAT]
    if not alive:
        return none
    activity = _activity(rows[alive], sampling_rate)
    best = none
    for row in alive:
        found = _neurokit_peaks(rows[row], sampling_rate)
        judged = _judge(found[~part.silence[found]], activity, sampling_rate)
        if judged.contradictions < best.contradictions:
            best = judged
        if best.contradictions == 0:
            break
    if best.contrast < CONTRAST:
        return none
    peaks = (best.peaks + part.start).astype(np.int32)
    return replace(best, peaks=peaks, rr=rr_intervals(best.peaks, part))
