"""One beat without disturbances, and what a reader measures on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from data_modules.synthetic.heart.asked import Asked, ask
from data_modules.synthetic.heart.beat import ventricular_waves
from data_modules.synthetic.heart.dipole import LEAD_MATRIX, Waves, moving_dipole
from data_modules.synthetic.heart.signs import shape
from data_modules.synthetic.people import draw
from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.people.constitution import Constitution, constitution
from data_modules.synthetic.people.truth import Truth
from data_modules.synthetic.signals.electrodes import to_leads, to_potentials
from data_modules.synthetic.signals.recording import record
from ecgfair.ecg import FEMALE, LEADS, MALE

RATE = 1000
ONSET = 100
"""Milliseconds, and samples, at which the beat begins."""
AFTER_QRS = 40
"""Milliseconds after the end of QRS at which ST is read: before T begins in all persons here."""

PERSONS: Mapping[str, Constitution] = {
    f"{'woman' if sex == FEMALE else 'man'} of {age}": constitution(float(age), sex, [0.0] * 6)
    for age in (25, 80)
    for sex in (MALE, FEMALE)
}
"""People whose healthy ECG is the average of their age and sex."""


def strength(code: str | None = None, plain: float = 1.0) -> dict[str, float]:
    """Strengths with one condition and no other."""
    return {**dict.fromkeys(CONDITIONS, 0.0), **({} if code is None else {code: plain})}


def in_leads(waves: list[Waves], rate: float = RATE, seconds: float = 1.2) -> dict[str, np.ndarray]:
    """Millivolts of waves in each of the twelve leads."""
    leads = to_leads(to_potentials(LEAD_MATRIX @ moving_dipole(waves, round(seconds * rate), rate)))
    return dict(zip(LEADS, leads, strict=True))


def plain(
    code: str, number: int = 1, person: Constitution | None = None, noise: float = 0.0, **changed: float
) -> Truth:
    """A record with a condition at full strength, and other strengths if named."""
    truth = draw.example(code, number=number)
    strengths = {**truth.strength, **({} if code == "NORM" else {code: 1.0}), **changed}
    return replace(truth, strength=strengths, noise=noise, constitution=person or truth.constitution)


@dataclass(frozen=True)
class DrawnBeat:
    """One beat in twelve leads; all voltages in millivolts, times in milliseconds from the onset of QRS."""

    leads: dict[str, np.ndarray]
    asked: Asked
    t_onset: float

    def qrs(self, lead: str) -> np.ndarray:
        return self.leads[lead][ONSET : ONSET + round(self.asked.qrs) + 1]

    def r(self, lead: str) -> float:
        """Height of the highest R wave, 0 if there is none."""
        return max(float(self.qrs(lead).max()), 0.0)

    def q(self, lead: str) -> float:
        """Depth of what is negative before the highest R wave."""
        wave = self.qrs(lead)
        return -min(float(wave[: wave.argmax() + 1].min()), 0.0)

    def q_duration(self, lead: str) -> int:
        """Milliseconds before R that are lower than a fifth of a millimetre."""
        wave = self.qrs(lead)
        return int((wave[: wave.argmax() + 1] < -0.02).sum())

    def s(self, lead: str) -> float:
        """Depth of what is negative after the highest R wave."""
        wave = self.qrs(lead)
        return -min(float(wave[wave.argmax() :].min()), 0.0)

    def deepest(self, lead: str) -> float:
        """Depth of the lowest point of QRS, be it Q or S."""
        return -min(float(self.qrs(lead).min()), 0.0)

    def first_r(self, lead: str) -> float:
        """Height of the R wave before the lowest point."""
        wave = self.qrs(lead)
        return max(float(wave[: wave.argmin() + 1].max()), 0.0)

    def second_r(self, lead: str) -> float:
        """Height of the R' wave after the lowest point."""
        wave = self.qrs(lead)
        return max(float(wave[wave.argmin() :].max()), 0.0)

    def lasts(self, lead: str, sign: int, beyond: float) -> int:
        """Milliseconds without a gap in which the wave around the highest (or lowest) point is beyond a voltage."""
        wave = sign * self.leads[lead][: ONSET + round(self.asked.qrs) + 20]
        peak = int(wave[ONSET:].argmax()) + ONSET
        below = np.flatnonzero(wave <= beyond)
        later = below[below > peak]
        return int((later.min() if later.size else wave.size) - below[below < peak].max() - 1)

    def peaks(self, lead: str) -> int:
        """How many tops QRS has."""
        steps = np.diff(self.qrs(lead))
        return int(((steps[:-1] > 0) & (steps[1:] <= 0)).sum())

    def height(self, lead: str) -> float:
        """Lowest to highest point of QRS."""
        return float(np.ptp(self.qrs(lead)))

    def st(self, lead: str) -> float:
        return float(self.leads[lead][ONSET + round(self.asked.qrs) + AFTER_QRS])

    def t(self, lead: str) -> float:
        """T where it is farthest from the baseline, with its sign."""
        wave = self.leads[lead][ONSET + round(self.t_onset) : ONSET + round(self.asked.qt)]
        return float(wave[np.abs(wave).argmax()])

    def axis(self) -> float:
        """Degrees, from the areas of QRS in I and aVF."""
        first, foot = self.qrs("I").sum(), self.qrs("aVF").sum()
        return float(np.degrees(np.arctan2(2 * foot / np.sqrt(3), first)))


def drawn_beat(person: Constitution, code: str | None = None, plain: float = 1.0) -> DrawnBeat:
    """The usual beat of somebody with a condition, or with none."""
    strengths = strength(code, plain)
    asked = ask(person, strengths)
    beat = shape(asked, person, strengths)
    waves = ventricular_waves(np.array([ONSET / RATE]), beat, np.ones(1), np.zeros(1))
    return DrawnBeat(in_leads([waves]), asked, 1000 * beat.t_onset)


def digest(truths: Iterable[Truth]) -> str:
    """SHA-256 of the signals of records at 100 Hz."""
    return hashlib.sha256(b"".join(record(truth).signal.astype("<i2").tobytes() for truth in truths)).hexdigest()


def digest_of_all(numbers: Iterable[int]) -> str:
    """SHA-256 of all that is true of records and all that is drawn of them, to the last bit."""
    found = hashlib.sha256()
    for number in numbers:
        truth = draw.truth(number)
        made = record(truth)
        found.update(made.signal.astype("<i2").tobytes())
        found.update(repr((truth, made.beats.tolist(), made.asked, made.problems, made.masks)).encode())
        found.update(repr((truth.severity, truth.strength, truth.oracle)).encode())
    return found.hexdigest()
