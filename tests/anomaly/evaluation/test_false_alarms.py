import math

import pytest
import torch
from fairlearn.metrics import MetricFrame, false_positive_rate
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.anomaly.calibration import NormalCalibration
from ecgfair.anomaly.evaluation.false_alarms import compare_calibrations, false_positive_rates
from ecgfair.errors import ConfigurationError
from ecgfair.groups import group_by_age, group_by_column, group_by_sex


def population(count, seed):
    """Normals whose scores rise with age, and no other difference between them."""
    generator = torch.Generator().manual_seed(seed)
    age = 20 + 75 * torch.rand(count, generator=generator)
    return age / 40 + 0.5 * torch.randn(count, generator=generator), age


def test_calibration_by_group_makes_false_positives_alike_where_scores_differ_between_groups():
    scores, age = population(4000, 0)
    calibration = NormalCalibration.fit(scores, group_by_age(age))
    scores, age = population(4000, 1)
    overall, *rows, unknown = compare_calibrations(
        calibration, scores, group_by_age(age), level=0.9, patients=torch.arange(4000), resamples=200
    )
    assert overall.before == pytest.approx(0.1, abs=0.02)
    assert overall.after == pytest.approx(0.1, abs=0.02)
    assert (overall.attribute, overall.group, overall.normals) == ("overall", "all", 4000)
    assert [row.group for row in rows] == ["<40", "40-64", "65-79", "80+"]
    assert rows[0].before < 0.01
    assert rows[3].before > 0.3
    for row in rows:
        assert row.own
        assert row.reason == ""
        assert row.after_low < 0.1 < row.after_high
        assert row.after == pytest.approx(0.1, abs=0.03)
        assert row.change == pytest.approx(row.after - row.before)
        assert row.change_low <= row.change <= row.change_high
    assert rows[3].change_high < 0 < rows[0].change_low
    assert (unknown.normals, unknown.reason) == (0, "no normal record")
    assert math.isnan(unknown.before)


def test_a_group_without_percentiles_of_its_own_does_not_change_and_says_why():
    scores, _ = population(300, 0)
    sex = (torch.arange(300) < 30).long()
    calibration = NormalCalibration.fit(scores, group_by_sex(sex))
    rows = compare_calibrations(calibration, scores + 1, group_by_sex(sex), resamples=50)
    small = next(row for row in rows if not row.own and row.normals)
    assert (small.calibrating_normals, small.reason) == (30, "30 calibrating normals, 50 needed")
    assert (small.change, small.change_low, small.change_high) == (0, 0, 0)
    assert small.before == small.after > 0


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(0, 1000), st.sampled_from([0.5, 0.9, 0.95]))
def test_rates_equal_those_of_fairlearn(count, seed, level):
    generator = torch.Generator().manual_seed(seed)
    percentile = torch.rand(count, generator=generator).mul(20).round().div(21) + 0.01
    names = [["a", "b", "c"][code] for code in torch.randint(3, (count,), generator=generator).tolist()]
    overall, *rows = false_positive_rates(percentile, group_by_column("site", names), level, resamples=0)
    marked = (percentile >= level).int().tolist()
    frame = MetricFrame(
        metrics=lambda truth, found: false_positive_rate(truth, found, pos_label=1),
        y_true=[0] * count,
        y_pred=marked,
        sensitive_features=names,
    )
    assert overall.rate == pytest.approx(frame.overall)
    for row in rows[:-1]:
        assert row.rate == pytest.approx(frame.by_group[row.group])
        assert row.false_positives == round(row.rate * row.normals)
    assert sum(row.normals for row in rows) == overall.normals == count
    assert all(math.isnan(row.low) and math.isnan(row.high) for row in rows)


def test_intervals_rest_on_patients_and_not_on_records():
    percentile, sex = (torch.arange(200) % 10) / 10 + 0.05, torch.zeros(200, dtype=torch.int64)
    groups = group_by_sex(sex)
    alone = false_positive_rates(percentile, groups, 0.9, patients=torch.arange(200))[0]
    shared = false_positive_rates(percentile, groups, 0.9, patients=torch.arange(200) % 20)[0]
    unknown = false_positive_rates(percentile, groups, 0.9, patients=torch.full((200,), -1))[0]
    assert alone.rate == shared.rate == unknown.rate == pytest.approx(0.1)
    assert (alone.patients, shared.patients, unknown.patients) == (200, 20, 200)
    assert shared.high - shared.low > 2 * (alone.high - alone.low)
    assert unknown.high - unknown.low == pytest.approx(alone.high - alone.low, rel=0.2)
    assert alone.low == pytest.approx(0.0656, abs=0.006)  # of Wilson's interval for 20 of 200
    assert alone.high == pytest.approx(0.1494, abs=0.006)


def test_a_group_without_a_false_positive_still_has_its_doubt():
    row = false_positive_rates(torch.full((30,), 0.5), group_by_sex(torch.zeros(30, dtype=torch.int64)))[0]
    assert (row.rate, row.low) == (0, 0)
    assert 0.05 < row.high < 0.2


def test_a_record_that_just_reaches_the_level_is_called_strange():
    row = false_positive_rates(torch.tensor([0.25, 0.5, 0.75]), group_by_sex(torch.zeros(3, dtype=torch.int64)), 0.5)[0]
    assert (row.false_positives, row.rate) == (2, pytest.approx(2 / 3))


def test_what_can_not_be_measured_is_refused():
    groups = group_by_sex(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ConfigurationError, match="level is 1"):
        false_positive_rates(torch.zeros(2), groups, 1)
    with pytest.raises(ValueError, match="1 of 2 percentiles are NaN"):
        false_positive_rates(torch.tensor([0.5, math.nan]), groups)
    with pytest.raises(ConfigurationError, match="by no attribute and the groups of the records by sex"):
        compare_calibrations(NormalCalibration.fit(torch.zeros(2)), torch.zeros(2), groups)
