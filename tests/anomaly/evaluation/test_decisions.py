import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from ecgfair.anomaly.evaluation.decisions import (
    as_probabilities,
    best_f1_threshold,
    check_score,
    choose_thresholds,
    f1_at,
    sensitivity_at_specificity,
    specificity_threshold,
)
from ecgfair.errors import ConfigurationError
from tests.anomaly.anomaly_cases import scored

FREE = settings(deadline=None)  # other work on the machine is no failure


def ones(score):
    return torch.ones(1, len(score), dtype=torch.float64)


def brute_sensitivity(score, abnormal, level, weight):
    """The best of all thresholds, one after the other; none at all finds nothing."""
    best = 0.0
    for threshold in score.tolist():
        called = score >= threshold
        normals = weight[~abnormal].sum()
        if (normals - weight[~abnormal & called].sum()) / normals >= level:
            best = max(best, float(weight[abnormal & called].sum() / weight[abnormal].sum()))
    return best


def brute_f1(abnormal, called):
    precision, recall = int((abnormal & called).sum()) / max(1, int(called.sum())), called[abnormal].double().mean()
    return float(2 * precision * recall / (precision + recall)) if precision else 0.0


@FREE
@given(scored())
def test_f1_is_the_harmonic_mean_of_precision_and_recall_at_every_threshold(case):
    score, abnormal = case
    assume(abnormal.any())
    for threshold in [*score.unique().tolist(), math.inf]:
        found = f1_at(score, abnormal, threshold, ones(score)).item()
        assert found == pytest.approx(brute_f1(abnormal, score >= threshold), abs=1e-12)


def test_f1_is_that_of_scikit_learn_with_weights_and_without():
    generator = torch.Generator().manual_seed(0)
    score, abnormal = torch.rand(50, generator=generator), torch.rand(50, generator=generator) < 0.4
    weights = torch.cat([ones(score), torch.rand(3, 50, generator=generator, dtype=torch.float64)])
    for threshold in (0.1, 0.5, 0.9, 2.0):
        expected = [f1_score(abnormal, score >= threshold, sample_weight=row) for row in weights]
        assert f1_at(score, abnormal, threshold, weights).numpy() == pytest.approx(np.array(expected), abs=1e-12)


@FREE
@given(scored())
def test_no_threshold_has_a_better_f1_than_the_best_and_no_lower_one_is_as_good(case):
    score, abnormal = case
    assume(abnormal.any() and not abnormal.all())
    best = best_f1_threshold(score, abnormal)
    found = {value: brute_f1(abnormal, score >= value) for value in score.tolist()}
    assert found[best] == pytest.approx(max(found.values()), abs=1e-12)
    assert all(found[value] < found[best] - 1e-12 for value in found if value < best)


@FREE
@given(scored(), st.sampled_from([0.5, 0.8, 0.9]), st.integers(0, 1000))
def test_sensitivity_at_a_specificity_is_the_best_of_all_thresholds_under_any_weights(case, level, seed):
    score, abnormal = case
    assume(abnormal.any() and not abnormal.all())
    random = torch.rand(2, len(score), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    weights = torch.cat([ones(score), random])
    expected = [brute_sensitivity(score, abnormal, level, row) for row in weights]
    found = sensitivity_at_specificity(score, abnormal, level, weights)
    assert found.numpy() == pytest.approx(np.array(expected), abs=1e-12)


@FREE
@given(scored(), st.sampled_from([0.5, 0.9]))
def test_the_threshold_for_a_specificity_has_it_and_no_lower_score_does(case, level):
    score, abnormal = case
    assume(abnormal.any() and not abnormal.all())
    threshold = specificity_threshold(score, abnormal, level)

    def specificity(at):
        return float((score[~abnormal] < at).double().mean())

    assert specificity(threshold) >= level
    assert all(specificity(value) < level for value in score.tolist() if value < threshold)
    found = sensitivity_at_specificity(score, abnormal, level, ones(score)).item()
    assert found == pytest.approx(float((score[abnormal] >= threshold).double().mean()))


def test_one_false_alarm_in_ten_is_allowed_at_a_specificity_of_nine_tenths_and_two_are_not():
    score = torch.tensor([10.0, 9, 8, 7, *range(-8, 0)])
    abnormal = torch.tensor([False, True, False, True] + [False] * 8)
    assert specificity_threshold(score, abnormal, 0.9) == 9
    assert sensitivity_at_specificity(score, abnormal, 0.9, ones(score)).item() == 0.5


def test_where_the_highest_score_is_that_of_too_many_normals_nothing_is_called_abnormal():
    score, abnormal = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([True, False, False, False])
    assert specificity_threshold(score, abnormal, 0.9) == math.inf
    assert sensitivity_at_specificity(score, abnormal, 0.9, ones(score)).item() == 0


def test_without_both_classes_thresholds_and_rates_are_undefined():
    score = torch.tensor([0.0, 1.0])
    for abnormal in (torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)):
        found = choose_thresholds(score, abnormal, chosen_on="fold 9")
        assert math.isnan(found.f1)
        assert math.isnan(found.specificity)
        assert sensitivity_at_specificity(score, abnormal, 0.9, ones(score)).isnan().all()
    assert f1_at(score, torch.zeros(2, dtype=torch.bool), 0.5, ones(score)).isnan().all()


def test_a_long_table_is_worked_off_in_parts_with_the_same_result(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    score, abnormal = torch.rand(40, generator=generator), torch.rand(40, generator=generator) < 0.5
    weights = torch.rand(7, 40, generator=generator, dtype=torch.float64)
    whole = sensitivity_at_specificity(score, abnormal, 0.9, weights)
    monkeypatch.setattr("ecgfair.anomaly.evaluation.decisions._CHUNK_ELEMENTS", 90)
    assert torch.equal(sensitivity_at_specificity(score, abnormal, 0.9, weights), whole)


@FREE
@given(
    st.lists(st.floats(-(2.0**90), 2.0**90, width=32), max_size=20),
    st.lists(st.floats(allow_nan=False), max_size=3),
)
def test_squeezed_scores_keep_order_ties_and_which_records_reach_a_threshold(values, thresholds):
    score = torch.tensor(values, dtype=torch.float32)
    squeezed, places = as_probabilities(score, thresholds)
    assert ((squeezed > 0) & (squeezed < 1)).all()
    wide = score.double()
    assert torch.equal(squeezed[:, None] < squeezed, wide[:, None] < wide)
    for threshold, place in zip(thresholds, places, strict=True):
        assert 0 <= place <= 1 or place == math.inf
        assert torch.equal(squeezed >= place, wide >= threshold)


def test_scores_that_are_no_numbers_are_refused_and_counted():
    abnormal = torch.tensor([True, False, False])
    with pytest.raises(ValueError, match="NaN for 2 of 3 records"):
        check_score(torch.tensor([1.0, torch.nan, torch.nan]), abnormal)
    with pytest.raises(ValueError, match="NaN for 1 and infinite for 1 of 3 records"):
        check_score(torch.tensor([torch.inf, torch.nan, 0.0]), abnormal)
    with pytest.raises(ValueError, match="expected one number and one truth value a record"):
        check_score(torch.zeros(3, 1), abnormal)
    with pytest.raises(ValueError, match=r"torch\.int64"):
        check_score(torch.zeros(3), abnormal.long())


def test_a_level_that_is_no_share_is_refused():
    with pytest.raises(ConfigurationError, match=r"level is 1\.5"):
        specificity_threshold(torch.tensor([0.0, 1.0]), torch.tensor([False, True]), 1.5)
