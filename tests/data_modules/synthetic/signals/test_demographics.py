"""Age and sex act on the signals: regression on what is measured on healthy synthetic ECGs finds the effects again."""

from __future__ import annotations

import numpy as np
import pytest

from data_modules.measuring.measurement import measure_batch
from data_modules.synthetic.people.constitution import EFFECTS
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.signals.recording import record
from ecgfair.ecg import FEMALE, LEADS

HEALTHY = 700
STANDARD_ERRORS = 3.5
"""Eighteen effects are looked at, so that one beyond two standard errors is to be expected."""


@pytest.fixture(scope="module")
def healthy() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Columns of the regression (records, 4): one, woman, decades from 60 of men and of women; and what is measured."""
    people, signals, patients = [], [], set()
    number = 0
    while len(people) < HEALTHY:
        number += 1
        one = truth(number, seed=1)
        if one.present or one.patient in patients:
            continue
        patients.add(one.patient)
        woman, decades = float(one.sex == FEMALE), (one.age - 60) / 10
        people.append([1.0, woman, decades * (1 - woman), decades * woman])
        signals.append(record(one).signal)
    measured = measure_batch(np.stack(signals) / 1000, LEADS, 100)
    values = {name: np.array([getattr(one, name) for one in measured], float) for name in EFFECTS if name != "voltage"}
    # The height of QRS over all leads grows with the voltage, whatever its direction.
    heights = [
        np.median(np.linalg.norm(signal[:, one.beats] - np.median(signal, axis=1, keepdims=True), axis=0))
        for signal, one in zip(np.stack(signals) / 1000, measured, strict=True)
    ]
    return np.array(people), values | {"voltage": np.array(heights)}


def regression(
    healthy: tuple[np.ndarray, dict[str, np.ndarray]], name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects of being a woman and of a decade in men and in women: found, their standard errors, and asked for."""
    columns, values = healthy
    told = np.isfinite(values[name])
    assert told.mean() > 0.98
    x, y = columns[told], values[name][told]
    effects, *_ = np.linalg.lstsq(x, y, rcond=None)
    errors = np.sqrt(np.diag(np.linalg.inv(x.T @ x)) * (y - x @ effects).var(ddof=4))
    if name == "voltage":  # in millivolts here, a factor in the table
        effects, errors = effects / effects[0], errors / effects[0]
    effect = EFFECTS[name]
    return effects[1:], errors[1:], np.array([effect.women, effect.men_per_decade, effect.women_per_decade])


@pytest.mark.parametrize("name", EFFECTS)
def test_regression_on_measured_values_finds_the_effects_of_age_and_sex(healthy, name: str):
    found, errors, asked = regression(healthy, name)
    assert np.all(np.abs(found - asked) < STANDARD_ERRORS * errors), (found, errors, asked)


def test_most_effects_are_large_enough_to_be_told_from_none(healthy):
    told = 0
    for name in EFFECTS:
        found, errors, asked = regression(healthy, name)
        told += int(np.sum((np.abs(found) > 2 * errors) & (np.sign(found) == np.sign(asked))))
    assert told >= 12
