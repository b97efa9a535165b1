"""Heart rate, RR variability, the intervals PR, QRS, QT and QTc and the QRS axis of ECGs, each with a quality.

A value that cannot be told is None, never a guess: an ECG in atrial fibrillation has no P wave and so no PR interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data_modules.leads import standard_name
from data_modules.measuring.axis import angle_between, qrs_axis
from data_modules.measuring.beats import JudgedBeats, find_beats
from data_modules.measuring.intervals import Waves, find_waves
from data_modules.measuring.median_beat import MedianBeat, median_beat
from data_modules.measuring.recorded import Floats, Indices
from data_modules.measuring.rhythm import rhythm
from data_modules.measuring.vectors import MILLISECONDS

_AT_ONCE: Final = 64  # records whose median beats are measured together, about 10 MB each array
_HALF_QUALITY: Final = 10.0  # milliseconds, or degrees, of deviation that halve the quality
_NOISE_WEIGHT: Final = 10.0  # a noise of a tenth of the wave lowers the quality as much as such a deviation
_UNTOLD: Final = 100.0  # milliseconds, or degrees, of deviation that count where a half of the beats tells no value
_SCATTERED: Final = 45.0  # degrees by which the axis of a half of the beats may deviate; more has no direction


@dataclass(frozen=True)
class Measurement:
    """What was measured on one ECG; None where it cannot be told, and its quality is 0 then.

    A quality lies between 0 and 1. That of an interval or the axis is ``1 / (1 + deviation / 10 + 10 * noise)``:
    ``deviation`` is by how many milliseconds or degrees the value of every other beat alone differs from that of all
    beats, the greater of both halves, and ``noise`` what differs between those halves as a share of the height of the
    wave measured. For heart rate and RR variability see ``rhythm``.

    Args:
        beats: (K,) int32 sample index of each R peak at the rate of the signal, ascending.
        heart_rate: Beats per minute, from the median RR interval.
        rr_variability: Mean relative difference of successive RR intervals, each at most 0.2; no unit. See ``rhythm``.
        pr: Milliseconds from the onset of the P wave to the onset of the QRS complex; None without a P wave.
        qrs: Milliseconds.
        qt: Milliseconds from the onset of the QRS complex to the end of the T wave.
        qtc: ``qt`` in milliseconds at 60 beats per minute, by Fridericia's formula.
        axis: Degrees from -180 to 180, the frontal direction of the QRS complex; 0 to the left arm, 90 to the feet.
            None without I and aVF, and where no direction stands out.
        heart_rate_quality: 0 to 1, like all that follow.
        rr_variability_quality: See ``rhythm``.
        pr_quality: Of the P wave.
        qrs_quality: Of the QRS complex.
        qt_quality: Of the T wave.
        qtc_quality: The lower of those of ``qt`` and ``heart_rate``.
        axis_quality: Of the QRS complex.
    """

    beats: Indices
    heart_rate: float | None = None
    rr_variability: float | None = None
    pr: float | None = None
    qrs: float | None = None
    qt: float | None = None
    qtc: float | None = None
    axis: float | None = None
    heart_rate_quality: float = 0.0
    rr_variability_quality: float = 0.0
    pr_quality: float = 0.0
    qrs_quality: float = 0.0
    qt_quality: float = 0.0
    qtc_quality: float = 0.0
    axis_quality: float = 0.0


def measure(signal: NDArray[np.floating], leads: Sequence[str], sampling_rate: float) -> Measurement:
    """Measure one ECG, (leads, time) millivolts: ``measure_batch`` of one."""
    return measure_batch(np.asarray(signal)[None], leads, sampling_rate)[0]


def measure_batch(signals: NDArray[np.floating], leads: Sequence[str], sampling_rate: float) -> list[Measurement]:
    """Measure the R peaks, rhythm, intervals and axis of many ECGs.

    R peaks are those of neurokit2, see ``find_beats``. Intervals are measured on the median beat (``median_beat``) over
    all leads at once, see ``find_waves``, for all records together. QTc is QT / RR^(1/3) (Fridericia 1920), because
    Bazett's square root corrects too much away from 60 beats per minute (Rautaharju et al. 2009). For the axis see
    ``qrs_axis``.

    Args:
        signals: (records, leads, time) millivolts; NaN where nothing was recorded. Missing leads are left out, and
            nothing is measured over padding or dropouts.
        leads: Names of the leads.
        sampling_rate: Hz; below 50 Hz nothing is measured.

    Returns:
        One measurement a record. It never raises because of what a signal holds: a flat, short or noisy one has no
        beats and only missing values.
    """
    measured: list[Measurement] = []
    for start in range(0, len(signals), _AT_ONCE):
        chunk = signals[start : start + _AT_ONCE]
        beats = [find_beats(signal, leads, sampling_rate) for signal in chunk]
        medians = [median_beat(signal, found.peaks, sampling_rate) for signal, found in zip(chunk, beats, strict=True)]
        measured += _measured(beats, medians, leads, sampling_rate)
    return measured


def _measured(
    beats: list[JudgedBeats], medians: list[MedianBeat | None], leads: Sequence[str], sampling_rate: float
) -> list[Measurement]:
    """Measure the median beats together and put each result beside the rhythm of its record."""
    values = _on_median_beats([median for median in medians if median is not None], leads)
    rows = iter(zip(*values.values(), strict=True))
    measured = []
    for found, median in zip(beats, medians, strict=True):
        row = {} if median is None else dict(zip(values, map(float, next(rows)), strict=True))
        told = rhythm(found, sampling_rate)
        row["qtc_quality"] = min(row.get("qtc_quality", 0.0), told.heart_rate_quality)
        known: dict[str, Any] = {name: None if np.isnan(value) else value for name, value in row.items()}
        measured.append(Measurement(found.peaks, **asdict(told), **known))
    return measured


def _on_median_beats(medians: list[MedianBeat], leads: Sequence[str]) -> dict[str, Floats]:
    """Return each value that is measured on median beats, (records,) with NaN where it can't be told, and qualities."""
    if not medians:
        return {}
    signal = np.stack([median.signal for median in medians])
    halves = np.stack([median.halves for median in medians])
    rr = np.array([median.rr for median in medians])
    waves = find_waves(np.nan_to_num(signal), np.nan_to_num(halves), rr)
    values = _values(waves, signal, leads)
    of_halves = [_values(find_waves(np.nan_to_num(half), None, rr), half, leads) for half in halves.swapaxes(0, 1)]
    noise = {"pr": waves.p_noise, "qrs": waves.qrs_noise, "qt": waves.t_noise, "axis": waves.qrs_noise}
    for name in noise:
        differ = angle_between if name == "axis" else np.subtract
        deviations = np.abs([differ(half[name], values[name]) for half in of_halves])
        deviation = np.where(np.isnan(deviations), _UNTOLD, deviations).max(axis=0)
        if name == "axis":
            values[name] = np.where(deviation > _SCATTERED, np.nan, values[name])
        quality = 1 / (1 + deviation / _HALF_QUALITY + _NOISE_WEIGHT * noise[name])
        values[f"{name}_quality"] = np.where(np.isnan(values[name]), 0.0, quality)
    values["qtc"], values["qtc_quality"] = values["qt"] / np.cbrt(rr), values["qt_quality"]
    return values


def _values(waves: Waves, signal: Floats, leads: Sequence[str]) -> dict[str, Floats]:
    """Return (records,) intervals in milliseconds and the axis in degrees."""
    standard = [standard_name(lead) for lead in leads]
    axis = np.full(len(signal), np.nan)
    if "I" in standard and "aVF" in standard:
        limb = signal[:, [standard.index("I"), standard.index("aVF")]]
        axis = qrs_axis(limb, waves.qrs_onset, waves.qrs_offset)
    return {
        "pr": (waves.qrs_onset - waves.p_onset) * MILLISECONDS,
        "qrs": np.where(waves.has_qrs, (waves.qrs_offset - waves.qrs_onset) * MILLISECONDS, np.nan),
        "qt": (waves.t_end - waves.qrs_onset) * MILLISECONDS,
        "axis": np.where(waves.has_qrs, axis, np.nan),
    }
