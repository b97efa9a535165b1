"""Everything that is true of one synthetic record, before a signal is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from data_modules.synthetic.people.constitution import Constitution


@dataclass(frozen=True)
class Truth:
    """What a synthetic record is, and what is stated of it.

    Args:
        number: Which record, from 1.
        seed: Of the population.
        patient: Which patient, from 1.
        age: Years, true also where it is published as missing.
        sex: ``MALE`` or ``FEMALE``, likewise.
        age_known: Whether the age is published.
        sex_known: Whether the sex is published.
        fold: 1 to 10, the same for all records of a patient.
        recorded_at: ISO 8601.
        present: Codes of the conditions that are there.
        stated: Codes that are published: the conditions after label errors, ``NORM`` and ``SR`` where they apply.
        severity: Code -> latent severity, standard deviations above the mean of those without the condition.
        strength: Code -> how plainly its signs are drawn, 0 to 1.
        oracle: Code (conditions, ``NORM`` and ``SR``) -> probability that it is stated, given severity, age and sex.
        constitution: Heart rate, intervals, axis and voltage as they would be without any condition.
        noise: Factor on all disturbances.
        left_out: Whether a planted disparity keeps it out of the data set.
    """

    number: int
    seed: int
    patient: int
    age: float
    sex: int
    age_known: bool
    sex_known: bool
    fold: int
    recorded_at: str
    present: tuple[str, ...]
    stated: tuple[str, ...]
    severity: Mapping[str, float] = field(repr=False)
    strength: Mapping[str, float] = field(repr=False)
    oracle: Mapping[str, float] = field(repr=False)
    constitution: Constitution
    noise: float
    left_out: bool
