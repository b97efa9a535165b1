import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.signals.beats import every_beat
from tests.anomaly.scoring_cases import (
    BEATS,
    COVERS,
    FAMILIES,
    GEOMETRY,
    LEADS,
    LENGTH,
    WINDOW,
    StubNetwork,
    close,
    network,
    records,
    scorer,
)


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
