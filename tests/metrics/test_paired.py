import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ecgfair.errors import ConfigurationError
from ecgfair.groups import Grouping
from ecgfair.metrics.fairness import FairnessConfig, evaluate, evaluation_blocks
from ecgfair.metrics.fairness_report import COMMON_RARE_GAP
from ecgfair.metrics.paired import COLUMNS, GAP_REDUCTION, compare
from ecgfair.metrics.predictions import Predictions
from ecgfair.metrics.statistics import WITHOUT_INTERVALS
from tests.metrics.cases import GROUPS, names, points_at, random_predictions

CONFIG = FairnessConfig(details=True, resamples=100)
POINTS = FairnessConfig(details=True)
OF_MEANS = {"attribute": "overall", "statistic": "auroc", "aggregate": "value"}


def line(frame, **wanted):
    rows = frame[np.logical_and.reduce([frame[name] == value for name, value in wanted.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


def a_little_other(model, seed=5, size=0.3):
    """The same records judged by a model whose scores resemble the first one's."""
    generator = torch.Generator().manual_seed(seed)
    noise = size * torch.randn(model.probabilities.shape, generator=generator)
    return replace(model, probabilities=torch.sigmoid(torch.logit(model.probabilities) + noise))


def with_aurocs(*tenths, prevalence=(0.2, 0.001)):
    """Ten positives and one negative of each label, of which so many positives score higher."""
    probabilities = torch.tensor(
        [[(step + 0.5) / 10] * len(tenths) for step in range(10)] + [[1 - won / 10 for won in tenths]]
    )
    targets = torch.ones(11, len(tenths))
    targets[10] = 0
    return Predictions(probabilities, targets, names(len(tenths)), label_prevalence=prevalence)


def test_a_model_does_not_differ_from_itself():
    model = random_predictions()
    found = compare(model, model, CONFIG)
    defined = found["value"].notna() & (found["aggregate"] != GAP_REDUCTION)
    assert defined.sum() > 500
    np.testing.assert_allclose(found.loc[defined, "value"], 0, atol=1e-12)
    resampled = defined & ~found["statistic"].isin(WITHOUT_INTERVALS)
    np.testing.assert_allclose(found.loc[resampled, ["low", "high"]], 0, atol=1e-12)
    pd.testing.assert_series_equal(found["first"], found["second"], check_names=False)


def test_the_lines_are_those_of_the_two_reports_but_for_extremes():
    first, second = random_predictions(), a_little_other(random_predictions())
    found = compare(first, second, POINTS)
    assert tuple(found.columns) == COLUMNS
    keys = ["attribute", "group", "label", "statistic", "aggregate"]
    for model, column in ((first, "first"), (second, "second")):
        both = found[found["aggregate"] != GAP_REDUCTION].merge(
            evaluate(model, POINTS).frame(), on=keys, how="left", suffixes=("", "_reported"), validate="one_to_one"
        )
        np.testing.assert_array_equal(both[column], both["value_reported"])
        assert (both["labels"] == both["labels_reported"]).all()
    np.testing.assert_allclose(found["value"].iloc[:-1], (found["second"] - found["first"]).iloc[:-1])
    assert not set(found["aggregate"]) & {"spread", "worst", "difference", "ratio", "group_min", "group_max"}


def test_an_interval_holds_its_difference_and_exists_wherever_the_difference_does():
    found = compare(random_predictions(), a_little_other(random_predictions()), CONFIG).iloc[:-1]
    assert found.loc[found["statistic"].isin(WITHOUT_INTERVALS), ["low", "high"]].isna().all(axis=None)
    found = found[~found["statistic"].isin(WITHOUT_INTERVALS)]
    defined = found["value"].notna()
    assert (found.loc[defined, "low"] <= found.loc[defined, "value"] + 1e-12).all()
    assert (found.loc[defined, "value"] <= found.loc[defined, "high"] + 1e-12).all()
    assert found.loc[~defined, ["low", "high"]].isna().all(axis=None)
    assert (found.loc[~defined, "reason"] != "").all()
    assert compare(random_predictions(), a_little_other(random_predictions()), POINTS)["low"].isna().all()


def test_models_that_err_on_the_same_records_are_told_apart_more_surely_than_their_own_intervals_say():
    first = random_predictions(records=600)
    second = a_little_other(first)
    paired = line(compare(first, second, CONFIG), **OF_MEANS, label="macro")
    alone = [next(evaluate(model, CONFIG).select("overall", "auroc", label="macro")) for model in (first, second)]
    unpaired = math.hypot(*(row.high - row.low for row in alone))
    assert paired["high"] - paired["low"] < 0.4 * unpaired
    strangers = line(
        compare(first, random_predictions(records=600, seed=0, skill=0.7), CONFIG), **OF_MEANS, label="macro"
    )
    assert strangers["low"] < strangers["value"] < strangers["high"]


def test_the_last_line_is_the_gap_reduction():
    first, second = with_aurocs(9, 4), with_aurocs(9, 7)
    last = compare(first, second, POINTS).iloc[-1]
    assert last["aggregate"] == GAP_REDUCTION
    assert (last["first"], last["second"]) == (pytest.approx(0.5), pytest.approx(0.2))
    assert last["value"] == pytest.approx(1 - 0.2 / 0.5)
    assert last["labels"] == 2


def test_at_both_ends_of_its_interval_the_gap_reduction_is_just_as_unlikely():
    models = _long_tailed(tail=0.2), _long_tailed(tail=1.0)
    config = FairnessConfig(statistics=("auroc",), resamples=400)
    last = compare(*models, config).iloc[-1]
    assert last["low"] < last["value"] < last["high"]
    before, after = (
        block.reported[:, 0].numpy()
        for model in models
        for block in evaluation_blocks(model, config)
        if block.rows[0].aggregate == COMMON_RARE_GAP
    )

    def distance(reduction):
        """How many standard errors the second gap is off what this reduction makes of the first."""
        rest = after - (1 - reduction) * before
        return abs(rest[0]) / rest[1:].std(ddof=1)

    assert distance(last["low"]) == pytest.approx(distance(last["high"]), rel=1e-6)
    assert 1.96 < distance(last["low"]) < 2.1  # about 60 patients have a rare label: a little more than for many
    assert distance(last["value"]) < 1e-9


def test_the_gap_reduction_of_a_model_to_itself_is_0_with_no_width():
    model = _long_tailed(tail=0.2)
    last = compare(model, model, FairnessConfig(statistics=("auroc",), resamples=200)).iloc[-1]
    np.testing.assert_allclose([last["value"], last["low"], last["high"]], 0, atol=1e-6)


def _long_tailed(tail, seed=0):
    """Two head labels that are found well, and two tail labels."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(600, 4, generator=generator) < torch.tensor([0.4, 0.4, 0.1, 0.1])).float()
    noise = torch.randn(600, 4, generator=generator)
    scores = torch.sigmoid(noise + targets * torch.tensor([2.0, 2.0, tail, tail]))
    return Predictions(scores, targets, names(4), label_prevalence=[0.4, 0.4, 0.001, 0.001])


@pytest.mark.parametrize("first", [with_aurocs(4, 9), with_aurocs(5, 5)])
def test_nothing_is_reduced_where_the_first_has_no_gap(first):
    last = compare(first, with_aurocs(9, 7), POINTS).iloc[-1]
    assert math.isnan(last["value"])
    assert "is not above 0 beyond chance" in last["reason"]


def test_a_gap_that_could_be_chance_has_no_reduction():
    # One negative record: nothing can be said of either label.
    last = compare(with_aurocs(9, 7), with_aurocs(9, 8), CONFIG).iloc[-1]
    assert last[["value", "low", "high"]].isna().all()
    assert last["reason"] == "the gap of the first, 0.200, is not above 0 beyond chance"


def test_what_moves_common_and_rare_labels_alike_does_not_widen_the_change_of_their_gap():
    models = _long_tailed(tail=0.2), a_little_other(_long_tailed(tail=0.2))
    twins = []
    for model in models:  # the rare label is judged like the common one, record by record
        columns = torch.tensor([0, 1, 0, 1])
        twins.append(replace(model, probabilities=model.probabilities[:, columns], targets=model.targets[:, columns]))
    found = compare(*twins, FairnessConfig(statistics=("auroc",), resamples=200))
    gap, tail = line(found, aggregate=COMMON_RARE_GAP), line(found, **OF_MEANS, label="tail")
    assert gap["value"] == pytest.approx(0)
    assert gap["high"] - gap["low"] < 0.2 * (tail["high"] - tail["low"])


def test_without_auroc_there_is_no_gap_reduction():
    found = compare(random_predictions(), random_predictions(), FairnessConfig(statistics=("brier",)))
    assert GAP_REDUCTION not in set(found["aggregate"])
    assert set(found["statistic"]) == {"brier"}


def test_without_the_training_prevalence_the_gap_reduction_is_undefined_with_the_reason():
    model = random_predictions(label_prevalence=None)
    last = compare(model, model, CONFIG).iloc[-1]
    assert math.isnan(last["value"])
    assert last["reason"] == "the training prevalence of the labels is not known"


def test_the_long_tail_is_that_of_the_first_models_training():
    first = with_aurocs(9, 4)
    second = replace(with_aurocs(9, 7), label_prevalence=(0.001, 0.2))
    assert compare(first, second, POINTS).iloc[-1]["second"] == pytest.approx(0.2)
    unknown = replace(first, label_prevalence=None)
    assert compare(unknown, first, POINTS).iloc[-1]["first"] == pytest.approx(0.5)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_label_on_which_one_model_failed_is_left_out_of_both(failing):
    models = [random_predictions(), a_little_other(random_predictions())]
    without = [
        replace(model, probabilities=model.probabilities.index_fill(1, torch.tensor([1]), math.nan)) for model in models
    ]
    models[failing] = replace(models[failing], probabilities=models[failing].probabilities.clone())
    models[failing].probabilities[7, 1] = math.nan
    found, expected = compare(*models, CONFIG), compare(*without, CONFIG)
    numbers = ["first", "second", "value", "low", "high", "labels"]
    pd.testing.assert_frame_equal(found[numbers], expected[numbers])
    named = "first" if failing == 0 else "second"
    reason = line(found, **OF_MEANS, label="label1")["reason"]
    assert reason == "the probability is NaN for 1 of 300 records" if failing == 0 else named in reason


def test_precision_is_averaged_over_the_labels_in_which_both_models_call_a_record_positive():
    first = random_predictions(operating_points=points_at(0.5, 0.5, 0.5, 0.5))
    second = replace(first, operating_points=points_at(0.5, math.inf, math.nan, 0.5))
    found = compare(first, second, CONFIG)
    macro = line(found, attribute="overall", statistic="ppv", aggregate="value", label="macro")
    assert macro["labels"] == 2
    np.testing.assert_allclose(macro[["value", "low", "high"]].astype(float), 0, atol=1e-12)
    reasons = [
        line(found, attribute="overall", statistic="ppv", aggregate="value", label=f"label{position}")["reason"]
        for position in (1, 2)
    ]
    assert reasons == [
        "in the second model: no record is predicted positive",
        "in the second model: no threshold: its validation records lacked a class",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_names": ["label0", "label1", "label2", "x"]}, r"differ in their labels \(label3, x\)"),
        ({"label_names": names(4)[::-1]}, "differ in their labels, in their order"),
        ({"patients": torch.arange(300)}, "The patients differ between the models"),
        ({"groupings": [Grouping("site", GROUPS, torch.zeros(300, dtype=torch.int64))]}, "The groups differ"),
        ({"groupings": []}, "The groups differ"),
    ],
)
def test_models_on_other_records_are_not_compared(changes, message):
    first = random_predictions(operating_points=None)
    with pytest.raises(ConfigurationError, match=message):
        compare(first, replace(first, **changes), CONFIG)


def test_models_on_other_or_fewer_records_are_refused_by_their_number():
    first = random_predictions(operating_points=None)
    with pytest.raises(ConfigurationError, match="have 300 and 200 records"):
        compare(first, random_predictions(records=200, operating_points=None), CONFIG)
    flipped = first.targets.clone()
    flipped[[3, 8], 0] = 1 - flipped[[3, 8], 0]
    with pytest.raises(ConfigurationError, match="targets of 2 of 300 records differ"):
        compare(first, replace(first, targets=flipped), CONFIG)
