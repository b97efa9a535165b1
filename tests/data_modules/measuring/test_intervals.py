from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data_modules.measuring.intervals import find_waves
from data_modules.measuring.vectors import MILLISECONDS

R = 250


def bump(centre: float, deviation: float, height: float = 1.0) -> NDArray[np.float64]:
    return height * np.exp(-0.5 * ((np.arange(600) - centre) / deviation) ** 2)


def median_beats(*, qrs: float = 6.0, t: float = 0.4, p: float = 0.15, leads: int = 3) -> NDArray[np.float64]:
    """One median beat, (1, leads, time): P peak 75 samples before R, T peak 125 after it; ``qrs`` is its deviation."""
    beat = bump(R - 75, 10, p) + bump(R, qrs) + bump(R + 125, 22, t)
    return np.outer([1.0, -0.5, 0.3, 0.2][:leads], beat)[None]


def halves_of(signal: NDArray[np.float64], noise: float = 0.0) -> NDArray[np.float64]:
    halves = np.stack((signal, signal), axis=1)
    return halves + noise * np.random.default_rng(0).normal(size=halves.shape)


RR = np.array([0.85])


def test_waves_lie_where_they_were_put():
    signal = median_beats()
    found = find_waves(signal, halves_of(signal), RR)
    assert found.has_qrs.all()
    assert found.qrs_onset == pytest.approx(R - 18, abs=4)
    assert found.qrs_offset == pytest.approx(R + 18, abs=4)
    assert found.p_onset == pytest.approx(R - 95, abs=5)
    assert found.t_end == pytest.approx(R + 169, abs=5)


def test_noise_is_what_differs_between_the_halves_as_a_share_of_each_wave():
    signal = median_beats()
    clean = find_waves(signal, halves_of(signal), RR)
    noisy = find_waves(signal, halves_of(signal, 0.01), RR)
    for name in ("p_noise", "qrs_noise", "t_noise"):
        assert getattr(clean, name) == 0, name
    # Half of the difference of two halves of deviation 0.01, in three leads, is 0.0113 on average (chi of 3 degrees).
    assert noisy.t_noise == pytest.approx(0.0113 / (0.4 * np.sqrt(1.34)), rel=0.1)
    assert noisy.t_noise < noisy.p_noise


@pytest.mark.parametrize("without", ["p", "t"])
def test_a_missing_wave_is_nan(without):
    signal = median_beats(**{without: 0.0})
    found = find_waves(signal, halves_of(signal, 0.002), RR)
    assert np.isnan(found.p_onset).all() == (without == "p")
    assert np.isnan(found.t_end).all() == (without == "t")
    assert found.has_qrs.all()


def test_a_p_wave_in_one_half_of_the_beats_alone_is_none():
    signal, without = median_beats(), median_beats(p=0.0)
    assert np.isnan(find_waves(signal, np.stack((signal, without), axis=1), RR).p_onset).all()


def test_without_halves_every_wave_is_taken_as_real():
    signal = median_beats()
    checked, unchecked = find_waves(signal, halves_of(signal), RR), find_waves(signal, None, RR)
    assert unchecked.p_onset == checked.p_onset
    assert unchecked.t_end == checked.t_end


def test_a_flat_line_has_no_waves():
    found = find_waves(np.zeros((1, 3, 600)), None, RR)
    assert not found.has_qrs.any()
    assert np.isnan(found.p_onset).all()
    assert np.isnan(found.t_end).all()


def test_records_measured_together_do_not_mix():
    beats = [median_beats(), median_beats(qrs=12), np.zeros((1, 3, 600)), median_beats(p=0.0), median_beats(t=0.1)]
    rr = np.array([0.85, 1.2, 0.85, 0.6, 0.5])
    signal = np.concatenate(beats)
    together = find_waves(signal, halves_of(signal), rr)
    for place, beat in enumerate(beats):
        alone = find_waves(beat, halves_of(beat), rr[place : place + 1])
        for name in ("qrs_onset", "qrs_offset", "has_qrs", "p_onset", "t_end"):
            assert np.array_equal(getattr(together, name)[place : place + 1], getattr(alone, name), equal_nan=True), (
                name
            )


def test_a_lead_of_zeros_changes_nothing():
    signal = median_beats(leads=3)
    found, padded = (find_waves(rows, None, RR) for rows in (signal, np.pad(signal, ((0, 0), (0, 2), (0, 0)))))
    assert padded.qrs_onset == found.qrs_onset
    assert padded.p_onset == pytest.approx(found.p_onset)
    assert padded.t_end == pytest.approx(found.t_end)


def test_a_wider_qrs_complex_measures_wider():
    widths = [find_waves(median_beats(qrs=qrs), None, RR) for qrs in (5.0, 8.0, 12.0, 16.0)]
    milliseconds = [((found.qrs_offset - found.qrs_onset) * MILLISECONDS).item() for found in widths]
    assert (np.diff(milliseconds) > 0).all()
