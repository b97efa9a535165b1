from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data_modules.measuring.beats import JudgedBeats
from data_modules.measuring.rhythm import ECTOPIC, Rhythm, rhythm


def beats(rr: NDArray[np.floating] | list[float], contradictions: float = 0, contrast: float = 20) -> JudgedBeats:
    """R peaks at these intervals, in samples of 100 Hz."""
    known = np.asarray(rr, dtype=np.float64)
    peaks = np.cumsum(np.concatenate(([50], np.nan_to_num(known, nan=300)))).astype(np.int32)
    return JudgedBeats(peaks, known, contradictions, contrast)


def test_a_steady_rhythm_has_its_rate_and_no_variability():
    found = rhythm(beats([80.0] * 10), 100)
    assert found.heart_rate == pytest.approx(75)
    assert found.rr_variability == 0


def test_variability_is_the_mean_relative_difference_of_successive_intervals():
    found = rhythm(beats([80, 88, 80, 84]), 100)
    assert found.rr_variability == pytest.approx(np.mean([8 / 84, 8 / 84, 4 / 82]))


def test_variability_does_not_depend_on_the_heart_rate():
    rr = np.random.default_rng(0).uniform(60, 80, 12)
    assert rhythm(beats(rr), 100).rr_variability == pytest.approx(rhythm(beats(2 * rr), 100).rr_variability)


def test_an_ectopic_beat_counts_less_than_steady_irregularity():
    ectopic = rhythm(beats([80, 80, 80, 45, 115, 80, 80, 80, 80, 80, 80]), 100).rr_variability
    fibrillation = rhythm(beats([80, 60, 90, 70, 100, 65, 85, 70, 110, 75, 60]), 100).rr_variability
    assert ectopic is not None
    assert fibrillation is not None
    assert ectopic < 0.4 * fibrillation
    assert fibrillation <= ECTOPIC


def test_an_interval_that_was_not_recorded_counts_for_nothing():
    found = rhythm(beats([80, 80, 80, np.nan, 80, 80, 80]), 100)
    assert found.heart_rate == pytest.approx(75)
    assert found.rr_variability == 0


@pytest.mark.parametrize("rr", [[], [np.nan]])
def test_without_an_interval_nothing_is_told(rr):
    assert rhythm(beats(rr), 100) == Rhythm()


def test_few_beats_have_a_rate_but_no_variability():
    found = rhythm(beats([80, 82, 81]), 100)
    assert found.heart_rate == pytest.approx(74.07, abs=0.01)
    assert found.rr_variability is None
    assert found.rr_variability_quality == 0


def test_quality_falls_with_contradictions_and_with_lower_contrast():
    clean = rhythm(beats([80.0] * 10), 100)
    worse = [rhythm(beats([80.0] * 10, 2), 100), rhythm(beats([80.0] * 10, contrast=5), 100)]
    for found in worse:
        assert 0 < found.heart_rate_quality < clean.heart_rate_quality < 1
        assert 0 < found.rr_variability_quality < clean.rr_variability_quality < 1


def test_more_beats_tell_the_variability_better():
    few, many = rhythm(beats([80.0] * 5), 100), rhythm(beats([80.0] * 30), 100)
    assert few.rr_variability_quality < many.rr_variability_quality
