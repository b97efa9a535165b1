"""Draws what is true of a record, by its number alone: patient, conditions, how severe they are, and what is stated.

Every random number comes from a stream of the patient or of the record, always as many and in the same order. So a
record does not depend on others, and what is asked of a population changes only what it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from data_modules.synthetic.people.circumstances import CHRONIC, CODES, GRADED, Floats, cell, circumstances
from data_modules.synthetic.people.conditions import COMPATIBLE_WITH_NORMAL, CONDITIONS, NORMAL, SINUS_RHYTHM
from data_modules.synthetic.people.constitution import constitution
from data_modules.synthetic.people.oracle import HIDDEN_BY, LABELS, oracle
from data_modules.synthetic.people.person import OLDEST_AT_FIRST, TRAINING_FOLDS, YOUNGEST, person
from data_modules.synthetic.people.population import PLAIN, Population
from data_modules.synthetic.people.streams import Purpose, stream
from data_modules.synthetic.people.truth import Truth
from ecgfair.ecg import FEMALE, MALE
from ecgfair.errors import ConfigurationError, did_you_mean

_SAME_SEVERITY: Final = 0.7
"""Share of the variance of a chronic condition's severity that is the patient's, the same on all records."""
_SAME_CONSTITUTION: Final = 0.8
"""Likewise of heart rate, intervals, axis and voltage."""
_QUANTITIES: Final = 6  # of a constitution
_MOST_VISITS: Final = 3

_STEEPNESS: Final = 2.0
_HALF_STRENGTH: Final = 0.6
"""Signs that grow are half drawn at this share of the separation, and nearly wholly at the mean of those with them."""

_DIGITS: Final = 9
"""Decimals that are kept of what is computed with exponentials, whose last bits differ between processors."""


def truth(number: int, seed: int = 0, population: Population = PLAIN) -> Truth:
    """Draw all that is true of a record.

    Args:
        number: Which record, from 1.
        seed: Another seed makes other patients.
        population: What is asked for.

    Raises:
        ConfigurationError: There is no such record, or the population asks for label errors that can't be.
    """
    if number < 1 or seed < 0:
        raise ConfigurationError(
            f"Record {number} of seed {seed}: expected a record number of at least 1 and a seed of at least 0."
        )
    known, who = circumstances(population), person(number, seed)
    at = cell(who.sex, who.first_age, who.age)
    patient_chance, patient_deviate = _draw(seed, Purpose.CONDITIONS_OF_PATIENT, who.patient)
    record_chance, record_deviate = _draw(seed, Purpose.CONDITIONS_OF_RECORD, number)
    present, hidden = _present(np.where(CHRONIC, patient_chance, record_chance) < known.prior[at])
    deviate = np.where(
        CHRONIC,
        np.sqrt(_SAME_SEVERITY) * patient_deviate + np.sqrt(1 - _SAME_SEVERITY) * record_deviate,
        record_deviate,
    )
    severity = deviate + present * known.separation[at]
    # Of what is hidden as much is drawn as of what is absent: if nothing were, that would tell what hides it.
    strength = _strength(severity, known.plain_separation)
    chance = stream(seed, Purpose.STATEMENTS, number).random(len(CODES))
    stated = np.where(present, chance >= known.missed[at], ~hidden & (chance < known.invented[at]))
    deviates = stream(seed, Purpose.CONSTITUTION, who.patient).standard_normal((1 + _MOST_VISITS, _QUANTITIES))
    of_record = np.sqrt(_SAME_CONSTITUTION) * deviates[0] + np.sqrt(1 - _SAME_CONSTITUTION) * deviates[1 + who.visit]
    return Truth(
        number=number,
        seed=seed,
        patient=who.patient,
        age=float(who.age),
        sex=who.sex,
        age_known=who.unknown_age >= population.missing_age,
        sex_known=who.unknown_sex >= population.missing_sex,
        fold=who.fold,
        recorded_at=who.recorded_at,
        present=_names(present),
        stated=_statements(_names(stated)),
        severity=_by_code(severity),
        strength=_by_code(strength.round(_DIGITS)),
        oracle=dict(zip(LABELS, oracle(population).probabilities(at, severity).round(_DIGITS).tolist(), strict=True)),
        constitution=constitution(float(who.age), who.sex, of_record.tolist()),
        noise=float(known.noise[at]),
        left_out=who.fold in TRAINING_FOLDS and who.left_out < known.left_out[at],
    )


def example(code: str, age: float = 60.0, sex: int = MALE, seed: int = 0, number: int = 1) -> Truth:
    """Return a record with one condition, plainly, and nothing else: for figures and tests.

    Its severity is one standard deviation above the mean of those who have it, all others are 0; heart rate, intervals,
    axis and voltage are the average of age and sex, and disturbances small.

    Args:
        code: Of a condition; ``NORM`` for none.
        age: Completed years, from 18 to 95.
        sex: ``MALE`` or ``FEMALE``.
        seed: Of rhythm and disturbances.
        number: Likewise.

    Raises:
        ConfigurationError: There is no such condition, age or sex.
    """
    if code not in (*CODES, NORMAL):
        raise ConfigurationError(f"example of {code!r}: no condition.{did_you_mean(code, (*CODES, NORMAL))}")
    if not (age == int(age) and YOUNGEST <= age <= OLDEST_AT_FIRST) or sex not in (MALE, FEMALE):
        raise ConfigurationError(
            f"example has the age {age} and the sex {sex}: expected whole years from {YOUNGEST} to {OLDEST_AT_FIRST}, "
            f"and {MALE} or {FEMALE}."
        )
    known, chosen = circumstances(PLAIN), np.array([one == code for one in CODES])
    severity = np.where(chosen, known.plain_separation + 1, 0.0)
    strength = np.where(chosen, _strength(severity, known.plain_separation), 0.0)
    scores = oracle(PLAIN).probabilities(cell(sex, int(age), int(age)), severity)
    return Truth(
        number=number,
        seed=seed,
        patient=1,
        age=float(age),
        sex=sex,
        age_known=True,
        sex_known=True,
        fold=1,
        recorded_at="1990-01-01T12:00:00",
        present=_names(chosen),
        stated=_statements(_names(chosen)),
        severity=_by_code(severity),
        strength=_by_code(strength.round(_DIGITS)),
        oracle=dict(zip(LABELS, scores.round(_DIGITS).tolist(), strict=True)),
        constitution=constitution(float(age), sex, [0.0] * _QUANTITIES),
        noise=0.3,
        left_out=False,
    )


def _draw(seed: int, purpose: Purpose, number: int) -> tuple[Floats, Floats]:
    """Return a uniform and a normal number for each condition."""
    rng = stream(seed, purpose, number)
    return rng.random(len(CODES)), rng.standard_normal(len(CODES))


def _present(drawn: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which of the conditions drawn are there, and which of all are hidden by those."""
    present, hidden = np.zeros_like(drawn), np.zeros_like(drawn)
    for one in np.flatnonzero(drawn):  # what hides others comes first
        if not hidden[one]:
            present[one] = True
            hidden |= HIDDEN_BY[:, one]
    return present, hidden


def _strength(severity: Floats, separation: Floats) -> Floats:
    grown = expit(_STEEPNESS * (severity - _HALF_STRENGTH * separation))
    return np.where(GRADED, grown, severity > separation / 2)


def _names(flags: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(CODES[one] for one in np.flatnonzero(flags))


def _statements(conditions: Sequence[str]) -> tuple[str, ...]:
    """Return what is published where these conditions are stated."""
    normal = set(conditions) <= set(COMPATIBLE_WITH_NORMAL)
    sinus = all(CONDITIONS[code].kind != "rhythm" for code in conditions)
    return (*([NORMAL] if normal else []), *conditions, *([SINUS_RHYTHM] if sinus else []))


def _by_code(values: Floats) -> dict[str, float]:
    return dict(zip(CODES, values.tolist(), strict=True))
