import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ecgfair.anomaly import restored_terms, scoring
from ecgfair.anomaly.evaluated import evaluated
from ecgfair.anomaly.maps import smooth
from ecgfair.anomaly.reference import NormalReference
from ecgfair.anomaly.restored_terms import middle_beats
from ecgfair.anomaly.scoring import AnomalyScoring, Scoring
from ecgfair.errors import ConfigurationError
from ecgfair.losses.restoration import LOG_VARIANCE_LIMIT
from ecgfair.models.encoder import McfEncoder
from ecgfair.models.restoration import RestorationNetwork
from ecgfair.signals.beats import every_beat
from tests.anomaly.scoring_cases import (
    BEATS,
    FAMILIES,
    GEOMETRY,
    LEADS,
    LENGTH,
    RATE,
    WINDOW,
    StubNetwork,
    many,
    network,
    padded,
    records,
    scorer,
)

ALL = {"whole": 1.0, "beat": 2.0, "trend": 0.5, "altered": 1.0, "distance": 1.0}
ALL_MAPPED = {"whole": 1.0, "beat": 2.0, "trend": 0.5, "altered": 1.0}
COVERS = ("patches", "phases")


@cache
def full(family="residual", cover="phases"):
    """Scoring by every term, with a network that no test changes."""
    return scorer(network(family), terms=ALL, map_terms=ALL_MAPPED, cover=cover)


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4, equal_nan=True)


def same(one, other):
    torch.testing.assert_close(one, other, atol=0, rtol=0, equal_nan=True)


def rows_of(scores, rows):
    return [
        scores.score[rows],
        scores.has_beat[rows],
        scores.map[rows],
        *(part[rows] for part in scores.parts.values()),
    ]


def take(batch, rows):
    return tuple(part[rows] for part in batch)


# What is hidden -------------------------------------------------------------------------------------------------------


def spied(net, monkeypatch):
    """Note every signal, trend and beat that the network is given."""
    seen = {"signal": [], "trend_of": [], "beats": []}
    encode_global, encode_beats = net.encode_global, net.encode_beats

    def spy_global(signal, trend_of=None):
        seen["signal"].append(signal.clone())
        seen["trend_of"].append(trend_of)
        return encode_global(signal, trend_of)

    def spy_beats(beat):
        seen["beats"].append(beat.clone())
        return encode_beats(beat)

    monkeypatch.setattr(net, "encode_global", spy_global)
    monkeypatch.setattr(net, "encode_beats", spy_beats)
    return seen


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("passes", [2, 3])
def test_every_sample_of_the_record_and_of_each_beat_is_hidden_in_exactly_one_pass(family, cover, passes, monkeypatch):
    net = network(family)
    made = scorer(net, cover=cover, passes=passes, standardise=False)
    seen = spied(net, monkeypatch)
    signal, recorded, beats = records()
    made(signal, recorded, beats)

    assert len(seen["signal"]) == 1, "all passes of all records go through the network together"
    by_pass = seen["signal"][0].view(passes, *signal.shape)
    assert ((by_pass == 0).sum(dim=0) == 1).all()
    assert ((by_pass == 0) | (by_pass == signal)).all()
    assert seen["trend_of"] == [None], "the trend is that of what is seen"

    middle, every = seen["beats"]
    cut = every_beat(signal, beats, GEOMETRY.before, GEOMETRY.after)
    assert len(cut.window) == sum(map(len, BEATS))
    by_span = every.view(passes, *cut.window.shape)
    assert (((by_span == 0).sum(dim=0) == 1) == cut.recorded).all()
    assert ((by_span == 0) | (by_span == cut.window)).all()
    beside = middle.view(passes, *signal.shape[:2], WINDOW)
    whole_one = torch.tensor([0, 1, 3])
    assert ((beside[:, whole_one] == 0).sum(dim=0) == 1).all()
    assert not beside[:, 2].any(), "of a record without a beat there is nothing to see"


@settings(max_examples=25, deadline=None)
@given(
    beats=st.lists(st.lists(st.integers(-1, LENGTH - 1), min_size=4, max_size=4), min_size=1, max_size=3),
    cover=st.sampled_from(COVERS),
    passes=st.integers(2, 6),
    patch_seconds=st.floats(0.001, 0.6),
)
def test_the_union_of_the_masks_is_every_sample_wherever_the_beats_are(beats, cover, passes, patch_seconds):
    made = scorer(StubNetwork(), cover=cover, passes=passes, patch_seconds=patch_seconds, standardise=False)
    masks = made._restored.masks(torch.zeros(len(beats), LEADS, LENGTH), torch.tensor(beats))
    assert masks.shape == (passes, len(beats), LEADS, LENGTH)
    assert (masks.sum(dim=0) == 1).all()


@pytest.mark.parametrize("cover", COVERS)
def test_every_beat_with_a_span_hidden_stands_beside_its_own_record_in_the_pass_of_that_number(cover, monkeypatch):
    net, pairs = StubNetwork(), []  # its tokens are the samples that it sees
    made = scorer(net, cover=cover, standardise=False)
    seen = spied(net, monkeypatch)
    monkeypatch.setattr(net, "fuse_beats", lambda whole, local: pairs.append((whole, local)) or local)
    signal, recorded, beats = records()
    made(signal, recorded, beats)
    cut = every_beat(signal, beats, GEOMETRY.before, GEOMETRY.after)
    ((whole, local),) = pairs
    by_pass = seen["signal"][0].view(3, *signal.shape)
    assert torch.equal(whole.view(3, -1, LEADS, LENGTH), by_pass[:, cut.record])
    thirds = torch.arange(WINDOW) * 3 // WINDOW
    for number, window in enumerate(local.view(3, *cut.window.shape)):
        assert torch.equal(window, cut.window.nan_to_num().masked_fill(thirds == number, 0))


@pytest.mark.parametrize("leak", [False, True])
def test_the_trend_is_that_of_the_unmasked_signal_only_if_asked_for(leak, monkeypatch):
    net = network()
    made = scorer(net, standardise=False, trend_unmasked=leak)
    seen = spied(net, monkeypatch)
    signal, recorded, beats = records()
    made(signal, recorded, beats)
    if leak:
        assert torch.equal(seen["trend_of"][0].view(3, *signal.shape), signal.expand(3, -1, -1, -1))
    else:
        assert seen["trend_of"] == [None]


def test_only_hidden_samples_are_judged():
    class Copies(StubNetwork):
        """Returns what it sees, and so 0 for what it does not."""

        def _restored(self, tokens, template):
            return tokens

    signal, recorded, beats = records()
    made = scorer(Copies(), standardise=False, uncertainty="weighted_error", smoothing_seconds=0.0)
    scores = made(signal, recorded, beats, maps=True)
    # Each hidden sample is wrong by its own value; had seen ones been judged as well, the mean would be a third.
    close(scores.parts["whole"], signal.square().mean((1, 2)))
    close(scores.parts["trend"], signal.square().mean((1, 2)))
    cut = every_beat(signal, beats, GEOMETRY.before, GEOMETRY.after)
    for row, expected in enumerate(scores.parts["beat"]):
        windows = cut.window[cut.record == row]
        close(expected, windows.square().nanmean((1, 2)).mean() if len(windows) else torch.tensor(torch.nan))
    close(scores.map, signal.abs())


# The company a record keeps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cover", COVERS)
def test_scores_are_the_same_for_any_batch_size_and_order_of_records(family, cover):
    made = full(family, cover)
    batch = records()
    together = made(*batch, maps=True)
    assert together.score.std() > 0.01
    for size in (1, 2, 3):
        for rows in torch.arange(len(BEATS)).split(size):
            for one, other in zip(
                rows_of(together, rows), rows_of(made(*take(batch, rows), maps=True), slice(None)), strict=True
            ):
                close(one, other)
    order = torch.tensor([3, 0, 4, 2, 1])
    for one, other in zip(
        rows_of(together, order), rows_of(made(*take(batch, order), maps=True), slice(None)), strict=True
    ):
        close(one, other)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("own", [0, 2, 4])
def test_the_score_of_a_record_does_not_depend_on_its_neighbours(family, own):
    made = full(family)
    signal, recorded, beats = take(records(), slice(own, own + 1))
    beats = torch.nn.functional.pad(beats, (0, 34), value=-1)
    alone = made(signal, recorded, beats, maps=True)
    garbage = torch.randn(1, LEADS, LENGTH) * 1e4
    nothing = torch.zeros(1, LEADS, LENGTH)
    crowd = torch.arange(0, LENGTH, 10)[None]
    neighbours = {
        "garbage with many beats": (garbage, crowd, torch.ones_like(recorded)),
        "garbage without beats": (garbage, torch.full_like(crowd, -1), torch.ones_like(recorded)),
        "beyond what the network can compute": (garbage * 1e30, crowd, torch.ones_like(recorded)),
        "silence": (nothing, torch.full_like(crowd, -1), torch.ones_like(recorded)),
        "nothing recorded, NaN stored": (nothing + torch.nan, crowd, torch.zeros_like(recorded)),
    }
    for name, (other, peaks, known) in neighbours.items():
        for place in (0, 1):
            parts = [(other, signal), (known, recorded), (peaks, beats)]
            batch = [torch.cat(pair if place else pair[::-1]) for pair in parts]
            found = made(*batch, maps=True)
            for one, expected in zip(rows_of(found, slice(place, place + 1)), rows_of(alone, slice(None)), strict=True):
                torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-4, equal_nan=True, msg=name)


def test_beats_in_many_small_portions_give_what_they_give_together(monkeypatch):
    made, batch = full(), records()
    together = made(*batch, maps=True)
    for at_once in (1, 7, 12):
        monkeypatch.setattr(restored_terms, "BEATS_AT_ONCE", at_once)
        for one, other in zip(
            rows_of(together, slice(None)), rows_of(made(*batch, maps=True), slice(None)), strict=True
        ):
            close(one, other)


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


# Repeatable, and without traces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_two_calls_give_equal_results_and_draw_no_random_numbers(family):
    net = network(family).train()
    made = scorer(net, terms=ALL, map_terms=ALL_MAPPED)
    batch = records()
    state = torch.get_rng_state()
    first = made(*batch, maps=True)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    for one, other in zip(rows_of(first, slice(None)), rows_of(made(*batch, maps=True), slice(None)), strict=True):
        same(one, other)
    without_map = made(*batch)
    same(without_map.score, first.score)
    for name, part in without_map.parts.items():
        same(part, first.parts[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_scoring_leaves_the_network_and_the_records_as_they_were(family):
    net = network(family).train()
    net.encoder.signal_branch.eval()
    modes = [module.training for module in net.modules()]
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    batch = records()
    batch[1][:, 1] = False
    copies = [part.clone() for part in batch]
    scorer(net, terms=ALL, map_terms=ALL_MAPPED)(*batch, maps=True)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert all(map(torch.equal, batch, copies))
    assert all(weight.requires_grad and weight.grad is None for weight in net.parameters())


def test_the_modes_come_back_after_an_error_as_well():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Linear(1, 1)))
    net[1].eval()
    modes = [module.training for module in net.modules()]

    def fail():
        with evaluated(net):
            assert not any(module.training for module in net.modules())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert [module.training for module in net.modules()] == modes


# Terms and weights ----------------------------------------------------------------------------------------------------


def test_a_score_is_the_weighted_mean_of_its_standardised_terms():
    scores = full()(*records())
    rows = [0, 1, 3, 4]
    expected = sum(ALL[name] * part for name, part in scores.parts.items()) / sum(ALL.values())
    close(scores.score[rows], expected[rows])
    assert tuple(scores.parts) == ("whole", "beat", "trend", "altered", "distance")


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


def test_a_network_that_was_not_trained_to_tell_altered_records_can_not_be_asked_for_it():
    net = RestorationNetwork(McfEncoder(LEADS, [4], 4), [6], decoder_width=8, length=LENGTH, window=WINDOW)
    for asked in ({"terms": {"altered": 0.0, "whole": 1.0}}, {"map_terms": {"altered": 1.0}}):
        with pytest.raises(ConfigurationError, match=r"altered.*not trained to tell.*weights\.altered"):
            scorer(net, fitted=False, **asked)


def test_standard_deviations_without_training_records_are_refused():
    made = scorer(network(), fitted=False)
    with pytest.raises(ConfigurationError, match=r"standard deviations of training records.*standardise to false"):
        made(*records())
    assert scorer(network(), fitted=False, standardise=False)(*records()).score.isfinite().all()


def test_a_reference_that_was_saved_scores_as_the_one_it_was_saved_from():
    made, batch = full(), records()
    loaded = NormalReference(made.reference.terms, 2 * made.network.encoder.channels)
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


# Maps -----------------------------------------------------------------------------------------------------------------


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
