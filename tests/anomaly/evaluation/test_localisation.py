import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from ecgfair.anomaly.evaluation import map_samples
from ecgfair.anomaly.evaluation.localisation import best_dice, dice_at, evaluate_localisation, sample_auroc
from ecgfair.anomaly.evaluation.map_samples import MapSamples
from ecgfair.errors import ConfigurationError
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.kernels.auroc import auroc

NAN = float("nan")


@st.composite
def cases(draw):
    """Few records, leads and times, with ties, gaps, records that lack a class, or all alike."""
    records, leads, time = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 8))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    distinct = draw(st.sampled_from([1, 2, 5, 1000]))
    maps = random.integers(0, distinct, (records, leads, time)) / distinct
    truth = random.random(maps.shape) < draw(st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    recorded = random.random(maps.shape) < draw(st.sampled_from([1.0, 0.7]))
    return maps, truth, recorded


def tensors(case):
    maps, truth, recorded = (torch.from_numpy(part) for part in case)
    return maps.masked_fill(~recorded, NAN), truth, recorded


def by_scikit_learn(truth, scores):
    return roc_auc_score(truth, scores) if len(set(truth.tolist())) == 2 else math.nan


@settings(deadline=None, max_examples=80)
@given(cases())
def test_auroc_equals_scikit_learn_pooled_and_record_by_record(case):
    maps, truth, recorded = case
    found = sample_auroc(*tensors(case))
    assert found.pooled == pytest.approx(by_scikit_learn(truth[recorded], maps[recorded]), nan_ok=True)
    each = [by_scikit_learn(t[r], m[r]) for m, t, r in zip(*case, strict=True)]
    np.testing.assert_allclose(found.by_record, each, atol=1e-12)
    assert found.mean == pytest.approx(np.mean([e for e in each if e == e] or [math.nan]), nan_ok=True)
    assert found.compared.tolist() == [e == e for e in each]


@settings(deadline=None, max_examples=80)
@given(cases())
def test_the_best_dice_is_that_of_trying_every_threshold(case):
    maps, truth, _ = (part[case[2]] for part in case)
    dice, threshold = best_dice(*tensors(case))
    if not truth.any():
        assert math.isnan(dice)
        assert math.isnan(threshold)
        return
    tried = {value: f1_score(truth, maps >= value) for value in set(maps.tolist())}
    assert dice == pytest.approx(max(tried.values()))
    best = [value for value, score in tried.items() if score >= dice - 1e-12]
    assert threshold == max(best)
    assert dice_at(*tensors(case)[:2], threshold, tensors(case)[2]) == pytest.approx(dice)


def test_of_two_equally_good_thresholds_the_higher_one_is_taken():
    maps, truth = torch.tensor([[[4.0, 3.0, 2.0, 1.0]]]), torch.tensor([[[True, False, False, True]]])
    assert best_dice(maps, truth) == (pytest.approx(2 / 3), 4)
    assert dice_at(maps, truth, 1.0) == pytest.approx(2 / 3)


@settings(deadline=None, max_examples=50)
@given(cases(), st.sampled_from([-1.0, 0.0, 0.3, 0.5, 0.999, 2.0]))
def test_dice_at_a_threshold_is_that_of_scikit_learn(case, threshold):
    maps, truth, _ = (part[case[2]] for part in case)
    marked = maps >= threshold
    expected = f1_score(truth, marked) if truth.any() or marked.any() else math.nan
    assert dice_at(*tensors(case)[:2], threshold) == pytest.approx(expected, nan_ok=True)


@settings(deadline=None, max_examples=50)
@given(cases())
def test_over_time_the_strangest_lead_counts_and_any_true_lead(case):
    maps, truth, recorded = case
    known = recorded.any(1)
    strangest = np.where(recorded, maps, -np.inf).max(1)
    true = (truth & recorded).any(1)
    found = sample_auroc(*tensors(case), over="time")
    assert found.pooled == pytest.approx(by_scikit_learn(true[known], strangest[known]), nan_ok=True)


def test_a_record_pointed_at_well_on_its_own_scale_counts_fully_by_record_and_less_when_pooled():
    maps, truth = torch.zeros(2, 1, 10), torch.zeros(2, 1, 10, dtype=torch.bool)
    truth[:, 0, :5] = True
    maps[0, 0], maps[1, 0] = torch.arange(10, 0, -1.0), torch.arange(110, 100, -1.0)
    found = sample_auroc(maps, truth)
    assert found.mean == 1
    assert found.pooled == pytest.approx(0.75)  # of four pairs of records one, 0's true with 1's other, is lost


def made(records=40, seed=0, strength=1.5):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.zeros(records, 2, 60, dtype=torch.bool)
    truth[:, 1, 20:30] = True
    maps = torch.randn(truth.shape, generator=generator) + torch.randn(records, 1, 1, generator=generator)
    return maps + strength * truth, truth


def test_all_is_reported_with_intervals_that_hold_the_estimates():
    maps, truth = made()
    maps[3, 0, :] = NAN
    _, threshold = best_dice(*made(seed=1))
    found = evaluate_localisation(maps, truth, torch.arange(40) // 2, threshold=threshold, resamples=200)
    alone = sample_auroc(maps, truth)
    assert (found.auroc, found.auroc_by_record) == (alone.pooled, pytest.approx(alone.mean))
    assert (found.dice, found.threshold) == best_dice(maps, truth)
    assert found.dice_given == dice_at(maps, truth, threshold)
    assert found.dice_given <= found.dice
    for name in ("auroc", "auroc_by_record", "dice_given"):
        low, value, high = (getattr(found, name + end) for end in ("_low", "", "_high"))
        assert 0 <= low < value < high <= 1
    assert (found.records, found.records_compared, found.patients) == (40, 40, 20)
    assert (found.samples, found.samples_true, found.truth_left_out) == (40 * 120 - 60, 400, 0)
    assert found.reasons == {}


def test_the_spread_of_the_pooled_auroc_is_that_of_weighting_its_samples(monkeypatch):
    maps, truth = made(records=12)
    maps = (4 * maps).round()  # with ties
    weights = patient_weights(torch.arange(12), 30, 0)
    by_sample = weights[:, :, None, None].expand(-1, -1, 2, 60).reshape(31, -1)
    exact = auroc(maps.reshape(-1, 1), truth.reshape(-1, 1), by_sample).auroc[:, 0]
    samples = MapSamples.of(maps, truth, None, "leads_and_time")
    found = samples.resampled_auroc(float(exact[0]), weights)
    torch.testing.assert_close(found.std(), exact.std(), rtol=0.01, atol=0)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-3)
    monkeypatch.setattr(map_samples, "_BINS", 4000)  # more than there are scores: nothing is put together
    torch.testing.assert_close(samples.resampled_auroc(float(exact[0]), weights), exact)


def test_two_records_of_one_patient_are_one_piece_of_evidence():
    maps, truth = made(records=20)
    twice = maps.repeat(2, 1, 1), truth.repeat(2, 1, 1)
    once = evaluate_localisation(maps, truth, torch.arange(20), threshold=1.0, resamples=100)
    same = evaluate_localisation(*twice, torch.arange(20).repeat(2), threshold=1.0, resamples=100)
    other = evaluate_localisation(*twice, None, threshold=1.0, resamples=100)
    for name in ("auroc", "auroc_by_record", "dice_given"):
        ends = [getattr(once, f"{name}_{end}") for end in ("low", "high")]
        assert [getattr(same, f"{name}_{end}") for end in ("low", "high")] == pytest.approx(ends, abs=1e-4)
        assert getattr(other, f"{name}_high") - getattr(other, f"{name}_low") < ends[1] - ends[0]


def test_records_of_unknown_patients_are_patients_of_their_own():
    maps, truth = made(records=12)
    unknown = evaluate_localisation(maps, truth, torch.full((12,), -1), resamples=20)
    assert unknown.patients == 12
    assert unknown.auroc_high - unknown.auroc_low < 1
    assert evaluate_localisation(maps, truth, torch.full((12,), 7), resamples=20).patients == 1


def test_the_mean_over_records_leaves_out_those_without_truth_and_no_others():
    maps, truth = made(records=30, strength=0.0)
    truth[4:9] = False
    found, rest = (
        evaluate_localisation(maps[some], truth[some], torch.arange(30)[some], resamples=50)
        for some in (torch.arange(30), torch.tensor([*range(4), *range(9, 30)]))
    )
    ends = ["auroc_by_record", "auroc_by_record_low", "auroc_by_record_high"]
    assert [getattr(found, end) for end in ends] == pytest.approx([getattr(rest, end) for end in ends])
    assert found.auroc_by_record == pytest.approx(sample_auroc(maps, truth).mean)
    assert (found.records, found.records_compared) == (30, 25)
    assert found.samples > rest.samples


def test_the_order_of_the_records_does_not_matter():
    maps, truth = made()
    patients, order = torch.arange(40) % 25, torch.randperm(40, generator=torch.Generator().manual_seed(3))
    one = evaluate_localisation(maps, truth, patients, threshold=0.5, resamples=50)
    other = evaluate_localisation(maps[order], truth[order], patients[order], threshold=0.5, resamples=50)
    for each in dataclasses.fields(one)[:-1]:
        mine, theirs = getattr(one, each.name), getattr(other, each.name)
        assert mine == (pytest.approx(theirs, rel=1e-9) if isinstance(mine, float) else theirs)


def test_a_rising_transform_of_the_maps_changes_no_ranking():
    maps, truth = made()
    one, other = (evaluate_localisation(m, truth, None, resamples=0) for m in (maps.double(), maps.double().exp()))
    assert (one.auroc, one.auroc_by_record, one.dice) == (other.auroc, other.auroc_by_record, other.dice)
    assert other.threshold == pytest.approx(math.exp(one.threshold))


def test_without_truth_all_is_undefined_and_says_why():
    maps, truth = made(records=3)
    found = evaluate_localisation(maps, torch.zeros_like(truth), None, resamples=10)
    assert math.isnan(found.auroc)
    assert math.isnan(found.auroc_by_record_low)
    assert found.reasons["auroc"] == "there is no true sample"
    assert found.reasons["auroc_low"] == "there is no true sample"
    assert found.reasons["auroc_by_record_high"] == "no record has both true and other samples"
    assert found.reasons["dice_given"] == "no threshold was given"
    undefined = {
        each.name for each in dataclasses.fields(found) if getattr(found, each.name) != getattr(found, each.name)
    }
    assert set(found.reasons) == undefined


@pytest.mark.parametrize("fill", ["all", "none"])
@pytest.mark.parametrize("resamples", [0, 20])
@pytest.mark.parametrize("threshold", [None, 0.0, math.inf])
def test_whatever_is_undefined_has_a_reason_and_nothing_else_has(fill, resamples, threshold):
    maps, _ = made(records=3)
    truth = torch.full_like(maps, fill == "all", dtype=torch.bool)
    found = evaluate_localisation(maps, truth, None, threshold=threshold, resamples=resamples)
    undefined = {
        each.name for each in dataclasses.fields(found) if getattr(found, each.name) != getattr(found, each.name)
    }
    assert set(found.reasons) == undefined
    assert all(found.reasons.values())


def test_truth_where_nothing_was_recorded_is_counted():
    maps, truth = made(records=5)
    maps[2, 1, 22:26] = NAN
    found = evaluate_localisation(maps, truth, None, resamples=0)
    assert (found.samples_true, found.truth_left_out) == (46, 4)


def test_a_single_record_has_no_certainty_at_all():
    found = evaluate_localisation(*made(records=1), None, threshold=0.5, resamples=20)
    assert (found.auroc_low, found.auroc_high) == (0, 1)
    assert (found.records_compared, found.patients) == (1, 1)


def test_without_a_record_all_is_undefined():
    found = evaluate_localisation(torch.zeros(0, 2, 5), torch.zeros(0, 2, 5, dtype=torch.bool), None, resamples=5)
    assert math.isnan(found.auroc)
    assert found.records == found.samples == 0


def test_a_map_that_failed_where_there_is_a_recording_is_refused():
    maps, truth = made(records=2)
    maps[0, 0, :3] = NAN
    with pytest.raises(ValueError, match="NaN in 3 of 240 recorded samples"):
        sample_auroc(maps, truth, torch.ones_like(truth))
    assert sample_auroc(maps, truth).compared.all()


def test_what_does_not_fit_is_refused():
    maps, truth = made(records=2)
    with pytest.raises(ValueError, match="truth is torch"):
        sample_auroc(maps, truth.float())
    with pytest.raises(ValueError, match=r"expected \(2,\), one a record"):
        evaluate_localisation(maps, truth, torch.arange(3))
    with pytest.raises(ConfigurationError, match="Did you mean 'time'"):
        sample_auroc(maps, truth, over="times")
