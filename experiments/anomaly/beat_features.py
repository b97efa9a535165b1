"""What the simple baselines see of a record: its median beat, the height of its waves, its measured intervals.

Nothing here is learnt and no label is read. The median beat and the measurements are those of
``data_modules.measuring``; what is added is plain arithmetic on them, of all records at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from data_modules.measuring.median_beat import MEDIAN_BEAT_ONSET, MEDIAN_BEAT_RATE, median_beat
from data_modules.stores.store import RecordStore
from ecgfair.ecg import MISSING_SAMPLE

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

RATE: Final = 100
"""Hz of the beats here; the median beat holds nothing above 40 Hz."""
R: Final = round(MEDIAN_BEAT_ONSET * RATE)
"""Sample of the R peak."""
INDEPENDENT: Final = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""Leads from which the other four follow; in a distance all twelve would count the limb leads three times."""
PUBLISHED_WINDOW: Final = (-0.28, 0.68)
"""Seconds around R, the beat of the published method."""

_MEASURED: Final = ("heart_rate", "pr", "qrs", "qt", "qtc", "rr_variability")
_SHAPE_WINDOW: Final = (-0.28, 0.5)  # seconds around R: from the P wave to the end of the T wave
_STRETCHED_FROM: Final = 0.06  # seconds after R; what lies before does not lengthen much with the RR interval
_LINEAR_TO: Final = 0.4  # of a record's own root mean square: higher voltages count by their logarithm
_LEAST_VOLTAGE: Final = 1e-3  # mV, so that no logarithm and no quotient is of zero


@dataclass(frozen=True, eq=False)
class Records:
    """Everything the baselines are told of N records.

    Args:
        beats: (N, leads, 120) millivolts, the median beat at ``RATE`` from 0.5 s before to 0.7 s after R. NaN in a lead
            that is too noisy or was not recorded, and in all of a record with fewer than two beats.
        spread: (N, leads) millivolts, standard deviation of what was recorded; NaN of a lead that was not.
        rhythm: (N, 4) logarithms: median RR interval in seconds, RMSSD over it, longest and shortest RR over it; NaN
            with fewer than three beats.
        measured: (N, 8) heart rate, PR, QRS, QT and QTc intervals, RR variability, cosine and sine of the axis; NaN
            where nothing was measured.
        leads: Their names.
    """

    beats: Floats
    spread: Floats
    rhythm: Floats
    measured: Floats
    leads: tuple[str, ...]

    @property
    def has_beat(self) -> Flags:
        """(N,) whether there is a median beat."""
        return np.asarray(np.isfinite(self.beats).any((1, 2)))

    @property
    def independent(self) -> list[int]:
        """Positions of ``INDEPENDENT``."""
        return [self.leads.index(lead) for lead in INDEPENDENT]


def read_records(store: RecordStore) -> Records:
    """Measure all records of a store; about 5 ms each.

    Raises:
        SystemExit: The store lacks a lead.
    """
    settings = store.preprocessing
    if missing := sorted(set(INDEPENDENT) - set(settings.leads)):
        raise SystemExit(f"{store.location} has no lead {', '.join(missing)}: expected a store of 12-lead recordings.")
    per_sample = MEDIAN_BEAT_RATE // RATE
    peaks = store.columns(["beats"])["beats"].to_pylist()
    beats, spread, rhythm = [], [], []
    for record in track(range(len(store)), description="median beats", transient=True):
        stored = store.gather(np.array([record]))[0]
        signal = np.where(stored == MISSING_SAMPLE, np.nan, stored * settings.scale)
        at = np.array(peaks[record] or [], dtype=np.int32)
        found = median_beat(signal, at, settings.sampling_rate)
        if found is None:
            size = round((MEDIAN_BEAT_ONSET + 0.7) * RATE)
            beats.append(np.full((len(signal), size), np.nan))
        else:
            beats.append(found.signal.reshape(len(signal), -1, per_sample).mean(2))
        recorded = np.asarray(np.isfinite(signal).any(1))
        spread.append(np.where(recorded, np.nanstd(np.where(recorded[:, None], signal, 0), axis=1), np.nan))
        rhythm.append(_rhythm(np.diff(at) / settings.sampling_rate))
    return Records(np.stack(beats), np.stack(spread), np.stack(rhythm), _measured(store), settings.leads)


def window(beats: Floats, seconds: tuple[float, float]) -> Floats:
    """Cut (N, leads, time) to some seconds around R."""
    first, last = (R + round(second * RATE) for second in seconds)
    return beats[:, :, first:last]


def shape(records: Records) -> Floats:
    """Return the form of each beat, (N, leads, 78), free of its size and of the heart rate; NaN where the beat is.

    Time from the end of QRS on is divided by the square root of the RR interval (Bazett 1920), so that T waves of slow
    and fast hearts lie on each other. The voltage is divided by the root mean square of the record's whole beat and
    goes through the inverse hyperbolic sine, else tall QRS complexes alone would decide what is a large difference.
    """
    rate = records.measured[:, 0]
    rr = 60 / np.where(np.isnan(rate), 60, rate)
    first, last = (round(second * RATE) for second in _SHAPE_WINDOW)
    start, time = round(_STRETCHED_FROM * RATE), np.arange(first, last, dtype=np.float64)
    stretched = start + (time - start) * np.sqrt(rr)[:, None]
    place = np.clip(R + np.where(time < start, time, stretched), 0, records.beats.shape[2] - 1.001)
    before = place.astype(np.int64)[:, None]
    share = place[:, None] - before
    cut = np.take_along_axis(records.beats, before, 2) * (1 - share)
    cut += np.take_along_axis(records.beats, before + 1, 2) * share
    return np.asarray(np.arcsinh(cut / (_size(cut)[:, None, None] * _LINEAR_TO)))


def waves(records: Records) -> dict[str, Floats]:
    """Return what is read off the median beat in ``INDEPENDENT`` leads; NaN where the beat is.

    Returns:
        ``voltages`` (N, 32): highest and lowest voltage of QRS complex and T wave in each lead, against the PR segment;
        ``small_waves`` (N, 24): the same of the P wave, and the ST segment 80 ms after R;
        ``geometry`` (N, 4): cosine of the angle between the QRS complex and the T wave in the space of these leads,
        logarithms of T over QRS, of P over QRS, and of the size of QRS. A wide angle foretells cardiac death in the
        general population (Kardys et al. 2003, doi:10.1016/S0195-668X(03)00203-3).
    """
    beats = records.beats[:, records.independent]
    beats = beats - window(beats, (-0.07, -0.05)).mean(2, keepdims=True)
    p, qrs, t = (window(beats, seconds) for seconds in ((-0.25, -0.07), (-0.06, 0.07), (0.14, 0.42)))
    st = window(beats, (0.08, 0.09)).mean(2)
    of_qrs, of_t = qrs.sum(2), t.sum(2)
    lengths = np.sqrt(np.nansum(of_qrs**2, 1) * np.nansum(of_t**2, 1))
    cosine = np.nansum(of_qrs * of_t, 1) / np.maximum(lengths, _LEAST_VOLTAGE**2)
    small, size, large = (np.log(_spread(wave) + _LEAST_VOLTAGE) for wave in (p, qrs, t))
    geometry = np.stack([cosine, large - size, small - size, size], 1)
    geometry[~records.has_beat] = np.nan
    return {
        "voltages": np.concatenate([qrs.max(2), qrs.min(2), t.max(2), t.min(2)], 1),
        "small_waves": np.concatenate([p.max(2), p.min(2), st], 1),
        "geometry": geometry,
    }


def _rhythm(rr: Floats) -> Floats:
    """See ``Records.rhythm``."""
    if rr.size < 2:
        return np.full(4, np.nan)
    middle = float(np.median(rr))
    successive = np.sqrt(np.mean(np.diff(rr) ** 2)) / middle
    return np.log([middle, successive + 0.005, rr.max() / middle, rr.min() / middle])


def _measured(store: RecordStore) -> Floats:
    """See ``Records.measured``."""
    table = store.columns([*_MEASURED, "axis"])
    columns = [table[name].to_numpy().astype(np.float64) for name in _MEASURED]
    axis = np.deg2rad(table["axis"].to_numpy().astype(np.float64))
    return np.stack([*columns, np.cos(axis), np.sin(axis)], 1)


def _size(beats: Floats) -> Floats:
    """Return (N,) root mean square over the leads that are there, in millivolts."""
    there = np.isfinite(beats)
    square = np.where(there, beats, 0) ** 2
    return np.asarray(np.sqrt(square.sum((1, 2)) / np.maximum(there.sum((1, 2)), 1)) + _LEAST_VOLTAGE)


def _spread(wave: Floats) -> Floats:
    """Return (N,) standard deviation over the leads that are there, and over time."""
    there = np.isfinite(wave)
    count = np.maximum(there.sum((1, 2)), 1)
    mean = np.where(there, wave, 0).sum((1, 2)) / count
    apart = np.where(there, wave - mean[:, None, None], 0)
    return np.asarray(np.sqrt((apart**2).sum((1, 2)) / count))
