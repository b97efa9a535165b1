"""Beats of one ECG: where the R peaks are, and what the typical beat looks like in every lead.

R peaks come from neurokit2. What it finds in one lead is checked against the activity of all leads, because one lead
can be flat, noisy or without an R wave. The median beat is the ground on which ``measurement`` measures intervals.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final, Literal

import neurokit2 as nk
import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy import signal as sps

Floats = NDArray[np.float64]
Indices = NDArray[np.int32]

LEAD_PREFERENCE: Final = ("II", "MLII", "V5", "aVR", "I", "V1", "V6", "aVF", "III", "V2", "V4", "V3", "aVL")
"""Leads to look for R peaks in: II as usual in rhythm analysis, then leads that see the heart from other directions.
``MLII`` is the modified lead II of ambulatory recorders. Leads of other names come last, in the order of the signal."""

MEDIAN_BEAT_RATE: Final = 500
"""Hz of the median beat: 2 ms, the resolution intervals are read at in practice."""

MEDIAN_BEAT_ONSET: Final = 0.5
"""Seconds of the median beat before R: room for a PR interval of 400 ms and half a wide QRS complex."""

MEDIAN_BEAT_END: Final = 0.7
"""Seconds of the median beat after R: room for a QT interval of 700 ms."""

MINIMUM_DURATION: Final = 2.0
"""Seconds. A shorter signal holds too few beats to tell a rhythm or a typical beat."""

MINIMUM_RATE: Final = 50
"""Hz. A signal of a lower rate holds no QRS complex that could be told from other waves."""

_FLAT: Final = 0.02  # millivolts from trough to crest; below it a lead holds no QRS complex but rounding and hum
_QRS_BAND: Final = (5.0, 35.0)  # Hz; most energy of QRS complexes, little of T waves, baseline wander and mains hum
_ACTIVITY_WINDOW: Final = 0.1  # seconds, about one QRS complex
_NEAR: Final = 0.1  # seconds around an R peak in which the activity of its QRS complex peaks
_REFRACTORY: Final = 0.2  # seconds around an R peak in which no second QRS complex can start
_FALSE_BEAT: Final = 0.3  # share of the activity of typical beats below which a found beat is none but a T wave, say
_MISSED_BEAT: Final = 0.5  # share of it above which a place without a found beat must hold one
_EDGE_BEAT: Final = 0.5  # share of it that a beat at an edge must reach, where half of a T wave may look like one
_CONTRAST: Final = 2.5  # activity of typical beats over the median; white noise stays below 2.3, all of PTB-XL above
_PAD: Final = 1.0  # seconds mirrored at both edges, since neurokit2 finds no beat in the first 0.3 s

_WANDER: Final = 0.5  # Hz; lower is baseline wander (Kligfield et al. 2007 allow 0.67 Hz if nothing is shifted)
_MUSCLE: Final = 40.0  # Hz; higher ones are mostly noise, and a signal of 100 Hz holds none above 50
_ALIGNMENT_REACH: Final = 0.06  # seconds by which an R peak may lie off: half a wide QRS complex
_ALIGNMENT_WINDOW: Final = 0.1  # seconds before and after R that are aligned
_SAME_SHAPE: Final = 0.9  # correlation over all leads from which two beats are of one origin
_NOISY_LEAD: Final = 5.0  # times the noise of the median lead from which a lead is left out (a loose electrode)
_PREMATURE: Final = 0.85  # share of the median RR interval below which a beat came too early


def _rows(signal: NDArray[np.floating]) -> Floats:
    """Return (leads, time) float64 without infinities or NaN."""
    return np.nan_to_num(np.atleast_2d(np.asarray(signal, dtype=np.float64)), nan=0.0, posinf=0.0, neginf=0.0)


def _lead_order(leads: Sequence[str], rows: int) -> list[int]:
    names = {name.lower(): row for row, name in reversed(list(enumerate(leads[:rows])))}
    preferred = [names[name.lower()] for name in LEAD_PREFERENCE if name.lower() in names]
    return preferred + [row for row in range(rows) if row not in preferred]


@lru_cache(maxsize=32)  # designing a filter takes as long as using it
def _butterworth(
    kind: Literal["bandpass", "highpass", "lowpass"], cutoff: float | tuple[float, float], sampling_rate: float
) -> Floats:
    return np.asarray(sps.butter(2, cutoff, kind, fs=sampling_rate, output="sos"))


def _activity(signal: Floats, sampling_rate: float) -> Floats:
    """Return (time,) how steep the leads are on the whole, where 1 is about the height of a QRS complex.

    Each lead counts relative to its own steepest parts, and the median over leads ignores the few that are noisy.
    """
    high = min(_QRS_BAND[1], 0.45 * sampling_rate)
    band = _butterworth("bandpass", (_QRS_BAND[0], high), sampling_rate)
    steepness = np.abs(np.gradient(sps.sosfiltfilt(band, signal, axis=1), axis=1))
    steepness = ndimage.uniform_filter1d(steepness, max(1, round(_ACTIVITY_WINDOW * sampling_rate)), axis=1)
    height = np.percentile(steepness, 95, axis=1, keepdims=True)
    usable = height[:, 0] > 0
    if not usable.any():
        return np.zeros(signal.shape[1])
    return np.asarray(np.median(steepness[usable] / height[usable], axis=0))


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
class _Candidate:
    """R peaks found in one lead and how far the activity of all leads contradicts them."""

    beats: Indices
    contradictions: float = np.inf
    contrast: float = 0.0


def _judge(beats: Indices, activity: Floats, sampling_rate: float) -> _Candidate:
    """Drop beats where the leads are quiet; count them, and the active places without a beat."""
    if beats.size < 2:
        return _Candidate(beats)
    near, refractory = round(_NEAR * sampling_rate), round(_REFRACTORY * sampling_rate)
    heights = ndimage.maximum_filter1d(activity, 2 * near + 1)[beats]
    typical = np.percentile(heights, 75)
    at_edge = (beats < refractory) | (beats >= activity.size - refractory)
    quiet = heights < np.where(at_edge, _EDGE_BEAT, _FALSE_BEAT) * typical
    contradictions = np.count_nonzero(quiet & ~at_edge)  # at an edge also a true beat may be cut off
    beats = beats[~quiet]
    if beats.size < 2:
        return _Candidate(beats)
    rest = activity.copy()
    rest[:refractory] = rest[-refractory:] = 0
    for beat in beats:
        rest[max(0, beat - refractory) : beat + refractory] = 0
    missed, _ = sps.find_peaks(rest, height=_MISSED_BEAT * typical, distance=max(1, refractory))
    return _Candidate(beats, float(contradictions + missed.size), float(typical / max(np.median(activity), 1e-12)))


def find_beats(signal: NDArray[np.float32], leads: Sequence[str], sampling_rate: float) -> Indices:
    """Find the R peaks of one ECG.

    neurokit2 (Makowski et al. 2021) searches lead II. Its beats are accepted if the activity of all leads together
    agrees: no beat where the leads are quiet, no QRS complex without a beat. Otherwise the leads of
    ``LEAD_PREFERENCE`` are tried in turn, and if none agrees wholly the best one is taken.

    Args:
        signal: (leads, time) millivolts.
        leads: Names of the rows of ``signal``.
        sampling_rate: Hz.

    Returns:
        (K,) sample index of each R peak, ascending; empty for a signal that is too short, flat or holds no heart beats.
    """
    rows = _rows(signal)
    if sampling_rate < MINIMUM_RATE or rows.shape[1] < MINIMUM_DURATION * sampling_rate:
        return np.zeros(0, dtype=np.int32)
    alive = [row for row in _lead_order(leads, rows.shape[0]) if np.ptp(rows[row]) > _FLAT]
    if not alive:
        return np.zeros(0, dtype=np.int32)
    activity = _activity(rows[alive], sampling_rate)
    best = _Candidate(np.zeros(0, dtype=np.int32))
    for row in alive:
        candidate = _judge(_neurokit_peaks(rows[row], sampling_rate), activity, sampling_rate)
        if candidate.contradictions < best.contradictions:
            best = candidate
        if best.contradictions == 0:
            break
    return best.beats if best.contrast >= _CONTRAST else np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class MedianBeat:
    """The typical beat of a recording, with R at ``MEDIAN_BEAT_ONSET`` seconds.

    Args:
        signal: (leads, time) millivolts at ``MEDIAN_BEAT_RATE``: the median over the beats of the dominant shape.
            Leads much noisier than the rest are left out.
        halves: (2, leads, time) the same from every other beat alone. What both halves show is the heart's, what
            differs is noise.
        rr: Median RR interval of the recording in seconds.
    """

    signal: Floats
    halves: Floats
    rr: float


def _condition(rows: Floats, sampling_rate: float) -> Floats:
    """Return (leads, time) at ``MEDIAN_BEAT_RATE`` without baseline wander and muscle noise, nothing moved in time."""
    high = _butterworth("highpass", _WANDER, sampling_rate)
    low = _butterworth("lowpass", min(_MUSCLE, 0.45 * sampling_rate), sampling_rate)
    smooth = sps.sosfiltfilt(np.concatenate((high, low)), rows, axis=1)
    ratio = Fraction(MEDIAN_BEAT_RATE / sampling_rate).limit_denominator(1000)
    if ratio == 1:
        return np.asarray(smooth)
    return np.asarray(sps.resample_poly(smooth, ratio.numerator, ratio.denominator, axis=1, padtype="line"))


def _cut(rows: Floats, centres: NDArray[np.int64], before: int, after: int) -> Floats:
    """Return (beats, leads, before + after) around each centre."""
    windows = np.lib.stride_tricks.sliding_window_view(rows, before + after, axis=1)
    return np.asarray(windows[:, centres - before].transpose(1, 0, 2))


def _align(rows: Floats, centres: NDArray[np.int64]) -> NDArray[np.int64]:
    """Move each centre to where the steepness of its QRS complex in all leads best matches that of the median beat.

    R peaks are whole samples, at 100 Hz up to 5 ms off, and neurokit2 may take another wave of the QRS complex. A
    median over beats that are not aligned would widen the QRS complex.
    """
    reach, half = round(_ALIGNMENT_REACH * MEDIAN_BEAT_RATE), round(_ALIGNMENT_WINDOW * MEDIAN_BEAT_RATE)
    steepness = np.gradient(rows, axis=1)
    size = fft.next_fast_len(2 * (half + reach), real=True)
    for _ in range(2):  # the second round aligns with a sharper median beat
        windows = _cut(steepness, centres, half + reach, half + reach)
        template = np.median(windows[:, :, reach:-reach], axis=0)
        spectrum = np.einsum("blf,lf->bf", fft.rfft(windows, size), fft.rfft(template, size).conj())
        match = fft.irfft(spectrum, size)[:, : 2 * reach + 1]
        shift = np.argmax(match, axis=1) - reach
        centres = centres + shift
        if not shift.any():
            break
    return centres


def _dominant(beats: Floats, premature: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which beats belong to the largest group of one shape, without those that came too early.

    Ventricular ectopic beats differ in shape, atrial ones in their P wave and their distance to the beat before.
    """
    r = round(MEDIAN_BEAT_ONSET * MEDIAN_BEAT_RATE)
    before, after = round(0.12 * MEDIAN_BEAT_RATE), round(0.4 * MEDIAN_BEAT_RATE)  # QRS complex and T wave
    shapes = beats[:, :, r - before : r + after : 2]
    shapes = (shapes - shapes.mean(axis=2, keepdims=True)).reshape(len(beats), -1)
    shapes /= np.maximum(np.linalg.norm(shapes, axis=1, keepdims=True), 1e-12)
    correlation = shapes @ shapes.T
    neighbours = np.count_nonzero(correlation > _SAME_SHAPE, axis=1)
    centre = correlation[np.argmax(neighbours + 1e-3 * correlation.mean(axis=1))]
    same: NDArray[np.bool_] = centre > _SAME_SHAPE
    if np.count_nonzero(same) < max(2.0, 0.3 * len(beats)):  # noise: no group stands out, so take the better half
        same = centre >= np.median(centre)
    timely: NDArray[np.bool_] = same & ~premature
    return timely if np.count_nonzero(timely) >= max(2.0, 0.5 * np.count_nonzero(same)) else same


def _quiet_leads(halves: Floats) -> list[int]:
    noise = np.median(np.abs(halves[0] - halves[1]), axis=1)
    limit = _NOISY_LEAD * float(np.median(noise))
    return [lead for lead, level in enumerate(noise) if level <= limit]


def median_beat(signal: NDArray[np.float32], beats: Indices, sampling_rate: float) -> MedianBeat | None:
    """Return the typical beat of one ECG.

    Args:
        signal: (leads, time) millivolts.
        beats: (K,) sample index of each R peak, ascending, as ``find_beats`` returns them.
        sampling_rate: Hz, of ``signal``.

    Returns:
        The median over the beats of the dominant shape, or None if fewer than two such beats lie wholly inside the
        signal.
    """
    before, after = (round(seconds * MEDIAN_BEAT_RATE) for seconds in (MEDIAN_BEAT_ONSET, MEDIAN_BEAT_END))
    if beats.size < 2:
        return None
    rows = _condition(_rows(signal), sampling_rate)
    centres = np.round(beats * (MEDIAN_BEAT_RATE / sampling_rate)).astype(np.int64)
    rr = np.diff(centres)
    premature = np.concatenate(([False], rr < _PREMATURE * np.median(rr)))
    margin = 2 * round(_ALIGNMENT_REACH * MEDIAN_BEAT_RATE)
    inside = (centres >= before + margin) & (centres + after + margin <= rows.shape[1])
    if np.count_nonzero(inside) < 2:
        return None
    aligned = _cut(rows, _align(rows, centres[inside]), before, after)
    aligned = aligned[_dominant(aligned, premature[inside])]
    if len(aligned) < 2:
        return None
    halves = np.stack([np.median(aligned[start::2], axis=0) for start in (0, 1)])
    quiet = _quiet_leads(halves)
    return MedianBeat(np.median(aligned[:, quiet], axis=0), halves[:, quiet], float(np.median(rr)) / MEDIAN_BEAT_RATE)
