from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data_modules.beats import MEDIAN_BEAT_ONSET, MEDIAN_BEAT_RATE, find_beats, median_beat
from ecgfair.ecg import LEADS


def spikes(times: NDArray[np.float64], rate: float = 100, seconds: float = 10, gains: tuple[float, ...] = (1.0,) * 12):
    """Gaussian QRS complexes of 1 mV with small T waves 0.3 s later, and the noise of a good recording."""
    t = np.arange(round(seconds * rate)) / rate
    one = sum(np.exp(-0.5 * ((t - x) / 0.012) ** 2) + 0.2 * np.exp(-0.5 * ((t - x - 0.3) / 0.04) ** 2) for x in times)
    noise = np.random.default_rng(0).normal(0, 0.004, (len(gains), t.size))
    return (np.asarray(gains)[:, None] * one + noise).astype(np.float32)


EVERY_800_MS = np.arange(0.5, 9.9, 0.8)


@pytest.mark.parametrize("rate", [100, 360, 500])
def test_each_beat_is_found_where_it_is(rate):
    beats = find_beats(spikes(EVERY_800_MS, rate), LEADS, rate)
    assert beats.dtype == np.int32
    assert beats.size == EVERY_800_MS.size
    assert np.abs(beats / rate - EVERY_800_MS).max() <= 0.015


def test_beats_cut_by_the_edges_are_found_and_lie_inside():
    times = np.arange(0.08, 10, 0.828)  # the last one 50 ms before the end
    beats = find_beats(spikes(times), LEADS, 100)
    assert beats.size == times.size
    assert beats[0] >= 0
    assert beats[-1] < 1000
    assert (np.diff(beats) > 0).all()
    assert np.abs(beats / 100 - times).max() <= 0.03


def test_a_flat_lead_ii_is_replaced_by_another_lead():
    signal = spikes(EVERY_800_MS)
    signal[1] = 0
    assert find_beats(signal, LEADS, 100).size == EVERY_800_MS.size


def test_a_noisy_lead_ii_is_replaced_by_another_lead():
    signal = spikes(EVERY_800_MS)
    signal[1] += np.random.default_rng(1).normal(0, 1, 1000).astype(np.float32)
    beats = find_beats(signal, LEADS, 100)
    assert beats.size == EVERY_800_MS.size
    assert np.abs(beats / 100 - EVERY_800_MS).max() <= 0.03


def test_t_waves_higher_than_the_qrs_complex_in_lead_ii_are_not_beats():
    signal = spikes(EVERY_800_MS)
    t = np.arange(1000) / 100
    signal[1] = sum(
        0.1 * np.exp(-0.5 * ((t - x) / 0.012) ** 2) + 0.8 * np.exp(-0.5 * ((t - x - 0.3) / 0.04) ** 2)
        for x in EVERY_800_MS
    )
    beats = find_beats(signal, LEADS, 100)
    assert np.abs(beats / 100 - EVERY_800_MS).max() <= 0.03


def test_leads_are_chosen_by_name_not_by_position():
    names = ("V1", "II")
    signal = spikes(EVERY_800_MS, gains=(-0.3, 1.0))
    assert np.array_equal(find_beats(signal, names, 100), find_beats(signal[::-1], names[::-1], 100))


def test_beats_of_unknown_lead_names_are_found():
    assert find_beats(spikes(EVERY_800_MS, gains=(1.0,)), ["chest strap"], 100).size == EVERY_800_MS.size


@pytest.mark.parametrize("leads", [1, 2, 12])
@pytest.mark.parametrize("seed", range(3))
def test_noise_holds_no_beats(leads, seed):
    noise = np.random.default_rng(seed).normal(0, 0.1, (leads, 1000)).astype(np.float32)
    assert find_beats(noise, LEADS[:leads], 100).size == 0


def test_the_median_beat_has_r_where_it_says_and_the_height_of_the_beats():
    signal = spikes(EVERY_800_MS, 500)
    beat = median_beat(signal, find_beats(signal, LEADS, 500), 500)
    assert beat is not None
    assert beat.signal.shape[0] == beat.halves.shape[1] == 12
    assert np.abs(np.argmax(beat.signal, axis=1) - MEDIAN_BEAT_ONSET * MEDIAN_BEAT_RATE).max() <= 2
    assert beat.rr == pytest.approx(0.8, abs=0.002)


def test_r_peaks_that_jitter_do_not_smear_the_median_beat():
    signal = spikes(EVERY_800_MS, 500)
    exact = np.round(EVERY_800_MS * 500).astype(np.int32)
    jittered = exact + np.random.default_rng(0).integers(-12, 13, exact.size).astype(np.int32)
    sharp, jittery = median_beat(signal, exact, 500), median_beat(signal, jittered, 500)
    assert sharp is not None
    assert jittery is not None
    assert jittery.signal.max() > 0.98 * sharp.signal.max()


def test_beats_of_another_shape_do_not_enter_the_median_beat():
    times = EVERY_800_MS
    signal = spikes(times, 500)
    t = np.arange(5000) / 500
    for x in times[[3, 7]]:
        signal -= (3 * np.exp(-0.5 * ((t - x - 0.02) / 0.04) ** 2)).astype(np.float32)
    r = np.round(times * 500).astype(np.int32)
    mixed, clean = median_beat(signal, r, 500), median_beat(signal, np.delete(r, [3, 7]), 500)
    assert mixed is not None
    assert clean is not None
    assert np.abs(mixed.signal - clean.signal).max() < 0.01


def test_a_loose_electrode_is_left_out_of_the_median_beat():
    signal = spikes(EVERY_800_MS)
    signal[7] += np.random.default_rng(1).normal(0, 2, 1000).astype(np.float32)
    beat = median_beat(signal, find_beats(signal, LEADS, 100), 100)
    assert beat is not None
    assert beat.signal.shape[0] == 11


def test_fewer_than_two_whole_beats_have_no_median_beat():
    signal = spikes(np.array([0.2, 1.4, 2.3]), seconds=2.5)
    assert median_beat(signal, np.array([20, 140, 230], dtype=np.int32), 100) is None
