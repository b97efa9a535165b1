import torch

from ecgfair.signals.beats import random_beat


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
