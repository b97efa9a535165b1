"""What disturbs an ECG: breathing, drift, mains, muscles, moving electrodes and electrodes that lose contact.

The kinds are those of the MIT-BIH Noise Stress Test Database (Moody, Muldrow & Mark, Computers in Cardiology 11:381,
1984: baseline wander, muscle noise, electrode motion), with mains and lost contact (Friesen et al., IEEE Trans. Biomed.
Eng. 37:85, 1990). Each acts on the potential of an electrode, so that the leads stay lawful, see ``electrodes``. How
large wander and muscle noise are follows PTB-XL, where they were measured below 0.5 and above 30 Hz; the rest is set by
eye. No wave is copied.

The random numbers are drawn in one order whatever comes of them. The factor scales every amplitude, so a record is
disturbed by the same waves in another size. Muscle noise is drawn as a spectrum from 10 Hz upwards, so that a record
has the same disturbances at every sampling rate, as far as that rate shows them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from data_modules.synthetic.signals.electrodes import ELECTRODES, Floats, to_leads
from ecgfair.ecg import LEADS
from ecgfair.errors import ConfigurationError

LOWEST_RATE: Final = 50.0
"""Hz."""
LEAD_OFF: Final = 0.01
"""Share of records with an electrode without contact, at factor 1; it grows with the factor."""
MOST_LEAD_OFF: Final = 0.2
"""What that share is at most."""
MOTION: Final = 0.04
"""Share of records in which an electrode moves."""
BURSTS: Final = 0.03
"""Share of records in which muscles tense up for a moment."""

VISIBLE_DRIFT: Final = 0.5
"""Millivolts, lowest to highest, from which wander of a lead's baseline is noted: a large square of ECG paper."""
VISIBLE_NOISE: Final = 0.02
"""Millivolts rms from which lasting noise of a lead is noted: about 0.1 from trough to crest, 1 mm on paper."""
VISIBLE_BURST: Final = 0.2
"""Millivolts from the baseline from which a burst or a movement of an electrode is noted: 2 mm on paper."""
VISIBLE_PART: Final = 0.5
"""Weight of an electrode without contact from which a lead is noted: the chest leads, in which a limb electrode has a
third, keep their shape."""

_MAINS: Final = 50.0  # Hz, in Europe
_MUSCLE: Final = 10.0, 150.0  # Hz; 150 is the upper limit of diagnostic recorders (Kligfield et al. 2007)
_PASSED: Final = 0.45  # of the sampling rate; what a recorder's filter lets through
_REFERENCE: Final = 45.0  # Hz; levels of muscle noise are those from 10 Hz up to here, at 100 Hz sampling
_DRIFT: Final = 0.021, 0.047, 0.083  # Hz, no multiples of each other; slower waves are larger, as 1/f

# Medians over records, millivolts rms (mains: amplitude) at one electrode, and the spread of their logarithm.
_LEVELS: Final = {"drift": (0.023, 0.8), "breathing": (0.018, 0.8), "mains": (0.0015, 0.8), "muscle": (0.003, 0.7)}
_WANDER_AT: Final = np.array([1, 1, 1, *[1.3] * 6])[:, None]  # chest electrodes move with breathing, and loosen sooner
_MUSCLE_AT: Final = np.array([1, 1, 0.6, *[0.4] * 6])[:, None]  # arms move most: PTB-XL's I has more noise than its V1
_UNEVEN: Final = 0.4  # spread of the logarithm of mains and muscle noise over the electrodes of one record
_BURST: Final = 0.03, 0.5  # millivolts rms at the height of a burst, spread of the logarithm
_PULSE: Final = 0.5, 0.6  # millivolts at an electrode that moves, spread of the logarithm
_MOST: Final = 3  # bursts or movements in one record


@dataclass(frozen=True)
class Problems:
    """Leads, in the order of ``LEADS``, in which a reader would note a disturbance; the kinds of PTB-XL.

    Args:
        baseline_drift: Breathing and drift of at least ``VISIBLE_DRIFT``.
        static_noise: Mains and lasting muscle noise of at least ``VISIBLE_NOISE``.
        burst_noise: Bursts of muscle noise, or an electrode that moves, of at least ``VISIBLE_BURST``.
        electrodes_problems: An electrode without contact, for a part of the time or all of it.
    """

    baseline_drift: tuple[str, ...] = ()
    static_noise: tuple[str, ...] = ()
    burst_noise: tuple[str, ...] = ()
    electrodes_problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Disturbed:
    """A recording with its disturbances.

    Args:
        potentials: (9, time) millivolts in the order of ``ELECTRODES``.
        problems: What of it a reader would note.
    """

    potentials: Floats = field(repr=False)
    problems: Problems


def disturb(
    potentials: Floats, rng: np.random.Generator, sampling_rate: float, factor: float = 1.0, respiration: float = 0.25
) -> Disturbed:
    """Add the disturbances of one recording.

    Most records are hardly disturbed, some plainly: levels are log-normal over records, bursts, movements and lost
    contact are rare. An electrode without contact shows its drift and mains alone.

    Mains are sampled as they are, without a filter. At 100 Hz their 50 Hz lie at half the sampling rate, and what is
    left of them alternates from sample to sample, its size following the phase. A recorder that samples more slowly
    must have filtered them out, so there they are left out.

    Args:
        potentials: (9, time) millivolts of the heart alone, in the order of ``ELECTRODES``, zero being the mean of the
            limb electrodes.
        rng: Of this record. What is drawn depends on the sampling rate and the length alone.
        sampling_rate: Hz.
        factor: On the amplitude of every disturbance, and on the share of records with lost contact up to
            ``MOST_LEAD_OFF``; 0 leaves the potentials as they are.
        respiration: Breaths per second, with which the baseline wanders.

    Raises:
        ConfigurationError: The factor is negative or not finite, the sampling rate below 50 Hz, or the potentials are
            not those of nine electrodes.
    """
    _check(potentials, sampling_rate, factor)
    grid = _grid(potentials.shape[1], sampling_rate)
    wander = _drift(rng, grid)
    breathing = _breathing(rng, grid, respiration)
    mains = _mains(rng, grid)
    lasting, bursts = _muscle_levels(rng, grid)
    motion = _motion(rng, grid)
    lost = _lost_contact(rng, grid, factor)
    muscle = _muscle(rng, grid)

    heart = potentials
    moments = np.zeros_like(wander) if bursts is None else muscle * bursts
    if motion is not None:
        moments[motion.row] += motion.values
    muscle *= lasting
    if lost is not None:
        heart = potentials.copy()
        for felt in (heart, breathing, muscle, moments):
            felt[lost.row, lost.values] = 0
    wander = _WANDER_AT * (wander + breathing)
    muscle += mains
    problems = _problems(wander, muscle, moments, factor, grid.step)
    if lost is not None:
        problems = replace(problems, electrodes_problems=_named(np.abs(_PARTS[:, lost.row]) >= VISIBLE_PART))
    return Disturbed(heart + factor * (wander + muscle + moments), problems)


@dataclass(frozen=True)
class _Grid:
    """What depends on the sampling rate and the length alone.

    Args:
        rate: Hz.
        seconds: (time,) of each sample.
        slow: (6, time) cosine and sine of each frequency of drift, the variance of all being 1 together.
        first: Bin of the spectrum in which muscle noise begins.
        bins: How many bins it has.
        step: Samples after which wander is looked at.
    """

    rate: float
    seconds: Floats
    slow: Floats
    first: int
    bins: int
    step: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.seconds) / self.rate


@lru_cache(maxsize=8)
def _grid(length: int, rate: float) -> _Grid:
    seconds = np.arange(length) / rate
    size = np.array([1 / rate_of_drift for rate_of_drift in _DRIFT])
    size = np.sqrt(2) * size / np.linalg.norm(size)
    turns = 2 * np.pi * np.array(_DRIFT)[:, None] * seconds
    slow = np.concatenate((size[:, None] * np.cos(turns), size[:, None] * np.sin(turns))) / np.sqrt(2)
    duration = length / rate
    lowest, highest = _MUSCLE
    first = math.ceil(lowest * duration - 1e-9)
    last = math.floor(min(highest, _PASSED * rate) * duration + 1e-9)
    for array in (seconds, slow):
        array.flags.writeable = False
    return _Grid(rate, seconds, slow, first, max(last - first + 1, 0), max(1, int(rate / 10)))


@dataclass(frozen=True)
class _AtOne:
    """What concerns one electrode: its row, and (time,) potentials in millivolts or whether it is concerned."""

    row: int
    values: NDArray[np.float64] | NDArray[np.bool_]


def _level(rng: np.random.Generator, kind: str) -> float:
    median, spread = _LEVELS[kind]
    return median * math.exp(spread * rng.standard_normal())


def _drift(rng: np.random.Generator, grid: _Grid) -> Floats:
    """Return (9, time) slow drift below 0.1 Hz, of each electrode its own: skin and gel change their potential."""
    level = _level(rng, "drift")
    return np.asarray(level * (rng.standard_normal((len(ELECTRODES), 2 * len(_DRIFT))) @ grid.slow))


def _breathing(rng: np.random.Generator, grid: _Grid, respiration: float) -> Floats:
    """Return (9, time) wander with breathing: each electrode has a size and phase of its own."""
    level = _level(rng, "breathing")
    turns = 2 * np.pi * respiration * grid.seconds
    return np.asarray(level * (rng.standard_normal((len(ELECTRODES), 2)) @ np.stack((np.cos(turns), np.sin(turns)))))


def _mains(rng: np.random.Generator, grid: _Grid) -> Floats:
    """Return (9, time) mains: their frequency moves a little, their size slowly; electrodes pick up unlike shares."""
    level = _level(rng, "mains")
    frequency = _MAINS + 0.02 * rng.standard_normal()
    depth, rate, phase = rng.uniform((0.1, 0.05, 0), (0.5, 0.2, 2 * np.pi))
    coupling = rng.standard_normal((len(ELECTRODES), 2)) / np.sqrt(2)
    if grid.rate < 2 * _MAINS:
        return np.zeros((len(ELECTRODES), len(grid.seconds)))
    turns = 2 * np.pi * frequency * grid.seconds
    size = level * (1 + depth * np.sin(2 * np.pi * rate * grid.seconds + phase))
    return np.asarray(coupling @ (size * np.stack((np.cos(turns), np.sin(turns)))))


def _muscle_levels(rng: np.random.Generator, grid: _Grid) -> tuple[Floats, Floats | None]:
    """Return (9, 1) level of lasting muscle noise, and (9, time) that of its bursts or None, millivolts rms."""
    uneven = rng.standard_normal((1 + _MOST, len(ELECTRODES), 1))
    lasting = _level(rng, "muscle") * _MUSCLE_AT * np.exp(_UNEVEN * uneven[0])
    heights = _BURST[0] * np.exp(_BURST[1] * rng.standard_normal(_MOST))
    there, count = rng.random(2)
    centres, widths = rng.random(_MOST) * grid.duration, rng.uniform(0.15, 0.6, _MOST)  # s
    if there >= BURSTS:
        return lasting, None
    rising = np.exp(-0.5 * ((grid.seconds - centres[:, None]) / widths[:, None]) ** 2)
    bursts = np.zeros((len(ELECTRODES), len(grid.seconds)))
    for burst in range(1 + int(count * _MOST)):
        # Other muscles each time, so electrodes are more unlike than in lasting noise.
        bursts += heights[burst] * np.exp(2 * _UNEVEN * uneven[1 + burst]) * rising[burst]
    return lasting, bursts


def _muscle(rng: np.random.Generator, grid: _Grid) -> Floats:
    """Return (9, time) noise of even density from 10 Hz up to 150 Hz or what the rate shows, 1 rms up to 45 Hz."""
    length = len(grid.seconds)
    # Bins first, so that a higher rate draws the same numbers for the lower frequencies.
    drawn = rng.standard_normal((grid.bins, len(ELECTRODES), 2))
    # A bin of variance v in cosine and in sine adds v to that of the signal, and has length / 2 as irfft's factor.
    size = length / 2 / math.sqrt((_REFERENCE - _MUSCLE[0]) * grid.duration)
    spectrum = np.zeros((len(ELECTRODES), length // 2 + 1), dtype=np.complex128)
    spectrum[:, grid.first : grid.first + grid.bins] = size * (drawn[..., 0] - 1j * drawn[..., 1]).T
    return np.asarray(fft.irfft(spectrum, length, axis=1))


def _motion(rng: np.random.Generator, grid: _Grid) -> _AtOne | None:
    """Return the potential of an electrode that moves, or None: it jumps within 0.1 s and comes back by itself."""
    there, which, count = rng.random(3)
    times = rng.random(_MOST) * grid.duration
    sizes = _PULSE[0] * np.exp(_PULSE[1] * rng.standard_normal(_MOST)) * np.where(rng.random(_MOST) < 0.5, -1, 1)
    recovery = rng.uniform(0.15, 1.2, _MOST)  # s
    if there >= MOTION:
        return None
    potential = np.zeros(len(grid.seconds))
    for pulse in range(1 + int(count * _MOST)):
        after = np.maximum(grid.seconds - times[pulse], 0)
        potential += sizes[pulse] * (1 - np.exp(-after / 0.03)) * np.exp(-after / recovery[pulse])
    return _AtOne(int(which * len(ELECTRODES)), potential)


def _lost_contact(rng: np.random.Generator, grid: _Grid, factor: float) -> _AtOne | None:
    """Return when an electrode is without contact, or None: in every second such record all the time."""
    there, which, whole, start, share = rng.random(5)
    if there >= min(LEAD_OFF * factor, MOST_LEAD_OFF):
        return None
    begin = 0.8 * start * grid.duration
    end = begin + (0.2 + 0.6 * share) * grid.duration
    off = np.ones(len(grid.seconds), dtype=np.bool_)
    if whole < 0.5:
        off = (grid.seconds >= begin) & (grid.seconds < end)
    return _AtOne(int(which * len(ELECTRODES)), off)


_PARTS: Final = to_leads(np.eye(len(ELECTRODES)))  # (12, 9) the part of each electrode in each lead


def _problems(wander: Floats, noise: Floats, moments: Floats, factor: float, step: int) -> Problems:
    """Name the leads in which (9, time) wander, lasting noise, and bursts and movements are visible."""
    slow, lasting = to_leads(wander[:, ::step]), to_leads(noise)
    rms = np.sqrt(np.einsum("lt,lt->l", lasting, lasting) / max(1, lasting.shape[1]))
    return Problems(
        baseline_drift=_named(factor * np.ptp(slow, axis=1) >= VISIBLE_DRIFT),
        static_noise=_named(factor * rms >= VISIBLE_NOISE),
        burst_noise=_named(factor * np.abs(to_leads(moments)).max(axis=1) >= VISIBLE_BURST) if moments.any() else (),
    )


def _named(flags: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(lead for lead, flag in zip(LEADS, flags, strict=True) if flag)


def _check(potentials: Floats, sampling_rate: float, factor: float) -> None:
    if not (math.isfinite(factor) and factor >= 0):
        raise ConfigurationError(
            f"factor is {factor}: expected a finite number of at least 0, 1 for usual disturbances."
        )
    if not (math.isfinite(sampling_rate) and sampling_rate >= LOWEST_RATE):
        raise ConfigurationError(f"sampling_rate is {sampling_rate} Hz: expected at least {LOWEST_RATE:g} Hz.")
    if potentials.ndim != 2 or potentials.shape[0] != len(ELECTRODES) or potentials.shape[1] == 0:
        raise ConfigurationError(
            f"potentials has the shape {potentials.shape}: expected (9, time), an electrode a row; to_potentials makes "
            "them of eight leads."
        )
