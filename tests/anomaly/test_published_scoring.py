import math

import pytest
import torch

from ecgfair.anomaly.maps import PUBLISHED_SMOOTHING, smooth
from ecgfair.anomaly.published_scoring import PublishedScoring
from ecgfair.losses.restoration import LOG_VARIANCE_LIMIT
from tests.anomaly.scoring_cases import (
    BEATS,
    FAMILIES,
    GEOMETRY,
    LEADS,
    LENGTH,
    RATE,
    WINDOW,
    StubNetwork,
    network,
    padded,
    records,
    same,
)

HAS_WHOLE_BEAT = [True, True, False, True, False]


def nothing_restored(log_variance=0.0):
    """A network that restores 0 whatever it sees."""
    return StubNetwork(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), log_variance)


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, equal_nan=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_record_without_a_whole_beat_has_no_score_and_no_map(family):
    scores = PublishedScoring(network(family), GEOMETRY)(*records(), maps=True)
    assert scores.has_beat.tolist() == HAS_WHOLE_BEAT
    for values in (scores.score, *scores.parts.values(), scores.map.nanmean((1, 2))):
        assert (~values.isnan()).tolist() == HAS_WHOLE_BEAT
    close(scores.score, sum(scores.parts.values()))
    assert list(scores.parts) == ["whole", "beat", "trend"]
    assert PublishedScoring(network(family), GEOMETRY)(*records()).map is None


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_same_in_any_order_and_batch(family):
    made, batch = PublishedScoring(network(family), GEOMETRY), records()
    together = made(*batch, maps=True)
    for order in ([3, 0, 4, 2, 1], [1], [2, 0]):
        other = made(*(part[order] for part in batch), maps=True)
        same(other.score, together.score[order])
        same(other.map, together.map[order])


@pytest.mark.parametrize("family", FAMILIES)
def test_two_calls_give_equal_results_and_leave_the_network_as_it_was(family):
    net = network(family).train()
    net.fusion.eval()
    modes = [module.training for module in net.modules()]
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    made = PublishedScoring(net, GEOMETRY)
    one, other = made(*records(), maps=True), made(*records(), maps=True)
    same(one.score, other.score)
    same(one.map, other.map)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert not one.score.requires_grad


@pytest.mark.parametrize("leak", [True, False])
def test_each_beat_has_three_passes_that_leave_a_tenth_of_the_record_and_most_of_the_beat_in_sight(leak, monkeypatch):
    net, seen = network(), []
    forward = net.forward

    def spy(signal, beat, has_beat, trend_of=None):
        seen.append((signal, beat, trend_of))
        return forward(signal, beat, has_beat, trend_of)

    monkeypatch.setattr(net, "forward", spy)
    signal, recorded, beats = (part[:1] for part in records())
    PublishedScoring(net, GEOMETRY, trend_unmasked=leak)(signal, recorded, beats)
    whole = [peak for peak in BEATS[0] if peak - GEOMETRY.before >= 0 and peak + GEOMETRY.after <= LENGTH]
    assert len(seen) == 3 * len(whole)
    hidden = torch.stack([row == 0 for row, _, _ in seen[:3]]).sum(0)
    assert hidden.max() == 1
    assert (hidden == 0).float().mean() == pytest.approx(0.1)
    for row, _, _ in seen:
        assert (row == 0).float().mean() == pytest.approx(0.3)
    hidden = torch.stack([beat == 0 for _, beat, _ in seen[:3]]).sum(0)
    place = torch.arange(WINDOW) / WINDOW
    assert torch.equal(hidden, ((place >= 20 / 480) & (place < 220 / 480)).long().expand(hidden.shape))
    for number, (_, _, trend_of) in enumerate(seen):
        assert trend_of is None if not leak else torch.equal(trend_of, signal), number


@pytest.mark.parametrize("log_variance", [0.0, 1.5, -100.0])
def test_a_score_is_the_weighted_error_of_all_samples_and_beats(log_variance):
    signal, recorded, beats = records()
    scores = PublishedScoring(nothing_restored(log_variance), GEOMETRY)(signal, recorded, beats)
    weight = math.exp(-max(log_variance, -LOG_VARIANCE_LIMIT))
    for row, peaks in enumerate(BEATS):
        starts = [peak - GEOMETRY.before for peak in peaks if 0 <= peak - GEOMETRY.before <= LENGTH - WINDOW]
        if starts:
            square = signal[row].square()
            local = torch.stack([square[:, start : start + WINDOW].mean() for start in starts]).mean()
            close(scores.parts["whole"][row], weight * square.mean())
            close(scores.parts["beat"][row], weight * local)
            close(scores.parts["trend"][row], square.mean())


def test_where_beats_overlap_their_errors_are_added():
    signal, recorded = torch.ones(1, LEADS, LENGTH), torch.ones(1, LEADS, 1, dtype=torch.bool)
    scores = PublishedScoring(nothing_restored(), GEOMETRY)(signal, recorded, padded((100, 150, 160)), maps=True)
    expected = torch.full((1, LEADS, LENGTH), 2.0)  # the global signal and the trend are wrong by 1 everywhere
    for peak in (100, 150, 160):
        expected[..., peak - GEOMETRY.before : peak + GEOMETRY.after] += 1
    assert expected.max() == 5
    close(scores.map, smooth(expected, PUBLISHED_SMOOTHING, RATE))


def test_what_is_stored_where_nothing_was_recorded_changes_nothing():
    made = PublishedScoring(network(), GEOMETRY)
    signal, recorded, beats = records()
    recorded[:, 1] = False
    one = made(signal, recorded, beats, maps=True)
    other = made(signal.masked_fill(~recorded, torch.nan), recorded[..., :1], beats, maps=True)
    same(one.score, other.score)
    same(one.map, other.map)
    assert one.map[:, 1].isnan().all()
    assert one.map[[0, 1, 3]][:, [0, 2]].isfinite().all()
