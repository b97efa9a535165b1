import pytest
import torch

from ecgfair.anomaly import scoring
from ecgfair.anomaly.reference import NormalReference
from ecgfair.anomaly.scoring import AnomalyScoring
from ecgfair.errors import ConfigurationError
from tests.anomaly.scoring_cases import (
    ALL,
    ALL_MAPPED,
    GEOMETRY,
    LEADS,
    full,
    many,
    network,
    records,
    rows_of,
    same,
    scorer,
    take,
)


def test_over_the_training_records_every_term_has_mean_0_and_spread_1():
    made = full()
    scores = made(*many())
    for name, part in scores.parts.items():
        known = part[~part.isnan()]
        assert known.mean().abs() < 1e-3, name
        assert abs(known.std() - 1) < 1e-3, name
    assert len(scores.parts["beat"][~scores.parts["beat"].isnan()]) == 16


@pytest.mark.parametrize("term", ["whole", "beat", "trend", "altered"])
def test_over_the_training_records_every_map_has_mean_0_and_spread_1(term):
    made = scorer(network(), fitted=False, map_terms={term: 1.0}, smoothing_seconds=0.0)
    signal, recorded, beats = many()
    recorded[:12, 1] = False  # what a map would say there has no part in what is usual
    made.fit_reference([(signal, recorded, beats)])
    shown = made(signal, recorded, beats, maps=True).map
    known = shown[~shown.isnan()].double()
    assert known.mean().abs() < 1e-3
    assert abs(known.std() - 1) < 1e-3


def test_standard_deviations_without_training_records_are_refused():
    made = scorer(network(), fitted=False)
    with pytest.raises(ConfigurationError, match=r"standard deviations of training records.*standardise to false"):
        made(*records())
    assert scorer(network(), fitted=False, standardise=False)(*records()).score.isfinite().all()


def test_a_reference_that_was_saved_scores_as_the_one_it_was_saved_from():
    made, batch = full(), records()
    loaded = NormalReference(made.reference.terms, 2 * made.network.encoder.channels, LEADS)
    loaded.load_state_dict(made.reference.state_dict())
    again = AnomalyScoring(made.network, made.scoring, GEOMETRY, loaded)
    for one, other in zip(
        rows_of(made(*batch, maps=True), slice(None)), rows_of(again(*batch, maps=True), slice(None)), strict=True
    ):
        same(one, other)


def reference_of(batch, size):
    made = scorer(network(), fitted=False, terms=ALL, map_terms=ALL_MAPPED)
    made.fit_reference([take(batch, rows) for rows in torch.arange(len(batch[0])).split(size)])
    return made.reference


def test_a_reference_is_the_same_in_any_batches(monkeypatch):
    batch = many()
    whole = reference_of(batch, 20)
    for size in (1, 7):
        for name, value in reference_of(batch, size).state_dict().items():
            torch.testing.assert_close(value, whole.state_dict()[name], atol=1e-3, rtol=1e-3, msg=f"{size} {name}")
    # Of many records the terms, which cost more, are taken from some batches, and the features still from all.
    monkeypatch.setattr(scoring, "TERM_RECORDS", 5)
    some, first = reference_of(batch, 1), reference_of(batch, 20)
    torch.testing.assert_close(some.feature_mean, whole.feature_mean)
    assert torch.equal(first.term_mean, whole.term_mean)
    expected = scorer(network(), standardise=False)(*take(batch, slice(None, None, 4))).parts["whole"].mean()
    torch.testing.assert_close(some.term_mean[0], expected, atol=1e-4, rtol=1e-4)
