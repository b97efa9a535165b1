"""Heart rate and the intervals PR, QRS, QT and QTc of one ECG, measured on its multi-lead median beat.

A value that cannot be told is None, never a guess: an ECG in atrial fibrillation has no P wave and so no PR interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy import signal as sps

from data_modules.beats import (
    MEDIAN_BEAT_ONSET,
    MEDIAN_BEAT_RATE,
    Floats,
    Indices,
    MedianBeat,
    find_beats,
    median_beat,
)

__all__ = ["Measurement", "find_beats", "measure"]

_MS: Final = 1000 / MEDIAN_BEAT_RATE
"""Milliseconds per sample of the median beat."""


def _samples(milliseconds: float) -> int:
    return round(milliseconds / _MS)


_R: Final = round(MEDIAN_BEAT_ONSET * MEDIAN_BEAT_RATE)
_QRS_PEAK_REACH: Final = _samples(100), _samples(140)  # before and after R: where QRS complexes are steepest
_QRS_THRESHOLD: Final = 0.065  # share of the greatest spatial velocity above which the QRS complex lasts
_QRS_NOISE: Final = 2.0  # times the velocity of the quietest tenth of the beat that the threshold exceeds at least
_QRS_STILL: Final = _samples(20)  # longer than a turning point inside the QRS complex, where all leads pause shortly
_QRS_RAISED: Final = 1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0  # times the threshold, tried until it finds an end in reach
_QRS_ONSET_REACH: Final = _samples(150)  # before the steepest point of the QRS complex
_QRS_LONGEST: Final = _samples(240)  # longer ones are of ST segments that run into the QRS complex
_QRS_SHORTEST: Final = _samples(40)  # shorter ones are spikes

_P_REACH: Final = _samples(410)  # before QRS onset, the longest PR interval searched
_P_REACH_RR: Final = 0.55  # share of the RR interval that this is limited to, so that the T wave before is left out
_P_GUARD: Final = _samples(10)  # before QRS onset, where its threshold leaves a first slope
_P_BASELINE: Final = _samples(20)  # the end of the PR segment, whose voltage counts as zero
_P_SMOOTHING: Final = _samples(12)  # standard deviation of a Gaussian that leaves P waves of 80 ms and more
_P_SLOPE_SMOOTHING: Final = _samples(8)  # less, as it rounds the steepest point off
_P_MARGIN: Final = _samples(24)  # no peak this close to the end of the search is a P wave: it has no downslope
_P_PROMINENCE: Final = 0.7  # share of the most prominent wave (which may be T) that a later one needs to be the P wave
_P_RISE: Final = _samples(130)  # before its peak, where the valley before it lies
_P_STEEPEST: Final = _samples(100)  # before its peak, where its steepest rise lies
_P_FALL: Final = _samples(80)  # after its peak, compared between the halves of the beats
_P_REPRODUCED: Final = 0.6  # correlation between the halves of the beats; 0.2 in atrial fibrillation, 0.96 in normals
_P_OVER_NOISE: Final = 1.3  # times the noise; 0.5 in atrial fibrillation, 9 in normals
_P_OVER_QRS: Final = 0.004  # share of the QRS complex; 0.06 in normals. Without noise it rejects what filters leave

_T_DELAY: Final = _samples(30)  # after QRS offset, where the ST segment begins
_T_REACH: Final = 0.62  # s per square root of the RR interval in s, after QRS onset: a QTc above 600 ms is not searched
_T_NEXT_QRS: Final = _samples(100)  # before the next QRS onset: the T wave has ended
_T_SHORTEST: Final = _samples(80)  # less room holds no T wave
_T_MARGIN: Final = _samples(20)  # no peak of the T wave this close to the ends of the search
_T_FALL: Final = _samples(150)  # after its peak, where its steepest descent lies
_T_SLOPE_SMOOTHING: Final = _samples(6)  # standard deviation of a Gaussian
_T_OVER_NOISE: Final = 3.0  # times the noise that the T wave is high at least
_QT_RANGE: Final = 200.0, 700.0  # ms; outside it the tangent belongs to no T wave


@dataclass(frozen=True)
class Measurement:
    """What was measured on one ECG; None where it cannot be told.

    Args:
        beats: (K,) int32 sample index of each R peak at the rate of the signal, ascending.
        heart_rate: Beats per minute, from the median RR interval.
        pr: Milliseconds from the onset of the P wave to the onset of the QRS complex; None without a P wave.
        qrs: Milliseconds.
        qt: Milliseconds from the onset of the QRS complex to the end of the T wave.
        qtc: ``qt`` in milliseconds at 60 beats per minute, by Fridericia's formula.
    """

    beats: Indices
    heart_rate: float | None = None
    pr: float | None = None
    qrs: float | None = None
    qt: float | None = None
    qtc: float | None = None


def measure(signal: NDArray[np.float32], leads: Sequence[str], sampling_rate: float) -> Measurement:
    """Measure the R peaks, heart rate and intervals of one ECG.

    R peaks are those of neurokit2, see ``find_beats``. Intervals are measured on the median beat (``median_beat``),
    over all leads at once, as the earliest onset and latest offset in any lead define them (CSE Working Party 1985):

    - QRS complex: where the spatial velocity, the length of the derivative of the vector of all leads, exceeds a share
      of its maximum.
    - T end: where the tangent to the steepest descent of the T wave meets the baseline (Lepeschkin & Surawicz 1952), on
      the spatial magnitude.
    - P onset: where the tangent to the steepest ascent of the last wave before the QRS complex meets the valley before
      it, on the projection onto the direction of that wave. It must be alike in every other beat and exceed the noise.
    - QTc: QT / RR^(1/3) (Fridericia 1920), because Bazett's square root corrects too much away from 60 beats per minute
      (Rautaharju et al. 2009).

    Args:
        signal: (leads, time) millivolts; NaN counts as zero.
        leads: Names of the rows of ``signal``.
        sampling_rate: Hz; below 50 Hz nothing is measured.

    Returns:
        The measurement. It never raises because of what a signal holds: a flat, short or noisy one has no beats and
        only missing values.
    """
    beats = find_beats(signal, leads, sampling_rate)
    if beats.size < 2:
        return Measurement(beats)
    heart_rate = 60 * sampling_rate / float(np.median(np.diff(beats)))
    beat = median_beat(signal, beats, sampling_rate)
    qrs = None if beat is None else _qrs(beat)
    if beat is None or qrs is None:
        return Measurement(beats, heart_rate)
    onset, offset = qrs
    p_onset = _p_onset(beat, onset)
    t_end = _t_end(beat, onset, offset, p_onset)
    qt = None if t_end is None else (t_end - onset) * _MS
    return Measurement(
        beats=beats,
        heart_rate=heart_rate,
        pr=None if p_onset is None else (onset - p_onset) * _MS,
        qrs=(offset - onset) * _MS,
        qt=qt,
        qtc=None if qt is None else qt / beat.rr ** (1 / 3),
    )


def _smooth(rows: Floats, deviation: int, order: int = 0) -> Floats:
    return np.asarray(ndimage.gaussian_filter1d(rows, deviation, axis=-1, mode="nearest", order=order))


def _magnitude(rows: Floats) -> Floats:
    return np.asarray(np.sqrt(np.square(rows).sum(axis=0)))


def _rest(velocity: Floats, threshold: float, reach: int) -> int | None:
    """Return the first sample, up to ``reach``, from which ``velocity`` stays below a threshold for ``_QRS_STILL``.

    The threshold is raised where it has to be: in bundle branch block the ST segment never rests, and a P wave can
    run into the QRS complex.
    """
    for factor in _QRS_RAISED:
        still = (velocity[: reach + _QRS_STILL] < factor * threshold).astype(np.int8)
        runs = ndimage.minimum_filter1d(still, _QRS_STILL, origin=-(_QRS_STILL // 2), mode="constant")
        first = np.flatnonzero(runs)
        if first.size:
            return int(first[0])
    return None


def _qrs(beat: MedianBeat) -> tuple[int, int] | None:
    """Return the samples of QRS onset and offset."""
    velocity = _magnitude(np.gradient(beat.signal, axis=1))
    peak = _R - _QRS_PEAK_REACH[0] + int(np.argmax(velocity[_R - _QRS_PEAK_REACH[0] : _R + _QRS_PEAK_REACH[1]]))
    threshold = max(_QRS_THRESHOLD * velocity[peak], _QRS_NOISE * float(np.percentile(velocity, 10)))
    before = _rest(velocity[peak::-1], threshold, _QRS_ONSET_REACH)
    if before is None:
        return None
    after = _rest(velocity[peak:], threshold, _QRS_LONGEST - before)
    if after is None or before + after < _QRS_SHORTEST:
        return None
    return peak - before + 1, peak + after - 1


def _p_onset(beat: MedianBeat, qrs_onset: int) -> float | None:
    """Return the sample, with fraction, of the onset of the P wave."""
    start = qrs_onset - min(_P_REACH, round(_P_REACH_RR * beat.rr * MEDIAN_BEAT_RATE))
    start, end = max(start, 0), qrs_onset - _P_GUARD
    if end - start < 3 * _P_MARGIN:
        return None
    rows = beat.signal[:, start:end]
    vectors = _smooth(rows, _P_SMOOTHING) - rows[:, -_P_BASELINE:].mean(axis=1, keepdims=True)
    magnitude = _magnitude(vectors)
    peaks, properties = sps.find_peaks(magnitude[: -_P_MARGIN + 1], prominence=0)
    if not peaks.size:
        return None
    prominences = properties["prominences"]
    peak = int(peaks[prominences >= _P_PROMINENCE * prominences.max()][-1])
    direction = vectors[:, peak] / magnitude[peak]
    onset = _rise(direction @ vectors, _smooth(direction @ rows, _P_SLOPE_SMOOTHING, order=1), magnitude, peak)
    window = slice(start + max(0, int(onset) - _samples(20)), min(start + peak + _P_FALL, end))
    qrs_height = _magnitude(beat.signal[:, qrs_onset : qrs_onset + _QRS_LONGEST]).max()
    exists = _is_wave(beat, window, float(prominences.max())) and prominences.max() > _P_OVER_QRS * qrs_height
    return start + onset if exists else None


def _rise(wave: Floats, slope: Floats, magnitude: Floats, peak: int) -> float:
    """Return where the tangent to the steepest rise before ``peak`` meets the valley before it."""
    before = max(0, peak - _P_RISE)
    valley = before + int(np.argmin(magnitude[before:peak]))
    earliest = max(valley, peak - _P_STEEPEST)
    steepest = earliest + int(np.argmax(slope[earliest : peak + 1]))
    if slope[steepest] <= 0:
        return float(valley)
    onset = steepest - (wave[steepest] - wave[before:peak].min()) / slope[steepest]
    return float(max(onset, before))


def _is_wave(beat: MedianBeat, window: slice, height: float) -> bool:
    """Whether both halves of the beats show the same wave in ``window``, of a ``height`` above their noise."""
    first, second = (sps.detrend(half[:, window], axis=1) for half in beat.halves)
    alike = (first * second).sum() / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-12)
    noise = _magnitude(beat.halves[0, :, window] - beat.halves[1, :, window]).mean() / 2
    return bool(alike > _P_REPRODUCED and height > _P_OVER_NOISE * noise)


def _t_end(beat: MedianBeat, qrs_onset: int, qrs_offset: int, p_onset: float | None) -> float | None:
    """Return the sample, with fraction, of the end of the T wave."""
    rr = beat.rr * MEDIAN_BEAT_RATE
    next_wave = qrs_onset + rr - _T_NEXT_QRS if p_onset is None else p_onset + rr
    start = qrs_offset + _T_DELAY
    end = int(min(qrs_onset + _T_REACH * np.sqrt(beat.rr) * MEDIAN_BEAT_RATE, next_wave, beat.signal.shape[1]))
    if end - start < _T_SHORTEST:
        return None
    baseline = beat.signal[:, qrs_onset - _samples(30) : qrs_onset - _samples(8)].mean(axis=1, keepdims=True)
    wave = _magnitude(beat.signal[:, start:end] - baseline)
    peak = _T_MARGIN + int(np.argmax(wave[_T_MARGIN:-_T_MARGIN]))
    slope = _smooth(wave, _T_SLOPE_SMOOTHING, order=1)
    steepest = peak + int(np.argmin(slope[peak : peak + _T_FALL]))
    noise = _magnitude(beat.halves[0, :, start:end] - beat.halves[1, :, start:end]).mean() / 2
    if slope[steepest] >= 0 or wave[peak] < _T_OVER_NOISE * noise:
        return None
    t_end = start + steepest - wave[steepest] / slope[steepest]
    return float(t_end) if _QT_RANGE[0] <= (t_end - qrs_onset) * _MS <= _QT_RANGE[1] else None
