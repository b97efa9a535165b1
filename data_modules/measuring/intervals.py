"""PR, QRS and QT on median beats of many records at once, no loop over records.

Positions are samples of the median beat, with fraction where a tangent tells them, NaN where they can't be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from data_modules.measuring.median_beat import MEDIAN_BEAT_ONSET, MEDIAN_BEAT_RATE
from data_modules.measuring.p_wave import find_p_onset
from data_modules.measuring.recorded import Floats
from data_modules.measuring.vectors import (
    MILLISECONDS,
    Flags,
    Samples,
    at,
    first_true,
    length,
    noise_between,
    samples,
    smooth,
    take,
)

_R: Final = round(MEDIAN_BEAT_ONSET * MEDIAN_BEAT_RATE)
_QRS_PEAK_REACH: Final = samples(100), samples(140)  # before and after R: where QRS complexes are steepest
_QRS_THRESHOLD: Final = 0.065  # share of the greatest spatial velocity above which the QRS complex lasts
_QRS_NOISE: Final = 2.0  # times the velocity of the quietest tenth of the beat that the threshold exceeds at least
_QRS_STILL: Final = samples(20)  # longer than a turning point inside the QRS complex, where all leads pause shortly
_QRS_RAISED: Final = 1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0  # times the threshold, tried until it finds an end in reach
_QRS_ONSET_REACH: Final = samples(150)  # before the steepest point of the QRS complex
_QRS_LONGEST: Final = samples(240)  # longer ones are of ST segments that run into the QRS complex
_QRS_SHORTEST: Final = samples(40)  # shorter ones are spikes

_T_BASELINE: Final = samples(8) + 1, samples(30) + 1  # before QRS onset: the end of the PR segment
_T_DELAY: Final = samples(30)  # after QRS offset, where the ST segment begins
_T_REACH: Final = 0.62  # s per square root of the RR interval in s, after QRS onset: a QTc above 600 ms is not searched
_T_NEXT_QRS: Final = samples(100)  # before the next QRS onset: the T wave has ended
_T_SHORTEST: Final = samples(80)  # less room holds no T wave
_T_MARGIN: Final = samples(20)  # no peak of the T wave this close to the ends of the search
_T_FALL: Final = samples(150)  # after its peak, where its steepest descent lies
_T_SLOPE_SMOOTHING: Final = samples(6)  # standard deviation of a Gaussian
_T_OVER_NOISE: Final = 3.0  # times the noise that the T wave is high at least
_QT_RANGE: Final = 200.0, 700.0  # ms; outside it the tangent belongs to no T wave


@dataclass(frozen=True)
class Waves:
    """Where the waves of median beats begin and end; all (records,), in samples of the median beat.

    Args:
        qrs_onset: First sample of the QRS complex; that of R where there is none.
        qrs_offset: Its last, likewise.
        has_qrs: Whether there is one. Without it nothing else can be told.
        p_onset: Begin of the P wave.
        t_end: End of the T wave.
        p_noise: Noise as a share of the height of the P wave: what differs between the halves of the beats.
        qrs_noise: Likewise, of the spatial velocity of the QRS complex.
        t_noise: Likewise, of the height of the T wave.
    """

    qrs_onset: Samples
    qrs_offset: Samples
    has_qrs: Flags
    p_onset: Floats
    t_end: Floats
    p_noise: Floats
    qrs_noise: Floats
    t_noise: Floats


def find_waves(signal: Floats, halves: Floats | None, rr: Floats) -> Waves:
    """Find the QRS complex, the begin of the P wave and the end of the T wave, over all leads at once.

    The earliest onset and the latest offset in any lead define them (CSE Working Party 1985):

    - QRS complex: where the spatial velocity, the length of the derivative of the vector of all leads, exceeds a share
      of its maximum.
    - T end: where the tangent to the steepest descent of the T wave meets the baseline (Lepeschkin & Surawicz 1952), on
      the spatial magnitude.
    - P onset: where the tangent to the steepest ascent of the last wave before the QRS complex meets the valley before
      it, on the projection onto the direction of that wave, drawn towards the usual rise of P waves (see ``_rise``).

    Args:
        signal: (records, leads, time) millivolts of the median beats, 0 in leads that are left out.
        halves: (records, 2, leads, time) those of every other beat. A P wave must be alike in both, and both P and T
            wave exceed what differs between them. None takes any wave as real, and all noise as 0.
        rr: (records,) seconds between beats.
    """
    if halves is None:
        halves = np.broadcast_to(signal[:, None], (len(signal), 2, *signal.shape[1:]))
    onset, offset, has_qrs, qrs_noise = _qrs(signal, halves)
    p_onset, p_noise = find_p_onset(signal, halves, rr, onset)
    p_onset = np.where(has_qrs, p_onset, np.nan)
    t_end, t_noise = _t_end(signal, halves, rr, onset, offset, p_onset)
    t_end = np.where(has_qrs, t_end, np.nan)
    return Waves(onset, offset, has_qrs, p_onset, t_end, p_noise, qrs_noise, t_noise)


def _rest(velocity: Floats, peak: Samples, direction: int, threshold: Floats, reach: Samples) -> Samples:
    """Return how far from its peak each velocity begins to stay below a threshold for ``_QRS_STILL``; -1 if nowhere.

    The threshold is raised where it has to be: in bundle branch block the ST segment never rests, and a P wave can
    run into the QRS complex.
    """
    distance = np.arange(int(reach.max()) + 1)
    places = peak[:, None] + direction * np.arange(distance.size + _QRS_STILL - 1)
    outwards = np.take_along_axis(velocity, places, axis=1)
    highest = np.lib.stride_tricks.sliding_window_view(outwards, _QRS_STILL, axis=1).max(axis=2)
    thresholds = np.array(_QRS_RAISED)[:, None] * threshold
    still = (highest < thresholds[:, :, None]) & (distance <= reach[:, None])
    found = still.any(axis=2)
    lowest = first_true(found.T)
    return np.where(found.any(axis=0), first_true(still[lowest, np.arange(len(peak))]), -1)


def _qrs(signal: Floats, halves: Floats) -> tuple[Samples, Samples, Flags, Floats]:
    """Return the samples of QRS onset and offset, whether there is a QRS complex, and the noise of its velocity."""
    velocity = length(np.gradient(signal, axis=2))
    peak = _R - _QRS_PEAK_REACH[0] + np.argmax(velocity[:, _R - _QRS_PEAK_REACH[0] : _R + _QRS_PEAK_REACH[1]], axis=1)
    steepest = at(velocity, peak)
    threshold = np.maximum(_QRS_THRESHOLD * steepest, _QRS_NOISE * np.percentile(velocity, 10, axis=1))
    before = _rest(velocity, peak, -1, threshold, np.full(peak.shape, _QRS_ONSET_REACH))
    after = _rest(velocity, peak, 1, threshold, _QRS_LONGEST - before)
    found = (before >= 0) & (after >= 0) & (before + after >= _QRS_SHORTEST)
    noise = noise_between(np.gradient(halves, axis=3), np.ones(velocity.shape, dtype=np.bool_))
    onset, offset = np.where(found, peak - before + 1, _R), np.where(found, peak + after - 1, _R)
    return onset, offset, found, noise / np.maximum(steepest, 1e-12)


def _t_end(
    signal: Floats, halves: Floats, rr: Floats, qrs_onset: Samples, qrs_offset: Samples, p_onset: Floats
) -> tuple[Floats, Floats]:
    """Return where the T wave ends, NaN where that can't be told, and its noise as a share of its height."""
    beat = rr * MEDIAN_BEAT_RATE
    next_wave = np.where(np.isnan(p_onset), qrs_onset + beat - _T_NEXT_QRS, p_onset + beat)
    start = qrs_offset + _T_DELAY
    end = np.minimum(np.minimum(qrs_onset + _T_REACH * np.sqrt(rr) * MEDIAN_BEAT_RATE, next_wave), signal.shape[2])
    end = end.astype(np.int64)
    roomy = end - start >= _T_SHORTEST
    end = np.maximum(end, start + _T_SHORTEST)
    column = np.arange(int((end - start).max()))
    inside = column < (end - start)[:, None]
    places = np.minimum(start[:, None] + column, end[:, None] - 1)  # beyond its end each repeats its last sample
    baseline = take(signal, qrs_onset[:, None] - np.arange(*_T_BASELINE)).mean(axis=2, keepdims=True)
    wave = length(take(signal, places) - baseline)
    searched = (column >= _T_MARGIN) & (column < (end - start - _T_MARGIN)[:, None])
    peak = np.argmax(np.where(searched, wave, -np.inf), axis=1)
    slope = smooth(wave, _T_SLOPE_SMOOTHING, order=1)
    falling = inside & (column >= peak[:, None]) & (column < (peak + _T_FALL)[:, None])
    steepest = np.argmin(np.where(falling, slope, np.inf), axis=1)
    steepness, height = at(slope, steepest), at(wave, peak)
    t_end = start + steepest - at(wave, steepest) / np.minimum(steepness, -1e-12)
    qt = (t_end - qrs_onset) * MILLISECONDS
    noise = noise_between(np.stack([take(half, places) for half in halves.swapaxes(0, 1)], axis=1), inside)
    exists = roomy & (steepness < 0) & (qt >= _QT_RANGE[0]) & (qt <= _QT_RANGE[1]) & (height >= _T_OVER_NOISE * noise)
    return np.where(exists, t_end, np.nan), noise / np.maximum(height, 1e-12)
