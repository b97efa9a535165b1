"""Where the waves of one record's usual beat are, well enough to change a wave and to say where it was changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]
Samples: TypeAlias = NDArray[np.int64]

_RATE: Final = 500  # Hz at which waves are searched: a sample of 100 Hz is too coarse for the slopes of a QRS complex
_BEFORE: Final = 0.40  # seconds of the usual beat before R
_AFTER: Final = 0.60  # and after
_FEWEST: Final = 3  # beats of which a median tells the usual from the rest

_QRS_SHARE: Final = 0.10  # of the greatest spatial velocity, above which the QRS complex lasts
_QRS_REST: Final = 0.016  # seconds it has to stay below, longer than a turning point inside the complex
_QRS_REACH: Final = 0.10, 0.16  # seconds before and after its steepest point

_P_REACH: Final = 0.26  # seconds before QRS onset, where the P wave is searched
_P_REACH_RR: Final = 0.40  # share of the RR interval that this is limited to, so that T waves are left out
_P_HALF: Final = 0.06  # seconds, half a P wave: slower waves, such as the end of T, don't stand out at this distance
_P_RISE: Final = 0.11  # seconds before its peak, where a P wave begins
_P_LOWEST: Final = 0.05  # mV in its highest lead; less is no wave that a reader would miss
_P_ALIKE: Final = 0.6  # correlation between both halves of the beats, as in the measurement of PR

_T_DELAY: Final = 0.06  # seconds after QRS offset, where T waves are searched
_T_REACH: Final = 0.62  # s per square root of the RR interval in s, after QRS onset
_T_FALL: Final = 0.20  # seconds after its peak, where a T wave ends
_SMOOTHING: Final = 0.008  # seconds, standard deviation of a Gaussian


@dataclass(frozen=True)
class Waves:
    """The usual beat of one record and where its waves are, in samples of the record after R (negative: before).

    Args:
        p_onset: Begin of the P wave; None, as ``p_end``, where none was found.
        p_end: Its end.
        qrs_onset: First sample of the QRS complex.
        qrs_end: The J point.
        t_peak: Highest place of the T wave over all leads.
        t_end: Its end.
        shape: (leads, before + after) millivolts, the median of the beats, each without its own median over time.
        before: Samples of ``shape`` before R.
    """

    p_onset: int | None
    p_end: int | None
    qrs_onset: int
    qrs_end: int
    t_peak: int
    t_end: int
    shape: Floats
    before: int

    def part(self, start: int, end: int) -> Floats:
        """Return (leads, end - start + 1) of the usual beat, from ``start`` to ``end`` samples after R."""
        return np.asarray(self.shape[:, self.before + start : self.before + end + 1])


@dataclass(frozen=True)
class _Fine:
    """The usual beat at ``_RATE``: its rows (leads, time), those of each half of the beats, R, and seconds per beat."""

    rows: Floats
    halves: tuple[Floats, Floats]
    r: int
    rr: float


def find_waves(
    signal: Floats, recorded: Flags, peaks: Samples, sampling_rate: float, intervals: tuple[float, float, float]
) -> Waves | str:
    """Find the waves of the usual beat, over all leads at once.

    The QRS complex lasts as long as the spatial velocity exceeds a share of its maximum. P and T waves begin and end in
    the knee of their flank: the point farthest from the straight line between the peak and the flat part beyond (Zack,
    Rogers & Latt 1977, doi:10.1177/25.7.70454, on histograms).

    Args:
        signal: (leads, time) millivolts, leads that were recorded alone.
        recorded: (leads, time).
        peaks: (K,) ascending sample index of the R peaks.
        sampling_rate: Hz.
        intervals: PR, QRS and QT in milliseconds as measured elsewhere; NaN where this has to find them itself.

    Returns:
        The waves, or a clause that says why there are none.
    """
    before, after = round(_BEFORE * sampling_rate), round(_AFTER * sampling_rate)
    beats = _cut(signal, recorded, peaks, before, after)
    if len(beats) < _FEWEST:
        return f"{len(beats)} whole beats, at least {_FEWEST} are needed"
    rr = float(np.median(np.diff(peaks))) / sampling_rate
    shape = np.median(beats, axis=0)
    rows, *halves = _finer(
        np.stack((shape, np.median(beats[::2], axis=0), np.median(beats[1::2], axis=0))), sampling_rate
    )
    fine = _Fine(rows, (halves[0], halves[1]), round(before / sampling_rate * _RATE), rr)
    pr, qrs, qt = (round(value / 1000 * _RATE) if np.isfinite(value) else None for value in intervals)
    onset, end = _qrs(fine)
    end = end if qrs is None else onset + qrs
    p_wave = _p_wave(fine, onset, pr)
    t_wave = _t_wave(fine, onset, end, p_wave, qt)
    if t_wave is None:
        return "no room for a T wave between two beats"

    def own(place: int) -> int:
        return round((place - fine.r) / _RATE * sampling_rate)

    p_onset, p_end = (None, None) if p_wave is None else (own(p_wave[0]), own(p_wave[1]))
    return Waves(p_onset, p_end, own(onset), own(end), own(t_wave[0]), own(t_wave[1]), shape, before)


def _cut(signal: Floats, recorded: Flags, peaks: Samples, before: int, after: int) -> Floats:
    """Return (beats, leads, before + after), those that were wholly recorded, without their median over time."""
    whole = (peaks >= before) & (peaks + after <= signal.shape[1])
    windows = [
        signal[:, peak - before : peak + after]
        for peak in peaks[whole]
        if recorded[:, peak - before : peak + after].all()
    ]
    if not windows:
        return np.zeros((0, len(signal), before + after))
    beats = np.stack(windows)
    return np.asarray(beats - np.median(beats, axis=2, keepdims=True))


def _finer(rows: Floats, sampling_rate: float) -> Floats:
    """Return (…, time) at ``_RATE``."""
    seconds = np.arange(rows.shape[-1]) / sampling_rate
    fine = np.arange(int(seconds[-1] * _RATE) + 1) / _RATE
    spline: Any = CubicSpline(seconds, rows, axis=-1)
    return np.asarray(spline(fine), dtype=np.float64)


def _smooth(rows: Floats) -> Floats:
    return np.asarray(gaussian_filter1d(rows, _SMOOTHING * _RATE, axis=-1))


def _knee(curve: Floats, start: int, end: int) -> int:
    """Return where between two places a curve lies farthest below the straight line between them."""
    piece = curve[start : end + 1]
    return start + int(np.argmin(piece - np.linspace(piece[0], piece[-1], piece.size)))


def _qrs(fine: _Fine) -> tuple[int, int]:
    """Return the first and the last sample of the QRS complex."""
    velocity = np.linalg.norm(np.gradient(fine.rows, axis=1), axis=0)
    near = round(0.08 * _RATE)
    peak = fine.r - near + int(np.argmax(velocity[fine.r - near : fine.r + near]))
    limit = max(_QRS_SHARE * velocity[peak], 2 * float(np.percentile(velocity, 10)))
    rest = round(_QRS_REST * _RATE)

    def distance(outwards: Floats, reach: float) -> int:
        highest = np.lib.stride_tricks.sliding_window_view(outwards, rest).max(axis=1)[: round(reach * _RATE)]
        still = np.flatnonzero(highest < limit)
        return int(still[0]) if still.size else int(np.argmin(highest))

    return (
        peak - distance(velocity[: peak + 1][::-1], _QRS_REACH[0]),
        peak + distance(velocity[peak:], _QRS_REACH[1]),
    )


def _p_wave(fine: _Fine, qrs_onset: int, pr: int | None) -> tuple[int, int] | None:
    """Return the first and the last sample of the P wave, None where there is none worth the name."""
    half, rise = round(_P_HALF * _RATE), round(_P_RISE * _RATE)
    reach = round(min(_P_REACH, _P_REACH_RR * fine.rr) * _RATE)
    if pr is not None:
        reach = min(reach, pr)
    rows = _smooth(fine.rows[:, : qrs_onset + 1])  # without the QRS complex, which smoothing would draw in
    begin = max(qrs_onset - reach, half)
    places = np.arange(begin, qrs_onset - half // 2)
    if not places.size:
        return None
    stands_out = rows[:, places] - (rows[:, places - half] + rows[:, np.minimum(places + half, qrs_onset)]) / 2
    best = int(np.argmax(np.linalg.norm(stands_out, axis=0)))
    peak = int(places[best])
    wave = stands_out[:, best] / max(float(np.linalg.norm(stands_out[:, best])), 1e-12) @ rows
    onset = _knee(wave, max(peak - rise, 0), peak) if pr is None else max(qrs_onset - pr, 0)
    end = _knee(wave, peak, qrs_onset)
    if end - peak < half // 3 or peak - onset < half // 3:
        return None
    first, second = (above_line(part[:, onset : end + 1]) for part in fine.halves)
    alike = float((first * second).sum() / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-12))
    height = float(np.abs(above_line(fine.rows[:, onset : end + 1])).max())
    return (onset, end) if alike > _P_ALIKE and height >= _P_LOWEST else None


def _t_wave(
    fine: _Fine, qrs_onset: int, qrs_end: int, p_wave: tuple[int, int] | None, qt: int | None
) -> tuple[int, int] | None:
    """Return the peak and the last sample of the T wave, None where the next beat leaves no room for one."""
    next_beat = round(fine.rr * _RATE) + (p_wave[0] if p_wave else qrs_onset - round(0.04 * _RATE))
    last = min(qrs_onset + round(_T_REACH * np.sqrt(fine.rr) * _RATE), next_beat, fine.rows.shape[1] - 1)
    begin = qrs_end + round(_T_DELAY * _RATE)
    if last - begin < round(0.08 * _RATE):
        return None
    baseline = fine.rows[:, max(qrs_onset - round(0.03 * _RATE), 0) : qrs_onset - round(0.008 * _RATE)]
    rows = _smooth(fine.rows - baseline.mean(axis=1, keepdims=True))
    magnitude = np.linalg.norm(rows, axis=0)
    peak = begin + int(np.argmax(magnitude[begin : last - round(0.04 * _RATE)]))
    direction = rows[:, peak] / max(float(magnitude[peak]), 1e-12)
    end = _knee(direction @ rows, peak, min(last, peak + round(_T_FALL * _RATE)))
    if qt is not None:
        end = min(max(qrs_onset + qt, peak + round(0.04 * _RATE)), last)
    return peak, end


def above_line(rows: Floats) -> Floats:
    """Return (leads, time) without the straight line of each lead from its first to its last sample."""
    share = np.linspace(0, 1, rows.shape[1])
    return np.asarray(rows - (rows[:, :1] * (1 - share) + rows[:, -1:] * share))
