import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.metrics.chance.intervals import Support, confidence_interval, gap_interval
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.kernels.auroc import RankedScores

SETS = 1000
ALLOWED = 3.5 * np.sqrt(0.95 * 0.05 / SETS)
"""Coverage of so many data sets is within this of 0.95 if the intervals are right, except once in about 2,000 times."""


def normal(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def resampled_means(values, resamples=4000, first_patient=0, seed=0):
    """(1 + R, ...) of values (N, ...), each record a patient."""
    weights = patient_weights(torch.arange(first_patient, first_patient + len(values)), resamples, seed)
    return torch.tensordot(weights / weights.sum(1, keepdim=True), values.double(), 1)


def many_data_sets(true_auroc, positives, negatives, seed):
    """(1 + R, SETS) AUROC of data sets whose patients have two records each; the columns share weights, not data."""
    patients = torch.arange(positives + negatives).repeat_interleave(2)
    targets = (patients < positives)[:, None].expand(-1, SETS)
    shift = np.sqrt(2) * scipy.stats.norm.ppf(true_auroc)
    of_patient = normal(positives + negatives, SETS, seed=seed)[patients]
    scores = np.sqrt(0.5) * (of_patient + normal(len(patients), SETS, seed=seed + 1)) + shift * targets
    ranked = RankedScores.of(scores, targets, torch.zeros_like(patients), 1)
    return ranked.auroc(patient_weights(patients + 1000 * seed, 200, seed))[:, 0]


def coverage(ends, truth):
    return ((ends[0] <= truth) & (truth <= ends[1])).double().mean().item()


@pytest.mark.parametrize("true_auroc", [0.75, 0.85])
def test_the_interval_of_an_auroc_of_20_positive_patients_holds_the_truth_in_95_of_100_data_sets(true_auroc):
    values = many_data_sets(true_auroc, 20, 20, seed=1)
    ends = confidence_interval(values, torch.tensor(20), bounded=True)
    assert coverage(ends, true_auroc) == pytest.approx(0.95, abs=ALLOWED)
    percentiles = torch.quantile(values[1:], torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    assert coverage(percentiles, true_auroc) < 0.95 - ALLOWED


def test_the_interval_of_a_gap_between_a_small_and_a_large_group_holds_the_truth_in_95_of_100_data_sets():
    small, large = many_data_sets(0.85, 20, 30, seed=3), many_data_sets(0.9, 40, 40, seed=5)
    ends = gap_interval(small, large, torch.tensor(20), torch.tensor(40))
    assert coverage(ends, 0.85 - 0.9) == pytest.approx(0.95, abs=ALLOWED)


def test_the_interval_of_a_mean_over_labels_holds_the_truth_in_95_of_100_data_sets():
    values = many_data_sets(0.8, 20, 40, seed=7).unflatten(1, (-1, 4)).mean(2)
    ends = confidence_interval(values, Support.of_mean(torch.full((4,), 20)), bounded=True)
    assert coverage(ends, 0.8) == pytest.approx(0.95, abs=ALLOWED * 2)  # a quarter of the data sets


def test_records_of_a_patient_counted_as_patients_hold_the_truth_too_rarely():
    patients = torch.arange(60).repeat_interleave(4)
    values = 0.5 + 0.05 * normal(60, 400, seed=9)[patients]
    ends = [
        confidence_interval(weights @ values / weights.sum(1, keepdim=True), torch.tensor(count), bounded=False)
        for weights, count in (
            (patient_weights(patients, 400, 0), 60),
            (patient_weights(torch.arange(240), 400, 0), 240),
        )
    ]
    assert coverage(ends[0], 0.5) > 0.91
    assert coverage(ends[1], 0.5) < 0.8  # half as wide as they should be


def test_a_difference_of_few_patients_has_the_interval_of_student():
    values = 0.1 + 0.1 * normal(8, seed=2)
    low, high = confidence_interval(resampled_means(values, 20_000), torch.tensor(8), bounded=False)
    expected = scipy.stats.t.interval(0.95, 7, values.mean().item(), scipy.stats.sem(values.numpy()))
    np.testing.assert_allclose((low, high), expected, atol=0.004)


def test_a_mean_of_many_patients_has_the_interval_of_scipys_bootstrap():
    values = torch.rand(300, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    # `random_state` is what `rng` was before scipy 1.15, and still is.
    chance = np.random.default_rng(0)
    expected = scipy.stats.bootstrap((values.numpy(),), np.mean, n_resamples=4000, random_state=chance)
    width = expected.confidence_interval.high - expected.confidence_interval.low
    for bounded in (True, False):
        low, high = confidence_interval(resampled_means(values), None, bounded=bounded)
        np.testing.assert_allclose((low, high), expected.confidence_interval, atol=0.06 * width)


@pytest.mark.parametrize("successes", [5, 60, 97])
def test_a_share_of_many_patients_has_the_interval_of_wilson(successes):
    values = resampled_means(torch.arange(200) < successes, 8000)
    low, high = confidence_interval(values, torch.tensor(200), bounded=True)
    expected = scipy.stats.binomtest(successes, 200).proportion_ci(method="wilson")
    width = expected.high - expected.low
    np.testing.assert_allclose((low, high), (expected.low, expected.high), atol=0.05 * width)


@pytest.mark.parametrize(("patients", "labels"), [(2, 1), (20, 1), (20, 7), (300, 1)])
def test_each_end_is_a_truth_that_a_score_test_just_rejects(patients, labels):
    values = torch.cat([torch.tensor([0.9]), 0.9 + 0.05 * normal(50, seed=4)])
    ends = confidence_interval(values, Support(torch.tensor(patients), labels), bounded=True)
    freedom = labels * (patients - 1)
    unbiased = values[1:].var().item() * (patients + 1) / (patients - 1)
    variance = (freedom * unbiased + 0.5 * 0.9 * 0.1 / (labels * patients)) / (freedom + 0.5)
    quantile = scipy.stats.t.ppf(0.975, freedom)
    for end in ends:
        at_the_end = variance * (end * (1 - end)).item() / (0.9 * 0.1)
        assert abs(end.item() - 0.9) == pytest.approx(quantile * np.sqrt(at_the_end))


@pytest.mark.parametrize("patients", [2, 5, 20, 200])
def test_a_group_without_an_error_is_as_uncertain_as_its_few_patients(patients):
    ones = torch.ones(101, 1, dtype=torch.float64)
    square = scipy.stats.t.ppf(0.975, patients - 1) ** 2
    low, high = confidence_interval(ones, torch.tensor([patients]), bounded=True)
    assert (low.item(), high.item()) == (pytest.approx(patients / (patients + square)), 1)
    low, high = confidence_interval(0 * ones, torch.tensor([patients]), bounded=True)
    assert (low.item(), high.item()) == (0, pytest.approx(square / (patients + square)))
    low, high = confidence_interval(0 * ones, torch.tensor([patients]), bounded=False)
    assert (-low.item(), high.item()) == (pytest.approx(square / (patients + square)),) * 2


@pytest.mark.parametrize("support", [torch.tensor(1), torch.tensor(0), torch.tensor(torch.nan)])
def test_fewer_than_two_patients_say_nothing(support):
    values = torch.linspace(0.4, 0.6, 11)
    assert confidence_interval(values, support, bounded=True) == (0, 1)
    assert confidence_interval(values, support, bounded=False) == (-1, 1)


def test_no_spread_and_no_support_say_nothing():
    values = torch.ones(11)
    assert confidence_interval(values, None, bounded=True) == (0, 1)
    assert confidence_interval(0 * values, None, bounded=False) == (-1, 1)


@st.composite
def cells(draw, count=3):
    """(1 + R, cells) statistics of few distinct values, so that no spread and no error are common."""
    value = st.sampled_from([0.0, 1e-9, 0.25, 0.5, 0.999, 1.0])
    rows = [[draw(value) for _ in range(count)] for _ in range(draw(st.integers(3, 8)))]
    patients = [draw(st.sampled_from([0, 1, 2, 5, 20, 10**6])) for _ in range(count)]
    return torch.tensor(rows, dtype=torch.float64), torch.tensor(patients)


@settings(deadline=None, max_examples=80)
@given(cells(), st.booleans())
def test_an_interval_is_within_its_range_and_holds_the_estimate(cell, bounded):
    values, patients = cell
    low, high = confidence_interval(values, patients, bounded=bounded)
    assert (low <= values[0] + 1e-12).all()
    assert (values[0] <= high + 1e-12).all()
    assert (low >= -1 + bounded).all()
    assert (high <= 1).all()
    assert (high > low).all()  # there is always some doubt


@settings(deadline=None, max_examples=50)
@given(cells())
def test_the_interval_of_the_errors_mirrors_that_of_the_successes(cell):
    values, patients = cell
    low, high = confidence_interval(values, patients, bounded=True)
    mirrored_low, mirrored_high = confidence_interval(1 - values, patients, bounded=True)
    torch.testing.assert_close(low, 1 - mirrored_high)
    torch.testing.assert_close(high, 1 - mirrored_low)


@settings(deadline=None, max_examples=50)
@given(cells(), cells())
def test_a_gap_is_within_its_range_holds_the_estimate_and_turns_its_sign_with_the_groups(one, other):
    rows = min(len(one[0]), len(other[0]))
    first, second = one[0][:rows], other[0][:rows]
    low, high = gap_interval(first, second, one[1], other[1])
    gap = first[0] - second[0]
    assert ((low >= -1 - 1e-12) & (low <= gap)).all()
    assert ((gap <= high) & (high <= 1 + 1e-12)).all()
    turned_low, turned_high = gap_interval(second, first, other[1], one[1])
    torch.testing.assert_close(low, -turned_high)
    torch.testing.assert_close(high, -turned_low)


@settings(deadline=None, max_examples=50)
@given(cells())
def test_each_cell_has_the_interval_it_has_alone(cell):
    values, patients = cell
    low, high = confidence_interval(values, patients, bounded=True)
    for column in range(values.shape[1]):
        alone = confidence_interval(values[:, column], patients[column], bounded=True)
        torch.testing.assert_close((low[column], high[column]), alone)


@pytest.mark.parametrize("bounded", [True, False])
def test_an_undefined_estimate_or_resample_has_no_interval(bounded):
    values = torch.linspace(0.4, 0.6, 30, dtype=torch.float64).reshape(10, 3)
    values[0, 0] = values[4, 1] = torch.nan
    for ends in (
        confidence_interval(values, torch.tensor(9), bounded=bounded),
        gap_interval(values, values.flip(0).where(~values.isnan(), 0.5), torch.tensor(9), torch.tensor(9)),
    ):
        for end in ends:
            assert end.isnan().tolist() == [True, True, False]


def test_more_patients_or_more_labels_narrow_an_interval():
    values = resampled_means(torch.arange(20) < 15, 500)
    ends = [
        confidence_interval(values, Support(torch.tensor(patients), labels), bounded=True)
        for patients, labels in ((5, 1.0), (20, 1.0), (20, 10.0), (1000, 1.0))
    ]
    widths = [(high - low).item() for low, high in ends]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 4


def test_the_gap_of_a_group_without_an_error_has_its_doubt():
    perfect, reference = torch.ones(501, dtype=torch.float64), resampled_means(torch.arange(300) < 270, 500)
    few, many = torch.tensor(10), torch.tensor(300)
    own_low, _ = confidence_interval(perfect, few, bounded=True)
    _, reference_high = confidence_interval(reference, many, bounded=True)
    low, _ = gap_interval(perfect, reference, few, many)
    expected = 0.1 - torch.hypot(1 - own_low, reference_high - 0.9)
    torch.testing.assert_close(low, expected)
    symmetric_low, _ = confidence_interval(perfect - reference, few, bounded=False)
    assert low < symmetric_low - 0.1  # the difference alone knows only of the reference's spread


def test_the_gap_of_separate_groups_has_the_interval_of_newcombe():
    # Newcombe 1998 (method 10): the same combination of the two score intervals.
    ends = [resampled_means(torch.arange(400) < count, 6000, 1000 * count) for count in (300, 340)]
    low, high = gap_interval(*ends, torch.tensor(400), torch.tensor(400))
    one, other = (scipy.stats.binomtest(count, 400).proportion_ci(method="wilson") for count in (300, 340))
    expected_low = -0.1 - np.hypot(0.75 - one.low, other.high - 0.85)
    expected_high = -0.1 + np.hypot(one.high - 0.75, 0.85 - other.low)
    np.testing.assert_allclose((low, high), (expected_low, expected_high), atol=0.006)


def test_two_models_on_the_same_records_are_compared_more_sharply_than_on_others():
    right = torch.arange(200) < 150
    almost_the_same = right.clone()
    almost_the_same[:6] = False
    first, second = resampled_means(right), resampled_means(almost_the_same)
    apart = resampled_means(almost_the_same, first_patient=1000)
    patients = torch.tensor(200)
    paired, unpaired = (gap_interval(first, other, patients, patients) for other in (second, apart))
    assert (paired[1] - paired[0]) < 0.5 * (unpaired[1] - unpaired[0])
    assert paired[0] > 0 > unpaired[0]
    same_low, same_high = gap_interval(first, first, patients, patients)
    torch.testing.assert_close((same_low, same_high), (torch.zeros_like(same_low),) * 2, atol=1e-7, rtol=0)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 500), st.integers(1, 80), st.integers(0, 5))
def test_a_mean_over_equal_labels_is_supported_like_each_of_them(patients, labels, left_out):
    counts = torch.tensor([patients] * labels + [0] * left_out)
    support = Support.of_mean(counts)
    assert support.patients.item() == pytest.approx(patients)
    assert support.labels.item() == pytest.approx(labels)


def test_a_mean_over_labels_is_supported_little_better_than_its_rare_label():
    support = Support.of_mean(torch.tensor([[6, 5000, 8000], [0, 0, 0]]))
    assert support.patients[0].item() == pytest.approx(6, rel=0.01)
    assert support.labels[0].item() == pytest.approx(1, rel=0.01)
    assert support.patients[1].item() == 0


@pytest.mark.parametrize(
    ("values", "bounded", "message"),
    [
        (torch.ones(2), True, "at least 2 resamples"),
        (torch.tensor([1.2, 1, 1]), True, r"outside \[0, 1\], such as 1.2"),
        (torch.tensor([-0.1, 0, 0]), True, "bounded=False"),
        (torch.tensor([-1.1, 0, 0]), False, r"outside \[-1, 1\]"),
    ],
)
def test_values_that_are_no_statistics_are_refused(values, bounded, message):
    with pytest.raises(ValueError, match=message):
        confidence_interval(values, None, bounded=bounded)


def test_gaps_of_different_resamples_are_refused():
    with pytest.raises(ValueError, match="same resamples of both"):
        gap_interval(torch.ones(5, 2), torch.ones(6, 2), None, None)
