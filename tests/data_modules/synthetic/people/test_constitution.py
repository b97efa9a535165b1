"""What a healthy ECG is like by age and sex: as the table says, and within the limits of a normal one."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from data_modules.synthetic.people.constitution import (
    EFFECTS,
    OLDEST,
    YOUNGEST,
    Constitution,
    constitution,
    respiratory_arrhythmia,
)
from ecgfair.ecg import FEMALE, MALE

PERSONS = 20_000
QUANTITIES = [field.name for field in dataclasses.fields(Constitution)]


@pytest.fixture(scope="module")
def population():
    generator = np.random.default_rng(0)
    ages = generator.uniform(18, 90, PERSONS)
    sexes = generator.integers(2, size=PERSONS)
    deviates = generator.standard_normal((PERSONS, len(QUANTITIES)))
    people = [constitution(*person) for person in zip(ages.tolist(), sexes.tolist(), deviates.tolist(), strict=True)]
    return ages, sexes, {name: np.array([getattr(one, name) for one in people]) for name in QUANTITIES}


def test_the_effects_are_in_the_order_of_the_fields():
    assert list(EFFECTS) == QUANTITIES


@pytest.mark.parametrize("name", QUANTITIES)
def test_regression_of_each_sex_on_age_recovers_slope_and_mean_at_60(name, population):
    ages, sexes, values = population
    effect = EFFECTS[name]
    at_60 = {}
    for sex, slope in ((MALE, effect.men_per_decade), (FEMALE, effect.women_per_decade)):
        fit = stats.linregress((ages[sexes == sex] - 60) / 10, values[name][sexes == sex])
        assert abs(fit.slope - slope) < 4 * fit.stderr
        assert fit.stderr < effect.spread / 150  # fine enough to tell effects from none
        at_60[sex] = fit.intercept, fit.intercept_stderr
    assert abs(at_60[MALE][0] - effect.man_of_60) < 4 * at_60[MALE][1]
    difference = at_60[FEMALE][0] - at_60[MALE][0]
    assert abs(difference - effect.women) < 4 * np.hypot(at_60[MALE][1], at_60[FEMALE][1])


@pytest.mark.parametrize("name", QUANTITIES)
def test_healthy_persons_are_within_the_limits_of_a_normal_ecg(name, population):
    _, sexes, values = population
    for sex, limits in ((MALE, EFFECTS[name].men_within), (FEMALE, EFFECTS[name].women_within)):
        assert limits[0] < values[name][sexes == sex].min()
        assert values[name][sexes == sex].max() < limits[1]


@pytest.mark.parametrize("sex", [MALE, FEMALE])
@pytest.mark.parametrize("age", [0, YOUNGEST, 40, 60, 80, OLDEST, 120])
def test_even_the_strangest_person_is_within_the_limits(age, sex):
    for sign in (-8, 8):
        person = constitution(age, sex, [sign] * 6)
        for name, effect in EFFECTS.items():
            low, high = effect.women_within if sex == FEMALE else effect.men_within
            assert low < getattr(person, name) < high, (name, sign)


def test_limits_are_those_that_the_conditions_leave():
    # Rates of sinus brady- and tachycardia, PR of first degree block, QRS of bundle branch block, QTc called long
    # (460 ms in women, 450 in men: Rautaharju et al. 2009), and the axes of fascicular blocks.
    for name, (low, high) in {"heart_rate": (60, 100), "pr": (120, 200), "qrs": (60, 120), "axis": (-45, 90)}.items():
        for within in (EFFECTS[name].men_within, EFFECTS[name].women_within):
            assert low <= within[0] < within[1] <= high, name
    assert EFFECTS["qtc"].men_within[1] <= 450
    assert EFFECTS["qtc"].women_within[1] <= 460


def test_zeros_give_exactly_what_the_table_says():
    man = constitution(60, MALE, [0.0] * 6)
    woman = constitution(80, FEMALE, [0.0] * 6)
    for name, effect in EFFECTS.items():
        assert getattr(man, name) == effect.man_of_60
        expected = effect.man_of_60 + effect.women + 2 * effect.women_per_decade
        assert getattr(woman, name) == pytest.approx(expected, rel=1e-12)


def test_signs_of_the_effects_are_those_of_the_literature():
    young_man, old_man = (constitution(age, MALE, [0.0] * 6) for age in (20, 80))
    young_woman, old_woman = (constitution(age, FEMALE, [0.0] * 6) for age in (20, 80))
    for young, old in ((young_man, old_man), (young_woman, old_woman)):
        assert young.heart_rate == old.heart_rate
        assert 15 < old.pr - young.pr < 30
        assert old.qtc > young.qtc
        assert -50 < old.axis - young.axis < -30
        assert old.voltage < young.voltage
        assert old.qrs < young.qrs
    for man, woman in ((young_man, young_woman), (old_man, old_woman)):
        assert woman.heart_rate > man.heart_rate
        assert woman.qrs < man.qrs
        assert woman.qtc > man.qtc
        assert woman.voltage < man.voltage


@pytest.mark.parametrize("name", ["qtc", "voltage", "qrs"])
def test_the_difference_between_the_sexes_shrinks_with_age(name):
    differences = [EFFECTS[name].expected(age, FEMALE) - EFFECTS[name].expected(age, MALE) for age in (20, 40, 60, 80)]
    assert all(abs(after) < abs(before) for before, after in pairwise(differences))


def test_the_qtc_of_young_women_is_about_20_ms_longer():
    difference = EFFECTS["qtc"].expected(20, FEMALE) - EFFECTS["qtc"].expected(20, MALE)
    assert 15 < difference < 22


@pytest.mark.parametrize("sex", [MALE, FEMALE])
@pytest.mark.parametrize("name", QUANTITIES)
def test_the_squeeze_leaves_the_mean_and_most_of_the_spread(name, sex):
    effect = EFFECTS[name]
    for age in (YOUNGEST, 40, 60, 80, OLDEST):
        moments = [
            integrate.quad(lambda z, p=p, age=age: effect.of_person(age, sex, z) ** p * stats.norm.pdf(z), -9, 9)[0]
            for p in (1, 2)
        ]
        spread = np.sqrt(moments[1] - moments[0] ** 2)
        assert moments[0] == pytest.approx(effect.expected(age, sex), rel=1e-6)
        assert 0.8 * effect.spread < spread < effect.spread


@pytest.mark.parametrize("name", QUANTITIES)
def test_persons_keep_their_order_and_those_in_the_middle_are_hardly_moved(name):
    effect = EFFECTS[name]
    deviates = np.linspace(-5, 5, 1001)
    values = np.array([effect.of_person(50, FEMALE, z) for z in deviates])
    assert (np.diff(values) > 0).all()
    middle = np.abs(deviates) <= 1
    straight = effect.expected(50, FEMALE) + effect.spread * deviates
    assert np.abs(values - straight)[middle].max() < 0.03 * effect.spread


def test_a_deviate_acts_on_its_own_quantity_alone():
    usual = constitution(50, MALE, [0.0] * 6)
    for place, name in enumerate(QUANTITIES):
        other = constitution(50, MALE, [float(number == place) for number in range(6)])
        assert [one for one in QUANTITIES if getattr(other, one) != getattr(usual, one)] == [name]


def test_beyond_the_ages_of_adults_a_person_is_as_at_the_end_of_them():
    deviates = [0.3, -1.2, 2.0, -0.4, 1.1, -2.2]
    assert constitution(5, FEMALE, deviates) == constitution(YOUNGEST, FEMALE, deviates)
    assert constitution(110, MALE, deviates) == constitution(OLDEST, MALE, deviates)
    assert constitution(YOUNGEST, FEMALE, deviates) != constitution(YOUNGEST + 1, FEMALE, deviates)


@pytest.mark.parametrize(
    ("age", "sex", "deviates"), [(np.nan, MALE, [0.0] * 6), (-1, MALE, [0.0] * 6), (50, -1, [0.0] * 6), (50, 0, [0.0])]
)
def test_a_missing_age_or_sex_or_deviate_is_refused(age, sex, deviates):
    with pytest.raises(ValueError, match="expected years"):
        constitution(age, sex, deviates)


def test_respiratory_arrhythmia_falls_steeply_until_60_and_little_after():
    assert respiratory_arrhythmia(20) == pytest.approx(0.04)
    assert respiratory_arrhythmia(30) == pytest.approx(0.0325)
    assert respiratory_arrhythmia(60) == pytest.approx(0.016)
    assert respiratory_arrhythmia(80) == respiratory_arrhythmia(100) == pytest.approx(0.012)
    assert respiratory_arrhythmia(3) == respiratory_arrhythmia(YOUNGEST)
    ages = np.arange(YOUNGEST, 81)
    falls = np.diff([respiratory_arrhythmia(age) for age in ages])
    assert (falls < 0).all()
    assert (np.diff(falls) > -1e-12).all()  # ever less steeply
