import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecgfair.groups import age_strata, group_by_age, group_by_sex
from tests.anomaly.anomaly_cases import NAMES, brute_stratified, evaluated, population


def test_a_diagnosis_is_its_records_against_all_normal_ones_and_no_other_abnormal_ones():
    case = population(400)
    report = evaluated(case, prevalence=[0.5, 0.2, 0.05, 0.005, 0.2])
    normal = ~case["abnormal"]
    found = {}
    for column, name in enumerate(NAMES[1:], start=1):
        has_it = case["labels"][:, column] == 1
        some = normal | has_it
        (row,) = report.select("diagnosis", "auroc", label=name)
        found[name] = roc_auc_score(has_it[some], case["score"][some])
        assert row.value == pytest.approx(found[name], abs=1e-12)
        assert (row.normals, row.abnormals) == (int(normal.sum()), int(has_it.sum()))
        (stratified,) = report.select("diagnosis", "stratified_auroc", label=name)
        strata = age_strata(case["age"])[some]
        assert stratified.value == pytest.approx(brute_stratified(case["score"][some], has_it[some], strata), abs=1e-12)
    assert not list(report.select("diagnosis", "auroc", label="NORM"))
    means = {row.label: row.value for row in report.select("diagnosis", "auroc") if row.label not in NAMES}
    assert means["macro"] == pytest.approx(sum(found.values()) / 4)
    assert means["head"] == pytest.approx((found["MI"] + found["HYP"]) / 2)
    assert means["medium"] == pytest.approx(found["STTC"])
    assert means["tail"] == pytest.approx(found["CD"])
    (gap,) = report.select("diagnosis", "auroc", "common_rare_gap")
    assert gap.value == pytest.approx(means["head"] - means["tail"])


def test_sensitivity_by_diagnosis_is_at_the_threshold_carried_over():
    case = population(400)
    report = evaluated(case, threshold=1.0)
    (row,) = report.select("diagnosis", "tpr", label="MI")
    assert row.value == pytest.approx(float((case["score"][case["labels"][:, 1] == 1] >= 1.0).double().mean()))


def test_a_diagnosis_that_no_record_has_is_undefined_and_says_so():
    case = population(100)
    case["labels"] = torch.cat([case["labels"], torch.zeros(100, 1, dtype=torch.int64)], 1)
    report = evaluated(case, label_names=(*NAMES, "BRUGADA"))
    (row,) = report.select("diagnosis", "auroc", label="BRUGADA")
    assert math.isnan(row.value)
    assert row.reason == "0 positives, 1 needed"
    (macro,) = report.select("diagnosis", "auroc", label="macro")
    assert (macro.labels, macro.reason) == (4, "1 of 5 labels undefined")


def test_without_diagnoses_there_are_no_rows_of_them():
    report = evaluated(population(100), labels=None, label_names=())
    assert not [row for row in report.rows if row.attribute == "diagnosis"]
    normals_alone = evaluated(population(100), labels=population(100)["labels"][:, :1], label_names=("NORM",))
    assert not [row for row in normals_alone.rows if row.attribute == "diagnosis"]


def test_a_group_is_its_own_abnormal_records_against_its_own_normal_ones():
    case = population(600)
    report = evaluated(case, threshold=1.0)
    assert report.attributes == ("sex", "age", "sex_x_age")
    for grouping in (group_by_sex(case["sex"]), group_by_age(case["age"])):
        for code, name in enumerate(grouping.names[:-1]):
            some = grouping.codes == code
            target, score = case["abnormal"][some], case["score"][some]
            (row,) = report.select(grouping.attribute, "auroc", group=name)
            assert row.value == pytest.approx(roc_auc_score(target, score), abs=1e-12)
            assert (row.normals, row.abnormals) == (int((~target).sum()), int(target.sum()))
            (alarms,) = report.select(grouping.attribute, "fpr", group=name)
            assert alarms.value == pytest.approx(float((score[~target] >= 1.0).double().mean()))
    crossed = [row.group for row in report.select("sex_x_age", "auroc")]
    assert "female, <40" in crossed


def test_a_group_without_support_is_undefined_in_the_words_of_normal_and_abnormal():
    case = population(300)
    old = case["age"] >= 80
    case["abnormal"][old] = True
    case["abnormal"][old.nonzero()[:2, 0]] = False
    case["labels"] = torch.nn.functional.one_hot(case["abnormal"].long(), 5)
    (row,) = evaluated(case).select("age", "auroc", group="80+")
    assert math.isnan(row.value)
    assert row.reason == "2 normal, 5 needed"
    (spread,) = evaluated(case).select("age", "auroc", "spread")
    assert spread.reason == "without 80+: too few normal or abnormal records"


def test_the_spread_is_the_worst_group_minus_the_best():
    report = evaluated(population(600))
    values = {row.group: row.value for row in report.select("sex", "auroc") if row.normals}
    (spread,) = report.select("sex", "auroc", "spread")
    assert spread.value == pytest.approx(min(values.values()) - max(values.values()))
    assert values[spread.group] == min(values.values())
