import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from torch import nn

from ecgfair.anomaly.reference import LEAST_RECORDS, NormalReference, shrunk_covariance
from ecgfair.errors import ConfigurationError

TERMS = ("whole", "beat", "distance")


def correlated(records, size, seed=0):
    """Features that hang together, on scales that differ a thousandfold."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64)
    values = torch.randn(records, size, generator=generator, dtype=torch.float64) @ mixing
    return 5 + values * torch.logspace(-1, 2, size, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(records=st.integers(16, 80), size=st.integers(2, 60), seed=st.integers(0, 10_000))
def test_the_covariance_is_shrunk_as_scikit_learn_does_it(records, size, seed):
    centred = correlated(records, size, seed)
    centred = (centred - centred.mean(0)) / centred.std(0)
    expected = LedoitWolf(assume_centered=True).fit(centred.numpy()).covariance_
    torch.testing.assert_close(shrunk_covariance(centred), torch.as_tensor(expected), atol=1e-10, rtol=1e-8)


def test_features_that_do_not_hang_together_are_shrunk_almost_all_the_way():
    centred = torch.randn(16, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    off = shrunk_covariance(centred) - torch.diag(shrunk_covariance(centred).diagonal())
    assert off.abs().max() < 0.2 * (centred.T @ centred / 16).fill_diagonal_(0).abs().max()


@pytest.mark.parametrize(("records", "size"), [(200, 6), (20, 40), (30, 1)])
def test_the_distance_is_that_of_mahalanobis(records, size):
    features, asked = correlated(records, size), correlated(9, size, seed=1) * 3
    reference = NormalReference(TERMS, size)
    reference.fit_features(features.float())
    features = features.float().double()
    mean, std = features.mean(0), features.std(0)
    standard = (features - mean) / std
    if size > 1:
        precision = LedoitWolf(assume_centered=True).fit(standard.numpy()).precision_
    else:
        precision = (1 / standard.square().mean()).reshape(1, 1).numpy()
    expected = [mahalanobis(((row - mean) / std).numpy(), torch.zeros(size).numpy(), precision) ** 2 for row in asked]
    found = reference.distance(asked.float())
    torch.testing.assert_close(found.exp().double(), torch.tensor(expected, dtype=torch.float64), atol=1e-3, rtol=1e-3)


def test_the_distance_does_not_depend_on_the_units_of_features():
    features, asked, units = correlated(60, 5), correlated(9, 5, seed=1), torch.tensor([1.0, 1e3, 1e-2, 7.0, 0.1])
    one, other = NormalReference(TERMS, 5), NormalReference(TERMS, 5)
    one.fit_features(features)
    other.fit_features(features * units)
    torch.testing.assert_close(one.distance(asked.float()), other.distance((asked * units).float()), atol=1e-3, rtol=0)


def test_the_mean_itself_and_a_feature_that_never_changes_have_a_finite_distance():
    features = correlated(40, 4)
    features[:, 2] = 0.3
    reference = NormalReference(TERMS, 4)
    reference.fit_features(features.float())
    assert reference.distance(reference.feature_mean[None]).isfinite().all()
    assert reference.distance(features.float()).isfinite().all()


@pytest.mark.parametrize("records", [0, 1, LEAST_RECORDS - 1])
def test_too_few_records_are_refused(records):
    reference = NormalReference(TERMS, 3)
    with pytest.raises(ConfigurationError, match=rf"made of {records} training records: expected 16 or more.*Raise"):
        reference.fit_features(torch.randn(records, 3))
    assert not reference.is_fitted
    reference.fit_features(torch.randn(LEAST_RECORDS, 3))
    assert reference.is_fitted


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_refused(value):
    features = torch.randn(20, 3)
    features[4, 1] = value
    reference = NormalReference(TERMS, 3)
    with pytest.raises(ConfigurationError, match="not finite"):
        reference.fit_features(features)
    assert not reference.is_fitted


def fitted():
    reference = NormalReference(TERMS, 3)
    reference.fit_features(correlated(20, 3).float())
    terms = {name: torch.arange(20.0) * (place + 1) for place, name in enumerate(TERMS)}
    reference.fit_terms(terms, {"whole": torch.randn(20, 2, 5)})
    return reference


def test_what_is_usual_is_kept_with_the_weights_and_comes_back():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.reference = NormalReference(TERMS, 3)

    module = Module()
    module.reference = fitted()
    saved = module.state_dict()
    assert set(saved) == {
        f"reference.{name}"
        for name in (
            *(f"{kind}_{what}" for kind in ("term", "map", "feature") for what in ("mean", "std")),
            "precision",
            "records",
        )
    }
    assert not list(module.parameters())
    other = Module()
    assert not other.reference.is_fitted
    other.load_state_dict(saved)
    assert other.reference.is_fitted
    assert int(other.reference.records) == 20
    asked, values = torch.randn(4, 3), torch.randn(4)
    assert torch.equal(other.reference.distance(asked), module.reference.distance(asked))
    for name in TERMS:
        assert torch.equal(other.reference.standardise(name, values), module.reference.standardise(name, values))
    shown = torch.randn(4, 2, 5)
    assert torch.equal(
        other.reference.standardise_map("whole", shown), module.reference.standardise_map("whole", shown)
    )


def test_terms_and_maps_are_measured_without_their_nan():
    reference = NormalReference(TERMS, 3)
    whole, beat = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([4.0, torch.nan, 8.0])
    shown = torch.tensor([[[1.0, torch.nan, 3.0]], [[torch.nan, 5.0, 7.0]]])
    reference.fit_terms({"whole": whole, "beat": beat}, {"beat": shown})
    torch.testing.assert_close(reference.standardise("whole", whole), (whole - 3) / whole.std())
    torch.testing.assert_close(
        reference.standardise("beat", beat), torch.tensor([-(0.5**0.5), torch.nan, 0.5**0.5]), equal_nan=True
    )
    torch.testing.assert_close(reference.standardise_map("beat", shown), (shown - 4) / (20 / 3) ** 0.5, equal_nan=True)


def test_a_term_that_no_record_has_is_left_as_it_is():
    reference = NormalReference(TERMS, 3)
    reference.fit_terms({"beat": torch.full((5,), torch.nan)}, {"beat": torch.full((5, 2, 3), torch.nan)})
    values = torch.randn(4)
    assert torch.equal(reference.standardise("beat", values), values)
    assert torch.equal(reference.standardise("whole", values), values)


def test_a_term_that_never_changes_does_not_become_infinite():
    reference = NormalReference(TERMS, 3)
    reference.fit_terms({"whole": torch.full((5,), 2.0)}, {})
    assert reference.standardise("whole", torch.tensor([2.0, 3.0])).isfinite().all()
