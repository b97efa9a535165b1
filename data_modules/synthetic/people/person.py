"""Who the records are of: age, sex, fold and when, for each patient, whatever is planted and however many are made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_modules.synthetic.people.streams import Purpose, stream
from ecgfair.ecg import FEMALE, MALE

FOLDS: Final = 10
TRAINING_FOLDS: Final = range(1, 9)
"""Folds 9 and 10 choose and test, as in PTB-XL; what is planted into the training data is planted into these alone."""

_PATIENT_OF: Final = (*range(13), 13, 13, 14, 14, 15, 15, 15)
"""Of every 20 records, 13 are of patients with one record, 4 of patients with two and 3 of one with three."""
_PATIENTS_A_BLOCK: Final = _PATIENT_OF[-1] + 1
_SHARE_OF_VISITS: Final = (16 / 20, 3 / 20, 1 / 20)
"""Share of the records that are their patient's first, second and third."""

YOUNGEST: Final = 18
OLDEST_AT_FIRST: Final = 95
_SHAPE: Final = (2.1, 2.0)
"""Of Kumaraswamy's distribution, which is like a beta distribution but has a quantile in closed form: ages at the first
record have mean 60 and standard deviation 17, much as in PTB-XL."""

_MONTHS_BETWEEN: Final = 36
"""A patient's next record comes 1 to so many months later, all alike."""
_MOST_YEARS: Final = (11 + 2 * _MONTHS_BETWEEN) // 12
OLDEST: Final = OLDEST_AT_FIRST + _MOST_YEARS

_FIRST_YEAR: Final = 1989
_YEARS: Final = 8  # in which first records were made


@dataclass(frozen=True)
class Person:
    """The patient of a record, on the day of that record.

    Args:
        patient: Which patient, from 1.
        visit: 0 for the patient's first record, up to 2.
        first_age: Completed years at the first record.
        age: Completed years at this one.
        sex: ``MALE`` or ``FEMALE``.
        fold: 1 to 10, the same for all records of a patient.
        recorded_at: ISO 8601.
        unknown_age: Uniform number; the age is missing where it is below the share that is.
        unknown_sex: Likewise.
        left_out: Likewise, for being left out of the training folds.
    """

    patient: int
    visit: int
    first_age: int
    age: int
    sex: int
    fold: int
    recorded_at: str
    unknown_age: float
    unknown_sex: float
    left_out: float


def person(number: int, seed: int) -> Person:
    """Draw the patient of a record.

    Args:
        number: Which record, from 1.
        seed: Of the population.
    """
    block, place = divmod(number - 1, len(_PATIENT_OF))
    visit = place - _PATIENT_OF.index(_PATIENT_OF[place])
    patient = block * _PATIENTS_A_BLOCK + _PATIENT_OF[place] + 1
    # In this order for ever; a new one goes to the end.
    age, sex, birthday, unknown_age, unknown_sex, left_out, month, *gaps, day, second = (
        stream(seed, Purpose.PERSON, patient).random(11).tolist()
    )
    later = sum(1 + int(gap * _MONTHS_BETWEEN) for gap in gaps[:visit])
    first_age = _first_age(age)
    years, month_of_year = divmod(int(month * 12 * _YEARS) + later, 12)
    # The time of day differs from visit to visit without further draws.
    at = timedelta(days=int(day * 28), seconds=8 * 3600 + int((second + 0.37 * visit) % 1 * 10 * 3600))
    return Person(
        patient=patient,
        visit=visit,
        first_age=first_age,
        age=first_age + (int(birthday * 12) + later) // 12,
        sex=FEMALE if sex < 0.5 else MALE,
        fold=fold_of(patient, seed),
        recorded_at=(datetime(_FIRST_YEAR + years, month_of_year + 1, 1) + at).isoformat(),
        unknown_age=unknown_age,
        unknown_sex=unknown_sex,
        left_out=left_out,
    )


def fold_of(patient: int, seed: int) -> int:
    """Return a patient's fold, 1 to 10: of every ten patients in a row, each is in another one.

    Args:
        patient: Which patient, from 1.
        seed: Of the population.
    """
    block, place = divmod(patient - 1, FOLDS)
    return _folds(seed, block)[place]


@lru_cache(maxsize=256)
def _folds(seed: int, block: int) -> tuple[int, ...]:
    return tuple((stream(seed, Purpose.FOLDS, block).permutation(FOLDS) + 1).tolist())


def _first_age(uniform: float) -> int:
    a, b = _SHAPE
    part: float = (1 - (1 - uniform) ** (1 / b)) ** (1 / a)
    return YOUNGEST + int(part * (OLDEST_AT_FIRST + 1 - YOUNGEST))


def shares_of_ages() -> NDArray[np.float64]:
    """Return how the records are spread over ages, exactly; either sex has half of each.

    Returns:
        (78, 7) shares of all records: a row for each age at the patient's first record, from 18 years; a column for
        each number of years by which the patient is older at this record, from 0.
    """
    a, b = _SHAPE
    edges = np.linspace(0, 1, OLDEST_AT_FIRST + 2 - YOUNGEST)
    first = np.diff(1 - (1 - edges**a) ** b)
    months = np.full(12, 1 / 12)  # since the last birthday
    gap = np.concatenate([[0.0], np.full(_MONTHS_BETWEEN, 1 / _MONTHS_BETWEEN)])
    years = np.zeros(_MOST_YEARS + 1)
    for share in _SHARE_OF_VISITS:
        np.add.at(years, np.arange(len(months)) // 12, share * months)
        months = np.convolve(months, gap)
    return np.outer(first, years)
