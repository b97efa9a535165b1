import io
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import percentileofscore

from ecgfair.anomaly.calibration import NormalCalibration
from ecgfair.ecg import FEMALE, MALE, UNKNOWN_SEX
from ecgfair.errors import ConfigurationError
from ecgfair.groups import Grouping, group_by_age, group_by_column, group_by_demographics, group_by_sex

NUMBERS = st.lists(st.sampled_from([-2.5, 0.0, 0.1, 1.0, 7.0]) | st.floats(-1e6, 1e6), min_size=1, max_size=30)


def drawn(count, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=100)
@given(NUMBERS, NUMBERS)
def test_a_percentile_is_the_mid_rank_among_the_normals(normals, scores):
    found = NormalCalibration.fit(torch.tensor(normals, dtype=torch.float64)).percentile(
        torch.tensor(scores, dtype=torch.float64)
    )
    ranks = np.array([percentileofscore(normals, score, kind="mean") for score in scores]) / 100 * len(normals)
    np.testing.assert_allclose(found, (ranks + 0.5) / (len(normals) + 1), rtol=1e-9)


@settings(deadline=None, max_examples=60)
@given(NUMBERS, NUMBERS)
def test_percentiles_rise_with_the_score_and_are_never_0_or_1(normals, scores):
    calibration = NormalCalibration.fit(torch.tensor(normals))
    found = calibration.percentile(torch.tensor([-math.inf, *sorted(scores), math.inf]))
    assert (found.diff() >= 0).all()
    assert found[0] == 0.5 / (len(normals) + 1)
    assert found[-1] == pytest.approx((len(normals) + 0.5) / (len(normals) + 1))
    assert found[-1] < 1


def test_normals_that_are_all_alike_are_in_the_middle():
    calibration = NormalCalibration.fit(torch.full((9,), 2.0))
    assert calibration.percentile(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx([0.05, 0.5, 0.95])


def test_one_in_a_hundred_new_normals_is_stranger_than_99_percent():
    # Over many calibrations: that of one has its own error.
    shares = {0.5: [], 0.9: [], 0.99: []}
    for seed in range(200):
        percentiles = NormalCalibration.fit(drawn(199, seed)).percentile(drawn(500, 1000 + seed))
        for level, found in shares.items():
            found.append(float((percentiles >= level).double().mean()))
    for level, found in shares.items():
        assert np.mean(found) == pytest.approx(1 - level, abs=4 * np.std(found) / math.sqrt(200) + 1e-9)


def test_a_record_without_a_score_has_no_percentile():
    found = NormalCalibration.fit(drawn(60)).percentile(torch.tensor([math.nan, 0.0]))
    assert found.isnan().tolist() == [True, False]


def test_the_precision_of_the_scores_does_not_matter():
    normals, scores = drawn(80).float(), drawn(80).float()
    one = NormalCalibration.fit(normals).percentile(scores)
    other = NormalCalibration.fit(normals.double()).percentile(scores.double())
    assert one.tolist() == other.tolist()


def sexes(*counts):
    return torch.tensor([FEMALE] * counts[0] + [MALE] * counts[1] + [UNKNOWN_SEX] * counts[2])


def test_a_group_with_enough_normals_is_held_against_its_own():
    scores = torch.cat([drawn(100), drawn(100, 1) + 5, drawn(100, 2)])
    groups = group_by_sex(sexes(100, 100, 100))
    calibration = NormalCalibration.fit(scores, groups, calibrated_on="fold 9", folds=[9])
    new, whose = torch.tensor([4.0, 4.0, 4.0]), group_by_sex(sexes(1, 1, 1))
    expected = [
        NormalCalibration.fit(own).percentile(torch.tensor([4.0])).item()
        for own in (scores[:100], scores[100:200], scores)
    ]
    assert calibration.percentile(new, whose).tolist() == expected
    assert calibration.normals == {"female": 100, "male": 100, "unknown": 100}
    assert calibration.fallback == {"unknown": 100}


def test_a_small_group_is_held_against_all_normals_and_said_to_be():
    scores = torch.cat([drawn(80), drawn(10, 1) + 5])
    calibration = NormalCalibration.fit(scores, group_by_sex(sexes(80, 10, 0)))
    assert calibration.fallback == {"male": 10, "unknown": 0}
    new = drawn(7, 3)
    together = calibration.ungrouped().percentile(new)
    assert calibration.percentile(new, group_by_sex(sexes(0, 7, 0))).tolist() == together.tolist()
    assert calibration.percentile(new, group_by_sex(sexes(7, 0, 0))).tolist() != together.tolist()
    allowed = NormalCalibration.fit(scores, group_by_sex(sexes(80, 10, 0)), min_normals=10)
    assert allowed.fallback == {"unknown": 0}


def test_the_groups_may_stand_in_any_order_of_records():
    scores, sex, age = drawn(300), torch.arange(300) % 2, torch.arange(300) % 90.0
    groups = group_by_demographics("sex_x_age", age, sex)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(5))
    mixed = Grouping(groups.attribute, groups.names, groups.codes[order])
    one, other = NormalCalibration.fit(scores, groups, 20), NormalCalibration.fit(scores[order], mixed, 20)
    assert one == other
    assert one.percentile(scores, groups)[order].tolist() == one.percentile(scores[order], mixed).tolist()
    assert set(one.fallback) < set(groups.names)


def test_a_value_of_a_column_that_no_normal_has_is_held_against_all_normals():
    calibration = NormalCalibration.fit(drawn(120), group_by_column("site", ["a", "b"] * 60))
    new = group_by_column("site", ["b", "c", None])
    found = calibration.percentile(torch.zeros(3), new)
    assert found[1:].tolist() == calibration.ungrouped().percentile(torch.zeros(2)).tolist()
    assert found[0] != found[1]


def test_groups_that_are_not_those_of_the_calibration_are_refused():
    age = torch.linspace(20, 90, 100)
    by_age = NormalCalibration.fit(drawn(100), group_by_age(age))
    with pytest.raises(ConfigurationError, match="is by age and the groups of the records by no attribute"):
        by_age.percentile(drawn(100))
    with pytest.raises(ConfigurationError, match="by no attribute and the groups of the records by age"):
        by_age.ungrouped().percentile(drawn(100), group_by_age(age))
    with pytest.raises(ConfigurationError, match="knows no group '<50': expected groups with the same edges"):
        by_age.percentile(drawn(100), group_by_age(age, (50, 70)))
    with pytest.raises(ValueError, match="3 scores and groups of 100 records"):
        by_age.percentile(drawn(3), group_by_age(age))


@settings(deadline=None, max_examples=40)
@given(NUMBERS, st.booleans())
def test_it_is_the_same_after_json_and_after_a_checkpoint(numbers, grouped):
    scores = torch.tensor(numbers)
    groups = group_by_sex(torch.arange(len(numbers)) % 2) if grouped else None
    calibration = NormalCalibration.fit(scores, groups, 3, calibrated_on="fold 9, epoch 3", folds=[9])
    file = io.BytesIO()
    torch.save(calibration.to_dict(), file)
    file.seek(0)
    for plain in (json.loads(json.dumps(calibration.to_dict())), torch.load(file, weights_only=True)):
        again = NormalCalibration.from_dict(plain)
        assert again == calibration
        assert again.percentile(scores, groups).tolist() == calibration.percentile(scores, groups).tolist()


def test_the_folds_of_the_test_are_refused():
    calibration = NormalCalibration.fit(drawn(60), calibrated_on="fold 9, epoch 3", folds=[9, 10])
    calibration.require_disjoint([8])
    with pytest.raises(ConfigurationError, match=r"on fold 9, epoch 3, with the test folds \[10\] among them"):
        calibration.require_disjoint([10])
    with pytest.raises(ConfigurationError, match="unknown folds"):
        NormalCalibration.fit(drawn(60)).require_disjoint([10])


def test_folds_of_other_data_are_not_those_of_the_calibration():
    calibration = NormalCalibration.fit(drawn(60), calibrated_on="fold 9", folds=[9], data=["home"])
    calibration.require_disjoint([9], ["elsewhere"])
    for same in (["home", "elsewhere"], []):
        with pytest.raises(ConfigurationError, match=r"with the test folds \[9\] among them"):
            calibration.require_disjoint([9], same)
    earlier = {name: value for name, value in calibration.to_dict().items() if name != "data"}
    with pytest.raises(ConfigurationError, match=r"with the test folds \[9\] among them"):
        NormalCalibration.from_dict(earlier).require_disjoint([9], ["elsewhere"])


def test_scores_that_are_not_finite_or_no_scores_are_refused():
    with pytest.raises(ValueError, match="2 of 3 normals are NaN or infinite"):
        NormalCalibration.fit(torch.tensor([0.0, math.nan, math.inf]))
    with pytest.raises(ConfigurationError, match="no normal record to calibrate on in fold 9"):
        NormalCalibration.fit(torch.zeros(0), calibrated_on="fold 9")
    with pytest.raises(ValueError, match="expected one number a record"):
        NormalCalibration.fit(torch.zeros(3, 1))
    with pytest.raises(ConfigurationError, match="min_normals is 0"):
        NormalCalibration.fit(drawn(3), min_normals=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [2.0, 1.0, 3.0]}, "do not rise"),
        ({"scores": [1.0, 2.0, math.inf]}, "not finite"),
        ({"scores": [1.0, None, 3.0]}, "can't be read"),
        ({"codes": [0, 1]}, "group of 2 of 3 normals"),
        ({"codes": [0, 1, 3]}, "codes from 0 to 2"),
        ({"attribute": ""}, "by no attribute has 3 groups"),
        ({"level": 0.9}, "unknown level"),
        ({"min_normals": "many"}, "can't be read"),
    ],
)
def test_a_damaged_calibration_is_refused(change, message):
    plain = NormalCalibration.fit(drawn(3), group_by_sex(sexes(2, 1, 0))).to_dict()
    with pytest.raises(ConfigurationError, match=message):
        NormalCalibration.from_dict(plain | change)
    with pytest.raises(ConfigurationError, match="lacks scores"):
        NormalCalibration.from_dict({name: value for name, value in plain.items() if name != "scores"})
