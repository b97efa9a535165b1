"""How likely each condition is by age and sex, and what planted disparities change, without drawing anybody."""

from __future__ import annotations

import numpy as np
import pytest

from data_modules.synthetic.people.circumstances import CODES, SHARES, cell, cells_of, circumstances
from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.people.population import PLAIN, Disparity, Population
from ecgfair.ecg import FEMALE, MALE

AMI, AFIB, LVH, IMI = (CODES.index(code) for code in ("AMI", "AFIB", "LVH", "IMI"))


def odds(probability: float) -> float:
    return probability / (1 - probability)


def test_the_mean_over_everybody_is_the_prevalence_asked_for():
    population = Population(prevalence={"AMI": 0.3, "LMI": 0.0, "ALR": 0.00001, "IMI": 0.95})
    mean = (circumstances(population).prior * SHARES[..., None]).sum(axis=(0, 1, 2))
    asked = [population.prevalence.get(code, one.prevalence) for code, one in CONDITIONS.items()]
    assert mean == pytest.approx(asked, rel=1e-9, abs=0)


def test_odds_grow_with_age_and_sex_as_the_catalogue_says():
    prior = circumstances(PLAIN).prior
    for place, one in enumerate(CONDITIONS.values()):
        at_60, at_70, woman = (
            odds(prior[(*cell(sex, age, age), place)]) for sex, age in ((MALE, 60), (MALE, 70), (FEMALE, 60))
        )
        assert at_70 / at_60 == pytest.approx(one.per_decade)
        assert at_60 / woman == pytest.approx(one.male)


def test_what_is_chronic_goes_by_the_age_at_the_first_record():
    prior = circumstances(PLAIN).prior
    early, late = prior[cell(MALE, 69, 69)], prior[cell(MALE, 69, 71)]
    assert early[AMI] == late[AMI]
    assert odds(late[AFIB]) / odds(early[AFIB]) == pytest.approx(1.8**0.2)


def test_each_kind_changes_its_own_quantity_in_its_group_alone():
    at, elsewhere = cell(FEMALE, 60, 60), cell(MALE, 60, 60)
    plain = circumstances(PLAIN)
    for kind, name, expected in (
        ("prevalence", "prior", plain.prior[at][AMI] * 0.6),
        ("signs", "separation", plain.separation[at][AMI] * 0.6),
        ("label_errors", "missed", 0.4),
    ):
        planted = circumstances(Population(disparities=(Disparity(kind, 0.4, sex="female", labels=("AMI",)),)))
        assert getattr(planted, name)[at][AMI] == pytest.approx(expected)
        others = np.arange(len(CODES)) != AMI
        for field in ("prior", "separation", "missed", "invented"):
            ours, theirs = getattr(planted, field), getattr(plain, field)
            assert np.array_equal(ours[elsewhere], theirs[elsewhere])
            assert np.array_equal(ours[..., others], theirs[..., others])
        assert np.array_equal(planted.plain_separation, plain.plain_separation)


def test_as_many_are_stated_in_error_as_are_missed():
    planted = circumstances(Population(disparities=(Disparity("label_errors", 0.4, sex="female"),)))
    missed = planted.prior * planted.missed
    assert planted.invented * (1 - planted.prior) == pytest.approx(missed)
    assert not planted.invented[MALE].any()


def test_disparities_that_meet_are_multiplied():
    both = (("female", None), (None, (60, 200)))
    kinds = ("prevalence", "signs", "label_errors", "training_records", "noise")
    planted = circumstances(
        Population(disparities=tuple(Disparity(kind, 0.5, sex, age) for kind in kinds for sex, age in both), noise=2)  # type: ignore[arg-type]
    )
    plain = circumstances(PLAIN)
    for at, times in (
        (cell(FEMALE, 60, 60), 2),
        (cell(FEMALE, 59, 59), 1),
        (cell(MALE, 60, 60), 1),
        (cell(MALE, 59, 59), 0),
    ):
        assert planted.prior[at] == pytest.approx(plain.prior[at] * 0.5**times)
        assert planted.separation[at] == pytest.approx(plain.separation[at] * 0.5**times)
        assert planted.missed[at] == pytest.approx(1 - 0.5**times)
        assert planted.left_out[at] == pytest.approx(1 - 0.5**times)
        assert planted.noise[at] == 2 * 1.5**times


def test_only_prevalence_of_what_is_chronic_goes_by_the_age_at_the_first_record():
    plain = circumstances(PLAIN)
    planted = circumstances(
        Population(disparities=tuple(Disparity(kind, 0.5, age=(70, 200)) for kind in ("prevalence", "signs")))  # type: ignore[arg-type]
    )
    at = cell(MALE, 69, 71)
    assert planted.prior[at][AMI] == plain.prior[at][AMI]
    assert planted.prior[at][AFIB] == pytest.approx(plain.prior[at][AFIB] / 2)
    assert planted.separation[at][AMI] == pytest.approx(plain.separation[at][AMI] / 2)


def test_the_cells_of_a_group_are_told_by_the_age_at_the_record():
    cells = cells_of("male", (71, 72))
    assert cells[cell(MALE, 69, 71)]
    assert not cells[cell(MALE, 69, 70)]
    assert not cells[cell(FEMALE, 71, 71)]
    assert SHARES[cells_of("female", None)].sum() == pytest.approx(0.5)
