import numpy as np
import pytest
import torch

from ecgfair.signals.trend import trend


@pytest.mark.parametrize("window", [1, 2, 3, 10])
def test_the_trend_keeps_the_length_and_of_a_constant_is_zero(window):
    result = trend(torch.full((2, 12, 1000), 0.7), window)
    assert result.shape == (2, 12, 1000)
    torch.testing.assert_close(result, torch.zeros_like(result), atol=1e-6, rtol=0)


@pytest.mark.parametrize("window", [1, 2, 3, 10])
def test_the_trend_of_a_slope_is_the_slope(window):
    result = trend((0.01 * torch.arange(1000).float()).expand(1, 2, -1), window)
    torch.testing.assert_close(result[..., 20:-20], torch.full((1, 2, 960), 0.01), atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [1, 2, 5, 10])
def test_the_trend_is_the_difference_of_a_moving_average(window):
    signal = np.random.default_rng(0).normal(size=200)
    padded = np.pad(signal, (window // 2 + 1, window - window // 2 - 1), mode="edge")
    expected = np.diff(np.convolve(padded, np.ones(window) / window, mode="valid"))
    np.testing.assert_allclose(trend(torch.tensor(signal)[None, None], window)[0, 0].numpy(), expected, atol=1e-12)


def test_the_trend_of_a_masked_signal_tells_nothing_of_what_is_hidden():
    signal = torch.randn(1, 12, 1000)
    other = signal.clone()
    hidden = torch.zeros(1, 12, 1000, dtype=torch.bool)
    hidden[..., 300:400] = True
    other[hidden] = torch.randn(1200)
    torch.testing.assert_close(
        trend(signal.masked_fill(hidden, 0), 2), trend(other.masked_fill(hidden, 0), 2), rtol=0, atol=0
    )
