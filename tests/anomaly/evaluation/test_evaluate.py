import math

import pytest
import torch
from hypothesis import given, settings
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from ecgfair.anomaly.evaluation.decisions import Thresholds, best_f1_threshold, choose_thresholds
from ecgfair.anomaly.evaluation.evaluate import evaluate_anomaly
from ecgfair.anomaly.evaluation.report import COLUMNS
from ecgfair.errors import ConfigurationError
from ecgfair.groups import age_strata
from tests.anomaly.anomaly_cases import brute_stratified, evaluated, population, scored

FREE = settings(deadline=None, max_examples=15)  # other work on the machine is no failure


def test_auroc_and_average_precision_of_all_records_are_those_of_scikit_learn():
    case = population(300)
    report = evaluated(case)
    target, score = case["abnormal"].numpy(), case["score"].numpy()
    assert report.overall("auroc").value == pytest.approx(roc_auc_score(target, score), abs=1e-12)
    assert report.overall("average_precision").value == pytest.approx(average_precision_score(target, score), abs=1e-12)
    assert (report.normals, report.abnormals) == (int((~case["abnormal"]).sum()), int(case["abnormal"].sum()))
    assert report.patients == 150


def test_rates_and_f1_are_those_at_the_thresholds_carried_over():
    case, other = population(300), population(300, seed=1)
    thresholds = choose_thresholds(other["score"], other["abnormal"], chosen_on="fold 9")
    report = evaluated(case, threshold=thresholds)
    score, abnormal = case["score"], case["abnormal"]
    called = score >= thresholds.specificity
    assert report.overall("tpr").value == pytest.approx(float(called[abnormal].double().mean()))
    assert report.overall("fpr").value == pytest.approx(float(called[~abnormal].double().mean()))
    assert report.overall("f1").value == pytest.approx(f1_score(abnormal, score >= thresholds.f1))
    own = best_f1_threshold(score, abnormal)
    assert report.overall("best_f1").value == pytest.approx(f1_score(abnormal, score >= own))
    assert report.overall("best_f1").value > report.overall("f1").value
    assert "too good" in report.overall("best_f1").reason
    assert report.chosen_on == "fold 9"
    assert any("fold 9" in note for note in report.notes)


def test_a_single_threshold_serves_for_f1_and_for_the_rates():
    case = population(200)
    one = evaluated(case, threshold=0.3)
    two = evaluated(case, threshold=Thresholds(0.3, 0.3, "elsewhere"))
    for statistic in ("f1", "tpr", "fpr"):
        assert one.overall(statistic).value == two.overall(statistic).value
    assert one.overall("fpr").value > 0


def test_without_a_threshold_what_needs_one_is_undefined_and_says_so():
    report = evaluated(population(200))
    for statistic in ("f1", "tpr", "fpr"):
        assert math.isnan(report.overall(statistic).value)
        assert "no thresholds, which validation records choose" in report.overall(statistic).reason
    assert not math.isnan(report.overall("best_f1").value)


def test_thresholds_of_records_that_lacked_a_class_or_let_nothing_through_are_told_apart():
    case = population(200)
    lacked = evaluated(case, threshold=Thresholds(math.nan, math.nan, "fold 9"))
    for statistic in ("f1", "tpr"):
        assert math.isnan(lacked.overall(statistic).value)
        assert "lacked a class" in lacked.overall(statistic).reason
    nothing = evaluated(case, threshold=Thresholds(0.0, math.inf, "fold 9"))
    assert nothing.overall("tpr").value == nothing.overall("fpr").value == 0


def test_the_stratified_auroc_is_that_of_pairs_within_ten_years_of_age():
    case = population(150, of_age=0.05)
    case["age"][:7] = torch.nan
    report = evaluated(case)
    expected = brute_stratified(case["score"], case["abnormal"], age_strata(case["age"]))
    assert report.overall("stratified_auroc").value == pytest.approx(expected, abs=1e-12)
    assert "are compared with none of their age" in report.overall("stratified_auroc").reason
    assert any(note.startswith("7 of 150 records have no known age") for note in report.notes)


def test_a_score_that_only_knows_age_is_seen_through():
    case = population(4000)
    case["score"] = case["age"].double()
    report = evaluated(case)
    assert report.overall("auroc").value > 0.7
    assert report.overall("auroc").value == report.overall("age_alone_auroc").value
    within = report.overall("stratified_auroc").value
    assert 0.5 < within < 0.6
    assert within == report.overall("age_alone_stratified_auroc").value
    coarse = evaluated({**case, "score": age_strata(case["age"]).double()})
    assert coarse.overall("auroc").value > 0.7
    assert coarse.overall("stratified_auroc").value == 0.5


def test_age_alone_is_of_the_records_whose_age_is_known_and_says_how_many_are_not():
    case = population(200)
    case["age"][:10] = torch.nan
    row = evaluated(case).overall("age_alone_auroc")
    known = ~case["age"].isnan()
    assert row.value == pytest.approx(roc_auc_score(case["abnormal"][known], case["age"][known]), abs=1e-12)
    assert row.normals + row.abnormals == 190
    assert row.reason == "without 10 records of unknown age"


@FREE
@given(scored())
def test_every_value_is_in_range_or_undefined_with_a_reason(case):
    score, abnormal = case
    report = evaluate_anomaly(score, abnormal, threshold=0.0, resamples=0, min_support=1)
    for row in report.rows:
        if math.isnan(row.value):
            assert row.reason
        elif row.aggregate in ("value", "worst"):
            assert 0 <= row.value <= 1
    if abnormal.any() and not abnormal.all():
        assert report.overall("auroc").value == pytest.approx(roc_auc_score(abnormal, score), abs=1e-12)
    else:
        assert math.isnan(report.overall("auroc").value)
        assert math.isnan(report.overall("best_f1").value)
        assert "1 needed" in report.overall("sensitivity_at_specificity").reason


def test_an_empty_set_is_undefined_throughout():
    report = evaluate_anomaly(torch.zeros(0), torch.zeros(0, dtype=torch.bool), resamples=100)
    assert all(math.isnan(row.value) and row.reason for row in report.rows)


def test_a_score_that_is_undefined_for_some_records_is_an_error_that_counts_them():
    case = population(50)
    case["score"][[3, 8]] = torch.nan
    with pytest.raises(ValueError, match="NaN for 2 of 50 records"):
        evaluated(case)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"level": 1.0}, ConfigurationError, "level is 1.0"),
        ({"labels": torch.zeros(50, 4)}, ConfigurationError, r"labels have the shape \(50, 4\), with 5 label names"),
        ({"labels": None}, ConfigurationError, "5 label names"),
        ({"prevalence": [0.5]}, ConfigurationError, "1 training prevalences"),
        ({"labels": torch.full((50, 5), torch.nan)}, ValueError, "neither 0 nor 1"),
        ({"age": torch.zeros(49)}, ValueError, "age has the shape"),
        ({"sex": torch.zeros(49)}, ValueError, "sex has the shape"),
        ({"patients": torch.zeros(50)}, ValueError, "patients is torch.float32"),
        ({"patients": torch.zeros(49, dtype=torch.int64)}, ValueError, "patients is"),
        ({"attributes": ("sx",)}, ConfigurationError, "Did you mean 'sex'"),
        ({"resamples": 5}, ConfigurationError, "resamples is 5"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, said):
    with pytest.raises(error, match=said):
        evaluated(population(50), **change)


def test_the_frame_has_a_line_a_row():
    report = evaluated(population(100))
    frame = report.frame()
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == len(report.rows)
    assert str(frame["normals"].dtype) == "Int64"


def test_a_statistic_that_is_not_there_is_an_error_that_names_those_that_are():
    with pytest.raises(KeyError, match="expected one of auroc"):
        evaluated(population(50)).overall("aucroc")
