"""The median beat: what the typical beat of one ECG looks like in every lead, the ground intervals are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy import signal as sps

from data_modules.measuring.beats import butterworth, rr_intervals
from data_modules.measuring.recorded import Floats, Indices, median_of_rows, recorded_part

MEDIAN_BEAT_RATE: Final = 500
"""Hz of the median beat: 2 ms, the resolution intervals are read at in practice."""

MEDIAN_BEAT_ONSET: Final = 0.5
"""Seconds of the median beat before R: room for a PR interval of 400 ms and half a wide QRS complex."""

MEDIAN_BEAT_END: Final = 0.7
"""Seconds of the median beat after R: room for a QT interval of 700 ms."""

_WANDER: Final = 0.5  # Hz; lower is baseline wander (Kligfield et al. 2007 allow 0.67 Hz if nothing is shifted)
_MUSCLE: Final = 40.0  # Hz; higher ones are mostly noise, and a signal of 100 Hz holds none above 50
_ALIGNMENT_REACH: Final = 0.06  # seconds by which an R peak may lie off: half a wide QRS complex
_ALIGNMENT_WINDOW: Final = 0.1  # seconds before and after R that are aligned
_SAME_SHAPE: Final = 0.9  # correlation over all leads from which two beats are of one origin
_NOISY_LEAD: Final = 5.0  # times the noise of the median lead from which a lead is left out (a loose electrode)
_PREMATURE: Final = 0.85  # share of the median RR interval below which a beat came too early
_MOST_BEATS: Final = 1000  # of a long recording, evenly spread; more make no better median but need much memory


@dataclass(frozen=True)
class MedianBeat:
    """The typical beat of a recording, with R at ``MEDIAN_BEAT_ONSET`` seconds.

    Args:
        signal: (leads, time) millivolts at ``MEDIAN_BEAT_RATE``: the median over the beats of the dominant shape. NaN
            in leads that were not recorded or are much noisier than the rest.
        halves: (2, leads, time) the same from every other beat alone. What both halves show is the heart's, what
            differs is noise.
        rr: Median RR interval of the recording in seconds.
    """

    signal: Floats
    halves: Floats
    rr: float


def _condition(rows: Floats, sampling_rate: float) -> Floats:
    """Return (leads, time) at ``MEDIAN_BEAT_RATE`` without baseline wander and muscle noise, nothing moved in time."""
    high = butterworth("highpass", _WANDER, sampling_rate)
    low = butterworth("lowpass", min(_MUSCLE, 0.45 * sampling_rate), sampling_rate)
    smooth = sps.sosfiltfilt(np.concatenate((high, low)), rows, axis=1)
    ratio = Fraction(MEDIAN_BEAT_RATE / sampling_rate).limit_denominator(1000)
    if ratio == 1:
        return np.asarray(smooth)
    return np.asarray(sps.resample_poly(smooth, ratio.numerator, ratio.denominator, axis=1, padtype="line"))


def _whole(
    centres: NDArray[np.int64], before: int, after: int, size: int, gaps: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return which beats lie wholly inside the signal and touch no gap; of very many some, evenly spread."""
    whole = np.flatnonzero((centres >= before) & (centres + after <= size))
    if gaps.any():
        passed = np.concatenate(([0], np.cumsum(gaps)))
        ends = (centres[whole] + np.array([[-before], [after]])) * (gaps.size / size)
        first, last = np.clip(ends.round().astype(np.int64), 0, gaps.size)
        whole = whole[passed[first] == passed[last]]
    return whole[:: max(1, -(-whole.size // _MOST_BEATS))]


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
        template = median_of_rows(windows[:, :, reach:-reach])
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


def median_beat(signal: NDArray[np.floating], peaks: Indices, sampling_rate: float) -> MedianBeat | None:
    """Return the typical beat of one ECG.

    Beats beside a dropout are left out, and so are leads that mostly were not recorded.

    Args:
        signal: (leads, time) millivolts; NaN where nothing was recorded.
        peaks: (K,) sample index of each R peak, ascending, as ``find_beats`` returns them.
        sampling_rate: Hz, of ``signal``.

    Returns:
        The median over the beats of the dominant shape, or None if fewer than two such beats lie wholly inside what
        was recorded.
    """
    before, after = (round(seconds * MEDIAN_BEAT_RATE) for seconds in (MEDIAN_BEAT_ONSET, MEDIAN_BEAT_END))
    if peaks.size < 2:
        return None
    part = recorded_part(signal, sampling_rate)
    rows = _condition(part.rows, sampling_rate)
    rr = rr_intervals((peaks - part.start).astype(np.int32), part) / sampling_rate
    centres = np.round((peaks - part.start) * (MEDIAN_BEAT_RATE / sampling_rate)).astype(np.int64)
    if not np.isfinite(rr).any():
        return None
    premature = np.concatenate(([False], rr < _PREMATURE * np.nanmedian(rr)))
    margin = 2 * round(_ALIGNMENT_REACH * MEDIAN_BEAT_RATE)
    whole = _whole(centres, before + margin, after + margin, rows.shape[1], part.gaps)
    if whole.size < 2:
        return None
    aligned = _cut(rows, _align(rows, centres[whole]), before, after)
    aligned = aligned[_dominant(aligned, premature[whole])]
    if len(aligned) < 2:
        return None
    halves = np.stack([median_of_rows(aligned[start::2]) for start in (0, 1)])
    quiet = _quiet_leads(halves)
    every = np.full((3, len(signal), before + after), np.nan)
    every[:, np.array(part.leads)[quiet]] = np.stack((median_of_rows(aligned[:, quiet]), *halves[:, quiet]))
    return MedianBeat(every[0], every[1:], float(np.nanmedian(rr)))
