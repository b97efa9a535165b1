"""When atria and ventricles beat."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import lombscargle

from data_modules.synthetic.heart.rhythm import MARGIN, Pace, Rhythm, plan
from data_modules.synthetic.people.streams import Purpose, stream
from tests.data_modules.synthetic.drawn import strength

SECONDS = 10.0
RATES = range(40, 151, 5)


def planned(
    *codes: str,
    number: int = 1,
    rate: float = 72.0,
    arrhythmia: float = 0.012,
    seconds: float = SECONDS,
    respiration: float = 0.25,
) -> Rhythm:
    strengths = {**strength(), **dict.fromkeys(codes, 1.0)}
    pace = Pace(rate, 0.16, seconds, respiration, arrhythmia)
    return plan(pace, strengths, stream(0, Purpose.RHYTHM, number))


def inside(beats: np.ndarray) -> np.ndarray:
    return beats[(beats >= 0) & (beats < SECONDS)]


def irregularity(rhythm: Rhythm) -> float:
    """Mean change from one RR interval to the next, as a share of it."""
    intervals = np.diff(inside(rhythm.beats))
    return float(np.mean(np.abs(np.diff(intervals)) / intervals[1:]))


@pytest.mark.parametrize("rate", [45, 72, 100, 130])
def test_sinus_rhythm_has_the_rate_asked_for(rate: int):
    rates = [60 / np.diff(planned(number=number, rate=rate, arrhythmia=0.04).beats).mean() for number in range(1, 101)]
    assert np.mean(rates) == pytest.approx(rate, rel=0.003)
    assert np.ptp(rates) < 0.05 * rate


def test_beats_are_planned_before_and_after_the_recording_too():
    for rate in RATES:
        beats = planned(rate=rate).beats
        assert beats[0] < -MARGIN + 2.1 * 60 / rate
        assert beats[-1] > SECONDS + MARGIN - 1.1 * 60 / rate


@pytest.mark.parametrize("respiration", [0.2, 0.25, 0.3])
def test_the_heart_of_the_young_follows_breathing(respiration: float):
    for number in range(1, 11):
        beats = planned(number=number, arrhythmia=0.04, seconds=45.0, respiration=respiration, rate=75).beats
        intervals = np.diff(beats)
        frequencies = np.arange(0.05, 0.5, 0.005)
        power = lombscargle(beats[1:], intervals - intervals.mean(), 2 * np.pi * frequencies)
        assert frequencies[power.argmax()] == pytest.approx(respiration, abs=0.02)


def test_sinus_arrhythmia_is_as_strong_as_asked_for():
    weak, strong = (
        np.mean([irregularity(planned(number=number, arrhythmia=share)) for number in range(1, 51)])
        for share in (0.012, 0.048)
    )
    assert strong == pytest.approx(4 * weak, rel=0.1)


def test_fibrillation_is_more_irregular_than_any_sinus_rhythm_and_has_no_p():
    for rate in (75, 92, 120):
        fibrillation = [planned("AFIB", number=number, rate=rate) for number in range(1, 201)]
        sinus = [planned(number=number, rate=rate, arrhythmia=0.043) for number in range(1, 201)]
        assert min(map(irregularity, fibrillation)) > max(map(irregularity, sinus))
        assert all(np.isnan(rhythm.pr).all() and not rhythm.blocked.size for rhythm in fibrillation)
        mean = np.mean([60 / np.diff(rhythm.beats).mean() for rhythm in fibrillation])
        assert mean == pytest.approx(rate, rel=0.03)


def test_intervals_of_fibrillation_do_not_follow_from_those_before():
    intervals = [np.diff(planned("AFIB", number=number, rate=90).beats) for number in range(1, 201)]
    before, after = np.concatenate([one[:-1] for one in intervals]), np.concatenate([one[1:] for one in intervals])
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.05


@pytest.mark.parametrize("rate", [66, 75, 100, 130, 150])
def test_every_second_to_fourth_wave_of_flutter_is_conducted_at_the_same_place(rate: int):
    rhythm = planned("AFLT", rate=rate)
    intervals = np.diff(rhythm.beats)
    assert np.allclose(intervals, 60 / rate, atol=1e-5)
    conducted = rhythm.flutter * 60 / rate
    assert conducted == pytest.approx(round(conducted))
    assert round(conducted) in (2, 3, 4)
    assert np.isnan(rhythm.pr).all()


def test_a_pacemaker_keeps_time():
    assert np.ptp(np.diff(planned("PACE", arrhythmia=0.04).beats)) < 1e-5


def cycles(rhythm: Rhythm) -> list[np.ndarray]:
    """PR intervals between one blocked P wave and the next."""
    edges = np.sort(rhythm.blocked)
    return [rhythm.pr[(rhythm.beats > first) & (rhythm.beats < last)] for first, last in pairwise(edges)]


def test_pr_grows_before_a_p_without_qrs_or_it_stays_the_same():
    kinds = set()
    for number in range(1, 101):
        rhythm = planned("2AVB", number=number)
        grows = {bool((np.diff(cycle) > 0.01).all()) for cycle in cycles(rhythm)}
        stays = {bool(np.ptp(cycle) < 1e-6) for cycle in cycles(rhythm)}
        assert grows != stays
        assert len(grows) == len(stays) == 1
        kinds.add(grows.pop())
        assert all(cycle[0] == pytest.approx(0.16) for cycle in cycles(rhythm))
    assert kinds == {True, False}


def test_p_waves_come_regularly_also_where_they_are_blocked():
    for number in range(1, 101):
        rhythm = planned("2AVB", number=number)
        atrial = np.sort(np.concatenate([rhythm.beats - rhythm.pr, rhythm.blocked - rhythm.usual_pr]))
        assert np.ptp(np.diff(atrial)) < 0.1 * 60 / 72


def test_every_recording_of_second_degree_block_has_a_pause():
    for rate in (60, 75, 97):
        for number in range(1, 101):
            rhythm = planned("2AVB", number=number, rate=rate)
            assert inside(rhythm.blocked).size
            assert np.diff(rhythm.beats).max() > 1.6 * 60 / rate


def around_premature(rhythm: Rhythm, early: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intervals before and after each premature beat, as shares of the usual interval."""
    usual = np.median(np.diff(rhythm.beats)[~(early[1:] | early[:-1])])
    spots = np.flatnonzero(early)
    return (rhythm.beats[spots] - rhythm.beats[spots - 1]) / usual, (
        rhythm.beats[spots + 1] - rhythm.beats[spots]
    ) / usual


def test_premature_beats_of_the_ventricles_are_early_and_the_pause_makes_up_for_it():
    for rate in RATES:
        for number in range(1, 41):
            rhythm = planned("PVC", number=number, rate=rate)
            before, after = around_premature(rhythm, rhythm.ventricular)
            assert before.max() < 0.75
            assert np.abs(before + after - 2).max() < 0.16
            assert np.isnan(rhythm.pr[rhythm.ventricular]).all()
            assert not np.isnan(rhythm.pr[~rhythm.ventricular]).any()


def test_premature_beats_of_the_atria_are_early_and_the_pause_is_short():
    for rate in RATES:
        for number in range(1, 41):
            rhythm = planned("PAC", number=number, rate=rate)
            before, after = around_premature(rhythm, rhythm.atrial)
            assert before.max() < 0.75
            assert (before + after).max() < 1.85
            assert after.min() > 0.95
            assert not np.isnan(rhythm.pr).any()


@pytest.mark.parametrize("codes", [("PVC",), ("PAC",), ("PAC", "PVC")])
def test_one_to_three_premature_beats_of_each_kind_lie_within_the_recording_at_every_rate(codes: tuple[str, ...]):
    counts = set()
    for rate in RATES:
        for number in range(1, 61):
            rhythm = planned(*codes, number=number, rate=rate, arrhythmia=(0.012, 0.043)[number % 2])
            for code, early in (("PVC", rhythm.ventricular), ("PAC", rhythm.atrial)):
                whole = rhythm.beats[early]
                assert early.any() == (code in codes)
                assert ((whole > 0.5) & (whole < SECONDS - 0.8)).all()
                counts.add(int(early.sum()))
            either = rhythm.ventricular | rhythm.atrial
            assert not (either[1:] & either[:-1]).any()
            assert np.diff(rhythm.beats).min() > 0.2
    assert counts <= {0, 1, 2, 3}
    assert {1, 3} <= counts


def test_a_premature_beat_of_the_ventricles_leaves_all_others_where_they_were():
    with_it, without = planned("PVC", number=5), planned(number=5)
    assert np.array_equal(with_it.beats[~with_it.ventricular], without.beats[~with_it.ventricular])
    assert (with_it.beats[with_it.ventricular] < without.beats[with_it.ventricular]).all()


def test_a_rhythm_depends_on_its_record_alone():
    first, again, other = planned(number=7), planned(number=7), planned(number=8)
    assert all(np.array_equal(value, asdict(again)[name], equal_nan=True) for name, value in asdict(first).items())
    assert not np.array_equal(first.beats[:5], other.beats[:5])


@pytest.mark.parametrize("code", [None, "AFIB", "AFLT", "2AVB", "PACE", "PVC", "PAC"])
def test_the_same_random_numbers_are_drawn_whatever_the_rhythm(code: str | None):
    rng, reference = stream(0, Purpose.RHYTHM, 3), stream(0, Purpose.RHYTHM, 3)
    plan(Pace(72, 0.16, SECONDS, 0.25, 0.02), strength(code), rng)
    plan(Pace(130, 0.12, SECONDS, 0.20, 0.04), strength(), reference)
    assert rng.random() == reference.random()


def test_times_are_whole_microseconds():
    for code in ("AFIB", "2AVB", "PVC"):
        rhythm = planned(code)
        for times in (rhythm.beats, rhythm.blocked, rhythm.pr[~np.isnan(rhythm.pr)]):
            assert np.array_equal(times, times.round(6))
