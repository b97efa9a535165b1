"""Where the P wave of median beats begins, of many records at once."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import signal as sps

from data_modules.measuring.median_beat import MEDIAN_BEAT_RATE
from data_modules.measuring.recorded import Floats
from data_modules.measuring.vectors import (
    Flags,
    Samples,
    at,
    first_true,
    last_true,
    length,
    noise_between,
    samples,
    smooth,
    take,
)

_REACH: Final = samples(410)  # before QRS onset, the longest PR interval searched
_REACH_RR: Final = 0.55  # share of the RR interval that this is limited to, so that the T wave before is left out
_GUARD: Final = samples(10)  # before QRS onset, where its threshold leaves a first slope
_BASELINE: Final = samples(20)  # the end of the PR segment, whose voltage counts as zero
_SMOOTHING: Final = samples(12)  # standard deviation of a Gaussian that leaves P waves of 80 ms and more
_SLOPE_SMOOTHING: Final = samples(8)  # less, as it rounds the steepest point off
_MARGIN: Final = samples(24)  # no peak this close to the end of the search is a P wave: it has no downslope
_PROMINENCE: Final = 0.7  # share of the most prominent wave (which may be T) that a later one needs to be the P wave
_RISE: Final = samples(130)  # before its peak, where the valley before it lies
_STEEPEST: Final = samples(100)  # before its peak, where its steepest rise lies
_HIGH: Final = 0.7  # share of its height at which a P wave stands clear of noise and of the T wave before
_USUAL_RISE: Final = samples(24)  # from the onset to that share; 26 ms in the median of normals, widened by smoothing
_OWN_RISE: Final = 0.25  # share that the measured rise has in the one that counts, the usual one has the rest
_BEFORE: Final = samples(20)  # before its onset, and
_FALL: Final = samples(80)  # after its peak, compared between the halves of the beats
_REPRODUCED: Final = 0.6  # correlation between the halves of the beats; 0.2 in atrial fibrillation, 0.96 in normals
_OVER_NOISE: Final = 1.3  # times the noise; 0.5 in atrial fibrillation, 9 in normals
_QRS: Final = samples(240)  # after QRS onset, where the QRS complex is highest
_OVER_QRS: Final = 0.004  # share of the QRS complex; 0.06 in normals. Without noise it rejects what filters leave


def find_p_onset(signal: Floats, halves: Floats, rr: Floats, qrs_onset: Samples) -> tuple[Floats, Floats]:
    """Find where the P wave begins.

    The P wave is the last prominent wave before the QRS complex. It is there if it is alike in both halves of the
    beats and exceeds what differs between them: an ECG in atrial fibrillation has none.

    Args:
        signal: (records, leads, time) millivolts of the median beats, 0 in leads that are left out.
        halves: (records, 2, leads, time) those of every other beat.
        rr: (records,) seconds between beats.
        qrs_onset: (records,) first sample of the QRS complex.

    Returns:
        (records,) samples, NaN without a P wave, and (records,) noise as a share of the height of the P wave.
    """
    reach = np.minimum(_REACH, np.round(_REACH_RR * rr * MEDIAN_BEAT_RATE).astype(np.int64))
    start, end = np.maximum(qrs_onset - reach, 0), qrs_onset - _GUARD
    # All searches end in the last column. Before the start of a shorter one its first sample is repeated, as filters
    # would continue it.
    places = end[:, None] + np.arange(_GUARD - _REACH, 0)
    inside = places >= start[:, None]
    places = np.maximum(places, start[:, None])
    rows = take(signal, places)
    vectors = smooth(rows, _SMOOTHING) - rows[:, :, -_BASELINE:].mean(axis=2, keepdims=True)
    magnitude = length(vectors)
    peak, prominence = _last_wave(magnitude, inside)
    direction = take(vectors, peak[:, None])[:, :, 0] / np.maximum(at(magnitude, peak), 1e-12)[:, None]
    wave = np.einsum("nl,nlt->nt", direction, vectors)
    slope = smooth(np.einsum("nl,nlt->nt", direction, rows), _SLOPE_SMOOTHING, order=1)
    begin = first_true(inside)
    onset = _rise(wave, slope, magnitude, peak, begin)
    column = np.arange(places.shape[1])
    window = column >= np.maximum(begin, onset.astype(np.int64) - _BEFORE)[:, None]
    window &= column < (peak + _FALL)[:, None]
    alike, noise = _compare(np.stack([take(half, places) for half in halves.swapaxes(0, 1)], axis=1), window)
    qrs = length(take(signal, qrs_onset[:, None] + np.arange(_QRS))).max(axis=1)
    exists = (end - start >= 3 * _MARGIN) & (alike > _REPRODUCED)
    exists &= (prominence > _OVER_NOISE * noise) & (prominence > _OVER_QRS * qrs)
    return np.where(exists, end - column.size + onset, np.nan), noise / np.maximum(prominence, 1e-12)


def _last_wave(magnitude: Floats, inside: Flags) -> tuple[Samples, Floats]:
    """Return the place of the last prominent wave of each record and the prominence of the highest; 0 without one."""
    # Walls of infinite height keep the records apart, so that one call sees them all.
    walled = np.where(inside, magnitude, np.inf)
    walled[:, -_MARGIN + 1 :] = np.inf
    walled = np.pad(walled, ((0, 0), (0, 1)), constant_values=np.inf)
    flat = walled.ravel()
    peaks = sps.find_peaks(flat)[0]
    peaks = peaks[np.isfinite(flat[peaks])]
    prominences = np.zeros(walled.shape)
    prominences.ravel()[peaks] = sps.peak_prominences(flat, peaks)[0]
    highest = prominences.max(axis=1)
    prominent = (prominences > 0) & (prominences >= _PROMINENCE * highest[:, None])
    return np.where(highest > 0, last_true(prominent), 1), highest


def _rise(wave: Floats, slope: Floats, magnitude: Floats, peak: Samples, begin: Samples) -> Floats:
    """Return where the wave of each record begins to rise to its ``peak``.

    That is where the tangent to its steepest rise meets the valley before it, drawn towards what is usual: P waves
    rise slowly out of noise and T waves, which shifts the tangent by more than the rise differs between hearts.
    """
    column = np.arange(wave.shape[1])
    before = np.maximum(begin, peak - _RISE)
    rising = (column >= before[:, None]) & (column < peak[:, None])
    valley = np.argmin(np.where(rising, magnitude, np.inf), axis=1)
    earliest = np.maximum(valley, peak - _STEEPEST)
    ascent = (column >= earliest[:, None]) & (column <= peak[:, None])
    steepest = np.argmax(np.where(ascent, slope, -np.inf), axis=1)
    steepness = at(slope, steepest)
    lowest = np.where(rising, wave, at(wave, peak)[:, None]).min(axis=1)
    tangent = steepest - (at(wave, steepest) - lowest) / np.maximum(steepness, 1e-12)
    tangent = np.where(steepness > 0, np.maximum(tangent, before), valley)
    high = lowest + _HIGH * (at(wave, peak) - lowest)
    below = (wave < high[:, None]) & (column < peak[:, None])
    last = np.minimum(np.maximum(last_true(below), begin), peak - 1)
    step = at(wave, last + 1) - at(wave, last)
    crossing = last + np.clip((high - at(wave, last)) / np.where(step > 0, step, np.inf), 0, 1)
    rise = _OWN_RISE * (crossing - tangent) + (1 - _OWN_RISE) * _USUAL_RISE
    return np.asarray(np.maximum(crossing - rise, before))


def _compare(halves: Floats, window: Flags) -> tuple[Floats, Floats]:
    """Return (records,) the correlation between the halves of the beats in ``window``, and their noise there."""
    first, second = _detrended(halves, window).swapaxes(0, 1)
    product = np.sqrt(np.square(first).sum(axis=(1, 2)) * np.square(second).sum(axis=(1, 2)))
    alike = (first * second).sum(axis=(1, 2)) / np.maximum(product, 1e-12)
    return alike, noise_between(halves, window)


def _detrended(halves: Floats, window: Flags) -> Floats:
    """Return (records, 2, leads, time) without the straight line of each lead in its window, 0 outside."""
    weight = window[:, None, None].astype(np.float64)
    count = np.maximum(weight.sum(axis=3, keepdims=True), 1)
    time = np.arange(window.shape[1]) * weight
    time = (time - time.sum(axis=3, keepdims=True) / count) * weight
    rows = (halves - (halves * weight).sum(axis=3, keepdims=True) / count) * weight
    trend = (rows * time).sum(axis=3, keepdims=True) / np.maximum(np.square(time).sum(axis=3, keepdims=True), 1e-12)
    return np.asarray(rows - trend * time)
