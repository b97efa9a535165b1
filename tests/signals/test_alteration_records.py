import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.signals.alteration_records import (
    FAR,
    LEAST_SPEED,
    Records,
    baseline,
    bell,
    lead_weights,
    moved_beats,
    ordered_peaks,
    over_beats,
    read_at,
    source_times,
    stretch,
)


def records(peaks: torch.Tensor, leads: int = 12, time: int = 600, seed: int = 0, rate: float = 100.0) -> Records:
    signal = torch.zeros(len(peaks), leads, time)
    return Records(signal, peaks, peaks < FAR, rate, torch.Generator().manual_seed(seed))


def many(leads: int) -> Records:
    return records(torch.full((400, 1), FAR), leads, time=2)


def test_peaks_are_in_order_and_what_is_no_beat_of_the_signal_comes_last():
    beats = torch.tensor([[50, -1, 20, 100], [-1, -1, -1, -1]])
    assert ordered_peaks(beats, 100).tolist() == [[20, 50, FAR, FAR, FAR], [FAR] * 5]


def test_a_batch_without_a_column_of_beats_gets_one():
    assert ordered_peaks(torch.zeros(3, 0, dtype=torch.int64), 100).tolist() == [[FAR]] * 3


@given(st.lists(st.integers(0, 599), max_size=40, unique=True), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_windows_of_beats_are_those_of_one_beat_after_the_other(peaks, add, seed):
    beats = ordered_peaks(torch.tensor([[*peaks, -1]]), 600)
    at = records(beats)
    chosen = (beats < FAR) & (torch.rand(beats.shape, generator=torch.Generator().manual_seed(seed)) < 0.5)
    at = Records(at.signal, beats, chosen, 100.0)
    expected = np.zeros(600)
    for peak in beats[chosen].tolist():
        x = ((np.arange(600) - peak) / 100 - 0.2) / 0.1
        single = np.clip((np.exp(-x * x / 2) - math.exp(-8)) / (1 - math.exp(-8)), 0, None)
        expected = expected + single if add else np.maximum(expected, single)
    window = over_beats(at, lambda since: bell((since - 0.2) / 0.1), add=add)
    np.testing.assert_allclose(window[0].numpy(), expected, atol=1e-5)


def test_windows_end_exactly_so_that_they_leave_what_is_outside_untouched():
    x = torch.linspace(-6, 6, 1201)
    assert bell(x).max() == 1
    assert (bell(x) == 0)[x.abs() >= 4].all()
    flat = stretch(x, -1.0, 2.0, 0.5)
    assert (flat == 0)[(x < -1.25) | (x > 2.25)].all()
    assert (flat == 1)[(x > -0.74) & (x < 1.74)].all()


def test_reading_between_samples_is_linear_interpolation_that_is_constant_past_the_ends():
    generator = torch.Generator().manual_seed(0)
    signal, position = torch.randn(3, 2, 50, generator=generator), torch.rand(3, 80, generator=generator) * 60 - 5
    expected = [[np.interp(at, np.arange(50), lead) for lead in one] for one, at in zip(signal, position, strict=True)]
    np.testing.assert_allclose(read_at(signal, position).numpy(), np.array(expected), atol=1e-5)


def test_reading_at_the_samples_themselves_gives_them_to_the_last_bit():
    signal = torch.randn(2, 3, 100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(read_at(signal, torch.arange(100.0).expand(2, -1)), signal)


@given(st.integers(2, 200), st.floats(0, 1000), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_time_goes_forward_whatever_the_displacement(time, strength, seed):
    displacement = strength * torch.randn(4, time, generator=torch.Generator().manual_seed(seed))
    speed = source_times(displacement).diff(dim=1)
    assert torch.isfinite(speed).all()
    assert speed.min() > LEAST_SPEED - 1e-3


def test_a_displacement_that_keeps_time_going_is_taken_as_it_is():
    displacement = torch.linspace(0, 20, 200)[None]
    assert torch.equal(source_times(displacement)[0], torch.arange(200) + displacement[0])


@given(
    st.lists(st.integers(2, 90), min_size=2, max_size=12),
    st.lists(st.floats(0.3, 3), min_size=12, max_size=12),
    st.integers(2, 90),
)
@settings(max_examples=50, deadline=None)
def test_beats_are_moved_where_they_shall_be_and_time_goes_forward_between_them(intervals, factors, first):
    peaks = torch.tensor([first, *intervals]).cumsum(0)
    longer = torch.tensor([first, *(max(round(i * f), 1) for i, f in zip(intervals, factors, strict=False))])
    moved = longer.cumsum(0)
    time = int(max(peaks[-1], moved[-1])) + 2
    at = records(ordered_peaks(peaks[None], time), time=time)
    source = torch.arange(time) + moved_beats(at, ordered_peaks(moved[None], time))[0]
    torch.testing.assert_close(source[moved], peaks.float(), atol=1e-3, rtol=0)
    # Between two beats; after the last one the record goes on from wherever that was moved.
    assert (source[: moved[-1] + 1].diff() > 0).all()


def test_a_moved_beat_keeps_its_form_from_the_p_wave_to_the_t_wave():
    peaks, moved = (
        ordered_peaks(torch.tensor([[100, 200, 300]]), 400),
        ordered_peaks(torch.tensor([[100, 170, 300]]), 400),
    )
    displacement = moved_beats(records(peaks, time=400), moved)[0]
    assert (displacement[170 - 17 : 170 + 40] == 30).all()
    assert (displacement[:100] == 0).all()
    assert (displacement[300:] == 0).all()


def test_the_baseline_follows_slow_drift_and_not_the_beats():
    seconds = torch.arange(1000) / 100
    drift = 0.5 * torch.sin(2 * math.pi * 0.1 * seconds)
    beats = 1.5 * (torch.arange(1000) % 100 < 4)
    at = Records((drift + beats).expand(1, 1, -1), torch.full((1, 1), FAR), torch.zeros(1, 1, dtype=torch.bool), 100.0)
    rest = baseline(at)[0, 0, 100:900] - drift[100:900]
    assert rest.mean().item() == pytest.approx(0.06, abs=0.02)
    assert rest.std() < 0.05


def test_weights_of_the_limb_leads_follow_from_two_of_them():
    one, two, three, avr, avl, avf = lead_weights(many(12))[:, :6].T
    for lead, follows in (
        (three, two - one),
        (avr, -(one + two) / 2),
        (avl, (one - three) / 2),
        (avf, (two + three) / 2),
    ):
        torch.testing.assert_close(lead, follows, atol=1e-5, rtol=0)


def test_weights_change_smoothly_from_v1_to_v6():
    chest = lead_weights(many(12))[:, 6:]
    shuffled = chest[:, torch.tensor([0, 3, 1, 4, 2, 5])]
    assert chest.diff(dim=1).abs().mean() < 0.7 * shuffled.diff(dim=1).abs().mean()


@pytest.mark.parametrize("leads", [1, 2, 3, 8, 12, 15])
def test_the_greatest_weight_is_one_for_any_number_of_leads(leads):
    weights = lead_weights(many(leads))
    assert weights.shape == (400, leads)
    torch.testing.assert_close(weights.abs().amax(dim=1), torch.ones(400))
    assert (weights.amax(dim=1) > 0).any()
    assert (weights.amin(dim=1) < 0).any(), "of either sign"


def test_leads_that_are_not_the_twelve_have_weights_of_their_own():
    weights = lead_weights(many(8))
    assert np.abs(np.corrcoef(weights.T.numpy()) - np.eye(8)).max() < 0.3


def test_some_of_a_few_is_never_none():
    at = many(3)
    assert at.some(0.0, 3).sum(dim=1).tolist() == [1] * 400
    assert at.some(torch.ones(400, 1), 3).all()


def test_a_wave_of_a_few_chest_leads_points_one_way_in_all_of_them_up_or_down():
    weights = lead_weights(many(12))
    few = weights[(weights[:, :6] == 0).all(dim=1), 6:]
    up, down = (few >= 0).all(dim=1), (few <= 0).all(dim=1)
    assert len(few) > 30
    assert (up | down).all()
    assert 0.3 < up.float().mean() < 0.7
