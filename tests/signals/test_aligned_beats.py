import numpy as np
import pytest
import torch

from ecgfair.signals.aligned_beats import (
    FIRST,
    LAST,
    POINTS,
    AlignedBeats,
    aligned_beats,
    beats_side_by_side,
    median_beats,
)
from tests.signals.heart_cases import GAINS, T_AT, T_HEIGHT, heart, peaks

AT_R = 28
"""Point of an aligned beat that is its R peak."""


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


# At one beat a second -------------------------------------------------------------------------------------------------


def test_at_one_beat_a_second_beats_are_plain_windows_whole_ones_to_their_last_sample():
    signal = noise(2, 3, 1000)
    beats = torch.arange(28, 951, 100).repeat(2, 1)
    beats[1] += 1000 - (28 + 900 + 50)  # the last beat ends with the record
    found = aligned_beats(signal, beats, 100.0)
    expected = torch.stack(
        [signal[row, :, peak - AT_R : peak - AT_R + POINTS] for row in (0, 1) for peak in beats[row].tolist()]
    )
    assert torch.equal(found.beat, expected)
    assert found.record.tolist() == [0] * 10 + [1] * 10
    assert torch.equal(found.place, (beats.flatten()[:, None] + torch.arange(-AT_R, POINTS - AT_R)).float())
    assert pytest.approx(POINTS / 100) == LAST - FIRST


@pytest.mark.parametrize("beats", [[[500]], [[500, -1, -1]]], ids=["one column", "padding"])
def test_a_record_with_one_beat_counts_as_one_of_a_beat_a_second(beats):
    signal = noise(1, 2, 1000)
    found = aligned_beats(signal, torch.tensor(beats), 100.0)
    assert torch.equal(found.beat[0], signal[0, :, 500 - AT_R : 500 - AT_R + POINTS])


# Slow and fast hearts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [100.0, 250.0, 500.0])
@pytest.mark.parametrize("rr", [0.5, 0.7, 1.4, 1.8])
def test_t_waves_of_slow_and_fast_hearts_lie_on_each_other(rr, rate):
    def beat(seconds):
        found = aligned_beats(heart(seconds, rate), peaks(seconds, rate), rate)
        return median_beats(found, 1)[0]

    usual, other = beat(1.0), beat(rr)
    late = slice(AT_R + 16, POINTS)
    top = AT_R + 6 + round(100 * T_AT)
    expected = T_HEIGHT * torch.tensor(GAINS)
    torch.testing.assert_close(other[:, top], expected, atol=0.02, rtol=0)
    if rr > 0.6:  # in a faster heart P and T waves lie in each other
        torch.testing.assert_close(other[:, late], usual[:, late], atol=0.02, rtol=0)
        torch.testing.assert_close(other[:, 4 : AT_R + 5], usual[:, 4 : AT_R + 5], atol=0.03, rtol=0)


def test_intervals_that_are_not_believed_stretch_no_further():
    signal = noise(1, 1, 1000)
    for rr, bound in ((0.1, 0.3), (4.0, 2.0)):
        step = round(100 * rr)
        place = aligned_beats(signal, torch.tensor([[300, 300 + step, 300 + 2 * step]]), 100.0).place[0]
        assert float(place[-1] - 300) == pytest.approx(6 + 43 * bound**0.5, abs=1e-3)


def test_500_and_100_samples_a_second_of_one_heart_give_the_same_beats():
    slow = aligned_beats(heart(0.8, 100.0), peaks(0.8, 100.0), 100.0)
    fast = aligned_beats(heart(0.8, 500.0), peaks(0.8, 500.0), 500.0)
    assert torch.equal(slow.beat.isnan(), fast.beat.isnan())
    torch.testing.assert_close(fast.beat, slow.beat, atol=0.015, rtol=0, equal_nan=True)
    torch.testing.assert_close(fast.place / 5, slow.place, atol=1e-3, rtol=0)


def test_at_500_samples_a_second_a_point_is_the_mean_over_its_time():
    signal = noise(1, 1, 5000)
    found = aligned_beats(signal, torch.tensor([[1000, 1500, 2000]]), 500.0)
    assert float(found.beat[1, 0, AT_R]) == pytest.approx(float(signal[0, 0, 1498:1503].mean()), abs=1e-6)


# Edges and gaps -------------------------------------------------------------------------------------------------------


def test_outside_the_record_a_beat_is_missing_and_only_there():
    signal = noise(1, 2, 400)
    found = aligned_beats(signal, torch.tensor([[5, 105, 205, 305, 399]]), 100.0)
    outside = (found.place < 0) | (found.place > 399)
    assert outside.sum(1).tolist() == [23, 0, 0, 0, 49]
    assert torch.equal(found.beat.isnan(), outside[:, None].expand(found.beat.shape))
    torch.testing.assert_close(found.beat[0, :, 23:], signal[0, :, : POINTS - 23])
    torch.testing.assert_close(found.beat[4, :, : AT_R + 1], signal[0, :, 399 - AT_R :])


def test_a_record_of_one_sample_has_a_beat_of_one_point():
    found = aligned_beats(torch.ones(1, 1, 1), torch.zeros(1, 1, dtype=torch.int64), 100.0)
    assert (~found.beat.isnan()).sum() == 1
    assert found.beat[0, 0, AT_R] == 1


@pytest.mark.parametrize("rate", [100.0, 500.0])
def test_a_lead_that_was_not_recorded_is_missing_and_the_others_are_as_they_were(rate):
    signal = heart(0.8, rate)
    whole = aligned_beats(signal, peaks(0.8, rate), rate).beat
    signal[:, 1] = torch.nan
    found = aligned_beats(signal, peaks(0.8, rate), rate).beat
    assert found[:, 1].isnan().all()
    torch.testing.assert_close(found[:, ::2], whole[:, ::2], atol=0, rtol=0, equal_nan=True)


def test_a_gap_takes_no_sample_beside_it_along():
    signal = noise(1, 1, 1000)
    signal[..., 490:496] = torch.nan
    found = aligned_beats(signal, torch.arange(100, 901, 100)[None], 100.0)
    window = signal[0, 0, 500 - AT_R : 500 - AT_R + POINTS]
    torch.testing.assert_close(found.beat[4, 0], window, atol=0, rtol=0, equal_nan=True)


# R peaks as they come -------------------------------------------------------------------------------------------------


def test_padding_may_be_anywhere():
    signal, peak = noise(1, 2, 1000), [100, 170, 240, 310]
    plain = aligned_beats(signal, torch.tensor([peak]), 100.0)
    for row in (
        [*peak, -1, -1],
        [-1, -1, *peak],
        [100, -1, 170, -1, 240, -1, 310],
        [-1, 100, -1, 170, 240, -1, 310, -1],
    ):
        found = aligned_beats(signal, torch.tensor([row]), 100.0)
        for one, other in zip(found, plain, strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0, equal_nan=True)


def test_records_do_not_share_their_beats_or_their_rhythm():
    signal = noise(3, 2, 1000)
    rows = [[100, 150, 200, 250], [-1, -1, -1, -1], [300, 450, 600, -1]]
    together = aligned_beats(signal, torch.tensor(rows), 100.0)
    assert together.record.tolist() == [0, 0, 0, 0, 2, 2, 2]
    for row in (0, 2):
        alone = aligned_beats(signal[row : row + 1], torch.tensor(rows[row : row + 1]), 100.0)
        assert torch.equal(together.beat[together.record == row], alone.beat)
        assert torch.equal(together.place[together.record == row], alone.place)


@pytest.mark.parametrize("columns", [0, 1, 3])
def test_records_without_a_beat_have_none_and_no_median(columns):
    beats = torch.full((2, columns), -1)
    found = aligned_beats(noise(2, 3, 400), beats, 100.0)
    assert found.beat.shape == (0, 3, POINTS)
    assert found.place.shape == (0, POINTS)
    middle = median_beats(found, 2)
    assert middle.shape == (2, 3, POINTS)
    assert middle.isnan().all()


# The median beat ------------------------------------------------------------------------------------------------------


def scattered(record: list[int]) -> AlignedBeats:
    beat = noise(len(record), 2, POINTS)
    beat[0, 1] = torch.nan
    beat[1, :, :9] = torch.nan
    return AlignedBeats(beat, torch.tensor(record), torch.zeros(len(record), POINTS))


def test_the_median_of_an_odd_number_of_beats_is_that_of_numpy():
    beats = scattered([0, 0, 0, 2, 3, 3, 3, 3, 3])
    beats.beat[:2].nan_to_num_()
    found = median_beats(beats, 5)
    for row in (0, 2, 3):
        expected = np.nanmedian(beats.beat[beats.record == row].numpy(), axis=0)
        np.testing.assert_array_equal(found[row].numpy(), expected)
    assert found[[1, 4]].isnan().all()


def test_the_median_of_an_even_number_of_beats_is_the_lower_of_the_middle_two_as_torch_has_it():
    beats = scattered([0, 0, 0, 1, 1, 1, 1])
    found = median_beats(beats, 2)
    for row in (0, 1):
        expected = beats.beat[beats.record == row].nanmedian(dim=0).values
        torch.testing.assert_close(found[row], expected, atol=0, rtol=0, equal_nan=True)
    four = np.sort(beats.beat[3:].numpy(), axis=0)
    np.testing.assert_array_equal(found[1].numpy(), four[1])


def test_beats_lie_side_by_side_in_their_order():
    beats = scattered([0, 0, 2])
    table = beats_side_by_side(beats.beat, beats.record, 3)
    assert table.shape == (3, 2, POINTS, 2)
    for (row, column), beat in {(0, 0): 0, (0, 1): 1, (2, 0): 2}.items():
        torch.testing.assert_close(table[row, ..., column], beats.beat[beat], atol=0, rtol=0, equal_nan=True)
    assert table[1].isnan().all()
    assert table[2, ..., 1].isnan().all()
