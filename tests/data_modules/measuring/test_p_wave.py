from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data_modules.measuring.p_wave import find_p_onset

QRS_ONSET = np.array([235])
RR = np.array([1.0])


def bump(centre: float, deviation: float, height: float = 1.0) -> NDArray[np.float64]:
    return height * np.exp(-0.5 * ((np.arange(600) - centre) / deviation) ** 2)


def beats(*waves: NDArray[np.float64]) -> NDArray[np.float64]:
    """A QRS complex and more waves in three leads; (1, leads, time)."""
    return np.outer([1.0, -0.5, 0.3], sum(waves, start=bump(250, 5)))[None]


def onset(signal: NDArray[np.float64], rr: NDArray[np.float64] = RR) -> float:
    found, _ = find_p_onset(signal, np.stack((signal, signal), axis=1), rr, QRS_ONSET)
    return float(found.item())


@pytest.mark.parametrize("peak", [120, 150, 180])
def test_the_p_wave_begins_two_deviations_before_its_peak(peak):
    assert onset(beats(bump(peak, 10, 0.15))) == pytest.approx(peak - 20, abs=5)


@pytest.mark.parametrize("height", [0.15, -0.15])
def test_an_inverted_p_wave_begins_at_the_same_place(height):
    assert onset(beats(bump(160, 10, height))) == pytest.approx(140, abs=5)


def test_the_t_wave_before_is_not_taken_for_the_p_wave():
    assert onset(beats(bump(160, 10, 0.15), bump(20, 22, 0.4)), np.array([0.6])) == pytest.approx(140, abs=6)


def test_a_p_wave_out_of_reach_of_a_fast_rhythm_is_not_searched():
    assert np.isnan(onset(beats(bump(60, 10, 0.15)), np.array([0.4])))


def test_a_ripple_after_the_p_wave_is_none():
    assert onset(beats(bump(140, 10, 0.15), bump(195, 8, 0.03))) == pytest.approx(120, abs=6)


def test_noise_that_does_not_repeat_is_no_p_wave():
    rng = np.random.default_rng(0)
    signal = beats()
    halves = np.stack((signal, signal), axis=1) + rng.normal(0, 0.02, (1, 2, 3, 600))
    found, noise = find_p_onset(halves.mean(axis=1), halves, RR, QRS_ONSET)
    assert np.isnan(found).all()
    assert (noise > 0.2).all()
