import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.errors import ConfigurationError
from ecgfair.signals.masking import beat_mask, lead_mask, patch_mask, phase_mask, span_mask


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_patch_mask_hides_the_share_asked_for_in_whole_patches():
    mask = patch_mask((8, 12, 1000), patch=50, ratio=0.3, generator=generator())
    assert torch.equal(mask.sum(-1), torch.full((8, 12), 300))
    patches = mask.view(8, 12, 20, 50)
    assert torch.equal(patches.all(-1), patches.any(-1))


@pytest.mark.parametrize(("shared", "same"), [(1.0, True), (0.0, False)])
def test_leads_hide_the_same_patches_only_where_the_mask_is_shared(shared, same):
    mask = patch_mask((16, 12, 1000), patch=50, ratio=0.3, shared=shared, generator=generator())
    assert bool((mask == mask[:, :1]).all()) is same


def test_every_patch_is_hidden_equally_often():
    mask = patch_mask((4000, 1, 100), patch=10, ratio=0.3, shared=0.0, generator=generator())
    # A share of 0.3 in 4,000 draws has a standard error of 0.007.
    torch.testing.assert_close(mask[:, 0, ::10].float().mean(0), torch.full((10,), 0.3), atol=0.03, rtol=0)


def test_a_length_that_patches_do_not_divide_keeps_its_length():
    assert patch_mask((2, 3, 997), patch=50, ratio=0.3).shape == (2, 3, 997)


@pytest.mark.parametrize(("ratio", "patch"), [(0.0, 50), (1.0, 50), (0.3, 1000)])
def test_a_mask_that_would_hide_all_or_nothing_is_refused(ratio, patch):
    with pytest.raises(ConfigurationError, match="can't both hide and leave"):
        patch_mask((2, 12, 1000), patch=patch, ratio=ratio)


def test_a_span_mask_hides_one_run_of_samples_that_may_wrap_around():
    mask = span_mask((500, 12, 96), ratio=0.3, generator=generator())
    assert torch.equal(mask.sum(-1), torch.full((500, 12), 29))
    edges = (mask[:, 0] != mask[:, 0].roll(1, dims=-1)).sum(-1)
    assert torch.equal(edges, torch.full((500,), 2))
    assert mask[:, 0].any(0).all(), "every sample of a beat is hidden sometimes, the ST-T part too"


@pytest.mark.parametrize("ratio", [0.001, 0.999])
def test_a_span_hides_at_least_one_sample_and_leaves_at_least_one(ratio):
    hidden = span_mask((20, 1, 10), ratio=ratio, generator=generator()).sum(-1)
    assert ((hidden == 1) | (hidden == 9)).all()


@pytest.mark.parametrize(("ratio", "time"), [(0.0, 96), (1.0, 96), (float("nan"), 96), (0.3, 1)])
def test_a_span_that_would_hide_all_or_nothing_is_refused(ratio, time):
    with pytest.raises(ConfigurationError):
        span_mask((2, 12, time), ratio=ratio)


def test_a_lead_mask_hides_the_share_asked_for_in_whole_leads():
    mask = lead_mask((50, 12, 100), ratio=0.3, generator=generator())
    assert torch.equal(mask.any(-1), mask.all(-1))
    assert torch.equal(mask.all(-1).sum(1), torch.full((50,), 4))
    assert mask.all(-1).any(0).all(), "every lead is hidden sometimes"


def test_leads_are_hidden_and_left_among_the_recorded_ones_alone():
    recorded = torch.zeros(100, 12, dtype=torch.bool)
    recorded[:, [1, 5, 7]] = True
    hidden = lead_mask((100, 12, 20), 0.3, recorded, generator=generator()).all(-1)
    assert not hidden[:, ~recorded[0]].any()
    assert torch.equal(hidden.sum(1), torch.ones(100, dtype=torch.long))


@pytest.mark.parametrize("recorded_leads", [0, 1])
def test_a_record_without_two_leads_hides_a_span_of_time_instead(recorded_leads):
    recorded = torch.zeros(1, 12, dtype=torch.bool)
    recorded[:, :recorded_leads] = True
    mask = lead_mask((1, 12, 100), 0.3, recorded, generator=generator())
    assert torch.equal(mask.sum(-1), torch.full((1, 12), 30))


def hidden_windows(peaks: list[int], before: int, after: int, time: int) -> torch.Tensor:
    """The union of windows, one after the other."""
    hidden = torch.zeros(time, dtype=torch.bool)
    for peak in peaks:
        hidden[max(peak - before, 0) : max(peak + after, 0)] = True
    return hidden


def test_a_beat_mask_hides_whole_beats_and_nothing_else():
    peaks = [50, 150, 250, 350, 450]
    masks = beat_mask((200, 3, 500), torch.tensor([[*peaks, -1]] * 200), 0.4, 28, 68, generator=generator())
    assert torch.equal(masks, masks[:, :1].expand_as(masks))
    pairs = {pair: hidden_windows(list(pair), 28, 68, 500) for pair in itertools.combinations(peaks, 2)}
    seen = {pair for mask in masks[:, 0] for pair, hidden in pairs.items() if torch.equal(mask, hidden)}
    assert all(any(torch.equal(mask, hidden) for hidden in pairs.values()) for mask in masks[:, 0])
    assert seen == set(pairs), "every pair of beats is hidden sometimes"


def test_of_two_or_more_leads_or_beats_one_is_left_even_at_the_highest_share():
    assert torch.equal(lead_mask((9, 12, 20), 0.99, generator=generator()).all(-1).sum(1), torch.full((9,), 11))
    beats = torch.tensor([[20, 60, 100]] * 9)
    hidden = beat_mask((9, 1, 120), beats, 0.99, 5, 5, generator=generator())
    assert torch.equal(hidden[:, 0].gather(1, beats).sum(1), torch.full((9,), 2))


def test_a_beat_cut_by_the_edge_of_the_record_is_hidden_up_to_the_edge():
    mask = beat_mask((1, 1, 100), torch.tensor([[5]]), 0.3, 28, 40, generator=generator())
    assert torch.equal(mask[0, 0], hidden_windows([5], 28, 40, 100))


@pytest.mark.parametrize("beats", [[], [-1, -1], [100, 2000]])
def test_a_record_without_beats_hides_a_span_of_time_instead(beats):
    shape, none = (4, 2, 100), torch.tensor([beats] * 4, dtype=torch.long).reshape(4, -1)
    for mask in (
        beat_mask(shape, none, 0.3, 28, 68, generator=generator()),
        phase_mask(shape, none, 0.3, 28, generator=generator()),
    ):
        assert torch.equal(mask.sum(-1), torch.full((4, 2), 30))


def test_a_record_whose_beats_would_hide_all_of_it_hides_a_span_instead():
    beats = torch.arange(0, 100, 5)[None]
    assert beat_mask((1, 1, 100), beats, 0.5, 60, 60, generator=generator()).sum() == 50


def test_a_phase_mask_hides_the_same_phase_of_every_beat():
    peaks = [70, 150, 230, 310, 390]
    masks = phase_mask((300, 2, 450), torch.tensor([peaks] * 300), 0.25, 28, generator=generator())
    assert torch.equal(masks, masks[:, :1].expand_as(masks))
    # One more beat would come before the first, and one after the last.
    every = [-10, *peaks, 470]
    phases = {start: hidden_windows(every, -start, start + 20, 450) for start in range(-28, 52)}
    found = [start for mask in masks[:, 0] for start, hidden in phases.items() if torch.equal(mask, hidden)]
    assert len(found) == 300
    assert len(set(found)) > 70, "every phase is hidden sometimes"


def test_a_phase_mask_hides_about_its_share_at_every_heart_rate_and_every_sample_equally_often():
    for cycle in (33, 60, 100, 170):
        beats = torch.arange(cycle // 2, 1000, cycle).expand(2000, -1)
        hidden = phase_mask((2000, 1, 1000), beats, 0.3, 28, generator=generator())[:, 0, 200:800].float()
        # A share of 0.3 in 2,000 draws has a standard error of 0.010; windows are rounded to whole samples.
        torch.testing.assert_close(hidden.mean(0), torch.full((600,), 0.3), atol=0.05, rtol=0)


def test_beats_that_are_not_inside_the_signal_change_no_phase():
    inside, outside = torch.tensor([[100, 200, 300]] * 9), torch.tensor([[-1, 300, 5000, 100, -1, 200]] * 9)
    shape = (9, 1, 400)
    same = [phase_mask(shape, beats, 0.3, 28, generator=generator()) for beats in (inside, outside)]
    assert torch.equal(*same)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(-1, 130), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(2, 120),
    st.floats(0.001, 0.999),
    st.integers(0, 150),
    st.integers(1, 150),
    st.integers(0, 2**31),
)
def test_every_record_hides_something_and_leaves_something(beats, time, ratio, before, after, seed):
    peaks, shape = torch.tensor(beats), (len(beats), 3, time)
    recorded = peaks.remainder(2).bool()
    for mask in (
        span_mask(shape, ratio, generator=generator(seed)),
        lead_mask(shape, ratio, recorded, generator=generator(seed)),
        beat_mask(shape, peaks, ratio, before, after, generator=generator(seed)),
        phase_mask(shape, peaks, ratio, before, generator=generator(seed)),
    ):
        assert mask.shape == shape
        assert mask.flatten(1).any(1).all()
        assert not mask.flatten(1).all(1).any()
