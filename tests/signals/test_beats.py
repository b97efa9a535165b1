import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.signals.beats import every_beat, random_beat, rhythm


def ramp(batch: int, time: int = 1000) -> torch.Tensor:
    """A signal whose value is its sample index, so that a window tells where it was cut."""
    return torch.arange(time).float().expand(batch, 12, time)


def test_a_beat_is_cut_from_before_its_r_peak_to_after_it():
    beat, has_beat = random_beat(ramp(1), torch.tensor([[400, -1]]), before=28, after=68)
    assert has_beat.all()
    torch.testing.assert_close(beat[0, 5], torch.arange(372, 468).float())


def test_beats_whose_window_leaves_the_signal_are_never_chosen():
    beats = torch.tensor([[10, 500, 990, -1]]).expand(200, -1)
    beat, has_beat = random_beat(ramp(200), beats, before=28, after=68)
    assert has_beat.all()
    assert torch.equal(beat[:, 0, 28], torch.full((200,), 500.0))


def test_every_whole_beat_is_chosen_sometimes():
    beat, _ = random_beat(ramp(200), torch.tensor([[100, 500, 900, -1]]).expand(200, -1), before=28, after=68)
    assert set(beat[:, 0, 28].tolist()) == {100.0, 500.0, 900.0}


def test_a_record_without_a_whole_beat_is_kept_and_told_apart():
    beats = torch.tensor([[-1, -1], [5, -1], [300, -1]])
    beat, has_beat = random_beat(ramp(3), beats, before=28, after=68)
    assert has_beat.tolist() == [False, False, True]
    assert not beat[:2].any()


def test_a_peak_at_the_very_edge_of_what_fits_is_used():
    _, has_beat = random_beat(ramp(2), torch.tensor([[28], [932]]), before=28, after=68)
    assert has_beat.tolist() == [True, True]


def test_every_beat_of_every_record_is_cut_and_says_whose_it_is():
    signal = ramp(3) + 10_000 * torch.arange(3)[:, None, None]
    cut = every_beat(signal, torch.tensor([[400, 500, -1], [-1, -1, -1], [300, -1, 700]]), before=28, after=68)
    assert cut.record.tolist() == [0, 0, 2, 2]
    assert cut.start.tolist() == [372, 472, 272, 672]
    assert cut.whole.all()
    assert cut.recorded.all()
    torch.testing.assert_close(cut.window[3, 7], 20_000 + torch.arange(672, 768).float())


def test_a_beat_at_the_edge_is_kept_and_what_is_outside_is_not_a_number():
    cut = every_beat(ramp(1), torch.tensor([[10, 990]]), before=28, after=68)
    assert cut.start.tolist() == [-18, 962]
    assert not cut.whole.any()
    assert cut.window[0, 0, :18].isnan().all()
    torch.testing.assert_close(cut.window[0, 0, 18:], torch.arange(78).float())
    torch.testing.assert_close(cut.window[1, 0, :38], torch.arange(962, 1000).float())
    assert cut.window[1, 0, 38:].isnan().all()
    assert torch.equal(cut.recorded, ~cut.window.isnan())


def test_what_was_not_recorded_is_not_a_number_in_the_beat_whether_told_by_a_mask_or_by_nan():
    recorded = torch.ones(1, 12, 1000, dtype=torch.bool)
    recorded[:, 3], recorded[:, :, 400:410] = False, False
    beats = torch.tensor([[400, 600]])
    told = every_beat(torch.zeros(1, 12, 1000), beats, 28, 68, recorded)
    marked = every_beat(torch.zeros(1, 12, 1000).masked_fill(~recorded, torch.nan), beats, 28, 68)
    assert torch.equal(told.recorded, marked.recorded)
    assert torch.equal(told.window.isnan(), ~told.recorded)
    assert not told.recorded[:, 3].any()
    assert (~told.recorded[0, 0]).nonzero()[:, 0].tolist() == list(range(28, 38))
    assert told.recorded[1, 0].all()


def test_one_flag_for_the_whole_record_serves_as_recorded():
    flag = torch.tensor([True, False])[:, None, None]
    cut = every_beat(ramp(2), torch.tensor([[500], [500]]), 28, 68, flag)
    assert cut.recorded[0].all()
    assert not cut.recorded[1].any()


@pytest.mark.parametrize("beats", [torch.full((2, 3), -1), torch.zeros(2, 0, dtype=torch.long)])
def test_a_batch_without_beats_gives_no_windows(beats):
    cut = every_beat(ramp(2), beats, before=28, after=68)
    assert cut.window.shape == (0, 12, 96)
    assert len(cut.record) == len(cut.start) == len(cut.whole) == 0


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(-1, 19), min_size=4, max_size=4), min_size=1, max_size=4),
    st.integers(0, 30),
    st.integers(1, 30),
)
def test_every_beat_is_the_window_that_a_padded_record_has(beats, before, after):
    signal = torch.randn(len(beats), 2, 20, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(signal, (before, after), value=torch.nan)
    expected = [
        (row, peak, padded[row, :, peak : peak + before + after])
        for row, peaks in enumerate(beats)
        for peak in peaks
        if peak >= 0
    ]
    cut = every_beat(signal, torch.tensor(beats), before, after)
    assert cut.record.tolist() == [row for row, _, _ in expected]
    assert cut.start.tolist() == [peak - before for _, peak, _ in expected]
    for window, (_, _, wanted) in zip(cut.window, expected, strict=True):
        torch.testing.assert_close(window, wanted, equal_nan=True, rtol=0, atol=0)
    assert cut.whole.tolist() == [not wanted.isnan().any() for _, _, wanted in expected]


def test_the_beat_that_random_beat_draws_is_one_of_every_beat():
    signal = torch.randn(6, 12, 1000, generator=torch.Generator().manual_seed(0))
    beats = torch.tensor([[10, 300, 640, 980]]).expand(6, -1)
    drawn, _ = random_beat(signal, beats, 28, 68)
    cut = every_beat(signal, beats, 28, 68)
    for row in range(6):
        own = cut.window[(cut.record == row) & cut.whole]
        assert any(torch.equal(window, drawn[row]) for window in own)


def test_an_r_peak_outside_the_signal_is_refused_with_its_row():
    with pytest.raises(ValueError, match=r"Row 1 .* at sample 1000, expected one of 0 to 999"):
        every_beat(ramp(2), torch.tensor([[5, -1], [999, 1000]]), 28, 68)


@pytest.mark.parametrize(("before", "after"), [(-1, 68), (28, 0)])
def test_a_window_without_its_r_peak_is_refused(before, after):
    with pytest.raises(ValueError, match="does not hold the R peak"):
        every_beat(ramp(1), torch.tensor([[500]]), before, after)


def test_a_rhythm_is_the_mean_distance_of_the_beats_that_lie_in_the_signal():
    pace = rhythm(torch.tensor([[500, 100, -1, 400], [-1, 30, -1, 9999], [-1, -1, -1, -1]]), 1000)
    assert pace.valid.sum(1).tolist() == [3, 1, 0]
    assert pace.first[:, 0].tolist() == [100, 30, 1000]
    assert pace.last[:, 0].tolist() == [500, 30, -1]
    torch.testing.assert_close(pace.cycle[:, 0], torch.tensor([200, torch.nan, torch.nan]), equal_nan=True)
    assert rhythm(torch.zeros(2, 0, dtype=torch.long), 1000).cycle.isnan().all()
