"""12-lead ECGs of people who never lived, with known diseases, intervals, beats and demographics.

The heart is a moving dipole whose waves are Gaussians in time (McSharry et al., IEEE TBME 50:289, 2003; as a dipole:
Sameni et al., EURASIP J. Adv. Signal Process. 2007:043407). It is seen through the lead matrix of Dower et al.
(J. Electrocardiol. 13:173, 1980), which gives the eight independent leads; the other four follow from I and II, noise
included, so that Einthoven's and Goldberger's laws hold.

The signs of each disease are those of a textbook, drawn plainly. This is for tests and for trying the code out: what it
teaches a model about people is nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ecgfair.ecg import FEMALE

SAMPLING_RATE: Final = 100
LENGTH: Final = 1000

# Columns X (left), Y (down), Z (back), in millivolts of the dipole.
_DOWER: Final = np.array(
    [
        [0.632, -0.235, 0.059],  # I
        [0.235, 1.066, -0.132],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],  # V6
    ]
)

_PREVALENCE: Final = {
    "IMI": 0.075,
    "ASMI": 0.07,
    "LVH": 0.075,
    "NDT": 0.065,
    "ISC_": 0.05,
    "1AVB": 0.04,
    "CRBBB": 0.035,
    "CLBBB": 0.03,
    "INVT": 0.02,
    "LNGQT": 0.0055,
    "LVOLT": 0.0055,
}
"""Share of patients at the mean age; it doubles towards old age and halves towards youth."""

_EXCLUDED_BY: Final = {"CRBBB": "CLBBB", "INVT": "NDT", "NDT": "CLBBB", "LVH": "LVOLT", "1AVB": "AFIB"}
"""A code on the left is not drawn where the one on the right is: the second would hide its signs."""

_RHYTHMS: Final = (("SR", 0.83, 60, 95), ("AFIB", 0.07, 60, 120), ("STACH", 0.04, 105, 140), ("SBRAD", 0.06, 38, 54))
"""Code, share of records, lowest and highest mean heart rate."""

_PATIENT_OF: Final = (*range(13), 13, 13, 14, 14, 15, 15, 15)
"""Of every 20 records, 13 are of patients with one record, 4 of patients with two and 3 of one with three."""
_PATIENTS_A_BLOCK: Final = _PATIENT_OF[-1] + 1

_Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Truth:
    """What a synthetic record was asked to be.

    Args:
        number: Which record, from 1.
        patient: Which patient, from 1.
        age: Years, or None if it is written as missing.
        sex: ``MALE`` or ``FEMALE``, or None if it is written as missing.
        codes: Its SCP codes.
        heart_rate: Mean, beats per minute.
        pr: Onset of P to onset of QRS, ms; None without P.
        qrs: Onset to end of QRS, ms.
        qt: Onset of QRS to end of T, ms.
        qtc: ``qt`` by Bazett's formula, ms.
        beats: Time of the main wave of each QRS, s.
        voltage: Factor on all waves.
    """

    number: int
    patient: int
    age: float | None
    sex: int | None
    codes: tuple[str, ...]
    heart_rate: float
    pr: float | None
    qrs: float
    qt: float
    qtc: float
    beats: NDArray[np.float64] = field(repr=False)
    voltage: float


def truth(number: int, seed: int = 0) -> Truth:
    """Draw a record's patient, diseases, rhythm and intervals.

    Args:
        number: Which record, from 1.
        seed: As in ``synthesize``.
    """
    block, place = divmod(number - 1, len(_PATIENT_OF))
    patient = block * _PATIENTS_A_BLOCK + _PATIENT_OF[place] + 1
    person = np.random.default_rng((seed, 1, patient))
    age, sex = float(person.integers(18, 96)), int(person.integers(2))
    age_known, sex_known = person.random(2) >= 0.01
    diseases = {code for code, share in _PREVALENCE.items() if person.random() < share * 2 ** ((age - 56) / 39)}
    rng = np.random.default_rng((seed, 2, number))
    rhythm, _, slowest, fastest = _RHYTHMS[rng.choice(len(_RHYTHMS), p=[share for _, share, _, _ in _RHYTHMS])]
    stated = diseases | {rhythm}
    diseases -= {code for code, other in _EXCLUDED_BY.items() if other in stated}
    female = sex == FEMALE
    heart_rate = rng.uniform(slowest, fastest) + 3 * female * (rhythm == "SR") - 0.05 * (age - 56) * (rhythm == "SR")
    qtc = rng.normal(520, 12) if "LNGQT" in diseases else rng.normal(405 + 10 * female, 12)
    qrs = rng.normal(148, 6) if diseases & {"CLBBB", "CRBBB"} else rng.normal(90 - 5 * female, 5)
    pr = rng.normal(265, 15) if "1AVB" in diseases else rng.normal(155, 12)
    return Truth(
        number=number,
        patient=patient,
        age=age if age_known else None,
        sex=sex if sex_known else None,
        codes=(*([] if diseases else ["NORM"]), *sorted(diseases), rhythm),
        heart_rate=heart_rate,
        pr=None if rhythm == "AFIB" else pr,
        qrs=qrs,
        qt=qtc * math.sqrt(60 / heart_rate),
        qtc=qtc,
        beats=_beats(heart_rate, rhythm, rng),
        voltage=rng.normal(1, 0.1) * (1 - 0.1 * female) * (1 - 0.002 * (age - 56)),
    )


def to_signal(record: Truth, seed: int = 0) -> NDArray[np.int16]:
    """Draw a record's signal.

    Args:
        record: What it is to show.
        seed: As in ``synthesize``; it makes the noise.

    Returns:
        (12, 1000) int16 microvolts at 100 Hz, in the order of ``ecgfair.ecg.LEADS``.
    """
    rng = np.random.default_rng((seed, 3, record.number))
    seconds = np.arange(LENGTH) / SAMPLING_RATE
    after = (seconds[None, :] - record.beats[:, None]) * 1000
    dipole = np.zeros((3, LENGTH))
    for centre, width, vector in _waves(record):
        dipole += np.outer(vector, np.exp(-0.5 * ((after - centre) / width) ** 2).sum(axis=0))
    dipole *= record.voltage * (0.35 if "LVOLT" in record.codes else 1)
    if "AFIB" in record.codes:
        wavelets = np.sin(2 * np.pi * rng.uniform(5, 7) * seconds + np.sin(seconds * rng.uniform(1, 3)))
        dipole += np.outer((-0.03, 0.04, -0.05), wavelets)
    leads = _DOWER @ dipole + _noise(rng, seconds)
    first, second, chest = *np.rint(leads[:2] * 1000), np.rint(leads[2:] * 1000)
    limb = [first, second, second - first, -(first + second) / 2, first - second / 2, second - first / 2]
    return np.concatenate([np.rint(limb), chest]).astype(np.int16)


def _beats(heart_rate: float, rhythm: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the times of the beats, s: breathing moves sinus rhythm a little, fibrillation is irregular."""
    interval, count = 60 / heart_rate, int(2.5 * LENGTH / SAMPLING_RATE * heart_rate / 60) + 4
    if rhythm == "AFIB":
        steps = np.clip(interval * rng.lognormal(0, 0.22, count), 0.35, 2)
    else:
        steps = interval * (1 + 0.02 * np.sin(np.arange(count) * interval * 1.6) + rng.normal(0, 0.01, count))
    times = np.cumsum(steps) - rng.uniform(0, interval) - interval
    return times[(times > -1) & (times < LENGTH / SAMPLING_RATE + 1)]


def _waves(record: Truth) -> list[tuple[float, float, _Vector]]:
    """Return each wave's centre (ms from the main wave of QRS), standard deviation (ms) and dipole (mV)."""
    codes, qrs = record.codes, record.qrs
    onset, end = -0.45 * qrs, 0.55 * qrs
    septal, main, last = np.array([-0.15, -0.05, -0.30]), np.array([1.1, 0.9, 0.5]), np.array([-0.25, -0.15, 0.45])
    st, t = np.zeros(3), np.array([0.25, 0.22, -0.20])
    if "CLBBB" in codes:  # no septal q, the left wall late, ST-T against QRS
        septal, main = np.array([0.30, 0.10, 0.20]), np.array([0.90, 0.45, 0.70])
        last, t = np.array([0.80, 0.20, 0.70]), np.array([-0.30, -0.05, -0.35])
    if "CRBBB" in codes:  # the right wall late: R' in V1, broad S in I and V6
        last, t = np.array([-0.70, -0.10, -0.80]), np.array([0.25, 0.20, 0.15])
    if "LVH" in codes:  # voltage to the left and back, strain
        main, t = main * [1.9, 1.1, 1.9], t * [-0.6, 0.6, 1.2]
    if "IMI" in codes:  # Q and negative T in II, III, aVF
        septal, main, t = septal - [0, 0.65, -0.1], main * [1, 0.7, 1], t * [1, -1, 1]
    if "ASMI" in codes:  # Q, raised ST and negative T in V1 to V3
        septal, st, t = septal + np.array([0, 0, 0.85]), st - [0, 0, 0.12], t * [1, 1, -0.8]
    if "ISC_" in codes:  # lowered ST, low T
        st, t = st - [0.13, 0.12, -0.08], t * [0.4, 0.6, 0.8]
    if "NDT" in codes:
        t = t * 0.1
    if "INVT" in codes:
        t = t * -0.8
    t_end, t_width = onset + record.qt, 0.1 * record.qt
    waves: list[tuple[float, float, Any]] = [
        (onset + 0.2 * qrs, 0.085 * qrs, septal),
        (0, 0.12 * qrs, main),
        (end - 0.22 * qrs, 0.1 * qrs, last),
        ((end + t_end - 3 * t_width) / 2, 0.13 * record.qt, st),
        (t_end - 3.2 * t_width, 1.4 * t_width, 0.35 * t),
        (t_end - 2 * t_width, t_width, 0.9 * t),
    ]
    if record.pr is not None:
        waves.append((onset - record.pr + 50, 18, (0.08, 0.14, -0.02)))
    return waves


def _noise(rng: np.random.Generator, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw baseline wander and muscle noise of the eight independent leads, mV."""
    rates, phases = rng.uniform(0.1, 0.4, (8, 2, 1)), rng.uniform(0, 2 * np.pi, (8, 2, 1))
    sizes = rng.uniform(0, 0.06, (8, 2, 1))
    wander = (sizes * np.sin(2 * np.pi * rates * seconds + phases)).sum(axis=1)
    noise: NDArray[np.float64] = wander + rng.normal(0, rng.uniform(0.005, 0.02), wander.shape)
    return noise
