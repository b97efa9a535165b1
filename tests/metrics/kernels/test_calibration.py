import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import foldnorm
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels import calibration
from ecgfair.metrics.kernels.calibration import brier_scores, calibration_errors, equal_mass_bins, folded_normal_mean


@st.composite
def problems(draw):
    """Few records and fewer distinct probabilities, so that ties, empty groups and absent classes are common."""
    records, labels, groups = draw(st.integers(0, 14)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    distinct = draw(st.sampled_from([1, 2, 5, 1000]))

    def matrix(rows, columns, element):
        return np.array([[draw(element) for _ in range(columns)] for _ in range(rows)]).reshape(rows, columns)

    probabilities = matrix(records, labels, st.integers(0, distinct)) / distinct
    targets = matrix(records, labels, st.integers(0, 1))
    codes = matrix(records, 1, st.integers(0, groups - 1))[:, 0].astype(np.int64)
    weights = matrix(draw(st.integers(1, 3)), records, st.sampled_from([0.0, 1.0, 0.3, 2.5]))
    return probabilities, targets, codes, groups, weights


def tensors(problem):
    return tuple(torch.from_numpy(part) if isinstance(part, np.ndarray) else part for part in problem)


def random_problem(records=300, labels=5, groups=3, resamples=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(records, labels, generator=generator, dtype=torch.float64)
    targets = (torch.rand(records, labels, generator=generator) < 0.4).long()
    codes = torch.randint(0, groups, (records,), generator=generator)
    weights = torch.empty(resamples, records, dtype=torch.float64).exponential_(generator=generator)
    weights[0] = 1
    return probabilities, targets, codes, groups, weights


def bins_by_hand(probabilities, bins):
    """One label in one group: records of equal probability share their mean rank, and ranks fill the bins in turn."""
    found = []
    for value in probabilities:
        below, same = sum(probabilities < value), sum(probabilities == value)
        found.append((2 * below + same) * bins // (2 * len(probabilities)))
    return np.array(found, dtype=int)


def errors_by_hand(problem, bins):
    """One label, group and resample after the other, from the definition."""
    probabilities, targets, codes, groups, weights = problem
    plain = np.full((len(weights), groups, probabilities.shape[1]), np.nan)
    corrected = plain.copy()
    for row, group, label in np.ndindex(plain.shape):
        members = codes == group
        p, y, w = probabilities[members, label], targets[members, label], weights[row, members]
        if not w.sum():
            continue
        plain[row, group, label] = corrected[row, group, label] = 0
        within = bins_by_hand(p, bins)
        for one in set(within):
            inside = within == one
            if not (total := w[inside].sum()):
                continue
            distance = abs((w * (p - y))[inside].sum() / total)
            spread = np.sqrt((w**2 * p * (1 - p))[inside].sum()) / total
            expected = foldnorm.mean(distance / spread, scale=spread) if spread else distance
            plain[row, group, label] += total / w.sum() * distance
            corrected[row, group, label] += total / w.sum() * (2 * distance - expected)
    return plain, np.maximum(corrected, 0)


@settings(deadline=None, max_examples=150)
@given(problems(), st.integers(1, 12))
def test_calibration_errors_equal_their_definition_for_each_label_group_and_resample(problem, bins):
    found = calibration_errors(*tensors(problem), bins)
    for ours, theirs in zip(found, errors_by_hand(problem, bins), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@settings(deadline=None, max_examples=100)
@given(problems())
def test_the_brier_score_equals_scikit_learn_for_each_label_group_and_resample(problem):
    probabilities, targets, codes, _, weights = problem
    found = brier_scores(*tensors(problem))
    for row, group, label in np.ndindex(tuple(found.shape)):
        members = (codes == group) & (weights[row] > 0)
        if not members.any():
            assert found[row, group, label].isnan()
            continue
        theirs = brier_score_loss(
            targets[members, label], probabilities[members, label], sample_weight=weights[row, members], pos_label=1
        )
        assert found[row, group, label].item() == pytest.approx(theirs, abs=1e-12)


def test_bins_of_distinct_probabilities_hold_equal_numbers_within_each_group_and_label():
    probabilities, _, codes, groups, _ = random_problem()
    order, found = equal_mass_bins(probabilities, codes, groups, 10)
    for label, group in np.ndindex(probabilities.shape[1], groups):
        inside = codes[order[label]] == group
        sizes = torch.bincount(found[label, inside], minlength=10)
        assert sizes.max() - sizes.min() <= 1
        values = probabilities[order[label, inside], label]
        assert (values.diff() > 0).all()
        assert (found[label, inside].diff() >= 0).all()


def test_equal_probabilities_are_never_in_two_bins():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randint(0, 7, (200, 4), generator=generator).double() / 7
    order, found = equal_mass_bins(probabilities, torch.zeros(200, dtype=torch.int64), 1, 10)
    for label in range(4):
        pairs = torch.stack([probabilities[order[label], label], found[label].double()]).unique(dim=1)
        assert pairs.shape[1] == 7


def test_with_equal_bins_the_error_equals_torchmetrics():
    # Probabilities spread evenly: bins of equal mass are bins of equal width.
    probabilities = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    targets = (torch.rand(1000, generator=torch.Generator().manual_seed(3)) < 0.5).long()
    theirs = binary_calibration_error(probabilities, targets, n_bins=10, norm="l1")
    found, _ = calibration_errors(
        probabilities[:, None], targets[:, None], torch.zeros(1000, dtype=torch.int64), 1, torch.ones(1, 1000)
    )
    assert found.item() == pytest.approx(theirs.item(), abs=1e-6)


def test_constant_probabilities_are_one_bin_whose_error_is_the_distance_from_the_prevalence():
    targets = torch.tensor([[1], [0], [0], [0]])
    found, _ = calibration_errors(
        torch.full((4, 1), 0.6), targets, torch.zeros(4, dtype=torch.int64), 1, torch.ones(1, 4)
    )
    assert found.item() == pytest.approx(0.35)


def test_bins_stay_those_of_the_unweighted_records_in_a_resample():
    probabilities, targets, codes, groups, weights = random_problem()
    # Half of the bins are empty then; cut anew, ten would be filled.
    lopsided = weights[:1].clone()
    lopsided[:, probabilities[:, 0] < 0.5] = 0
    by_hand = errors_by_hand((probabilities.numpy(), targets.numpy(), codes.numpy(), groups, lopsided.numpy()), 10)
    np.testing.assert_allclose(calibration_errors(probabilities, targets, codes, groups, lopsided)[0], by_hand[0])


@pytest.mark.parametrize(("records", "prevalence", "remains"), [(50, 0.02, 0.6), (50, 0.3, 0.7), (200, 0.02, 0.7)])
def test_of_a_small_calibrated_group_the_corrected_error_is_much_nearer_to_0(records, prevalence, remains):
    generator = torch.Generator().manual_seed(5)
    probabilities = (prevalence * 2 * torch.rand(records, 300, generator=generator, dtype=torch.float64)).clamp(0, 1)
    targets = (torch.rand(records, 300, generator=generator, dtype=torch.float64) < probabilities).long()
    plain, corrected = calibration_errors(
        probabilities, targets, torch.zeros(records, dtype=torch.int64), 1, torch.ones(1, records)
    )
    assert plain.mean() > prevalence / 4
    assert corrected.mean() < remains * plain.mean()


def test_of_many_records_the_corrected_error_agrees_with_the_plain_one_and_both_with_the_truth():
    generator = torch.Generator().manual_seed(6)
    truth = 0.1 + 0.6 * torch.rand(100_000, 1, generator=generator, dtype=torch.float64)
    targets = (torch.rand(100_000, 1, generator=generator, dtype=torch.float64) < truth).long()
    codes, weights = torch.zeros(100_000, dtype=torch.int64), torch.ones(1, 100_000)
    plain, corrected = calibration_errors(truth + 0.1, targets, codes, 1, weights)
    assert plain.item() == pytest.approx(0.1, abs=0.005)
    assert corrected.item() == pytest.approx(plain.item(), abs=1e-4)


def test_resamples_of_the_corrected_error_lie_around_its_value_on_the_records_and_those_of_the_plain_one_above():
    generator = torch.Generator().manual_seed(7)
    probabilities = torch.rand(200, 40, generator=generator, dtype=torch.float64)
    targets = (torch.rand(200, 40, generator=generator, dtype=torch.float64) < probabilities - 0.1).long()
    weights = torch.empty(301, 200, dtype=torch.float64).exponential_(generator=generator)
    weights[0] = 1
    plain, corrected = calibration_errors(probabilities, targets, torch.zeros(200, dtype=torch.int64), 1, weights)
    moved = [(values[1:].mean() - values[0].mean()).item() for values in (plain, corrected)]
    assert moved[0] > 0.01
    assert abs(moved[1]) < moved[0] / 2


def test_the_mean_of_a_folded_normal_equals_scipy_and_is_the_distance_without_deviation():
    mean = torch.tensor([0.0, 0.01, 0.3, 2.0, 0.0, 0.7, 5.0], dtype=torch.float64)
    deviation = torch.tensor([1.0, 0.2, 0.3, 0.01, 0.0, 0.0, 1e-200], dtype=torch.float64)
    found = folded_normal_mean(mean, deviation)
    np.testing.assert_allclose(found[:4], foldnorm.mean(mean[:4] / deviation[:4], scale=deviation[:4]), rtol=1e-12)
    assert found[4:].tolist() == [0.0, 0.7, 5.0]


def test_taking_a_few_labels_at_a_time_gives_the_same_bits(monkeypatch):
    problem = random_problem()
    at_once = calibration_errors(*problem)
    monkeypatch.setattr(calibration, "_WORKING_ELEMENTS", 1)
    for alone, together in zip(calibration_errors(*problem), at_once, strict=True):
        assert torch.equal(alone, together)


def test_a_group_without_records_or_weight_is_undefined_and_no_other():
    probabilities, targets, codes, _, weights = random_problem(groups=2)
    weights[1, codes == 0] = 0
    for found in (
        brier_scores(probabilities, targets, codes, 3, weights),
        *calibration_errors(probabilities, targets, codes, 3, weights),
    ):
        assert found[:, 2].isnan().all()
        assert found[1, 0].isnan().all()
        assert not found[2:, :2].isnan().any()
        assert not found[1, 1].isnan().any()


@pytest.mark.parametrize("shape", [(0, 2), (4, 0)])
def test_without_records_or_labels_tables_have_their_shape(shape):
    problem = (
        torch.zeros(shape),
        torch.zeros(shape),
        torch.zeros(shape[0], dtype=torch.int64),
        3,
        torch.ones(2, shape[0]),
    )
    for found in (brier_scores(*problem), *calibration_errors(*problem)):
        assert found.shape == (2, 3, shape[1])
        assert found.isnan().all()


def test_single_precision_on_any_weights_gives_double_results_that_carry_no_gradient():
    probabilities, targets, codes, groups, weights = random_problem()
    single = probabilities.float().requires_grad_()
    found = calibration_errors(single, targets.bool(), codes, groups, weights.float())[0]
    assert found.dtype == torch.float64
    assert not found.requires_grad
    torch.testing.assert_close(found, calibration_errors(*random_problem())[0], atol=1e-6, rtol=0)


def test_no_bins_are_refused():
    with pytest.raises(ConfigurationError, match="bins is 0: expected 1 or more"):
        calibration_errors(*random_problem(), 0)
