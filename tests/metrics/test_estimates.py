import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings

from ecgfair.errors import ConfigurationError
from ecgfair.groups import Grouping, group_by_column
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.estimates import estimate
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.fairness_report import COMMON_RARE_GAP, SUMMARIES, FairnessReport
from ecgfair.metrics.predictions import Predictions
from ecgfair.metrics.statistics import RATES, STATISTICS, WITHOUT_INTERVALS
from tests.metrics.cases import GROUPS, names, points_at, random_predictions, small_predictions

EXTREMES = ("spread", "worst", "difference", "ratio", "group_min", "group_max")
CONFIG = FairnessConfig(details=True, resamples=100)


@pytest.fixture(scope="module")
def table():
    return evaluate(random_predictions(), CONFIG).frame()


def width(frame):
    return (frame["high"] - frame["low"]).to_numpy()


def line(frame, **wanted):
    rows = frame[np.logical_and.reduce([frame[name] == value for name, value in wanted.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


def overall(frame, label, statistic="auroc", aggregate="value"):
    return line(frame, attribute="overall", label=label, statistic=statistic, aggregate=aggregate)


def test_an_interval_holds_its_value_and_stays_in_range(table):
    rows = table.dropna(subset=["low"])
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["value"] <= rows["high"]).all()
    gaps = rows["aggregate"].isin(["gap", COMMON_RARE_GAP])
    assert (rows["low"] >= np.where(gaps, -1, 0)).all()
    assert (rows["high"] <= 1).all()


def test_every_defined_value_has_an_interval_but_extremes_over_groups_and_calibration_errors_have_none(table):
    of_extremes, of_calibration = table["aggregate"].isin(EXTREMES), table["statistic"].isin(WITHOUT_INTERVALS)
    assert set(table.loc[of_extremes, "aggregate"]) == set(EXTREMES)
    assert table.loc[of_extremes | of_calibration, ["low", "high"]].isna().all(axis=None)
    assert table.loc[of_calibration & ~of_extremes, "value"].notna().any()
    others = table[~of_extremes & ~of_calibration]
    assert (others["low"].isna() == others["value"].isna()).all()
    assert (others["high"].isna() == others["value"].isna()).all()


def test_every_statistic_has_rows_for_means_and_with_details_for_labels(table):
    for statistic in STATISTICS:
        of_it = table[(table["statistic"] == statistic) & (table["aggregate"] == "value")]
        assert set(of_it["label"]) == {*names(4), *SUMMARIES}


def test_the_long_tail_has_intervals_on_a_fixed_set_of_labels(table):
    for label in SUMMARIES:
        row = overall(table, label)
        assert row["low"] < row["value"] < row["high"]
    gap = overall(table, "macro", aggregate=COMMON_RARE_GAP)
    assert gap["value"] == pytest.approx(overall(table, "head")["value"] - overall(table, "tail")["value"])
    assert gap["low"] < gap["value"] < gap["high"]
    assert gap["labels"] == 3


def test_a_group_that_is_its_own_reference_has_a_gap_of_exactly_0(table):
    own = table[(table["aggregate"] == "gap") & (table["group"] == table["reference"])].dropna(subset=["value"])
    assert len(own)
    assert (own["value"] == 0).all()
    assert (own.dropna(subset="low")[["low", "high"]] == 0).all(axis=None)


def test_details_add_rows_and_change_none(table):
    brief = evaluate(random_predictions(), replace(CONFIG, details=False)).frame()
    keys = ["attribute", "group", "label", "statistic", "aggregate"]
    both = brief.merge(table, on=keys, how="left", suffixes=("", "_detailed"), validate="one_to_one")
    for column in brief.columns.difference(keys):
        pd.testing.assert_series_equal(both[column], both[f"{column}_detailed"], check_names=False)
    assert len(brief) < len(table)


def test_resamples_add_intervals_and_change_no_value(table):
    without = evaluate(random_predictions(), replace(CONFIG, resamples=0)).frame()
    pd.testing.assert_frame_equal(without.drop(columns=["low", "high"]), table.drop(columns=["low", "high"]))
    assert without[["low", "high"]].isna().all(axis=None)


def test_the_seed_alone_decides_the_resamples(table):
    pd.testing.assert_frame_equal(evaluate(random_predictions(), CONFIG).frame(), table)
    other = evaluate(random_predictions(), replace(CONFIG, seed=1)).frame()
    pd.testing.assert_series_equal(other["value"], table["value"])
    assert not other["low"].equals(table["low"])


def test_more_records_of_the_same_patients_are_no_more_evidence():
    config = FairnessConfig(resamples=200, statistics=("auroc", "brier", "tpr"))
    once = random_predictions(operating_points=points_at(*[0.5] * 4))
    twice = _repeated(once)
    first, second = (evaluate(model, config).frame() for model in (once, twice))
    np.testing.assert_allclose(second[["value", "low", "high"]], first[["value", "low", "high"]], atol=1e-9)
    assert (second["records"] == 2 * first["records"]).all()
    # Taken for records of other patients, they would be.
    strangers = evaluate(replace(twice, patients=None), config).frame()
    means = (first["label"] == "macro") & (width(first) > 0)
    assert (width(strangers)[means] < width(first)[means]).all()


def _repeated(model):
    double = {
        name: getattr(model, name).repeat_interleave(2, 0)
        for name in ("probabilities", "targets", "patients", "strata")
    }
    groupings = [replace(each, codes=each.codes.repeat_interleave(2)) for each in model.groupings]
    return replace(model, groupings=groupings, **double)


@settings(deadline=None, max_examples=25)
@given(small_predictions())
def test_every_undefined_value_has_a_reason_and_a_defined_label_has_its_support(predictions):
    frame = evaluate(predictions, FairnessConfig(min_support=2, details=True, resamples=100)).frame()
    undefined = frame["value"].isna()
    assert (frame.loc[undefined, "reason"] != "").all()
    assert frame.loc[undefined, ["low", "high"]].isna().all(axis=None)
    of_labels = ~undefined & frame["positives"].notna() & (frame["attribute"] == "site")
    assert (frame.loc[of_labels, ["positives", "negatives"]] >= 2).all(axis=None)
    report = FairnessReport.from_frame(frame)
    pd.testing.assert_frame_equal(report.frame(), frame)


def test_an_excluded_group_is_listed_with_its_reason():
    predictions = random_predictions()
    predictions.targets[:, 2] = 0
    excluded = evaluate(predictions, FairnessConfig()).excluded()
    row = line(excluded, attribute="site", group="a", label="label2", statistic="auroc")
    assert row["reason"] == "0 positives, 5 needed"


def test_without_thresholds_rates_are_undefined_with_the_reason_and_the_rest_is_as_before(table):
    frame = evaluate(random_predictions(operating_points=None), CONFIG).frame()
    of_rates = frame["statistic"].isin(RATES) & (frame["aggregate"] == "value")
    assert frame.loc[of_rates, "value"].isna().all()
    assert frame.loc[of_rates, "reason"].str.startswith("no thresholds, which validation records choose").all()
    others = ~frame["statistic"].isin([*RATES, "equalized_odds", "equal_opportunity"])
    pd.testing.assert_frame_equal(frame[others], table[others])


def test_a_label_without_a_threshold_has_no_rates_and_leaves_those_of_the_others():
    points = points_at(0.5, math.nan, 0.5, 0.5)
    frame = evaluate(random_predictions(operating_points=points), FairnessConfig(details=True)).frame()
    assert overall(frame, "label1", "tpr")["reason"] == "no threshold: its validation records lacked a class"
    assert overall(frame, "macro", "tpr")["labels"] == 3
    assert overall(frame, "label1", "auroc")["value"] > 0


def test_a_decision_that_is_never_taken_has_no_precision_but_other_rates():
    frame = evaluate(
        random_predictions(operating_points=points_at(*[math.inf] * 4)), FairnessConfig(details=True)
    ).frame()
    assert overall(frame, "label0", "ppv")["reason"] == "no record is predicted positive"
    assert overall(frame, "macro", "ppv")["reason"] == "no record is predicted positive"
    assert (overall(frame, "label0", "tpr")["value"], overall(frame, "label0", "fpr")["value"]) == (0, 0)
    ratio = line(frame, attribute="site", label="label0", statistic="tpr", aggregate="ratio")
    assert math.isnan(ratio["value"])
    assert ratio["reason"] == "0 in every group"


def test_without_strata_the_stratified_auroc_is_undefined_rather_than_unadjusted():
    frame = evaluate(random_predictions(strata=None), FairnessConfig()).frame()
    of_it = (frame["statistic"] == "stratified_auroc") & (frame["aggregate"] == "value")
    assert frame.loc[of_it, "value"].isna().all()
    assert set(frame.loc[of_it, "reason"]) == {"no strata to compare within"}


def test_without_the_training_prevalence_the_long_tail_alone_is_undefined(table):
    frame = evaluate(random_predictions(label_prevalence=None), CONFIG).frame()
    for label in ("head", "medium", "tail"):
        assert overall(frame, label)["reason"] == "the training prevalence of the labels is not known"
    assert math.isnan(overall(frame, "macro", aggregate=COMMON_RARE_GAP)["value"])
    assert overall(frame, "macro")["value"] == overall(table, "macro")["value"]


def test_without_groupings_all_records_are_measured():
    report = evaluate(random_predictions(attributes=()), CONFIG)
    assert report.attributes == ()
    assert set(report.frame()["attribute"]) == {"overall"}
    assert list(report.scalars("val")) == [f"val/auroc/{name}" for name in (*SUMMARIES, COMMON_RARE_GAP)]


def test_scalars_of_statistics_that_were_not_asked_for_are_nan_under_the_same_keys():
    whole = evaluate(random_predictions(), FairnessConfig()).scalars("val")
    for statistics in (("auroc",), ("brier", "tpr")):
        some = evaluate(random_predictions(), FairnessConfig(statistics=statistics)).scalars("val")
        assert list(some) == list(whole)
        for key, value in some.items():
            asked = ("auroc" if "auroc" in key else key.rsplit("/", 1)[1].removesuffix("_gap")) in statistics
            assert value == whole[key] if asked else math.isnan(value)


def test_a_probability_that_is_nan_leaves_its_label_without_value_and_interval(table):
    predictions = random_predictions()
    predictions.probabilities[5, 1] = math.nan
    frame = evaluate(predictions, CONFIG).frame()
    of_label = frame["label"] == "label1"
    assert frame.loc[of_label, ["value", "low", "high"]].isna().all(axis=None)
    of_values = of_label & (frame["aggregate"] == "value")
    assert set(frame.loc[of_values, "reason"]) == {"the probability is NaN for 1 of 300 records"}
    others = frame["label"].isin(["label0", "label2", "label3"])
    pd.testing.assert_frame_equal(frame[others], table[others])


def test_logits_are_refused_whichever_statistics_are_asked_for():
    predictions = random_predictions()
    predictions.probabilities[0, 0] = 1.5
    for statistic in STATISTICS:
        with pytest.raises(ValueError, match="apply the sigmoid to logits"):
            evaluate(predictions, FairnessConfig(statistics=(statistic,)))


def test_targets_that_are_neither_0_nor_1_are_refused_whichever_statistics_are_asked_for():
    predictions = random_predictions(operating_points=None, strata=None)
    predictions.targets[0, 0] = 0.5
    for statistic in STATISTICS:
        with pytest.raises(ValueError, match="1 of 1200 targets are neither 0 nor 1"):
            evaluate(predictions, FairnessConfig(statistics=(statistic,)))


def test_a_column_and_an_intersection_are_groups_like_others():
    base = random_predictions(attributes=())
    wards = group_by_column("ward", ["x", "y", None] * 100)
    sites = Grouping("site", GROUPS, torch.arange(300) % 4)
    frame = evaluate(replace(base, groupings=[wards, sites]), FairnessConfig()).frame()
    members = frame[(frame["attribute"] == "ward") & (frame["label"] == "macro") & (frame["aggregate"] == "value")]
    assert dict(zip(members["group"], members["records"], strict=True)) == {"x": 100, "y": 100, "unknown": 100}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"patients": torch.zeros(3, dtype=torch.int64)}, ValueError, r"patients is torch.int64 of the shape \(3,\)"),
        ({"patients": torch.zeros(300)}, ValueError, "patients is torch.float32"),
        ({"patients": torch.arange(300) - 2}, ValueError, "patients is below -1 for 1 of 300 records"),
        ({"strata": torch.zeros(300, 1, dtype=torch.int64)}, ValueError, "strata is torch.int64 of the shape"),
        (
            {"groupings": [Grouping("site", GROUPS, torch.zeros(7, dtype=torch.int64))]},
            ValueError,
            "the group by site is torch.int64 of the shape",
        ),
        (
            {"groupings": [Grouping("overall", GROUPS, torch.zeros(300, dtype=torch.int64))]},
            ConfigurationError,
            "Attributes are named overall",
        ),
        (
            {"groupings": [Grouping("site", GROUPS, torch.zeros(300, dtype=torch.int64))] * 2},
            ConfigurationError,
            "Attributes are named site: expected names that differ",
        ),
    ],
)
def test_what_does_not_fit_the_records_is_refused_by_its_name(settings, error, message):
    with pytest.raises(error, match=message):
        random_predictions(**{"attributes": (), **settings})


def test_a_code_that_is_no_group_is_refused():
    with pytest.raises(ValueError, match="codes are no group"):
        evaluate(replace(random_predictions(), groupings=[Grouping("site", GROUPS, torch.full((300,), 4))]))


def test_an_empty_table_is_undefined_with_reasons():
    nothing = Predictions(
        torch.zeros(0, 2), torch.zeros(0, 2), names(2), [Grouping("site", GROUPS, torch.zeros(0).long())]
    )
    frame = evaluate(nothing, CONFIG).frame()
    assert frame["value"].isna().all()
    assert (frame["reason"] != "").all()


def test_a_statistic_rests_on_the_patients_it_is_made_of():
    predictions = random_predictions()
    grouping, patients = predictions.groupings[0], predictions.patients.numpy()
    weights = patient_weights(predictions.units, 100, 0)
    found = estimate(predictions, grouping, weights, STATISTICS, 1, 10)
    codes, truth = grouping.codes.numpy(), predictions.targets.numpy() == 1
    decided = predictions.probabilities.numpy() >= 0.5
    for group in range(len(GROUPS)):
        for label in range(4):
            positive, negative, predicted = (
                len(set(patients[(codes == group) & kind[:, label]])) for kind in (truth, ~truth, decided)
            )
            everybody = len(set(patients[codes == group]))
            expected = {"tpr": positive, "fnr": positive, "fpr": negative, "ppv": predicted, "brier": everybody}
            for statistic in STATISTICS:
                support = found.support(statistic)[group, label]
                assert support == expected.get(statistic, min(positive, negative))


def test_records_of_unknown_patients_are_patients_of_their_own():
    predictions = random_predictions(records=4, patients=torch.tensor([7, -1, -1, 7]))
    assert len(set(predictions.units.tolist())) == 3
    assert predictions.units[0] == predictions.units[3]
    assert len(set(replace(predictions, patients=None).units.tolist())) == 4


def test_a_mean_that_is_undefined_for_one_reason_has_that_reason():
    points = points_at(math.nan, 0.5, 0.5, 0.5)
    frame = evaluate(random_predictions(operating_points=points), FairnessConfig()).frame()
    assert overall(frame, "head", "tpr")["reason"] == "no threshold: its validation records lacked a class"
    assert overall(frame, "macro", "tpr")["reason"] == "1 of 4 labels undefined"
    assert overall(frame, "medium", "tpr")["reason"] == ""
