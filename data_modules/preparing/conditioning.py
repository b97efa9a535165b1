"""From a recording to the array a model sees: leads by name, one sampling rate, length and band; along time only."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, resample_poly, sosfiltfilt

from data_modules.leads import with_derived
from data_modules.records import Record
from ecgfair.ecg import MISSING_SAMPLE, Preprocessing
from ecgfair.errors import RecordError

SHORTEST: Final = 2.0
"""Seconds. A shorter recording holds too few beats to tell a rhythm, and is no ECG."""

_FILTER_ORDER: Final = 3
_MAX_RESAMPLING_FACTOR: Final = 1000
_RATE_TOLERANCE: Final = 1e-4
"""Relative error of the resampling's ratio: a millisecond in ten seconds."""

_MARGIN: Final = 5
"""Seconds kept around a crop until it is resampled and filtered, so that no filter starts or ends inside it."""

_LARGEST_STEP: Final = np.iinfo(np.int16).max


@dataclass(frozen=True)
class Conditioned:
    """A recording brought to a Preprocessing.

    Args:
        signal: (leads, length) float64 millivolts; NaN where nothing was recorded.
        kept: The samples of the recording that the signal shows, as (start, stop).
        offset: Where in the signal the first kept sample is.
        derived: Leads computed from others.
        missing: Leads that were not recorded and do not follow from others.
    """

    signal: NDArray[np.float64]
    kept: tuple[int, int]
    offset: int
    derived: tuple[str, ...]
    missing: tuple[str, ...]


def condition(record: Record, preprocessing: Preprocessing) -> Conditioned:
    """Bring a recording to the leads, sampling rate, length and band of ``preprocessing``, in millivolts.

    Leads are taken by name, limb leads that follow from two others are computed, and what is missing then is NaN. Of a
    longer recording ``preprocessing.crop`` says what is kept, of a shorter one ``preprocessing.pad`` where it stands.
    Another sampling rate is resampled with a polyphase filter, then the band is passed by a zero-phase Butterworth
    filter of order 3; both work along time only. Gaps are bridged by straight lines for the filters, and are gaps again
    afterwards.

    Raises:
        RecordError: Rows and names of leads disagree, none of the leads asked for was recorded, its rate can't be
            resampled, it is too short or of a length that is to be rejected, or it holds no signal at all.
    """
    recorded, leads, derived = _by_name(record, preprocessing.leads)
    rate, length = preprocessing.sampling_rate, preprocessing.length
    ratio = _ratio(rate, record.sampling_rate)
    samples = recorded.shape[1]
    found = round(samples * ratio)
    _check_length(samples / record.sampling_rate, found, preprocessing)
    start, stop = _kept(samples, found, ratio, preprocessing)
    around = round(_MARGIN * record.sampling_rate)
    first, last = max(0, start - around), min(samples, stop + around)
    signal = _filtered(recorded[:, first:last].astype(np.float64), ratio, preprocessing)
    begin = round((start - first) * ratio)
    signal = signal[:, begin : begin + length]
    offset = (length - signal.shape[1]) // 2 if preprocessing.pad == "center" else 0
    result = np.full((len(preprocessing.leads), length), np.nan)
    for row, lead in enumerate(preprocessing.leads):
        if lead in leads:
            result[row, offset : offset + signal.shape[1]] = signal[leads.index(lead)]
    _check_signal(np.rint(result / preprocessing.scale))
    missing = tuple(lead for lead in preprocessing.leads if lead not in leads)
    return Conditioned(result, (start, stop), offset, derived, missing)


def to_int16(signal: NDArray[np.float64], scale: float) -> NDArray[np.int16]:
    """Round millivolts to integer steps of ``scale``.

    Args:
        signal: (leads, time) millivolts; NaN becomes ``MISSING_SAMPLE``.
        scale: Millivolts a step.

    Raises:
        RecordError: A voltage is beyond what int16 holds; clipping it would draw a plateau nobody's heart made.
    """
    steps = np.rint(signal / scale)
    beyond = int(np.count_nonzero(np.abs(steps) > _LARGEST_STEP))
    if beyond:
        raise RecordError(
            f"voltage too high: {beyond} samples, up to {np.nanmax(np.abs(signal)):.6g} mV, are beyond "
            f"{_LARGEST_STEP * scale:g} mV, the most that int16 holds at {scale:g} mV a step."
        )
    return np.where(np.isnan(steps), MISSING_SAMPLE, steps).astype(np.int16)


def to_millivolts(steps: NDArray[np.int16], scale: float) -> NDArray[np.float32]:
    """Return float32 millivolts of stored steps, NaN where nothing was recorded."""
    return np.where(steps == MISSING_SAMPLE, np.float32(np.nan), steps.astype(np.float32) * np.float32(scale))


def _ratio(rate: int, recorded_rate: float) -> Fraction:
    exact = rate / recorded_rate if recorded_rate > 0 else 0.0
    ratio = Fraction(exact).limit_denominator(_MAX_RESAMPLING_FACTOR)
    if not ratio or abs(float(ratio) / exact - 1) > _RATE_TOLERANCE:
        raise RecordError(f"sampling rate: {recorded_rate:g} Hz can't be resampled to {rate} Hz.")
    return ratio


def _by_name(record: Record, wanted: tuple[str, ...]) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[str, ...]]:
    """Return the recording with derived leads, the names of its rows, and which of those wanted are derived."""
    if record.signal.ndim != 2 or record.signal.shape[0] != len(record.leads):
        raise RecordError(
            f"leads unclear: a signal of the shape {record.signal.shape}, {len(record.leads)} names of leads."
        )
    if len(set(record.leads)) != len(record.leads):
        raise RecordError(f"lead there twice: found {', '.join(record.leads)}.")
    signal, leads, derived = with_derived(record.signal, record.leads)
    if not set(leads) & set(wanted):
        raise RecordError(f"lead missing: none of {', '.join(wanted)} is among {', '.join(record.leads) or 'no lead'}.")
    # Infinities are no voltages either.
    return np.where(np.isfinite(signal), signal, np.float32(np.nan)), leads, tuple(x for x in derived if x in wanted)


def _check_length(seconds: float, found: int, preprocessing: Preprocessing) -> None:
    length, rate = preprocessing.length, preprocessing.sampling_rate
    told = f"{found} samples at {rate} Hz, expected {length}"
    if seconds < min(SHORTEST, length / rate):
        raise RecordError(f"too short: {told}; a recording below {SHORTEST:g} s holds too few beats.")
    if found < length and preprocessing.pad == "reject":
        raise RecordError(f"too short: {told}; set pad to start or center to keep it.")
    if found > length and preprocessing.crop == "reject":
        raise RecordError(f"too long: {told}; set crop to start or center to keep a part.")


def _kept(samples: int, found: int, ratio: Fraction, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the samples of the recording that fill the length asked for."""
    if found <= preprocessing.length:
        return 0, samples
    count = round(preprocessing.length / ratio)
    start = (samples - count) // 2 if preprocessing.crop == "center" else 0
    return start, start + count


def _filtered(signal: NDArray[np.float64], ratio: Fraction, preprocessing: Preprocessing) -> NDArray[np.float64]:
    gaps = np.isnan(signal)
    if gaps.any():
        signal = _bridged(signal, gaps)
    if ratio != 1:
        # The ends are padded along the line through them, or a lead off zero would ring there.
        signal = resample_poly(signal, ratio.numerator, ratio.denominator, axis=-1, padtype="line")
    if preprocessing.band_pass is not None:
        sections = butter(
            _FILTER_ORDER, preprocessing.band_pass, btype="bandpass", fs=preprocessing.sampling_rate, output="sos"
        )
        signal = sosfiltfilt(sections, signal, axis=-1)
    if gaps.any():
        signal[_resampled_gaps(gaps, ratio, signal.shape[1])] = np.nan
    return signal


def _bridged(signal: NDArray[np.float64], gaps: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Replace gaps by straight lines between their ends; a lead that is one gap becomes zero."""
    time = np.arange(signal.shape[1])
    bridged = signal.copy()
    for row in np.flatnonzero(gaps.any(axis=1)):
        known = ~gaps[row]
        bridged[row] = np.interp(time, time[known], signal[row, known]) if known.any() else 0.0
    return bridged


def _resampled_gaps(gaps: NDArray[np.bool_], ratio: Fraction, length: int) -> NDArray[np.bool_]:
    """Return which samples after resampling stand for a span that holds a gap."""
    centre = np.arange(length) / float(ratio)
    half = max(0.5 / float(ratio), 0.5)
    counted: NDArray[np.int64] = np.cumsum(np.pad(gaps, ((0, 0), (1, 0))), axis=1, dtype=np.int64)
    low = np.clip(np.ceil(centre - half).astype(np.int64), 0, gaps.shape[1] - 1)
    high = np.clip(np.floor(centre + half).astype(np.int64) + 1, 1, gaps.shape[1])
    return np.not_equal(counted[:, high], counted[:, low])


def _check_signal(signal: NDArray[np.float64]) -> None:
    """Make sure that there is any signal, as it will be stored: filters leave rounding errors of a constant."""
    recorded = ~np.isnan(signal)
    if not recorded.any():
        raise RecordError("no signal: no sample of any lead is a number.")
    alive = np.nanmax(signal[recorded.any(axis=1)], axis=1) > np.nanmin(signal[recorded.any(axis=1)], axis=1)
    if not alive.any():
        raise RecordError("no signal: no lead ever changes its voltage; expected an ECG.")
