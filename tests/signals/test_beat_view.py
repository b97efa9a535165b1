import math

import numpy as np
import pytest
import torch

from ecgfair.signals.aligned_beats import POINTS, aligned_beats
from ecgfair.signals.baseline import without_baseline
from ecgfair.signals.beat_view import MOST_BEATS, beat_view
from ecgfair.signals.rhythm_view import CHANNELS, OF_RECORD
from tests.signals.heart_cases import heart, peaks
from tests.signals.view_cases import BEATS, EVERYTHING, LEADS, sparse_records


def middle_and_difference(values):
    """The lower median of what is known of the beats and their mean absolute difference from it, by hand."""
    known = sorted(float(value) for value in values if not np.isnan(value))
    if not known:
        return 0.0, 0.0
    middle = known[(len(known) - 1) // 2]
    return middle, sum(abs(value - middle) for value in known) / len(known)


def shape_by_hand(signal, recorded, peak_rows):
    """The shape of each record, (B, 2 * leads, points), beats being plain windows at one beat a second."""
    shape = np.zeros((len(signal), 2 * LEADS, POINTS))
    for row, known_peaks in enumerate(peak_rows):
        for lead in range(LEADS):
            for point in range(POINTS):
                at = [peak - 28 + point for peak in known_peaks]
                values = [signal[row, lead, place] if recorded[row, lead, place] else np.nan for place in at]
                middle, difference = middle_and_difference(values)
                shape[row, lead, point] = math.asinh(middle / 0.3)
                shape[row, LEADS + lead, point] = math.asinh(difference / 0.3)
    return shape


# The shape ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_a_shape_is_the_median_and_the_mean_absolute_difference_computed_by_hand(count):
    signal, beats = sparse_records()
    beats[1, count:] = -1
    recorded = np.ones(signal.shape, dtype=bool)
    expected = shape_by_hand(signal.numpy(), recorded, [beats[0].tolist(), beats[1, :count].tolist()])
    view = beat_view(signal, torch.from_numpy(recorded), beats, 100.0)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(view.shape.numpy(), expected, atol=1e-5)
    assert view.has_beat.tolist() == [True, True]


def test_what_was_not_recorded_is_0_and_changes_nothing_elsewhere():
    signal, beats = sparse_records()
    plain = beat_view(signal, EVERYTHING, beats, 100.0).shape
    recorded = np.ones(tuple(signal.shape), dtype=bool)
    recorded[0, 1] = False
    recorded[1, 2, 240:255] = False
    view = beat_view(signal, torch.from_numpy(recorded), beats, 100.0)
    np.testing.assert_allclose(view.shape.numpy(), shape_by_hand(signal.numpy(), recorded, beats.tolist()), atol=1e-5)
    assert not view.shape[0, [1, LEADS + 1]].any()
    assert torch.equal(view.shape[0, [0, 2, LEADS, LEADS + 2]], plain[0, [0, 2, LEADS, LEADS + 2]])
    assert torch.equal(view.shape[1, [0, 1, LEADS, LEADS + 1]], plain[1, [0, 1, LEADS, LEADS + 1]])
    assert not torch.equal(view.shape[1, LEADS + 2], plain[1, LEADS + 2])


@pytest.mark.parametrize("stands_in", [0.0, 5.0, math.nan])
def test_what_stands_in_for_a_missing_lead_is_never_read(stands_in):
    signal, beats = sparse_records()
    recorded = torch.ones(signal.shape, dtype=torch.bool)
    recorded[0, 1] = False
    expected = beat_view(signal, recorded, beats, 100.0)
    signal[0, 1] = stands_in
    view = beat_view(signal, recorded, beats, 100.0)
    assert all(torch.equal(one, other) for one, other in zip(view, expected, strict=True))
    assert all(part.isfinite().all() for part in view)


@pytest.mark.parametrize("columns", [0, 1, 5])
def test_of_a_record_without_beats_everything_is_0(columns):
    signal, _ = sparse_records()
    view = beat_view(signal, EVERYTHING, torch.full((2, columns), -1), 100.0)
    assert view.shape.shape == (2, 2 * LEADS, POINTS)
    assert view.rhythm.shape == (2, CHANNELS, max(columns, 1))
    assert view.each.shape == (2, 1, LEADS, POINTS)
    assert view.column.tolist() == [[-1], [-1]]
    assert not any(part.any() for part in view._replace(column=torch.zeros(0)))


def test_one_beat_differs_from_nothing():
    view = beat_view(heart(), EVERYTHING, torch.tensor([[460, -1, -1]]), 100.0)
    assert view.shape[0, :LEADS].abs().max() > 1
    assert not view.shape[0, LEADS:].any()
    assert all(part.isfinite().all() for part in view)


def test_a_record_of_which_no_lead_was_recorded_has_beats_and_no_shape():
    signal, beats = sparse_records()
    view = beat_view(signal, ~EVERYTHING, beats, 100.0)
    assert not view.shape.any()
    assert not view.each.any()
    assert view.column.tolist() == [list(range(BEATS))] * 2
    assert view.rhythm.isfinite().all()
    assert view.has_beat.all()


def test_tall_waves_count_by_their_logarithm_and_low_ones_by_their_height():
    signal, beats = sparse_records(1)
    # Not one of the samples is lower than 0.001 mV then, nor higher than 1000.
    low, lower = (beat_view(signal * factor, EVERYTHING, beats, 100.0).shape for factor in (0.002, 0.001))
    torch.testing.assert_close(low, 2 * lower, rtol=1e-3, atol=1e-6)
    high, higher = (beat_view(signal * factor, EVERYTHING, beats, 100.0).shape for factor in (1000, 2000))
    tall = high[:, :LEADS].abs() > 5
    assert tall.any()
    torch.testing.assert_close(
        (higher - high)[:, :LEADS].abs()[tall], torch.full((int(tall.sum()),), math.log(2)), atol=1e-3, rtol=0
    )


def test_500_samples_a_second_show_nearly_what_100_show():
    slow = beat_view(heart(0.8, 100.0), EVERYTHING, peaks(0.8, 100.0), 100.0)
    fast = beat_view(heart(0.8, 500.0), EVERYTHING, peaks(0.8, 500.0), 500.0)
    torch.testing.assert_close(fast.shape, slow.shape, atol=0.08, rtol=0)
    timing = slice(len(OF_RECORD))
    torch.testing.assert_close(fast.rhythm[:, timing], slow.rhythm[:, timing], atol=1e-5, rtol=0)
    inner = (slice(None), slice(None), slice(1, -1))
    torch.testing.assert_close(fast.rhythm[inner], slow.rhythm[inner], atol=0.1, rtol=0)


# Single beats ---------------------------------------------------------------------------------------------------------


def irregular_records(counts):
    """Noise of 20 seconds with so many R peaks at random, the first of them at the very beginning."""
    generator = torch.Generator().manual_seed(4)
    signal = torch.randn(len(counts), LEADS, 2000, generator=generator)
    beats = torch.full((len(counts), max(counts)), -1)
    for row, count in enumerate(counts):
        beats[row, :count] = (torch.randperm(100, generator=generator)[:count] * 20).sort().values
        beats[row, : min(count, 1)] = 0
    return signal, beats


def test_of_a_record_with_few_beats_every_one_is_shown_as_it_was_recorded():
    signal, beats = sparse_records()
    beats[1, 3:] = -1
    view = beat_view(signal, EVERYTHING, beats, 100.0)
    assert view.column.tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, -1, -1, -1]]
    expected = torch.zeros(2, BEATS, LEADS, POINTS)
    for row, count in enumerate((BEATS, 3)):
        for slot, peak in enumerate(beats[row, :count].tolist()):
            expected[row, slot] = torch.asinh(signal[row, :, peak - 28 : peak - 28 + POINTS] / 0.3)
    assert expected.abs().max() > 1
    torch.testing.assert_close(view.each, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("counts", [(13,), (14,), (15,), (41,), (41, 3, 0, 14, 15, 28)])
def test_of_a_record_with_many_beats_as_many_as_can_be_are_shown_evenly_spread(counts):
    signal, beats = irregular_records(counts)
    view = beat_view(signal, EVERYTHING, beats, 100.0)
    assert view.column.shape == (len(counts), min(max(counts), MOST_BEATS))
    for row, count in enumerate(counts):
        column = view.column[row]
        shown = column[column >= 0]
        assert torch.equal(column[: len(shown)], shown), "the slots left over come last"
        assert len(shown) == min(count, MOST_BEATS)
        # From the last one round to the first as well.
        steps = {*shown.diff().tolist(), *([count - int(shown[-1])] if count else [])}
        assert steps <= ({1} if count <= MOST_BEATS else {count // MOST_BEATS, -(-count // MOST_BEATS)})
        assert shown[:1].tolist() == [0] * bool(count)
        assert (view.rhythm[row, 0, shown] == 1).all()


def test_each_beat_shown_is_the_aligned_one_of_its_column_and_0_outside_the_record():
    counts = (41, 3, 0, 20)
    signal, beats = irregular_records(counts)
    view = beat_view(signal, EVERYTHING, beats, 100.0)
    aligned = aligned_beats(without_baseline(signal, 100.0), beats, 100.0)
    first = 0
    for row, count in enumerate(counts):
        of_record = torch.asinh(aligned.beat[first : first + count] / 0.3)
        first += count
        for each, column in zip(view.each[row], view.column[row].tolist(), strict=True):
            torch.testing.assert_close(each, of_record[column].nan_to_num() if column >= 0 else torch.zeros_like(each))
    assert aligned.beat.isnan().any(), "some reach beyond the record"


def test_a_column_counts_the_padding_before_it_as_the_rhythm_does():
    signal, beats = sparse_records(1)
    padded = torch.tensor([[-1, -1, *beats[0, :3].tolist(), -1, beats[0, 4]]])
    view = beat_view(signal, EVERYTHING, padded, 100.0)
    assert view.column.tolist() == [[2, 3, 4, 6]]
    assert view.rhythm[0, 0].tolist() == [0, 0, 1, 1, 1, 0, 1]
    torch.testing.assert_close(view.each[0], beat_view(signal, EVERYTHING, beats, 100.0).each[0, [0, 1, 2, 4]])


def test_what_was_not_recorded_of_a_single_beat_is_0_and_changes_no_other():
    signal, beats = sparse_records(1)
    plain = beat_view(signal, EVERYTHING, beats, 100.0).each
    recorded = torch.ones(signal.shape, dtype=torch.bool)
    recorded[0, 2, 225:265] = False  # of the third beat, which begins at 202
    each = beat_view(signal, recorded, beats, 100.0).each
    assert plain[0, 2, 2, 23:63].any()
    assert not each[0, 2, 2, 23:63].any()
    expected = plain.clone()
    expected[0, 2, 2, 23:63] = 0
    torch.testing.assert_close(each, expected, atol=1e-5, rtol=0)


# A record by itself ---------------------------------------------------------------------------------------------------


def test_a_record_is_shown_alike_whoever_stands_beside_it_and_however_long_the_padding_is():
    signal, beats = sparse_records(3)
    beats[1] = -1
    beats[2, 2:] = -1
    padded = torch.cat([beats, torch.full((3, 4), -1)], dim=1)
    together = beat_view(signal, EVERYTHING, padded, 100.0)
    for row, count in enumerate((BEATS, 1, 2)):
        alone = beat_view(signal[row : row + 1], EVERYTHING, beats[row : row + 1, :count], 100.0)
        torch.testing.assert_close(together.shape[row], alone.shape[0])
        torch.testing.assert_close(together.rhythm[row, :, :count], alone.rhythm[0])
        assert not together.rhythm[row, :, count:].any()
        torch.testing.assert_close(together.each[row, :count], alone.each[0])
        assert torch.equal(together.column[row, :count], alone.column[0])
        assert (together.column[row] >= 0).sum() == (count if row != 1 else 0)
        assert together.has_beat[row] == alone.has_beat[0] == (row != 1)


def test_a_view_is_of_32_bits_the_same_each_time_and_asks_for_no_gradient():
    signal, beats = sparse_records()
    before = signal.clone()
    one, other = (beat_view(signal, EVERYTHING, beats, 100.0) for _ in range(2))
    assert {one.shape.dtype, one.rhythm.dtype, one.each.dtype} == {torch.float32}
    assert (one.column.dtype, one.has_beat.dtype) == (torch.int64, torch.bool)
    assert not any(part.requires_grad for part in one)
    assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True))
    assert torch.equal(signal, before)


def test_repeated_views_of_a_record_stand_in_a_row():
    signal, beats = sparse_records()
    beats[1] = -1
    view = beat_view(signal, EVERYTHING, beats, 100.0)
    repeated = view.repeated(3)
    for part, whole in zip(repeated, view, strict=True):
        assert torch.equal(part, whole[[0, 0, 0, 1, 1, 1]])
