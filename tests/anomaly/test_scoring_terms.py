import math

import pytest
import torch

from ecgfair.anomaly.scoring import Scoring
from ecgfair.errors import ConfigurationError
from ecgfair.losses.restoration import LOG_VARIANCE_LIMIT
from ecgfair.models.encoder import McfEncoder
from ecgfair.models.restoration import RestorationNetwork
from tests.anomaly.scoring_cases import ALL, LEADS, LENGTH, WINDOW, StubNetwork, close, full, network, records, scorer

# Terms and weights ----------------------------------------------------------------------------------------------------


def test_a_score_is_the_weighted_mean_of_its_standardised_terms():
    scores = full()(*records())
    rows = [0, 1, 3, 4]
    expected = sum(ALL[name] * part for name, part in scores.parts.items()) / sum(ALL.values())
    close(scores.score[rows], expected[rows])
    restored, unmasked = ("whole", "beat", "trend"), ("altered", "distance")
    assert tuple(scores.parts) == (*restored, *unmasked, "shape", "variation", "altered_beat")


def test_terms_of_weight_0_are_measured_and_not_part_of_the_score():
    net, batch = network(), records()
    weights = {"whole": 1.0, "beat": 0.0, "trend": 0.0, "altered": 0.0, "distance": 0.0}
    scores = scorer(net, terms=weights)(*batch)
    alone = scorer(net, terms={"whole": 1.0})(*batch)
    assert set(scores.parts) == set(weights)
    assert set(alone.parts) == {"whole"}
    close(scores.score, alone.score)
    close(scores.score, scores.parts["whole"])
    assert all(part.std() > 0 for name, part in scores.parts.items() if name != "beat")


@pytest.mark.parametrize("log_variance", [-1.0, 0.0, 2.0, 100.0, -100.0])
@pytest.mark.parametrize("uncertainty", ["likelihood", "weighted_error"])
def test_a_term_is_the_error_over_its_expected_value_and_for_a_likelihood_the_logarithm_of_that_as_well(
    log_variance, uncertainty
):
    net = StubNetwork(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), log_variance)
    signal, recorded, beats = records()
    signal = torch.full_like(signal, 0.5)
    how = {"standardise": False, "uncertainty": uncertainty, "smoothing_seconds": 0.0}
    scores = scorer(net, **how)(signal, recorded, beats)
    kept = max(-LOG_VARIANCE_LIMIT, min(log_variance, LOG_VARIANCE_LIMIT))
    weighted = 0.25 * math.exp(-kept)
    expected = weighted + kept if uncertainty == "likelihood" else weighted
    close(scores.parts["whole"], torch.full((5,), expected))
    close(scores.parts["beat"], torch.tensor([expected, expected, torch.nan, expected, expected]))
    close(scores.parts["trend"], torch.full((5,), 0.25))
    shown = scorer(net, map_terms={"whole": 1.0}, **how)(signal, recorded, beats, maps=True).map
    close(shown, torch.full_like(signal, math.sqrt(weighted)))


# What can't be scored -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"terms": {"whol": 1.0}}, r"scoring\.terms has 'whol'. Did you mean 'whole'\?"),
        ({"map_terms": {"distance": 1.0}}, r"scoring\.map_terms has 'distance'.*whole, beat, trend, altered"),
        ({"terms": {"whole": -1.0}}, r"scoring\.terms has whole: -1\.0"),
        ({"terms": {"whole": math.nan}}, r"scoring\.terms has whole: nan"),
        ({"map_terms": {"beat": math.inf}}, r"scoring\.map_terms has beat: inf"),
        ({"terms": {"whole": 0.0, "beat": 0.0}}, r"scoring\.terms is .*above 0 for at least one"),
        ({"map_terms": {}}, r"scoring\.map_terms is .*above 0 for at least one"),
        ({"passes": 1}, r"scoring\.passes is 1: expected 2 or more"),
        ({"patch_seconds": 0.0}, r"scoring\.patch_seconds is 0\.0"),
        ({"patch_seconds": math.nan}, r"scoring\.patch_seconds is nan"),
        ({"patch_seconds": math.inf}, r"scoring\.patch_seconds is inf"),
        ({"smoothing_seconds": -0.1}, r"scoring\.smoothing_seconds is -0\.1"),
        ({"smoothing_seconds": math.inf}, r"scoring\.smoothing_seconds is inf"),
        ({"terms": {"distance": 1.0}, "standardise": False}, r"distance, which needs scoring\.standardise: true"),
    ],
)
def test_what_can_not_be_scored_is_refused_by_name(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        Scoring(**wrong)


def test_the_names_of_terms_come_in_one_order_whatever_the_order_of_the_settings():
    asked = Scoring(terms={"distance": 1.0, "whole": 0.0}, map_terms={"trend": 1.0, "beat": 0.0})
    assert asked.names == ("whole", "distance")
    assert asked.measured == ("whole", "beat", "trend", "distance")
    assert Scoring(scheme="published", terms={"distance": 1.0}).names == ("whole", "beat", "trend")


def test_a_network_that_was_not_trained_to_tell_altered_records_can_not_be_asked_for_it():
    net = RestorationNetwork(McfEncoder(LEADS, [4], 4), [6], decoder_width=8, length=LENGTH, window=WINDOW)
    for asked in ({"terms": {"altered": 0.0, "whole": 1.0}}, {"map_terms": {"altered": 1.0}}):
        with pytest.raises(ConfigurationError, match=r"altered.*not trained to tell.*weights\.altered"):
            scorer(net, fitted=False, **asked)
    with pytest.raises(ConfigurationError, match=r"altered_beat.*not trained to tell.*weights\.altered_beat"):
        scorer(net, fitted=False, terms={"altered_beat": 1.0})
