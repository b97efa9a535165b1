"""Records are as ill as asked, do not depend on each other, and a planted disparity has its size and no side effect."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from data_modules.synthetic.people.circumstances import CODES
from data_modules.synthetic.people.conditions import COMPATIBLE_WITH_NORMAL, CONDITIONS
from data_modules.synthetic.people.draw import example, truth
from data_modules.synthetic.people.oracle import expected_prevalence
from data_modules.synthetic.people.population import PLAIN, Disparity, Population
from data_modules.synthetic.people.truth import Truth
from ecgfair.ecg import FEMALE, MALE
from ecgfair.errors import ConfigurationError

RECORDS = 6000
PLANTED = Population(
    disparities=(
        Disparity("prevalence", 0.5, sex="female", labels=("LVH",)),
        Disparity("training_records", 0.4, sex="female"),
        Disparity("noise", 1.0, sex="female", age=(60, 200)),
        Disparity("signs", 0.5, sex="female", labels=("AMI",)),
        Disparity("label_errors", 0.3, sex="female", labels=("IMI", "STD_")),
    )
)


@pytest.fixture(scope="module")
def many() -> list[Truth]:
    return [truth(number) for number in range(1, RECORDS + 1)]


@pytest.fixture(scope="module")
def planted() -> list[Truth]:
    return [truth(number, 0, PLANTED) for number in range(1, RECORDS + 1)]


def shares(many: list[Truth]) -> dict[str, float]:
    return {code: count / len(many) for code, count in Counter(code for one in many for code in one.stated).items()}


def test_conditions_are_as_common_as_the_catalogue_says_less_what_others_hide(many: list[Truth]):
    for code in CODES:
        expected = expected_prevalence(PLAIN, code)
        assert CONDITIONS[code].prevalence * 0.5 < expected <= CONDITIONS[code].prevalence
        # A chronic condition is on up to three records of a patient: at most so much less is known than of independent.
        assert abs(shares(many)[code] - expected) < 4.5 * np.sqrt(1.35 * expected / RECORDS), code


def test_there_is_a_head_and_a_tail(many: list[Truth]):
    found = shares(many)
    assert {code for code, share in found.items() if share >= 0.1} == {"NORM", "SR", "AMI", "IMI"}
    assert len([code for code, share in found.items() if share < 0.01]) >= 6
    assert len([code for code, share in found.items() if share < 0.005]) >= 3
    assert any(len(one.present) >= 3 for one in many)


def test_what_hides_another_is_never_beside_it(many: list[Truth]):
    for one in many:
        for code in one.present:
            assert not set(CONDITIONS[code].hidden_by) & set(one.present)


def test_what_is_hidden_is_as_severe_as_what_is_absent_so_that_nothing_tells_that_it_is_hidden(many: list[Truth]):
    severity, strength = [], []
    for one in many:
        for code, condition in CONDITIONS.items():
            if set(condition.hidden_by) & set(one.present):
                assert code not in one.stated
                severity.append(one.severity[code])
                strength.append(one.strength[code] if condition.graded else 0.5)
    assert abs(np.mean(severity)) < 4.5 * np.sqrt(2 / len(severity))  # those of up to three records are alike
    assert np.std(severity) == pytest.approx(1, abs=0.05)
    assert min(strength) > 0


def test_what_is_chronic_stays_with_the_patient_unless_it_is_hidden(many: list[Truth]):
    first = {}
    for one in many:
        first.setdefault(one.patient, []).append(one)
    seen = 0
    for records in first.values():
        for code in set().union(*(one.present for one in records)):
            if CONDITIONS[code].chronic:
                lasting = [code in one.present or set(CONDITIONS[code].hidden_by) & set(one.present) for one in records]
                assert all(lasting)
                seen += len(records) > 1
    assert seen > 100


def test_severity_is_normal_around_the_separation_and_chronic_severity_is_alike_over_records(many: list[Truth]):
    for code in ("AMI", "IMI", "LVH", "LAFB"):
        values = np.array([one.severity[code] for one in many])
        present = np.array([code in one.present for one in many])
        for group, mean in ((present, CONDITIONS[code].separation), (~present, 0.0)):
            assert abs(values[group].mean() - mean) < 4.5 * np.sqrt(1.35 / group.sum())
            assert abs(values[group].std() - 1) < 4.5 * np.sqrt(1.35 / 2 / group.sum())
    pairs = [(a, b) for a, b in pairwise(many) if a.patient == b.patient]
    for code, expected in (("RVH", 0.7), ("WPW", 0.7), ("AFLT", 0.0)):
        values = np.array(
            [
                [one.severity[code] - (code in one.present) * CONDITIONS[code].separation for one in pair]
                for pair in pairs
            ]
        )
        assert abs(np.corrcoef(values.T)[0, 1] - expected) < 4 / np.sqrt(len(pairs))


def test_signs_grow_with_severity_or_are_there_wholly(many: list[Truth]):
    for one in many[:500]:
        for code, condition in CONDITIONS.items():
            z = one.severity[code]
            expected = (
                expit(2 * (z - 0.6 * condition.separation)) if condition.graded else float(z > condition.separation / 2)
            )
            assert one.strength[code] == pytest.approx(expected, abs=1e-9)


def test_statements_follow_from_the_conditions(many: list[Truth]):
    for one in many:
        assert [code for code in one.stated if code in CODES] == list(one.present)
        assert ("SR" in one.stated) == all(CONDITIONS[code].kind != "rhythm" for code in one.present)
        assert ("NORM" in one.stated) == (set(one.present) <= set(COMPATIBLE_WITH_NORMAL))
        order = ["NORM", *CODES, "SR"]
        assert list(one.stated) == sorted(one.stated, key=order.index)
    assert any(set(one.stated) == {"NORM", "STACH"} for one in many)


def test_a_few_ages_and_sexes_are_missing_and_as_many_as_asked(many: list[Truth]):
    for name in ("age_known", "sex_known"):
        assert 0.004 < np.mean([not getattr(one, name) for one in many]) < 0.018
    asked = Population(missing_age=1.0, missing_sex=0.0)
    assert not any(truth(number, 0, asked).age_known for number in range(1, 100))
    assert all(truth(number, 0, asked).sex_known for number in range(1, 100))


def test_a_record_depends_on_seed_and_number_alone(many: list[Truth]):
    for number in (977, 3, 20, 19, 18, 5801):
        assert truth(number) == many[number - 1]
    assert truth(3, 1) != many[2]
    assert truth(3, 1).severity != many[2].severity


def test_another_process_draws_the_same():
    script = (
        "from data_modules.synthetic.people.draw import truth\n"
        "for n in range(30, 0, -1): t = truth(n, 5); print(t, t.severity, t.strength, t.oracle)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": str(Path(__file__).parents[4])},
        capture_output=True,
        text=True,
        check=True,
    )
    drawn = [truth(number, 5) for number in range(30, 0, -1)]
    assert ran.stdout.splitlines() == [f"{one} {one.severity} {one.strength} {one.oracle}" for one in drawn]


def test_nothing_changes_outside_the_group(many: list[Truth], planted: list[Truth]):
    men = [place for place, one in enumerate(many) if one.sex == MALE]
    assert len(men) > RECORDS / 3
    assert all(planted[place] == many[place] for place in men)


def test_in_the_group_only_what_is_planted_changes(many: list[Truth]):
    changed = {
        "label_errors": {"stated", "oracle"},
        "signs": {"severity", "strength", "oracle"},
        "noise": {"noise"},
        "training_records": {"left_out"},
        "prevalence": {"present", "stated", "severity", "strength", "oracle"},
    }
    for kind, fields in changed.items():
        population = Population(disparities=(Disparity(kind, 0.5, sex="female"),))  # type: ignore[arg-type]
        differs = set()
        for plain in many[:400]:
            one = truth(plain.number, 0, population)
            kept = {name: getattr(plain, name) for name in fields}
            assert replace(one, **kept) == plain
            differs |= {name for name in fields if getattr(one, name) != getattr(plain, name)}
        assert differs == fields


def test_prevalence_is_lowered_as_much_as_asked(many: list[Truth], planted: list[Truth]):
    before, after = (np.array([one.sex == FEMALE and "LVH" in one.present for one in of]) for of in (many, planted))
    assert not (after & ~before).any()
    # Women with it are about 300 patients; each keeps it with probability 0.5.
    assert abs(after.sum() / before.sum() - 0.5) < 4.5 * 0.5 * np.sqrt(1.35 / before.sum())


def test_as_many_patients_are_left_out_of_the_training_folds_as_asked(planted: list[Truth]):
    assert not any(one.left_out for one in planted if one.sex == MALE or one.fold > 8)
    women = {one.patient: one.left_out for one in planted if one.sex == FEMALE and one.fold <= 8}
    assert abs(np.mean(list(women.values())) - 0.4) < 4 * np.sqrt(0.24 / len(women))
    assert all(women[one.patient] == one.left_out for one in planted if one.sex == FEMALE and one.fold <= 8)


def test_noise_is_multiplied_where_asked_and_everywhere(planted: list[Truth]):
    assert {one.noise for one in planted if one.sex == FEMALE and one.age >= 60} == {2.0}
    assert {one.noise for one in planted if one.sex == MALE or one.age < 60} == {1.0}
    assert truth(1, 0, Population(noise=0.25)).noise == 0.25


def test_weaker_signs_are_a_lower_severity_of_those_who_have_the_condition(many: list[Truth], planted: list[Truth]):
    for before, after in zip(many, planted, strict=True):
        lowered = 2.0 if before.sex == FEMALE and "AMI" in after.present else 0.0
        if ("AMI" in before.present) == ("AMI" in after.present):
            assert before.severity["AMI"] - after.severity["AMI"] == pytest.approx(lowered, abs=1e-12)
    ill = [one for one in planted if "AMI" in one.present]
    women, men = (np.mean([one.strength["AMI"] for one in ill if one.sex == sex]) for sex in (FEMALE, MALE))
    assert women < men - 0.3


def test_labels_are_wrong_as_often_as_asked_and_as_many_either_way(planted: list[Truth]):
    for code in ("IMI", "STD_"):
        women = [one for one in planted if one.sex == FEMALE]
        present, stated = (
            np.array([code in names for names in (getattr(one, of) for one in women)]) for of in ("present", "stated")
        )
        missed, invented = present & ~stated, stated & ~present
        assert abs(missed.sum() / present.sum() - 0.3) < 4 * np.sqrt(0.21 / present.sum())
        assert abs(int(missed.sum()) - int(invented.sum())) < 4 * np.sqrt(missed.sum() + invented.sum())
        # Never where it could not be told.
        assert not any(
            set(CONDITIONS[code].hidden_by) & set(one.present)
            for one, wrong in zip(women, invented, strict=True)
            if wrong
        )


def test_a_changed_prevalence_leaves_all_else_as_it_was(many: list[Truth]):
    asked = Population(prevalence={"ALR": 0.5})
    for plain in many[:300]:
        one = truth(plain.number, 0, asked)
        assert [code for code in one.present if code != "ALR"] == [code for code in plain.present if code != "ALR"]
        assert one.constitution == plain.constitution
        assert {**one.severity, "ALR": 0} == {**plain.severity, "ALR": 0}


def test_a_condition_that_nobody_has_is_never_stated():
    nobody = Population(
        prevalence={"AMI": 0.0}, disparities=(Disparity("prevalence", 1.0, sex="female", labels=("IMI",)),)
    )
    for number in range(1, 400):
        one = truth(number, 0, nobody)
        assert "AMI" not in one.stated
        assert one.oracle["AMI"] == 0
        assert one.sex == MALE or ("IMI" not in one.stated and one.oracle["IMI"] == 0)


@pytest.mark.parametrize("code", ["NORM", *CODES])
def test_an_example_shows_one_condition_plainly_and_nothing_else(code: str):
    one = example(code, age=40.0, sex=FEMALE)
    assert one.present == (() if code == "NORM" else (code,))
    assert {name for name, value in one.strength.items() if value > 0} == set(one.present)
    assert {name for name, value in one.severity.items() if value != 0} == set(one.present)
    for name in one.present:
        assert one.strength[name] > 0.99 if CONDITIONS[name].graded else one.strength[name] == 1
        assert one.severity[name] == CONDITIONS[name].separation + 1
        assert one.oracle[name] > 0.7  # rare ones whose signs are there by chance in 2 of 10,000
    assert code in one.stated
    assert (one.age, one.sex, one.noise, one.left_out) == (40.0, FEMALE, 0.3, False)
    assert one.constitution == example("NORM", age=40.0, sex=FEMALE, number=2).constitution


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"code": "AMY"}, "'AMY': no condition. Did you mean 'AMI'"),
        ({"code": "AMI", "age": 12.0}, "age 12.0"),
        ({"code": "AMI", "age": 60.5}, "whole years from 18 to 95"),
        ({"code": "AMI", "sex": -1}, "the sex -1"),
    ],
)
def test_examples_that_cannot_be_are_refused(values, told: str):
    with pytest.raises(ConfigurationError, match=told):
        example(**values)


@pytest.mark.parametrize(("number", "seed"), [(0, 0), (-3, 0), (1, -1)])
def test_records_that_there_are_not_are_refused(number: int, seed: int):
    with pytest.raises(ConfigurationError, match="expected a record number of at least 1 and a seed of at least 0"):
        truth(number, seed)
