import math

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecgfair.errors import ConfigurationError
from ecgfair.signals.windows import Windows, mean_probability_logits


def numbered(time, dtype=torch.float32):
    """Two records of three leads whose samples hold their own number."""
    return torch.arange(time).to(dtype).expand(2, 3, time)


def starts(windows):
    return windows[0, :, 0, 0].long().tolist()


def test_without_a_length_the_whole_record_is_one_window():
    signal = numbered(1000)
    cut = Windows().cut(signal, 100)
    assert cut.shape == (2, 1, 3, 1000)
    assert torch.equal(cut[:, 0], signal)


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        (Windows(2.5), [0, 125, 250, 375, 500, 625, 750]),
        (Windows(2.5, 2.5), [0, 250, 500, 750]),
        (Windows(4, 4), [0, 400, 600]),
        (Windows(8), [0, 200]),
        (Windows(9.99, 0.001), [0, 1]),
    ],
    ids=str,
)
def test_windows_follow_by_the_stride_and_the_last_ends_at_the_last_sample(windows, expected):
    cut = windows.cut(numbered(1000), 100)
    assert starts(cut) == expected
    assert cut.shape[:3] == (2, len(expected), 3)
    assert (cut.diff(dim=-1) == 1).all()
    assert (cut[:, -1, :, -1] == 999).all()


@pytest.mark.parametrize("seconds", [10, 10.001, 60])
def test_a_record_no_longer_than_a_window_is_one_window(seconds):
    assert Windows(seconds).cut(numbered(1000), 100).shape == (2, 1, 3, 1000)


@given(
    time=st.integers(1, 300),
    seconds=st.floats(0.01, 3),
    share=st.floats(0.01, 1),
    rate=st.sampled_from([100, 128.0, 500]),
)
def test_every_sample_is_in_a_window_and_no_window_is_there_twice(time, seconds, share, rate):
    cut = Windows(seconds, share * seconds).cut(numbered(time), rate)
    assert set(cut.long().flatten().tolist()) == set(range(time))
    assert len(set(starts(cut))) == cut.shape[1]
    assert starts(cut) == sorted(starts(cut))


def test_what_was_recorded_can_be_cut_as_the_signal_is():
    recorded = numbered(1000) < 300
    assert torch.equal(Windows(2.5).cut(recorded, 100), Windows(2.5).cut(numbered(1000), 100) < 300)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seconds": 0}, r"Windows\.seconds is 0: expected a positive length"),
        ({"seconds": math.nan}, r"Windows\.seconds is nan"),
        ({"seconds": math.inf}, r"Windows\.seconds is inf"),
        ({"seconds": 2, "stride_seconds": -1}, r"Windows\.stride_seconds is -1: expected a positive length"),
        ({"seconds": 2, "stride_seconds": 2.5}, "expected 2, the length of a window, or less"),
        ({"stride_seconds": 1}, r"Windows\.seconds is null"),
    ],
    ids=str,
)
def test_windows_that_cannot_be_cut_are_refused(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        Windows(**wrong)


def test_windows_shorter_than_a_sample_are_refused():
    with pytest.raises(ConfigurationError, match=r"seconds is 0\.004: expected at least 0\.01 s"):
        Windows(0.004).cut(numbered(1000), 100)


def test_the_logit_is_that_of_the_mean_probability():
    logits = 4 * torch.randn(16, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = scipy.special.logit(scipy.special.expit(logits.numpy()).mean(axis=1))
    np.testing.assert_allclose(mean_probability_logits(logits), expected, rtol=1e-10)
    np.testing.assert_allclose(mean_probability_logits(logits.float()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_probabilities_that_round_to_0_or_1_keep_their_logit(sign):
    logits = sign * torch.tensor([[[200.0], [200.0], [300.0]]])
    # Two windows of odds e^200 and one that adds nothing to them: the rare outcome has a mean of 2/3 e^-200.
    torch.testing.assert_close(mean_probability_logits(logits), sign * torch.tensor([[200 - math.log(2 / 3)]]))


def test_windows_that_agree_and_a_single_window_keep_their_logit():
    logits = torch.linspace(-60, 60, 25)[None, None]
    assert torch.equal(mean_probability_logits(logits), logits[:, 0])
    torch.testing.assert_close(mean_probability_logits(logits.expand(-1, 6, -1)), logits[:, 0], atol=1e-5, rtol=1e-6)


def test_opposite_windows_say_one_half_and_the_mean_lies_between_the_extremes():
    assert mean_probability_logits(torch.tensor([[[3.0], [-3.0]]])).item() == pytest.approx(0, abs=1e-6)
    logits = 10 * torch.randn(64, 5, 3, generator=torch.Generator().manual_seed(0))
    mean = mean_probability_logits(logits)
    assert (mean <= logits.amax(dim=1) + 1e-4).all()
    assert (mean >= logits.amin(dim=1) - 1e-4).all()


def test_the_type_of_the_logits_is_kept_and_gradients_are_finite():
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        logits = torch.tensor([[[90.0, -90.0, 0.0], [-90.0, -80.0, 1.0]]], dtype=dtype, requires_grad=True)
        mean = mean_probability_logits(logits)
        assert mean.dtype == dtype
        mean.float().sum().backward()
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(4, 0, 3), (4, 3), (1, 2, 3, 4)])
def test_logits_that_are_not_those_of_windows_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(B, W, C\)"):
        mean_probability_logits(torch.zeros(shape))
