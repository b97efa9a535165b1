import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ecgfair.errors import ConfigurationError
from ecgfair.signals.covering import covering_masks, covering_phases, covering_spans


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 14), st.integers(1, 300), st.integers(1, 60), st.integers(2, 12), st.booleans())
def test_patches_hide_every_sample_of_every_lead_in_exactly_one_pass(leads, time, patch, passes, per_lead):
    assume(-(-time // patch) >= passes)
    masks = covering_masks(leads, time, patch, passes, per_lead)
    assert masks.shape == (passes, leads, time)
    assert (masks.sum(0) == 1).all()
    assert masks.any(-1).all(), "each pass hides something in each lead"
    assert not masks.all(-1).any(), "and leaves something"


def test_patches_take_turns_and_are_hidden_as_a_whole():
    masks = covering_masks(2, 1000, 50, 4)
    assert masks[1, 0, ::50].nonzero()[:, 0].tolist() == [1, 5, 9, 13, 17]
    patches = masks.view(4, 2, 20, 50)
    assert torch.equal(patches.any(-1), patches.all(-1))
    assert torch.equal(masks[:, 0], masks[:, 1])


def test_neighbouring_leads_are_never_hidden_together_where_each_lead_has_its_turn():
    masks = covering_masks(12, 1000, 50, 4, per_lead=True)
    for lead in range(12):
        for other in range(12):
            together = bool((masks[:, lead] & masks[:, other]).any())
            assert together is ((lead - other) % 4 == 0)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 14), st.integers(2, 300), st.integers(2, 20))
def test_spans_hide_every_sample_of_a_beat_once_in_runs_of_nearly_the_same_length(leads, window, passes):
    assume(window >= passes)
    masks = covering_spans(leads, window, passes)
    assert masks.shape == (passes, leads, window)
    assert (masks.sum(0) == 1).all()
    lengths = masks.sum(-1)
    assert int(lengths.max() - lengths.min()) <= 1
    turns = masks.long().argmax(0)
    assert (turns.diff(dim=-1) >= 0).all(), "a pass hides one run, and the passes go on in time"


@pytest.mark.parametrize(("time", "patch", "passes"), [(100, 50, 1), (100, 50, 3), (100, 100, 2), (100, 0, 2)])
def test_passes_that_would_hide_all_or_nothing_are_refused(time, patch, passes):
    with pytest.raises(ConfigurationError, match="can't hide each part once"):
        covering_masks(12, time, patch, passes)
    with pytest.raises(ConfigurationError, match="can't hide each part once"):
        covering_phases(torch.tensor([[10, 50]]), time, passes, 28, patch)


@pytest.mark.parametrize(("window", "passes"), [(96, 1), (3, 4)])
def test_spans_that_would_hide_all_or_nothing_are_refused(window, passes):
    with pytest.raises(ConfigurationError, match="can't hide each part once"):
        covering_spans(12, window, passes)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(-1, 130), min_size=5, max_size=5), min_size=1, max_size=3),
    st.integers(20, 120),
    st.integers(2, 6),
    st.integers(0, 60),
)
def test_phases_hide_every_sample_of_every_record_in_exactly_one_pass(beats, time, passes, before):
    masks = covering_phases(torch.tensor(beats), time, passes, before, patch=3)
    assert masks.shape == (passes, len(beats), time)
    assert (masks.sum(0) == 1).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(10, 60), min_size=2, max_size=8), st.integers(0, 20), st.integers(2, 6))
def test_every_phase_is_hidden_in_some_pass_however_irregular_the_rhythm(distances, first, passes):
    peaks = torch.tensor([[first, *distances]]).cumsum(1)
    masks = covering_phases(peaks, int(peaks.max()) + 1, passes, before=0, patch=2)
    assert masks.any(-1).all()


def test_a_phase_is_hidden_in_every_beat_and_where_beats_would_be_before_and_after():
    peaks = torch.arange(50, 1000, 80)
    masks = covering_phases(peaks[None], 1000, passes=4, before=28, patch=25)[:, 0]
    for time in range(1000):
        phase = (time - 50 + 28) % 80
        assert masks[:, time].nonzero()[:, 0].tolist() == [phase // 20]
    assert masks[1, peaks].all(), "all R peaks are hidden in one pass"


def test_a_premature_beat_starts_its_own_cycle():
    masks = covering_phases(torch.tensor([[100, 200, 250, 400]]), 500, passes=4, before=30, patch=25)[:, 0]
    for peak in (100, 200, 250, 400):
        assert masks[1, peak - 5 : peak + 20].all()
        assert masks[0, peak - 30], "the cycle starts with the very first sample of the beat"


def test_the_order_of_the_beats_and_columns_without_a_beat_change_no_phase():
    plain = covering_phases(torch.tensor([[100, 200, 330]]), 400, 4, before=30, patch=25)
    for same in ([[-1, 330, 100, 200, -1]], [[200, 330, 100, 400, 9999]]):
        assert torch.equal(covering_phases(torch.tensor(same), 400, 4, before=30, patch=25), plain)


def test_beats_closer_together_than_there_are_passes_leave_no_pass_without_something_hidden():
    assert covering_phases(torch.tensor([[0, 1, 2]]), 100, 4, before=0, patch=25).any(-1).all()


@pytest.mark.parametrize("beats", [[], [-1, -1], [300, -1], [300, 1000]])
def test_a_record_without_a_cycle_gets_patches(beats):
    masks = covering_phases(torch.tensor([beats], dtype=torch.long).reshape(1, -1), 1000, 4, before=28, patch=50)
    assert torch.equal(masks, covering_masks(1, 1000, 50, 4))


def test_the_phases_of_a_record_do_not_depend_on_its_neighbours():
    beats = torch.tensor([[100, 200, 330, -1], [-1, 20, 80, 120], [-1, -1, -1, -1]])
    together = covering_phases(beats, 400, 3, 28, 30)
    apart = [covering_phases(row[None], 400, 3, 28, 30) for row in beats]
    assert torch.equal(together, torch.cat(apart, dim=1))
