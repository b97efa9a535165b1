"""What can be asked of a synthetic population, and what is refused with a reason."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from jsonargparse import auto_cli

from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.population import Disparity, Population
from ecgfair.ecg import FEMALE, MALE
from ecgfair.errors import ConfigurationError


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kind": "sign", "strength": 0.5, "sex": "female"}, r"kind is 'sign': unknown. Did you mean 'signs'"),
        ({"kind": "signs", "strength": 1.5, "sex": "female"}, r"strength is 1.5: expected 0 to 1 for the kind signs"),
        ({"kind": "signs", "strength": float("nan"), "sex": "female"}, "strength is nan"),
        ({"kind": "noise", "strength": -1, "sex": "female"}, r"strength is -1: expected 0 to 1000"),
        ({"kind": "noise", "strength": float("inf"), "sex": "female"}, "strength is inf"),
        ({"kind": "noise", "strength": 1}, "neither sex nor age"),
        ({"kind": "noise", "strength": 1, "sex": "woman"}, r"sex is 'woman': expected female, male"),
        ({"kind": "noise", "strength": 1, "age": (70, 60)}, r"age is \[70, 60\]: expected two ages, the first lower"),
        ({"kind": "noise", "strength": 1, "age": (0, 18)}, "with somebody between them"),
        ({"kind": "noise", "strength": 1, "age": (130, 140)}, "with somebody between them"),
        ({"kind": "noise", "strength": 1, "age": (40.2, 40.8)}, "with somebody between them"),
        ({"kind": "noise", "strength": 1, "age": (60, float("inf"))}, r"age is \[60, inf\]"),
        ({"kind": "noise", "strength": 1, "age": (60,)}, "expected two ages"),
        ({"kind": "noise", "strength": 1, "sex": "male", "labels": ["AMI"]}, "acts on whole records. Leave labels out"),
        ({"kind": "training_records", "strength": 1, "sex": "male", "labels": ["AMI"]}, "Leave labels out"),
        (
            {"kind": "signs", "strength": 1, "sex": "male", "labels": ["AMY"]},
            r"'AMY', no condition. Did you mean 'AMI'",
        ),
        ({"kind": "signs", "strength": 1, "sex": "male", "labels": ["NORM"]}, "NORM, which is stated where no other"),
    ],
)
def test_disparities_that_cannot_be_planted_are_refused(values: dict[str, Any], told: str):
    with pytest.raises(ConfigurationError, match=told):
        Disparity(**values)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"prevalence": {"AMY": 0.1}}, r"prevalence names 'AMY', no condition. Did you mean 'AMI'"),
        ({"prevalence": {"SR": 0.1}}, "prevalence names SR, which is stated where"),
        ({"prevalence": {"AMI": 1.0}}, "prevalence of AMI is 1.0: expected a share from 0 to 0.999"),
        ({"prevalence": {"AMI": 0.9999999999999999}}, "prevalence of AMI is 0.9999999999999999"),
        ({"prevalence": {"AMI": -0.1}}, "prevalence of AMI is -0.1"),
        ({"separation": {"IMY": 1}}, "separation names 'IMY', no condition"),
        ({"separation": {"IMI": -1}}, "separation of IMI is -1: expected 0 to 100"),
        ({"separation": {"AFIB": 3.9}}, "separation of AFIB is 3.9: expected 4 to 100"),
        ({"separation": {"IMI": 1e9}}, "separation of IMI is 1000000000.0: expected 0 to 100"),
        ({"missing_age": 1.1}, "missing_age is 1.1: expected a share from 0 to 1"),
        ({"missing_sex": float("nan")}, "missing_sex is nan"),
        ({"noise": -0.5}, "noise is -0.5: expected 0 to 1000"),
        ({"noise": 1e308}, "noise is 1e.308: expected 0 to 1000"),
    ],
)
def test_populations_that_cannot_be_drawn_are_refused(values: dict[str, Any], told: str):
    with pytest.raises(ConfigurationError, match=told):
        Population(**values)


def test_label_errors_that_the_group_has_too_few_negatives_for_are_refused_with_what_would_do():
    errors = Disparity("label_errors", 0.9, sex="male", labels=("AMI",))
    with pytest.raises(ConfigurationError, match=r"label errors of 0.9 for AMI.*strength of at most 0\.\d\d"):
        truth(1, 0, Population(prevalence={"AMI": 0.7}, disparities=(errors,)))
    truth(1, 0, Population(prevalence={"AMI": 0.2}, disparities=(errors,)))


def test_a_population_is_read_from_the_command_line_and_from_yaml():
    def read_population(population: Population = Population()) -> Population:  # noqa: B008  # frozen
        return population

    yaml = "{prevalence: {AMI: 0.2}, disparities: [{kind: signs, strength: 0.5, age: [70, 120], labels: [AMI, IMI]}]}"
    read = auto_cli(read_population, args=[f"--population={yaml}", "--population.noise=2"])
    assert read == Population(
        prevalence={"AMI": 0.2}, disparities=(Disparity("signs", 0.5, age=(70, 120), labels=("AMI", "IMI")),), noise=2
    )


def test_equal_populations_are_one_and_the_same_to_a_cache_also_after_a_journey():
    asked = {"separation": {"AMI": 2.0, "IMI": 1.0}, "disparities": [Disparity("noise", 1, age=(70, 90))]}
    turned = {**asked, "separation": {"IMI": 1.0, "AMI": 2.0}}
    population = Population(**asked)  # type: ignore[arg-type]
    assert population == Population(**turned) == pickle.loads(pickle.dumps(population))  # type: ignore[arg-type]  # noqa: S301
    assert hash(population) == hash(Population(**turned))  # type: ignore[arg-type]
    assert population != Population(separation={"AMI": 2.0})
    assert asdict(population)["disparities"][0]["age"] == (70, 90)


def test_a_group_is_those_who_have_both_the_sex_and_the_age():
    sexes, ages = np.array([FEMALE, FEMALE, FEMALE, MALE]), np.array([59, 60, 70, 65])
    assert Disparity("noise", 1, sex="female", age=(60, 70)).group(sexes, ages).tolist() == [False, True, False, False]
    assert Disparity("noise", 1, age=(60, 70)).group(sexes, ages).tolist() == [False, True, False, True]
    assert Disparity("noise", 1, sex="male").group(sexes, ages).tolist() == [False, False, False, True]
