"""Synthetic patients: as asked on average, the same on all their records, and independent of how many are made."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from data_modules.synthetic.people.person import FOLDS, OLDEST, YOUNGEST, Person, fold_of, person, shares_of_ages
from ecgfair.ecg import FEMALE, MALE

RECORDS = 20_000


@pytest.fixture(scope="module")
def many() -> list[Person]:
    return [person(number, 0) for number in range(1, RECORDS + 1)]


def visits(many: list[Person]) -> dict[int, list[Person]]:
    found: dict[int, list[Person]] = {}
    for one in many:
        found.setdefault(one.patient, []).append(one)
    return found


def test_a_patient_has_one_to_three_records_and_every_number_of_a_patient_is_used(many: list[Person]):
    records = Counter(one.patient for one in many)
    assert Counter(records.values()) == {1: 13 * 1000, 2: 2 * 1000, 3: 1000}
    assert sorted(records) == list(range(1, 16_001))


def test_sex_fold_and_first_age_stay_and_visits_follow_each_other(many: list[Person]):
    for found in visits(many).values():
        assert [one.visit for one in found] == list(range(len(found)))
        assert len({(one.sex, one.fold, one.first_age, one.unknown_age, one.unknown_sex) for one in found}) == 1


def test_age_goes_with_the_date(many: list[Person]):
    for found in visits(many).values():
        for earlier, later in pairwise(found):
            days = (datetime.fromisoformat(later.recorded_at) - datetime.fromisoformat(earlier.recorded_at)).days
            assert days >= 27  # February, and an earlier time of the day
            assert abs(later.age - earlier.age - days / 365.25) < 1.1
        assert found[0].age == found[0].first_age


def test_first_ages_and_years_since_are_spread_as_the_exact_shares_say(many: list[Person]):
    shares = shares_of_ages()
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    single = [found[0] for found in visits(many).values()]
    counts = np.bincount([one.first_age - YOUNGEST for one in single], minlength=len(shares))
    assert chisquare(counts, shares.sum(axis=1) * len(single)).pvalue > 0.001
    years = np.bincount([one.age - one.first_age for one in many], minlength=shares.shape[1])
    # The records of one patient are not independent; their years are where they are two or three of 20 records.
    assert np.abs(years / RECORDS - shares.sum(axis=0)).max() < 4 * np.sqrt(0.25 * 2 / RECORDS)


def test_ages_are_much_as_in_ptbxl(many: list[Person]):
    ages = np.array([one.age for one in many])
    assert abs(ages.mean() - 60) < 1
    assert abs(ages.std() - 17) < 0.5
    assert ages.min() == YOUNGEST
    assert 95 <= ages.max() <= OLDEST


def test_half_are_women_and_thresholds_are_uniform(many: list[Person]):
    single = [found[0] for found in visits(many).values()]
    assert {one.sex for one in single} == {FEMALE, MALE}
    assert abs(np.mean([one.sex == FEMALE for one in single]) - 0.5) < 4 * 0.5 / np.sqrt(len(single))
    for name in ("unknown_age", "unknown_sex", "left_out"):
        assert kstest([getattr(one, name) for one in single], "uniform").pvalue > 0.001


def test_of_every_ten_patients_in_a_row_each_is_in_another_fold_and_the_order_is_shuffled():
    blocks = [[fold_of(patient, 0) for patient in range(first, first + FOLDS)] for first in range(1, 500, FOLDS)]
    assert all(sorted(block) == list(range(1, FOLDS + 1)) for block in blocks)
    assert len({tuple(block) for block in blocks}) > 45


def test_a_person_does_not_depend_on_the_order_in_which_they_are_drawn(many: list[Person]):
    for number in (977, 3, 20, 19, 18, 12_345):
        assert person(number, 0) == many[number - 1]
    assert person(3, 1) != many[2]


def test_people_are_the_same_on_every_machine():
    assert [(one.age, one.sex, one.fold, one.recorded_at) for one in (person(1, 0), person(20, 0))] == [
        (79, 1, 9, "1993-11-26T15:04:27"),
        (79, 1, 4, "1999-12-02T17:44:53"),
    ]
