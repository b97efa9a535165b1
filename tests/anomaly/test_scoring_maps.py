import pytest
import torch

from ecgfair.anomaly.maps import smooth
from tests.anomaly.scoring_cases import (
    COVERS,
    GEOMETRY,
    LEADS,
    LENGTH,
    RATE,
    WINDOW,
    StubNetwork,
    close,
    network,
    padded,
    records,
    same,
    scorer,
)


def drawn_beats(rr=80):
    """A record whose beats are all alike, what a network that knows them restores, and its R peaks."""
    time = torch.arange(LENGTH)
    shape = torch.sin(2 * torch.pi * time / rr) + 0.5 * torch.cos(4 * torch.pi * time / rr)
    record = torch.stack([shape * factor for factor in (1.0, -0.7, 0.4)])[None]
    peaks = range(rr, LENGTH - rr, rr)
    start = rr - GEOMETRY.before
    return record, record[..., start : start + WINDOW], padded(tuple(peaks))


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize(("lead", "place"), [(0, 0), (1, 163), (2, 250), (0, LENGTH - 1)])
def test_a_map_is_highest_where_the_planted_error_is(standardise, cover, lead, place):
    record, beat, beats = drawn_beats()
    made = scorer(StubNetwork(record, beat), standardise=standardise, cover=cover)
    strange = record.clone()
    strange[0, lead, place] += 2
    scores = made(strange, torch.ones_like(record, dtype=torch.bool), beats, maps=True)
    assert scores.map.shape == record.shape
    assert divmod(int(scores.map.argmax()), LENGTH) == (lead, place)
    usual = made(record, torch.ones_like(record, dtype=torch.bool), beats, maps=True)
    far = (torch.arange(LENGTH) - place).abs() > 20
    close(scores.map[..., far], usual.map[..., far])
    others = [other for other in range(LEADS) if other != lead]
    close(scores.map[:, others], usual.map[:, others])
    assert scores.score > usual.score


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("cover", COVERS)
def test_a_lead_with_no_signal_does_not_change_the_map_of_the_others(standardise, cover):
    made = scorer(StubNetwork(), standardise=standardise, cover=cover)
    signal, recorded, beats = records()
    there = made(signal, recorded, beats, maps=True)
    missing = recorded.clone()
    missing[:, 1] = False
    without = made(signal, missing, beats, maps=True)
    same(without.map[:, [0, 2]], there.map[:, [0, 2]])
    assert without.map[:, 1].isnan().all()
    assert not torch.equal(there.score, without.score)


def test_where_beats_overlap_their_errors_are_averaged_and_not_added():
    net = StubNetwork(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    signal, recorded, beats = torch.ones(1, LEADS, LENGTH), torch.ones(1, LEADS, 1, dtype=torch.bool), [(100, 150, 160)]
    made = scorer(net, map_terms={"beat": 1.0}, standardise=False, smoothing_seconds=0.0)
    shown = made(signal, recorded, padded(*beats), maps=True).map
    covered = torch.zeros(LENGTH, dtype=torch.bool)
    covered[100 - 28 : 160 + 68] = True
    expected = torch.where(covered, 1.0, torch.nan).expand(signal.shape)
    same(shown, expected)


def test_without_being_asked_for_there_is_no_map():
    scores = scorer(network())(*records())
    assert scores.map is None


def test_the_weights_of_the_map_are_not_those_of_the_score():
    net, batch = network(), records()
    made = scorer(net, terms={"trend": 1.0}, map_terms={"whole": 3.0, "beat": 1.0, "altered": 0.0})
    scores = made(*batch, maps=True)
    assert set(scores.parts) == {"trend"}
    whole, beat = (
        scorer(net, map_terms={name: 1.0}, smoothing_seconds=0.0)(*batch, maps=True).map for name in ("whole", "beat")
    )
    mixed = torch.where(beat.isnan(), whole, (3 * whole + beat) / 4)
    close(scores.map, smooth(mixed, made.scoring.smoothing_seconds, RATE))
