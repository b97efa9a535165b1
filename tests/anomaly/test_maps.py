import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from ecgfair.anomaly.maps import average_overlaps, smooth
from ecgfair.errors import ConfigurationError

NAN = float("nan")


def by_loops(values, record, start, records, time, weights):
    """Sample by sample."""
    count, leads, width = values.shape
    mean, windows = np.full((records, leads, time), np.nan), np.zeros((records, time), dtype=int)
    for b in range(records):
        for t in range(time):
            has = [
                i
                for i in range(count)
                if record[i] == b and 0 <= t - start[i] < width and not np.isnan(values[i, :, t - start[i]]).all()
            ]
            windows[b, t] = len(has)
            for lead in range(leads):
                seen = [(values[i, lead, t - start[i]], weights[t - start[i]]) for i in has]
                seen = [(value, weight) for value, weight in seen if not np.isnan(value)]
                if seen:
                    mean[b, lead, t] = np.average([v for v, _ in seen], weights=[w for _, w in seen])
    return mean, windows


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 8), st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.integers(1, 12), st.integers(0))
def test_overlaps_are_averaged_as_sample_by_sample(count, leads, width, records, time, seed):
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, leads, width))
    values[random.random(values.shape) < 0.3] = np.nan
    record, start = random.integers(records, size=count), random.integers(-width - 2, time + 2, size=count)
    weights = random.random(width) + 0.1
    parts = (torch.from_numpy(part) for part in (values, record, start))
    mean, windows = average_overlaps(*parts, records, time, torch.from_numpy(weights))
    expected, expected_windows = by_loops(values, record, start, records, time, weights)
    np.testing.assert_allclose(mean, expected, rtol=1e-12)
    np.testing.assert_array_equal(windows, expected_windows)


def test_two_overlapping_windows_give_their_mean_and_not_their_sum():
    values = torch.tensor([1.0, 3.0])[:, None, None].expand(2, 1, 4)
    mean, count = average_overlaps(values, torch.tensor([0, 0]), torch.tensor([-1, 2]), 1, 8)
    torch.testing.assert_close(mean[0, 0], torch.tensor([1.0, 1, 2, 3, 3, 3, NAN, NAN]), equal_nan=True)
    assert count[0].tolist() == [1, 1, 2, 1, 1, 1, 0, 0]


def test_a_lead_without_signal_in_one_window_is_known_from_the_other_alone():
    values = torch.tensor([[[1.0], [NAN]], [[3.0], [5.0]]])
    mean, count = average_overlaps(values, torch.tensor([0, 0]), torch.tensor([0, 0]), 1, 1)
    assert mean.flatten().tolist() == [2.0, 5.0]
    assert count.tolist() == [[2]]


def test_windows_in_any_order_give_the_same_bits():
    torch.manual_seed(0)
    values, record, start = torch.randn(40, 2, 9), torch.randint(3, (40,)), torch.randint(-9, 30, (40,))
    order = torch.randperm(40)
    one = average_overlaps(values, record, start, 3, 30)
    other = average_overlaps(values[order], record[order], start[order], 3, 30)
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


def test_without_windows_nothing_is_known():
    none = torch.zeros(0, dtype=torch.int64)
    mean, count = average_overlaps(torch.zeros(0, 3, 5), none, none, 2, 7)
    assert mean.shape == (2, 3, 7)
    assert mean.isnan().all()
    assert not count.any()


@pytest.mark.parametrize(
    ("record", "start", "weights", "message"),
    [
        (torch.tensor([2, 0]), torch.tensor([0, 0]), None, "1 of 2 windows belong to a record such as 2"),
        (torch.tensor([0, -1]), torch.tensor([0, 0]), None, "such as -1"),
        (torch.tensor([0]), torch.tensor([0, 0]), None, "one whole number a window"),
        (torch.tensor([0, 0]), torch.tensor([0.0, 1.0]), None, "start is torch.float32"),
        (torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([1.0, -1, 1]), "1 of 3 weights are negative"),
    ],
)
def test_windows_that_fit_no_record_are_refused(record, start, weights, message):
    with pytest.raises(ValueError, match=message):
        average_overlaps(torch.zeros(2, 1, 3), record, start, 2, 9, weights)


def test_far_from_edges_and_gaps_smoothing_is_that_of_scipy():
    maps = torch.randn(2, 3, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = smooth(maps, 0.05, 100.0)
    scipys = gaussian_filter1d(maps.numpy(), 5.0, axis=-1)
    np.testing.assert_allclose(ours[..., 20:-20], scipys[..., 20:-20], rtol=1e-10)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 30), st.floats(0.001, 0.2), st.integers(0))
def test_smoothing_is_the_weighted_mean_of_what_was_recorded(time, seconds, seed):
    random = np.random.default_rng(seed)
    maps, recorded = random.normal(size=(2, 2, time)), random.random((2, 2, time)) < 0.7
    deviation, reach = seconds * 100, int(4 * seconds * 100 + 0.5)
    expected = np.full(maps.shape, np.nan)
    for at in np.argwhere(recorded):
        row, centre = maps[*at[:2]], at[2]
        near = [t for t in range(time) if recorded[at[0], at[1], t] and abs(t - centre) <= reach]
        weights = [np.exp(-0.5 * ((t - centre) / deviation) ** 2) for t in near]
        expected[*at] = np.average(row[near], weights=weights)
    smoothed = smooth(torch.from_numpy(maps), seconds, 100.0, torch.from_numpy(recorded))
    np.testing.assert_allclose(smoothed, expected, atol=1e-10)


def test_the_same_seconds_are_the_same_smoothing_at_any_rate():
    step = (torch.arange(5000, dtype=torch.float64) >= 2500).double()[None, None]
    fine, coarse = smooth(step, 0.03, 500.0), smooth(step[..., ::5], 0.03, 100.0)
    assert (fine[0, 0, ::5] - coarse[0, 0])[5:-5].abs().max() < 0.07  # a step lies between samples: half a coarse one
    assert ((fine > 0.01) & (fine < 0.99)).sum() == pytest.approx(2 * 2.326 * 15, abs=2)


def test_a_constant_stays_constant_at_the_ends_and_beside_gaps():
    maps = torch.full((1, 2, 50), 3.25)
    maps[0, 0, 10:30] = NAN
    smoothed = smooth(maps, 0.05, 100.0)
    torch.testing.assert_close(smoothed, maps, equal_nan=True)


def test_a_lead_without_signal_does_not_change_the_others():
    maps = torch.randn(2, 12, 200)
    recorded = torch.ones_like(maps, dtype=torch.bool)
    whole = smooth(maps, 0.03, 100.0, recorded)
    recorded[:, 4] = False
    without = smooth(maps.masked_fill(~recorded, NAN), 0.03, 100.0, recorded)
    others = [lead for lead in range(12) if lead != 4]
    torch.testing.assert_close(without[:, others], whole[:, others], rtol=0, atol=0)
    assert without[:, 4].isnan().all()


def test_no_smoothing_leaves_the_map_but_blanks_what_was_not_recorded():
    maps, recorded = torch.randn(1, 1, 4), torch.tensor([[[True, False, True, True]]])
    smoothed = smooth(maps, 0.0, 100.0, recorded)
    assert smoothed.isnan().tolist() == (~recorded).tolist()
    assert smoothed[recorded].tolist() == maps[recorded].tolist()


@pytest.mark.parametrize(("seconds", "rate"), [(-0.1, 100.0), (NAN, 100.0), (0.03, 0.0), (0.03, float("inf"))])
def test_impossible_smoothing_is_refused(seconds, rate):
    with pytest.raises(ConfigurationError, match=r"such as 0.03"):
        smooth(torch.zeros(1, 1, 5), seconds, rate)


def test_a_recording_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"recorded is torch.bool of the shape \(1, 5\)"):
        smooth(torch.zeros(1, 1, 5), 0.03, 100.0, torch.ones(1, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected real numbers"):
        smooth(torch.zeros(5), 0.03, 100.0)
