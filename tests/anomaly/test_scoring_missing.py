import pytest
import torch

from ecgfair.anomaly.restored_terms import middle_beats
from ecgfair.signals.beats import every_beat
from tests.anomaly.scoring_cases import (
    COVERS,
    FAMILIES,
    GEOMETRY,
    LENGTH,
    StubNetwork,
    close,
    full,
    network,
    padded,
    records,
    rows_of,
    same,
    scorer,
)

# Leads without a signal -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_stored_in_a_lead_that_was_not_recorded_changes_nothing(family):
    made = full(family)
    signal, recorded, beats = records()
    recorded[:, 1] = False
    recorded[0, 2, 100:180] = False
    found = [
        made(torch.where(recorded, signal, filler), recorded, beats, maps=True)
        for filler in (torch.zeros(()), torch.tensor(torch.nan), torch.tensor(1e6), -signal)
    ]
    for other in found[1:]:
        for one, again in zip(rows_of(found[0], slice(None)), rows_of(other, slice(None)), strict=True):
            same(one, again)
    assert torch.equal(found[0].map.isnan(), ~recorded), "a map is NaN where nothing was recorded, and only there"
    assert found[0].score.isfinite().all()


def test_the_term_of_a_record_is_the_mean_over_what_was_recorded():
    signal, recorded, beats = records()
    recorded[:, 2] = False
    made = scorer(StubNetwork(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)), standardise=False)
    scores = made(signal, recorded, beats)
    close(scores.parts["whole"], signal[:, :2].square().mean((1, 2)))
    close(scores.parts["trend"], signal[:, :2].square().mean((1, 2)))


def test_one_flag_a_lead_is_as_good_as_one_a_sample():
    made, (signal, _, beats) = full(), records()
    flags = torch.tensor([True, False, True])[None, :, None].repeat(len(signal), 1, 1)
    for one, other in zip(
        rows_of(made(signal, flags, beats, maps=True), slice(None)),
        rows_of(made(signal, flags.expand(signal.shape), beats, maps=True), slice(None)),
        strict=True,
    ):
        same(one, other)


def test_a_record_of_which_nothing_was_recorded_has_no_score():
    signal, recorded, beats = records()
    recorded[1] = False
    scores = scorer(network())(signal, recorded, beats, maps=True)
    assert scores.score.isnan().tolist() == [False, True, False, False, False]
    assert scores.map[1].isnan().all()


# Records without a beat -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cover", COVERS)
def test_a_record_without_a_beat_still_gets_a_score_and_says_so(family, cover):
    made = scorer(network(family), cover=cover)
    batch = records()
    scores = made(*batch, maps=True)
    assert scores.has_beat.tolist() == [True, True, False, True, True]
    assert scores.parts["beat"].isnan().tolist() == [False, False, True, False, False]
    assert scores.score.isfinite().all()
    close(scores.score[2], (scores.parts["whole"][2] + scores.parts["trend"][2]) / 2)
    assert scores.map[2].isfinite().all()
    signal, recorded, _ = batch
    no_columns = made(signal, recorded, torch.zeros(len(signal), 0, dtype=torch.int64), maps=True)
    assert not no_columns.has_beat.any()
    close(no_columns.score[2], scores.score[2])
    close(no_columns.map[2], scores.map[2])


def test_beats_alone_say_nothing_of_a_record_without_one():
    made = scorer(network(), terms={"beat": 1.0}, map_terms={"beat": 1.0})
    scores = made(*records(), maps=True)
    assert scores.score.isnan().tolist() == [False, False, True, False, False]
    assert scores.map[2].isnan().all()


def test_a_beat_at_the_edge_of_the_record_counts_as_well():
    signal, recorded, beats = records()
    made = scorer(StubNetwork(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)), standardise=False)
    scores = made(signal, recorded, beats)
    cut = torch.stack([signal[4, :, : 5 + 68].square().mean(), signal[4, :, 395 - 28 :].square().mean()])
    close(scores.parts["beat"][4], cut.mean())


@pytest.mark.parametrize(
    ("beats", "expected"),
    [
        (((100, 200, 300),), [1]),
        (((100, 200, 300, 330),), [1]),
        (((5, 200),), [1]),
        (((5, 395),), [0]),
        (((), (150,), (), (10, 100, 200)), [0, 0, 0, 2]),
    ],
    ids=["middle", "of two the earlier", "a whole one first", "none is whole", "several records"],
)
def test_beside_the_record_stands_its_middle_beat(beats, expected):
    signal = torch.zeros(len(beats), 1, LENGTH)
    middle, has = middle_beats(every_beat(signal, padded(*beats), GEOMETRY.before, GEOMETRY.after), len(beats))
    assert middle.tolist() == expected
    assert has.tolist() == [bool(row) for row in beats]
