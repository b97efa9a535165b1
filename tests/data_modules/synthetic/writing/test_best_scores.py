"""What the best scores are worth, by scikit-learn's measure, and what is told of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.population import Disparity, Population
from data_modules.synthetic.signals.recording import record
from data_modules.synthetic.writing.best_scores import auroc, disparity_scores, label_scores, print_population
from data_modules.synthetic.writing.published import LABELS
from data_modules.synthetic.writing.truth_tables import truth_table
from ecgfair.ecg import FEMALE

RECORDS = 400
WEAK = Disparity("signs", 0.9, sex="female", labels=("IMI", "AMI"))
OLD = Disparity("noise", 1.0, age=(70, 80))
BOTH = Disparity("noise", 0.5, sex="male", age=(30, 60))
POPULATION = Population(prevalence={"IMI": 0.3, "AMI": 0.3}, disparities=(WEAK, OLD, BOTH))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    made = record(truth(1))
    return truth_table([(truth(number, 0, POPULATION), made) for number in range(1, RECORDS + 1)])


def test_the_area_is_that_of_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    for size in (5, 50, 500):
        scores = np.round(rng.normal(size=size), 1)
        positive = rng.random(size) < 0.3
        positive[:2] = True, False
        assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


@pytest.mark.parametrize("positive", [True, False])
def test_the_area_of_one_class_is_not_defined(positive: bool):
    assert np.isnan(auroc(np.arange(4.0), np.full(4, positive)))


def test_each_label_is_counted_and_measured_against_what_is_stated(table: pa.Table):
    scored = label_scores(table)
    assert tuple(one.label for one in scored) == LABELS
    truths = [truth(number, 0, POPULATION) for number in range(1, RECORDS + 1)]
    for one in scored:
        stated = np.array([one.label in asked.stated for asked in truths])
        assert (one.positives, one.share) == (stated.sum(), stated.mean())
        assert one.band == ("head" if one.share >= 0.1 else "medium" if one.share >= 0.01 else "tail")
        if one.positives > 0:
            best = roc_auc_score(stated, [asked.oracle[one.label] for asked in truths])
            assert one.best_auroc == pytest.approx(best, abs=1e-6)
        else:
            assert np.isnan(one.best_auroc)


def test_a_disparity_is_measured_in_its_group_and_outside_it(table: pa.Table):
    weak, old, both = disparity_scores(table, POPULATION.disparities)
    truths = [truth(number, 0, POPULATION) for number in range(1, RECORDS + 1)]
    female = np.array([asked.sex == FEMALE for asked in truths])
    age = np.array([asked.age for asked in truths])
    assert weak.records == female.sum()
    assert old.records == ((age >= 70) & (age < 80)).sum()
    assert both.records == (~female & (age >= 30) & (age < 60)).sum()
    expected = {
        side: np.mean(
            [
                roc_auc_score(
                    [label in asked.stated for asked, of in zip(truths, group, strict=True) if of],
                    [asked.oracle[label] for asked, of in zip(truths, group, strict=True) if of],
                )
                for label in WEAK.labels
            ]
        )
        for side, group in (("inside", female), ("outside", ~female))
    }
    assert (weak.inside, weak.outside) == pytest.approx((expected["inside"], expected["outside"]), abs=1e-6)
    assert weak.labels == 2
    assert weak.inside < 0.8 < 0.9 < weak.outside


def test_a_group_without_a_record_has_no_score(table: pa.Table):
    (nobody,) = disparity_scores(table, [Disparity("noise", 1.0, age=(101, 120))])
    assert (nobody.records, nobody.labels) == (0, 0)
    assert np.isnan([nobody.inside, nobody.outside]).all()


def test_all_of_it_is_told_in_a_few_lines(table: pa.Table):
    console = Console(width=80, file=io.StringIO(), record=True)
    print_population(Path("/somewhere/made"), table, POPULATION, 7, console)
    told = console.export_text()
    patients = len({truth(number).patient for number in range(1, RECORDS + 1)})
    assert f"{RECORDS} records of {patients} patients, 7 left out by a planted disparity." in told
    lines = told.splitlines()
    for label in LABELS:
        assert sum(line.split()[:1] == [label] for line in lines) == 1
    (weak,) = (line for line in lines if line.startswith("signs"))
    for said in ("female", "IMI, AMI", "0.9", f"{disparity_scores(table, [WEAK])[0].inside:.3f}"):
        assert said in weak
    assert any(line.startswith("noise") and "70 to <80" in line and " all " in line for line in lines)
    assert any("male, 30 to <60" in line for line in lines)
    assert lines[-1] == "Data set: /somewhere/made"


def test_shares_are_told_where_nobody_is_normal_as_well():
    everybody = Population(prevalence={"IMI": 0.999})
    made = record(truth(1))
    ill = truth_table([(truth(number, 0, everybody), made) for number in range(1, 11)])
    console = Console(width=80, file=io.StringIO(), record=True)
    print_population(Path("made"), ill, everybody, 0, console)
    told = [line.split() for line in console.export_text().splitlines()]
    assert ["NORM", "0", "tail", "-"] in told
    assert ["IMI", "10", "(100.0", "%)", "head", "-"] in told


def test_without_a_disparity_none_is_told(table: pa.Table):
    console = Console(width=80, file=io.StringIO(), record=True)
    print_population(Path("made"), table, Population(), 0, console)
    told = console.export_text()
    assert "disparity" not in told
    assert "left out" not in told
