import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from ecgfair.anomaly.evaluation.decisions import Thresholds, best_f1_threshold, choose_thresholds, f1_at
from ecgfair.anomaly.evaluation.evaluate import evaluate_anomaly
from ecgfair.anomaly.evaluation.report import COLUMNS
from ecgfair.errors import ConfigurationError
from ecgfair.groups import age_strata, group_by_age, group_by_sex
from ecgfair.metrics.chance.intervals import confidence_interval
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.kernels.auroc import auroc
from tests.anomaly.anomaly_cases import NAMES, population, scored

FREE = settings(deadline=None, max_examples=15)  # other work on the machine is no failure


def evaluated(case, **more):
    return evaluate_anomaly(**{"resamples": 0, **case, **more})


def brute_stratified(score, abnormal, strata):
    """The share of pairs of the same stratum in which the abnormal record scores higher, pair by pair."""
    won = pairs = 0.0
    for one in abnormal.nonzero()[:, 0].tolist():
        for other in (~abnormal).nonzero()[:, 0].tolist():
            if strata[one] == strata[other] != -1:
                pairs += 1
                won += float(score[one] > score[other]) + 0.5 * float(score[one] == score[other])
    return won / pairs if pairs else math.nan


def shared(report):
    """Rows without NaN, which is unequal to itself."""
    return [tuple(str(value) for value in row) for row in report.rows]


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


def test_intervals_are_those_of_resampled_patients():
    case = population(200)
    report = evaluated(case, resamples=200, seed=3)
    weights = patient_weights(case["patients"], 200, 3)
    values = auroc(case["score"][:, None], case["abnormal"][:, None].long(), weights).auroc
    patients = torch.tensor([len(case["patients"][kind].unique()) for kind in (case["abnormal"], ~case["abnormal"])])
    low, high = confidence_interval(values, patients.min()[None].double(), bounded=True)
    row = report.overall("auroc")
    assert (row.low, row.high) == pytest.approx((low.item(), high.item()), abs=1e-9)


def test_the_interval_of_f1_rests_on_the_patients_that_are_abnormal_or_called_so():
    case = population(200)
    case["abnormal"] &= torch.arange(200) < 12
    row = evaluated(case, resamples=200, threshold=-1.0).overall("f1")
    called = case["abnormal"] | (case["score"] >= -1.0)
    values = f1_at(case["score"], case["abnormal"], -1.0, patient_weights(case["patients"], 200, 0))[:, None]
    patients = torch.tensor([float(len(case["patients"][called].unique()))])
    low, high = confidence_interval(values, patients, bounded=True)
    assert (row.low, row.high) == pytest.approx((low.item(), high.item()), abs=1e-9)


def test_every_statistic_of_all_records_has_an_interval_around_it():
    report = evaluated(population(200), resamples=200, threshold=0.5)
    for row in report.rows[:10]:
        assert row.attribute == "overall"
        assert row.low < row.value < row.high


def test_records_of_one_patient_are_not_two_pieces_of_evidence():
    case = population(120)
    twice = {
        name: torch.cat([value, value]) if isinstance(value, torch.Tensor) else value for name, value in case.items()
    }
    alone, together = evaluated(case, resamples=300), evaluated(twice, resamples=300)
    apart = evaluated(twice, resamples=300, patients=None)

    def width(report, name):
        return report.overall(name).high - report.overall(name).low

    for name in ("auroc", "best_f1", "average_precision"):
        assert together.overall(name).value == pytest.approx(alone.overall(name).value, abs=0.02)
        assert width(together, name) == pytest.approx(width(alone, name), rel=0.05)
        assert width(apart, name) < 0.9 * width(alone, name)
    assert any("240 of 240 records have no known patient" in note for note in apart.notes)


def test_the_same_records_give_the_same_report_in_any_order():
    case = population(150)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(5))
    mixed = {name: value[order] if isinstance(value, torch.Tensor) else value for name, value in case.items()}
    first, again = (evaluated(case, resamples=100, threshold=0.4) for _ in range(2))
    other = evaluated(mixed, resamples=100, threshold=0.4)
    assert shared(first) == shared(again)
    for row, same in zip(first.rows, other.rows, strict=True):
        assert row[:5] == same[:5]
        assert (row.value, row.low, row.high) == pytest.approx((same.value, same.low, same.high), abs=1e-9, nan_ok=True)


def test_another_seed_gives_other_intervals_and_the_same_values():
    case = population(150)
    one, other = (evaluated(case, resamples=100, seed=seed).overall("auroc") for seed in (0, 1))
    assert one.value == other.value
    assert one.low != other.low


@FREE
@given(
    st.integers(0, 100), st.sampled_from([torch.exp, torch.atan, lambda score: 1e4 * score - 7, lambda score: score**3])
)
def test_nothing_but_the_order_of_the_scores_counts(seed, transform):
    case = population(60, seed=seed)
    moved = {**case, "score": transform(case["score"])}
    threshold = torch.tensor(0.5, dtype=torch.float64)
    first = evaluated(case, threshold=threshold.item())
    second = evaluated(moved, threshold=transform(threshold).item())
    assert shared(first) == shared(second)


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


def test_unknown_patients_are_each_their_own_beside_known_ones():
    case = population(100)
    case["patients"] = torch.where(torch.arange(100) < 20, -1, case["patients"])
    report = evaluated(case)
    assert report.patients == 20 + 40
    assert any(note.startswith("20 of 100 records have no known patient") for note in report.notes)


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
