"""Beat views as training shows them: changed at random, and of a few beats of each record."""

import math

import pytest
import torch

from ecgfair.signals.aligned_beats import POINTS
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.beat_view import TRAINED_BEATS, BeatView, augmented_view, beat_view
from ecgfair.signals.rhythm_view import CHANNELS
from tests.signals.view_cases import LEADS, sparse_records

OFF = {"crop_seconds": None, "scaling": 0.0, "noise": 0.0, "lead_dropout": 0.0}
DRAWING = {"lead_dropout": 1e-9}
"""Changes nothing, but draws beats and shifts them."""


def augmentation(**settings):
    return Augmentation(**(OFF | settings))


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def some_views(records=64):
    """Views of records of six beats; the second has no beat, the third lacks a lead, the fourth has one beat alone."""
    signal, beats = sparse_records(4)
    beats = torch.cat([beats, torch.full((4, 2), -1)], dim=1)
    beats[1] = -1
    beats[3, 1:] = -1
    recorded = torch.ones(signal.shape, dtype=torch.bool)
    recorded[2, 0] = False
    view = beat_view(signal, recorded, beats, 100.0)
    return BeatView(*(part.repeat(records // 4, *[1] * (part.ndim - 1)) for part in view))


def flat_view(records, columns=10, slots=10):
    """Views that are 1 wherever they can be, so that a shift changes nothing."""
    each = torch.ones(records, slots, LEADS, POINTS)
    column = torch.arange(slots).repeat(records, 1)
    has_beat = torch.ones(records, dtype=torch.bool)
    return BeatView(
        torch.ones(records, 2 * LEADS, POINTS), torch.ones(records, CHANNELS, columns), each, column, has_beat
    )


@pytest.mark.parametrize("others", [{}, {"baseline_wander": 0.3, "powerline": 0.1, "time_warp": 0.1}])
def test_without_scaling_noise_and_lead_dropout_the_very_view_is_returned(others):
    view = some_views()
    assert augmented_view(view, augmentation(**others)) is view


def test_r_peaks_are_found_up_to_20_ms_beside_where_they_are():
    view = some_views(512)
    changed = augmented_view(view, augmentation(**DRAWING), seeded())
    met = set()
    for row in range(0, 512, 4):
        moved = {by: (torch.arange(POINTS) + by).clamp(0, POINTS - 1) for by in range(-10, 11)}
        (shift,) = [by for by, place in moved.items() if torch.equal(changed.shape[row], view.shape[row][:, place])]
        met.add(shift)
        assert torch.equal(changed.each[row], view.each[row, changed.column[row]][..., moved[shift]]), "so are beats"
    assert met == {-2, -1, 0, 1, 2}
    assert changed.rhythm is view.rhythm


def test_scaling_takes_one_factor_a_record():
    changed = augmented_view(flat_view(2000), augmentation(scaling=0.1), seeded())
    shape = changed.shape
    assert torch.equal(shape, shape[:, :1, :1].expand(shape.shape))
    assert torch.equal(changed.each, shape[:, None, :1, :1].expand(changed.each.shape)), "that of its beats, too"
    assert float(shape[:, 0, 0].mean()) == pytest.approx(1, abs=0.01)
    assert float(shape[:, 0, 0].std()) == pytest.approx(0.1, rel=0.1)


def test_noise_is_that_of_a_median_of_ten_beats_and_the_numbers_of_beats_get_some_too():
    changed = augmented_view(flat_view(200), augmentation(noise=0.03), seeded())
    assert float((changed.shape - 1).std()) == pytest.approx(0.03 / 0.3 / math.sqrt(10), rel=0.03)
    assert float((changed.rhythm[:, 1:] - 1).std()) == pytest.approx(0.03, rel=0.03)


def test_each_single_beat_and_each_of_its_leads_gets_noise_of_its_own():
    noise = augmented_view(flat_view(50), augmentation(noise=0.03), seeded()).each - 1
    assert float(noise.std()) > 0.9 * 0.03 / 0.3 / math.sqrt(10), "a single beat has no less than a median"
    alike = torch.corrcoef(noise.permute(1, 2, 0, 3).flatten(2).flatten(0, 1))
    assert float((alike - torch.eye(len(alike))).abs().max()) < 0.1


def test_a_dropped_lead_is_silent_in_both_halves_and_in_every_beat_and_never_the_last_one_left():
    view = some_views(512)
    for row, lead_count in ((0, LEADS), (2, LEADS - 1)):
        shape = augmented_view(view, augmentation(lead_dropout=0.6, noise=0.05), seeded()).shape[row::4]
        heard = shape.abs().amax(dim=-1) > 0
        assert torch.equal(heard[:, :LEADS], heard[:, LEADS:])
        assert heard[:, :LEADS].sum(dim=1).unique().tolist() == list(range(1, lead_count + 1))
        each = augmented_view(view, augmentation(lead_dropout=0.6, noise=0.05), seeded()).each[row::4]
        assert torch.equal(each.abs().amax(dim=-1) > 0, heard[:, None, :LEADS].expand(each.shape[:-1])), "in every beat"
    most = augmented_view(view, augmentation(lead_dropout=0.6), seeded()).shape[0::4, :LEADS].abs().amax(dim=-1) > 0
    # Of three leads, one of which always stays, 0.4 of the other two is kept.
    assert float(most.float().mean()) == pytest.approx((3 * 0.4 + 0.6**3) / 3, abs=0.08)


def test_nothing_is_added_where_there_is_nothing():
    view = some_views(64)
    changed = augmented_view(view, augmentation(scaling=0.2, noise=0.1, lead_dropout=0.2), seeded())
    assert not changed.shape[1::4].any(), "no beat"
    assert not changed.rhythm[1::4].any(), "no beat"
    assert not changed.each[1::4].any(), "no beat"
    assert not changed.shape[2::4, [0, LEADS]].any(), "a missing lead"
    assert not changed.each[2::4, :, 0].any(), "a missing lead"
    assert not changed.shape[3::4, LEADS:].any(), "one beat does not differ from itself"
    assert not changed.each[changed.column < 0].any(), "an empty slot"
    assert changed.each[changed.column >= 0].flatten(1).any(dim=1).all()
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
    assert not torch.equal(one.column, other.column)
    assert not torch.equal(one.each, other.each)
    assert all(torch.equal(first, second) for first, second in zip(view, before, strict=True))
    assert one.shape.dtype == one.rhythm.dtype == one.each.dtype == torch.float32
    assert one.column.dtype == torch.int64


# Which beats ----------------------------------------------------------------------------------------------------------


def marked_view(records, count, slots):
    """Views of records with so many beats, each of which is its column and 1 all along; every other column has one."""
    column = torch.where(torch.arange(slots) < count, 2 * torch.arange(slots), -1).repeat(records, 1)
    each = (column + 1.0)[..., None, None].repeat(1, 1, LEADS, POINTS)
    return flat_view(records, columns=2 * slots)._replace(each=each, column=column)


@pytest.mark.parametrize(("count", "slots"), [(14, 14), (9, 14), (7, 7), (6, 14), (6, 6)])
def test_of_enough_beats_a_few_are_drawn_each_once_and_each_with_its_column(count, slots):
    drawn = augmented_view(marked_view(400, count, slots), augmentation(**DRAWING), seeded())
    assert drawn.each.shape == (400, TRAINED_BEATS, LEADS, POINTS)
    assert (drawn.column >= 0).all()
    assert all(len(set(row)) == TRAINED_BEATS for row in drawn.column.tolist())
    assert set(drawn.column.unique().tolist()) == set(range(0, 2 * count, 2))
    assert torch.equal(drawn.each, (drawn.column + 1.0)[..., None, None].expand(drawn.each.shape))


@pytest.mark.parametrize(("count", "slots"), [(5, 14), (1, 14), (0, 14), (3, 3), (0, 1)])
def test_of_too_few_beats_all_are_shown_beside_empty_slots(count, slots):
    drawn = augmented_view(marked_view(50, count, slots), augmentation(**DRAWING), seeded())
    shown = min(slots, TRAINED_BEATS)
    assert drawn.column.shape == (50, shown)
    expected = [-1] * (shown - count) + list(range(0, 2 * count, 2))
    assert all(sorted(row) == expected for row in drawn.column.tolist())
    assert torch.equal(drawn.each, (drawn.column + 1.0)[..., None, None].expand(drawn.each.shape))


def test_every_beat_is_drawn_equally_often_and_records_draw_each_for_themselves():
    column = augmented_view(marked_view(4000, 14, 14), augmentation(**DRAWING), seeded()).column
    share = torch.bincount(column.flatten() // 2, minlength=14) / 4000
    torch.testing.assert_close(share, torch.full((14,), TRAINED_BEATS / 14), atol=0.04, rtol=0)
    sets = {tuple(sorted(row)) for row in column.tolist()}
    assert len(sets) > 1000, "of 3003"
