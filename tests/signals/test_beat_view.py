import math

import numpy as np
import pytest
import torch

from ecgfair.signals.aligned_beats import POINTS
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.beat_view import BeatView, augmented_view, beat_view
from ecgfair.signals.rhythm_view import CHANNELS, OF_RECORD
from tests.signals.heart_cases import heart, peaks

LEADS, BEATS = 3, 6
OFF = {"crop_seconds": None, "scaling": 0.0, "noise": 0.0, "lead_dropout": 0.0}
EVERYTHING = torch.ones(1, 1, 1, dtype=torch.bool)


def augmentation(**settings):
    return Augmentation(**(OFF | settings))


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def sparse_records(records=2):
    """Beats a second apart, each of few samples unlike 0, so that the baseline is exactly 0.

    Each lead has ten samples of a beat that differ from 0, around what all beats of the record share.
    """
    generator = np.random.default_rng(3)
    signal = np.zeros((records, LEADS, 100 * BEATS + 20), dtype=np.float32)
    for row in range(records):
        for lead in range(LEADS):
            places = generator.choice(POINTS, 10, replace=False)
            shared = generator.standard_normal(10)
            for beat in range(BEATS):
                signal[row, lead, 100 * beat + 2 + places] = shared + 0.3 * generator.standard_normal(10)
    beats = torch.arange(BEATS).mul(100).add(30).repeat(records, 1)
    return torch.from_numpy(signal), beats


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
    assert not any(part.any() for part in view)


def test_one_beat_differs_from_nothing():
    view = beat_view(heart(), EVERYTHING, torch.tensor([[460, -1, -1]]), 100.0)
    assert view.shape[0, :LEADS].abs().max() > 1
    assert not view.shape[0, LEADS:].any()
    assert all(part.isfinite().all() for part in view)


def test_a_record_of_which_no_lead_was_recorded_has_beats_and_no_shape():
    signal, beats = sparse_records()
    view = beat_view(signal, ~EVERYTHING, beats, 100.0)
    assert not view.shape.any()
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
        assert together.has_beat[row] == alone.has_beat[0] == (row != 1)


def test_a_view_is_of_32_bits_the_same_each_time_and_asks_for_no_gradient():
    signal, beats = sparse_records()
    before = signal.clone()
    one, other = (beat_view(signal, EVERYTHING, beats, 100.0) for _ in range(2))
    assert (one.shape.dtype, one.rhythm.dtype, one.has_beat.dtype) == (torch.float32, torch.float32, torch.bool)
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


# In training ----------------------------------------------------------------------------------------------------------


def some_views(records=64):
    """Views of records; the second has no beat, the third lacks a lead, the fourth has one beat alone."""
    signal, beats = sparse_records(4)
    beats = torch.cat([beats, torch.full((4, 2), -1)], dim=1)
    beats[1] = -1
    beats[3, 1:] = -1
    recorded = torch.ones(signal.shape, dtype=torch.bool)
    recorded[2, 0] = False
    view = beat_view(signal, recorded, beats, 100.0)
    return BeatView(*(part.repeat(records // 4, *[1] * (part.ndim - 1)) for part in view))


@pytest.mark.parametrize("others", [{}, {"baseline_wander": 0.3, "powerline": 0.1, "time_warp": 0.1}])
def test_without_scaling_noise_and_lead_dropout_the_very_view_is_returned(others):
    view = some_views()
    assert augmented_view(view, augmentation(**others)) is view


def test_r_peaks_are_found_up_to_20_ms_beside_where_they_are():
    view = some_views(512)
    changed = augmented_view(view, augmentation(lead_dropout=1e-9), seeded())
    row = torch.arange(0, 512, 4)
    met = set()
    for shape, plain in zip(changed.shape[row], view.shape[row], strict=True):
        (shift,) = [
            by
            for by in range(-10, 11)
            if torch.equal(shape, plain[:, (torch.arange(POINTS) + by).clamp(0, POINTS - 1)])
        ]
        met.add(shift)
    assert met == {-2, -1, 0, 1, 2}
    assert changed.rhythm is view.rhythm


def test_scaling_takes_one_factor_a_record():
    ramp = torch.ones(2000, 2 * LEADS, POINTS)  # a shift changes nothing here
    view = BeatView(ramp, torch.zeros(2000, CHANNELS, 1), torch.ones(2000, dtype=torch.bool))
    shape = augmented_view(view, augmentation(scaling=0.1), seeded()).shape
    assert torch.equal(shape, shape[:, :1, :1].expand(shape.shape))
    assert float(shape[:, 0, 0].mean()) == pytest.approx(1, abs=0.01)
    assert float(shape[:, 0, 0].std()) == pytest.approx(0.1, rel=0.1)


def test_noise_is_that_of_a_median_of_ten_beats_and_the_numbers_of_beats_get_some_too():
    flat = torch.ones(200, 2 * LEADS, POINTS)
    rhythm = torch.ones(200, CHANNELS, 10)
    view = BeatView(flat, rhythm, torch.ones(200, dtype=torch.bool))
    changed = augmented_view(view, augmentation(noise=0.03), seeded())
    assert float((changed.shape - 1).std()) == pytest.approx(0.03 / 0.3 / math.sqrt(10), rel=0.03)
    assert float((changed.rhythm[:, 1:] - 1).std()) == pytest.approx(0.03, rel=0.03)


def test_a_dropped_lead_is_silent_in_both_halves_and_never_the_last_one_left():
    view = some_views(512)
    for row, lead_count in ((0, LEADS), (2, LEADS - 1)):
        shape = augmented_view(view, augmentation(lead_dropout=0.6, noise=0.05), seeded()).shape[row::4]
        heard = shape.abs().amax(dim=-1) > 0
        assert torch.equal(heard[:, :LEADS], heard[:, LEADS:])
        assert heard[:, :LEADS].sum(dim=1).unique().tolist() == list(range(1, lead_count + 1))
    most = augmented_view(view, augmentation(lead_dropout=0.6), seeded()).shape[0::4, :LEADS].abs().amax(dim=-1) > 0
    # Of three leads, one of which always stays, 0.4 of the other two is kept.
    assert float(most.float().mean()) == pytest.approx((3 * 0.4 + 0.6**3) / 3, abs=0.08)


def test_nothing_is_added_where_there_is_nothing():
    view = some_views(64)
    changed = augmented_view(view, augmentation(scaling=0.2, noise=0.1, lead_dropout=0.2), seeded())
    assert not changed.shape[1::4].any(), "no beat"
    assert not changed.rhythm[1::4].any(), "no beat"
    assert not changed.shape[2::4, [0, LEADS]].any(), "a missing lead"
    assert not changed.shape[3::4, LEADS:].any(), "one beat does not differ from itself"
    assert torch.equal(changed.rhythm[:, 0], view.rhythm[:, 0])
    assert torch.equal(changed.has_beat, view.has_beat)
    no_beat = (view.rhythm[:, :1] == 0).expand(view.rhythm.shape)
    assert not changed.rhythm[no_beat].any()
    assert (changed.rhythm[:, 1:] != view.rhythm[:, 1:])[~no_beat[:, 1:]].all()


def test_a_generator_draws_the_same_again_and_the_view_given_stays_as_it_was():
    view = some_views()
    before = [part.clone() for part in view]
    strong = augmentation(scaling=0.2, noise=0.1, lead_dropout=0.3)
    one, again, other = (augmented_view(view, strong, seeded(number)) for number in (5, 5, 6))
    assert all(torch.equal(first, second) for first, second in zip(one, again, strict=True))
    assert not torch.equal(one.shape, other.shape)
    assert not torch.equal(one.rhythm, other.rhythm)
    assert all(torch.equal(first, second) for first, second in zip(view, before, strict=True))
    assert one.shape.dtype == one.rhythm.dtype == torch.float32
