import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from ecgfair.signals.baseline import without_baseline
from tests.signals.heart_cases import GAINS, heart

RATES = (100.0, 250.0, 500.0)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("rate", "half", "step"), [(100.0, 30, 5), (250.0, 75, 12), (500.0, 150, 25)])
@pytest.mark.parametrize("seconds", [10, 3.01, 0.2])
def test_it_is_the_running_median_at_every_knot_and_straight_between_them(rate, half, step, seconds):
    signal = noise(2, 3, round(rate * seconds)).cumsum(-1)
    time = signal.shape[-1]
    taken = (signal - without_baseline(signal, rate)).numpy()
    expected = median_filter(signal.numpy(), size=(1, 1, 2 * half + 1), mode="nearest")
    knots = np.arange(0, time, step)
    np.testing.assert_allclose(taken[..., knots], expected[..., knots], atol=1e-4)
    for row in taken.reshape(-1, time):
        drawn = np.interp(np.arange(knots[-1] + 1), knots, row[knots])
        np.testing.assert_allclose(row[: knots[-1] + 1], drawn, atol=1e-4)


@pytest.mark.parametrize("rate", RATES)
def test_a_slow_wander_is_taken_away_and_the_waves_keep_their_height(rate):
    ecg = heart(1.0, rate)
    time = torch.arange(ecg.shape[-1]) / rate
    level = without_baseline(ecg + 0.5 * torch.sin(2 * torch.pi * 0.1 * time), rate)
    inner = slice(round(0.5 * rate), -round(0.5 * rate))
    assert (level - ecg)[..., inner].abs().max() < 0.1, "of 0.5 mV of wander"
    at = round(1.6 * rate)
    torch.testing.assert_close(level[0, :, at], torch.tensor(GAINS), atol=0.05, rtol=0)
    torch.testing.assert_close(without_baseline(ecg, rate)[..., inner], ecg[..., inner], atol=0.06, rtol=0)


def test_the_height_of_the_electrode_does_not_matter():
    ecg = heart()
    torch.testing.assert_close(without_baseline(ecg + 7, 100.0), without_baseline(ecg, 100.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("where", [slice(0, 90), slice(400, 700), slice(300, 301), slice(-40, None), slice(None)])
def test_what_is_missing_stays_missing_and_spreads_nowhere(rate, where):
    signal = noise(1, 2, round(10 * rate))
    place = slice(*(None if end is None else int(end * rate / 100) for end in (where.start, where.stop)))
    signal[0, 1, place] = torch.nan
    level = without_baseline(signal, rate)
    assert torch.equal(level.isnan(), signal.isnan())
    full = signal.clone()
    full[0, 1] = 0
    torch.testing.assert_close(level[:, :1], without_baseline(full, rate)[:, :1], atol=0, rtol=0)


def test_beside_a_gap_longer_than_the_window_the_level_is_that_of_its_own_side():
    signal = torch.full((1, 1, 1000), 1.0)
    signal[..., 402:700] = torch.nan
    signal[..., 700:] = -2.0
    level = without_baseline(signal, 100.0)
    torch.testing.assert_close(level.nan_to_num(), torch.zeros(1, 1, 1000))


@pytest.mark.parametrize("rate", [10.0, *RATES])
@pytest.mark.parametrize("time", [1, 2, 5, 6, 30, 61])
def test_a_record_of_any_length_has_a_baseline_also_one_shorter_than_the_window(rate, time):
    torch.testing.assert_close(without_baseline(torch.full((2, 3, time), 0.7), rate), torch.zeros(2, 3, time))
    assert without_baseline(noise(1, 1, time), rate).isfinite().all()


def test_a_record_is_the_same_in_a_batch_of_any_size():
    signal = noise(19, 2, 300)
    together = without_baseline(signal, 100.0)
    for row in range(19):
        assert torch.equal(without_baseline(signal[row : row + 1], 100.0)[0], together[row])
    assert without_baseline(signal[:0], 100.0).shape == (0, 2, 300)
