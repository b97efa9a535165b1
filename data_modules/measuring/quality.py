"""Quality of a recording: which leads carry no ECG, and one number for how far the rest can be read.

The faults are those that Silva, Moody & Celi (Improving the quality of ECGs collected using mobile phones, Computing in
Cardiology 38:273, 2011) list for recordings that readers refuse: flat and missing leads, saturation, jumps and drift of
the baseline, noise. Each is a rule with a limit in millivolts or seconds that has its own reason; none was fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

INTERRUPTION: Final = 1.0
"""Seconds without signal in one stretch, or off the scale in all, from which a lead is interrupted. No electrode on a
person is still for so long: through a pause of the heart too, breathing and the amplifier move the line."""

_WINDOW: Final = 0.1  # seconds, about one QRS complex: a beat moves within it, and its mean follows the baseline
_STILL: Final = 0.002  # millivolts a window moves by where no electrode is; amplifiers and skin alone add 10 microvolts
_SILENT: Final = 0.01  # millivolts a window moves by in a lead without beats; low voltage means up to 50 times as much
_FLAT: Final = 0.97  # share of silent windows; from 20 beats a minute on, QRS complexes take more than the rest
_OFF_SCALE: Final = 4.5  # millivolts; devices reach at least 5 (IEC 60601-2-25), and no heart holds this for a window
_JUMP: Final = 0.5  # seconds in which a loose electrode leaves the scale; wander that comes with breathing takes longer
_TOP: Final = 0.01  # seconds at exactly the extreme value; the tip of an R wave or of a pacing spike is sharper
_TOPS: Final = 0.1  # seconds of such plateaus in all, and two of them at least: clipped beats, not chance
_CLIPPED: Final = 0.3  # millivolts from plateau to baseline; what is nearer is a resting line, not a clipped wave
_HUGE: Final = 1e6  # millivolts, a kilovolt: anything larger is as wrong, and its square still a float32
_SAME: Final = 0.0005  # millivolts; samples nearer than this are equal: half a step of the finest common resolution

_BLOCK: Final = 0.01  # seconds averaged before beats are compared: 100 Hz, so that all sampling rates are judged alike
_BEFORE, _AFTER = 0.2, 0.4  # seconds around R that hold P, QRS and T
_NEIGHBOURS: Final = 4  # beats before and after to compare a beat with: every fourth may be of its own shape
_NOISE: Final = 0.02  # millivolts rms that harm no reading: 0.1 from trough to crest, 1 mm on paper
_WANDER: Final = 2.0  # millivolts; by these 20 mm on paper a lead runs into its neighbours
_NO_BEATS: Final = 0.3  # what a lead is worth where no two beats can be compared: noise, rarely a heart without beats
_SATURATED: Final = 0.5  # what a saturated lead is worth: its rhythm can be read, its voltages are wrong


@dataclass(frozen=True)
class Quality:
    """What is wrong with one recording. Flags name leads, in the order of the signal, and do not exclude each other.

    Args:
        flat_leads: No signal at all through nearly the whole recording, whatever the voltage.
        saturated_leads: Pinned at the converter's limits: several waves cut off at the same highest or lowest value,
            or a stretch without any signal beyond 4.5 mV.
        interrupted_leads: Electrode off for part of the recording: at least ``INTERRUPTION`` seconds without any
            signal, or as long more than 4.5 mV off the baseline after a jump.
        invalid_leads: Some samples are not a finite number.
        score: From 0 (unusable) to 1 (clean): half the mean over leads, half the worst lead, because readers want all
            leads. A lead is worth the share of a typical beat that repeats from beat to beat, times the share of its
            time that is neither flat, off the scale nor invalid, less for wander of the baseline and for saturation.
    """

    flat_leads: tuple[str, ...]
    saturated_leads: tuple[str, ...]
    interrupted_leads: tuple[str, ...]
    invalid_leads: tuple[str, ...]
    score: float


def assess(
    signal: NDArray[np.float32],
    leads: Sequence[str],
    sampling_rate: float,
    beats: NDArray[np.integer] | None = None,
    missing: Sequence[str] = (),
) -> Quality:
    """Judge one recording as it was recorded: before filters and resampling, which hide plateaus.

    Args:
        signal: (leads, time) millivolts; NaN where nothing was recorded.
        leads: Names of the rows of ``signal``.
        sampling_rate: Hz, from 100.
        beats: (K,) sample index of each R peak in ``signal``; empty if there is none, which lowers the score; None if
            unknown, which leaves noise out of it. Two whole beats are needed to compare.
        missing: Leads that should be there and are not; each counts as a lead that is worth nothing.

    Returns:
        Flags and score. Of a recording shorter than ``INTERRUPTION`` only ``invalid_leads`` is judged; its score is 0.
    """
    rows = np.clip(np.asarray(signal, dtype=np.float32), -_HUGE, _HUGE)
    valid = np.isfinite(signal)
    invalid: Mask = np.any(~valid, axis=1)
    if rows.shape[0] == 0 or rows.shape[1] < INTERRUPTION * sampling_rate:
        return Quality((), (), (), _named(leads, invalid), 0.0)
    if invalid.any():
        rows = _filled(rows, valid)
    windows = _Windows.of(rows, valid, max(1, round(_WINDOW * sampling_rate)))
    lost = windows.still | windows.off
    flat: Mask = (windows.silent.sum(axis=1) >= _FLAT * windows.recorded.sum(axis=1)) & windows.recorded.any(axis=1)
    interrupted = ~flat & (lost.sum(axis=1) >= round(INTERRUPTION / _WINDOW))
    saturated = windows.railed.any(axis=1) | _clipped(rows, windows.baseline, sampling_rate)
    worth = valid.mean(axis=1) * (1 - lost.mean(axis=1)) * windows.steadiness()
    worth *= np.where(flat, 0, np.where(saturated, _SATURATED, 1))
    if beats is not None:
        worth *= _repeating(rows, beats, sampling_rate)
    worth = np.append(worth, np.zeros(len(missing)))
    return Quality(
        flat_leads=_named(leads, flat),
        saturated_leads=_named(leads, saturated),
        interrupted_leads=_named(leads, interrupted),
        invalid_leads=_named(leads, invalid),
        score=float(worth.min() + worth.mean()) / 2,
    )


def _named(leads: Sequence[str], flags: Mask) -> tuple[str, ...]:
    return tuple(lead for lead, flag in zip(leads, flags, strict=True) if flag)


def _filled(rows: Floats, valid: Mask) -> Floats:
    """Return the signal with each lead's median where it holds no number, so that arithmetic goes through."""
    medians = [np.median(row[good]) if good.any() else 0 for row, good in zip(rows, valid, strict=True)]
    return np.where(valid, rows, np.array(medians, dtype=np.float32)[:, None])


@dataclass(frozen=True)
class _Windows:
    """What a tenth of a second shows, for all leads and windows.

    Args:
        recorded: (leads, windows) each sample is a number.
        silent: (leads, windows) no beat could be in it.
        still: (leads, windows) nothing moves in it nor in its neighbours, for ``INTERRUPTION`` seconds.
        railed: (leads, windows) still, and beyond what a heart reaches.
        off: (leads, windows) as far from the baseline, in a lead that jumped so far.
        level: (leads, windows) mean, millivolts.
        baseline: (leads, 1) where the signal rests, millivolts.
    """

    recorded: Mask
    silent: Mask
    still: Mask
    railed: Mask
    off: Mask
    level: Floats
    baseline: Floats

    @classmethod
    def of(cls, rows: Floats, valid: Mask, size: int) -> _Windows:
        count = rows.shape[1] // size
        shape = (rows.shape[0], count, size)
        cut = rows[:, : count * size].reshape(shape)
        recorded: Mask = np.all(valid[:, : count * size].reshape(shape), axis=2)
        span, level = cut.max(axis=2) - cut.min(axis=2), cut.mean(axis=2)
        baseline = np.median(level, axis=1, keepdims=True)
        still = _runs(recorded & (span <= _STILL + _SAME), round(INTERRUPTION / _WINDOW))
        railed = still & (np.abs(level) > _OFF_SCALE)
        lag = round(_JUMP / _WINDOW)
        jumped = (np.abs(level[:, lag:] - level[:, :-lag]) > _OFF_SCALE).any(axis=1, keepdims=True)
        off = recorded & jumped & (np.abs(level - baseline) > _OFF_SCALE)
        return cls(recorded, recorded & (span <= _SILENT), still, railed, off, level, baseline)

    def steadiness(self) -> Floats:
        """Return (leads,) 1 for a steady baseline, 0.5 for one that wanders by ``_WANDER`` in 5 % of the time."""
        wander = np.percentile(np.abs(self.level - self.baseline), 95, axis=1)
        return np.asarray(1 / (1 + np.square(wander / _WANDER)))


def _runs(mask: Mask, shortest: int) -> Mask:
    """Return ``mask``, (leads, time), with only those of its runs along time that are long enough."""
    starts, ends = _edges(np.pad(mask, ((0, 0), (0, 1))).ravel())  # the runs of two leads never touch
    steps = np.zeros(mask.shape[0] * (mask.shape[1] + 1), dtype=np.int8)
    long = ends - starts >= shortest
    steps[starts[long]], steps[ends[long]] = 1, -1
    return np.cumsum(steps, dtype=np.int8).astype(bool).reshape(len(mask), -1)[:, :-1]


def _edges(mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the runs of a (time,) mask start, and where they have ended."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return edges[::2], edges[1::2]


def _clipped(rows: Floats, baseline: Floats, sampling_rate: float) -> Mask:
    """Return (leads,) whether waves are cut off at the highest or the lowest value."""
    shortest, longest = max(2, round(_TOP * sampling_rate)), INTERRUPTION * sampling_rate
    found = np.zeros(len(rows), dtype=bool)
    for extreme in (rows.max(axis=1, keepdims=True), rows.min(axis=1, keepdims=True)):
        at_extreme = np.abs(rows - extreme) <= _SAME
        far = np.abs(extreme - baseline)[:, 0] >= _CLIPPED
        # Most leads are at their extremes for a sample or two: only the others are worth looking at closely.
        for lead in np.flatnonzero(far & (at_extreme.sum(axis=1) >= _TOPS * sampling_rate)):
            starts, ends = _edges(at_extreme[lead])
            lengths = ends - starts
            plateaus = lengths[(lengths >= shortest) & (lengths < longest)]  # a longer one is no wave
            found[lead] |= plateaus.size >= 2 and plateaus.sum() >= _TOPS * sampling_rate
    return found


def _repeating(rows: Floats, beats: NDArray[np.integer], sampling_rate: float) -> Floats:
    """Return (leads,) the share of a typical beat's power that comes again in a beat near it.

    Each beat is compared with the one of its neighbours in time that most leads find alike, so that ectopic or paced
    beats among others are not taken for noise. Half of the power of their difference is noise, for both have it.
    """
    block = max(1, round(_BLOCK * sampling_rate))
    rate, count = sampling_rate / block, rows.shape[1] // block
    smooth = rows[:, : count * block].reshape(len(rows), count, block).mean(axis=2)
    before, length = round(_BEFORE * rate), round((_BEFORE + _AFTER) * rate)
    starts = np.asarray(beats, dtype=np.int64) // block - before
    starts = starts[(starts >= 0) & (starts + length <= count)]
    if starts.size < 2:
        return np.full(len(rows), _NO_BEATS)
    cut = smooth[:, starts[:, None] + np.arange(length)]
    cut -= np.median(cut, axis=2, keepdims=True)
    noise = np.full((2 * _NEIGHBOURS, *cut.shape[:2]), np.inf)
    for lag in range(1, min(_NEIGHBOURS, starts.size - 1) + 1):
        noise[lag - 1, :, lag:] = np.square(cut[:, lag:] - cut[:, :-lag]).mean(axis=2) / 2
        noise[-lag, :, :-lag] = noise[lag - 1, :, lag:]
    power = np.median(cut.var(axis=2), axis=1)
    unlike = np.median(noise / np.maximum(power, 1e-12)[:, None], axis=1)
    nearest = np.take_along_axis(noise, unlike.argmin(axis=0)[None, None], axis=0)[0]
    harmful = np.maximum(np.median(nearest, axis=1) - _NOISE**2, 0)
    return np.asarray(1 - np.minimum(harmful / np.maximum(power, 1e-12), 1))
