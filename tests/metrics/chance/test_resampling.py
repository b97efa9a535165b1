import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from ecgfair.metrics.chance.resampling import UNKNOWN_PATIENT, patient_weights

WORD = 2**64
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
ANY_INT64 = st.integers(-(2**63), 2**63 - 1)


def scrambled(word):
    """The finaliser of SplitMix64 on whole numbers without a limit."""
    word %= WORD
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % WORD
    return word ^ (word >> 31)


def expected_weight(patient, resample, seed):
    start = scrambled(scrambled(seed) + patient)
    return -np.log(((scrambled(start + resample * 0x9E3779B97F4A7C15) >> 12) + 0.5) / 2**52)


@settings(deadline=None, max_examples=60)
@given(patient=ANY_INT64.filter(lambda code: code != UNKNOWN_PATIENT), seed=st.integers(-(2**70), 2**70))
def test_a_weight_is_a_hash_of_seed_patient_and_resample(patient, seed):
    weights = patient_weights(torch.tensor([patient]), 3, seed)[1:, 0]
    np.testing.assert_allclose(weights, [expected_weight(patient, number, seed) for number in (1, 2, 3)], rtol=1e-12)


def test_the_scrambling_is_that_of_the_published_generator():
    # The first outputs of SplitMix64 from the state 1234567, as commonly used to check implementations of it.
    golden = 0x9E3779B97F4A7C15
    outputs = [scrambled(1234567 + number * golden) for number in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([-(2**63), -7, UNKNOWN_PATIENT, 0, 1, 2, 2**62]), max_size=12), st.integers(0, 5))
def test_records_share_weights_exactly_if_they_share_a_known_patient(codes, seed):
    weights = patient_weights(torch.tensor(codes, dtype=torch.int64), 4, seed)
    assert weights.shape == (5, len(codes))
    assert weights.dtype == torch.float64
    assert (weights[0] == 1).all()
    assert (weights > 0).all()
    assert weights.isfinite().all()
    for one, first in enumerate(codes):
        for other, second in enumerate(codes):
            shared = one == other or (first == second != UNKNOWN_PATIENT)
            assert bool((weights[1:, one] == weights[1:, other]).all()) == shared


def test_weights_depend_neither_on_the_order_of_records_nor_on_other_patients():
    patients = torch.tensor([5, 3, 5, 900, 12, 3])
    weights = patient_weights(patients, 50, 7)
    order = torch.tensor([4, 2, 0, 5])
    assert torch.equal(patient_weights(patients[order], 50, 7), weights[:, order])


def test_more_resamples_begin_with_the_same_ones():
    patients = torch.arange(30_000)  # so many that they are drawn in several parts
    assert torch.equal(patient_weights(patients, 40, 1)[:11], patient_weights(patients, 10, 1))


def test_the_seed_decides():
    patients = torch.arange(20)
    assert torch.equal(patient_weights(patients, 9, 3), patient_weights(patients, 9, 3))
    assert not (patient_weights(patients, 9, 3)[1:] == patient_weights(patients, 9, 4)[1:]).any()


@pytest.mark.parametrize("device", DEVICES)
def test_weights_are_on_the_device_of_the_patients_and_alike_on_all(device):
    patients = torch.arange(-3, 50)
    weights = patient_weights(patients.to(device), 20, 11)
    assert weights.device.type == device
    torch.testing.assert_close(weights.cpu(), patient_weights(patients, 20, 11), rtol=1e-12, atol=0)


def test_weights_are_exponential_and_unrelated_between_patients_and_resamples():
    weights = patient_weights(torch.arange(400), 500, 0)[1:].numpy()
    assert kstest(weights.ravel(), "expon").pvalue > 1e-3
    for rows in (weights, weights.T):
        related = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
        # Under independence a correlation of m pairs has the standard deviation 1 / sqrt(m - 1).
        assert np.std(related) * np.sqrt(rows.shape[1] - 1) == pytest.approx(1, abs=0.02)
        assert np.abs(related).max() < 6 / np.sqrt(rows.shape[1])


def weighted_means(values, patients, resamples=4000):
    weights = patient_weights(torch.as_tensor(patients), resamples, 5)[1:]
    return (weights @ values / weights.sum(1)).numpy()


def test_the_variance_of_a_mean_is_that_of_rubin():
    values = torch.rand(30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = weighted_means(values, range(30)).var()
    # Dirichlet weights: the variance of the data, divided by n + 1. Its own error over 4,000 resamples is about 2.2 %.
    assert found == pytest.approx(values.var(correction=0).item() / 31, rel=0.08)


def test_repeating_every_record_teaches_nothing_when_patients_are_resampled_and_something_when_records_are():
    values = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    once = weighted_means(values, range(50))
    by_patient = weighted_means(values.repeat(4), [*range(50)] * 4)
    by_record = weighted_means(values.repeat(4), [UNKNOWN_PATIENT] * 200)
    np.testing.assert_allclose(by_patient, once, rtol=1e-12)
    assert by_record.std() == pytest.approx(once.std() * np.sqrt(51 / 201), rel=0.06)


def test_without_resamples_or_records_there_is_the_point_estimate_alone():
    assert torch.equal(patient_weights(torch.arange(3), 0, 0), torch.ones(1, 3, dtype=torch.float64))
    assert patient_weights(torch.zeros(0, dtype=torch.int64), 4, 0).shape == (5, 0)


@pytest.mark.parametrize(
    "patients", [torch.tensor([1.0, 2.0]), torch.tensor([True]), torch.zeros(2, 2, dtype=torch.int64)]
)
def test_what_numbers_no_patients_is_refused(patients):
    with pytest.raises(ValueError, match="one whole number a record"):
        patient_weights(patients, 2, 0)


def test_a_negative_number_of_resamples_is_refused():
    with pytest.raises(ValueError, match="resamples is -1"):
        patient_weights(torch.arange(3), -1, 0)
