import math

import numpy as np
import pytest
import torch

from ecgfair.signals.aligned_beats import POINTS, AlignedBeats, median_beats
from ecgfair.signals.beat_view import beat_view
from ecgfair.signals.rhythm_view import CHANNELS, OF_BEAT, OF_RECORD, SEGMENTS, rhythm_view
from tests.signals.heart_cases import GAINS, wave

POINTS_OF = {"P": (0, 20), "QRS": (22, 38), "ST-T": (40, 78)}
"""The segments counted by hand: a point is 10 ms, and R is the 28th."""
NAMES = [*OF_RECORD, *(f"{told} of {wave_name}" for wave_name in SEGMENTS for told in OF_BEAT), "roughness"]
REGULAR = math.log(0.01) / 2 + 1
"""The irregularity of a heart that beats like a clock."""


def told(view, name, row=0):
    """What is told of each beat, (K,)."""
    return view[row, NAMES.index(name)]


def random_beats(counts, seed=0):
    """Beats of which a lead is missing in the first record, and some points of one lead in the last beat."""
    generator = torch.Generator().manual_seed(seed)
    record = torch.tensor([row for row, count in enumerate(counts) for _ in range(count)])
    usual = torch.randn(len(counts), 3, POINTS, generator=generator)
    beat = usual[record] + 0.3 * torch.randn(len(record), 3, POINTS, generator=generator)
    beat[record == 0, 1] = torch.nan
    beat[-1, 2, 10:30] = torch.nan
    return AlignedBeats(beat, record, torch.zeros(len(record), POINTS))


def placed(counts, columns):
    """R peaks a second apart."""
    beats = torch.full((len(counts), columns), -1)
    for row, count in enumerate(counts):
        beats[row, :count] = 50 + 100 * torch.arange(count)
    return beats


def beating(times, *, wide=(), without_p=(), wander=0.0, seconds=10.0):
    """A made heart (1, 3, time) at 100 Hz, that beats at these seconds; those of ``wide`` have another QRS complex."""
    time = torch.arange(round(100 * seconds), dtype=torch.float64) / 100
    signal = wander * torch.sin(2 * math.pi * 0.3 * time)
    for number, peak in enumerate(times):
        if number not in without_p:
            signal = signal + wave(time, peak - 0.16, 0.02, 0.12)
        if number in wide:
            signal = signal + wave(time, peak, 0.04, 1.2) - wave(time, peak + 0.07, 0.03, 0.7)
        else:
            signal = signal + wave(time, peak, 0.02, 1.0)
        signal = signal + wave(time, peak + 0.3, 0.04, 0.3)
    return (torch.tensor(GAINS)[:, None] * signal)[None].float()


def rhythm(times, **settings):
    """The rhythm view of such a heart."""
    beats = torch.tensor([[round(100 * time) for time in times]])
    return beat_view(beating(times, **settings), torch.ones(1, 1, 1, dtype=torch.bool), beats, 100.0).rhythm


def intervals(*seconds, first=0.5):
    """The times of beats so far apart."""
    return [round(time, 2) for time in np.cumsum([first, *seconds]).tolist()]


# When beats came ------------------------------------------------------------------------------------------------------


def test_every_number_has_a_channel():
    assert len(NAMES) == CHANNELS
    counts = [3, 1]
    beats = random_beats(counts)
    assert rhythm_view(beats, median_beats(beats, 2), placed(counts, 5), 100.0).shape == (2, CHANNELS, 5)


@pytest.mark.parametrize("rr", [0.5, 0.8, 1.0, 1.4])
def test_a_regular_rhythm_has_its_rate_and_no_change(rr):
    view = rhythm(intervals(*[rr] * int(8 / rr)))
    torch.testing.assert_close(told(view, "rate"), torch.full(view.shape[-1:], math.log(rr)))
    for name in ("before", "after"):
        torch.testing.assert_close(told(view, name), torch.zeros(view.shape[-1]))
    torch.testing.assert_close(told(view, "irregularity"), torch.full(view.shape[-1:], REGULAR), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("rr", "believed"), [(0.1, 0.25), (4.0, 2.5)])
def test_rates_that_no_heart_has_are_not_believed(rr, believed):
    view = rhythm([1.0, 1.0 + rr, 1.0 + 2 * rr])
    torch.testing.assert_close(told(view, "rate"), torch.full((3,), math.log(believed)))


@pytest.mark.parametrize("rate", [100.0, 500.0])
def test_intervals_are_those_computed_by_hand(rate):
    counts = [6, 2]
    rows = torch.tensor([[50, 150, 250, 310, 450, 550, -1], [100, 180, -1, -1, -1, -1, -1]])
    aligned = random_beats(counts)
    beats = torch.where(rows >= 0, rows * int(rate / 100), -1)
    view = rhythm_view(aligned, median_beats(aligned, 2), beats, rate)
    change = [0.0, 0.0, math.log(0.6), math.log(1.4), 0.0]
    spread = math.log(np.std(change, ddof=1) + 0.01) / 2 + 1
    expected = {
        "is_beat": [1.0] * 6,
        "rate": [0.0] * 6,
        "before": [0.0, *change],
        "after": [*change, 0.0],
        "irregularity": [spread] * 6,
    }
    assert list(expected) == list(OF_RECORD)
    for name, numbers in expected.items():
        torch.testing.assert_close(told(view, name), torch.tensor([*numbers, 0.0]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(told(view, "rate", 1)[:2], torch.full((2,), math.log(0.8)))
    assert not told(view, "irregularity", 1).any(), "one interval has no spread"


def test_one_interval_gone_wrong_is_not_believed_to_its_end():
    view = rhythm(intervals(1, 1, 1, 0.01, 1, 1))
    assert float(told(view, "before").min()) == -1.5
    assert float(told(view, "after").min()) == -1.5


def test_the_more_a_rhythm_varies_the_higher_is_its_irregularity():
    drawn = np.random.default_rng(0).standard_normal(9)
    found = [float(told(rhythm(intervals(*(0.9 + share * drawn))), "irregularity")[0]) for share in (0, 0.05, 0.1, 0.2)]
    assert found == sorted(found)
    assert np.diff(found).min() > 0.2


# How alike waves are --------------------------------------------------------------------------------------------------


def size(values):
    """The root mean square of what is not missing, by a loop."""
    known = [value for value in np.ravel(values) if not np.isnan(value)]
    return math.sqrt(sum(value * value for value in known) / len(known)) if known else math.nan


def lower_median(values):
    """The lower of the middle two of what is not missing."""
    known = sorted(value for value in values if not np.isnan(value))
    return known[(len(known) - 1) // 2] if known else math.nan


def levelled(rows):
    return np.stack([row - row[~np.isnan(row)].mean() if (~np.isnan(row)).any() else row for row in rows])


def waves_of(beat, usual):
    """What is told of the waves of one beat, in plain numpy."""
    whole = size(usual) + 0.02
    apart = np.stack([row - lower_median(row) for row in beat - usual])
    numbers = []
    for first, last in POINTS_OF.values():
        own, other = levelled(beat[:, first:last]), levelled(usual[:, first:last])
        both = ~np.isnan(own * other)
        lengths = np.sqrt((own[~np.isnan(own)] ** 2).sum() * (other[~np.isnan(other)] ** 2).sum())
        numbers += [
            math.log(1 + 3 * size(apart[:, first:last]) / whole),
            (own[both] * other[both]).sum() / lengths,
            math.log((size(own) + 0.01) / whole) / 2 + 0.5,
        ]
    return [*numbers, math.log(size(np.diff(beat[:, :20], axis=1)) + 0.003) / 2 + 2]


@pytest.mark.parametrize("counts", [[4, 0, 3], [1, 2, 5]])
def test_waves_are_described_as_by_a_loop_over_beats_in_numpy(counts):
    aligned = random_beats(counts)
    middle = median_beats(aligned, 3)
    view = rhythm_view(aligned, middle, placed(counts, 6), 100.0)
    number = 0
    for row, count in enumerate(counts):
        for column in range(count):
            expected = waves_of(aligned.beat[number].double().numpy(), middle[row].double().numpy())
            np.testing.assert_allclose(view[row, len(OF_RECORD) :, column].numpy(), expected, atol=2e-5)
            number += 1
        assert not view[row, :, count:].any(), "there is no beat"
    assert number == len(aligned.beat)


def test_a_beat_that_is_the_only_one_is_like_itself():
    view = rhythm([5.0])
    for wave_name in SEGMENTS:
        assert float(told(view, f"difference of {wave_name}")) == 0
        assert float(told(view, f"similarity of {wave_name}")) == pytest.approx(1, abs=1e-4)


def test_a_premature_beat_with_another_qrs_complex_shows_at_itself_and_nowhere_else():
    times, early = intervals(0.8, 0.8, 0.8, 0.8, 0.5, 1.1, 0.8, 0.8, 0.8, 0.8), 5
    view = rhythm(times, wide=[early], without_p=[early])
    others = torch.arange(len(times)) != early
    assert float(told(view, "before")[early]) == pytest.approx(math.log(0.5 / 0.8), abs=1e-5)
    assert float(told(view, "after")[early]) == pytest.approx(math.log(1.1 / 0.8), abs=1e-5)
    assert float(told(view, "after")[early - 1]) == float(told(view, "before")[early])
    assert float(told(view, "before")[early + 1]) == float(told(view, "after")[early])
    untouched = torch.tensor([number not in (early - 1, early, early + 1) for number in range(len(times))])
    for name in ("before", "after"):
        torch.testing.assert_close(told(view, name)[untouched], torch.zeros(int(untouched.sum())))
    difference, similarity = told(view, "difference of QRS"), told(view, "similarity of QRS")
    assert difference[early] > 0.8
    assert difference[others].max() < 0.1
    assert similarity[early] < 0.9
    assert similarity[others].min() > 0.99
    assert told(view, "similarity of P")[early] < told(view, "similarity of P")[others].min()


def test_a_beat_without_its_p_wave_differs_there_most():
    times = intervals(*[0.9] * 9)
    view = rhythm(times, without_p=[4])
    others = torch.arange(len(times)) != 4
    assert told(view, "difference of P")[4] > 5 * told(view, "difference of P")[others].max()
    assert told(view, "size of P")[4] < told(view, "size of P")[others].min() - 0.2
    assert told(view, "roughness")[4] < told(view, "roughness")[others].min() - 0.2
    for elsewhere in ("QRS", "ST-T"):
        assert told(view, f"difference of {elsewhere}")[4] < 0.6 * told(view, "difference of P")[4]
        assert told(view, f"similarity of {elsewhere}")[4] > 0.99


def test_fine_waves_before_the_qrs_complex_make_it_rough():
    times = intervals(*[0.9] * 9)
    beats = torch.tensor([[round(100 * time) for time in times]])
    time = torch.arange(1000) / 100
    flutter = beating(times, without_p=range(len(times))) + 0.1 * torch.sin(2 * math.pi * 6 * time)
    recorded = torch.ones(1, 1, 1, dtype=torch.bool)
    rough = told(beat_view(flutter, recorded, beats, 100.0).rhythm, "roughness")
    assert rough.min() > told(rhythm(times), "roughness").max() + 0.1


def test_a_beat_lifted_as_a_whole_is_not_another():
    aligned = random_beats([5])
    middle = median_beats(aligned, 1)
    plain = rhythm_view(aligned, middle, placed([5], 5), 100.0)
    lifted = aligned._replace(beat=aligned.beat + torch.tensor([0.0, 0.5, -0.3, 1.0, 2.0])[:, None, None])
    torch.testing.assert_close(rhythm_view(lifted, middle, placed([5], 5), 100.0), plain, atol=1e-4, rtol=1e-4)


def test_a_wandering_baseline_changes_what_is_told_little():
    times = intervals(*[0.8] * 10)
    still, moved = rhythm(times), rhythm(times, wander=0.1)
    assert torch.equal(still[:, : len(OF_RECORD)], moved[:, : len(OF_RECORD)])
    inner = slice(1, -1)  # at the ends of a record the baseline is known from one side only
    for wave_name in SEGMENTS:
        for told_of_it, most in (("difference", 0.2), ("similarity", 0.02), ("size", 0.06)):
            change = told(moved, f"{told_of_it} of {wave_name}") - told(still, f"{told_of_it} of {wave_name}")
            assert change[inner].abs().max() < most, f"{told_of_it} of {wave_name}"


# Missing --------------------------------------------------------------------------------------------------------------


def test_a_beat_of_which_nothing_was_recorded_has_its_times_and_no_waves():
    aligned = random_beats([3, 2])
    aligned.beat[1] = torch.nan
    view = rhythm_view(aligned, median_beats(aligned, 2), placed([3, 2], 4), 100.0)
    assert view.isfinite().all()
    assert float(told(view, "is_beat")[1]) == 1
    for wave_name in SEGMENTS:
        assert float(told(view, f"difference of {wave_name}")[1]) == 0
        assert float(told(view, f"similarity of {wave_name}")[1]) == 0
    untouched = random_beats([3, 2])
    expected = rhythm_view(untouched, median_beats(untouched, 2), placed([3, 2], 4), 100.0)
    assert torch.equal(view[1], expected[1])


def test_padding_and_other_records_change_nothing():
    counts = [4, 0, 2]
    aligned = random_beats(counts)
    middle = median_beats(aligned, 3)
    together = rhythm_view(aligned, middle, placed(counts, 9), 100.0)
    tight = rhythm_view(aligned, middle, placed(counts, 4), 100.0)
    torch.testing.assert_close(together[..., :4], tight)
    assert not together[..., 4:].any()
    for row in (0, 2):
        own = aligned.record == row
        alone = AlignedBeats(aligned.beat[own], torch.zeros(counts[row], dtype=torch.int64), aligned.place[own])
        found = rhythm_view(alone, middle[row : row + 1], placed(counts, 4)[row : row + 1, : counts[row]], 100.0)
        torch.testing.assert_close(found[0], tight[row, :, : counts[row]])
