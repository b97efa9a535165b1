from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data_modules.measuring.beats import find_beats
from data_modules.measuring.median_beat import MEDIAN_BEAT_ONSET, MEDIAN_BEAT_RATE, median_beat
from ecgfair.ecg import LEADS


def spikes(times: NDArray[np.float64], rate: float = 100, seconds: float = 10, gains: tuple[float, ...] = (1.0,) * 12):
    """Gaussian QRS complexes of 1 mV with small T waves 0.3 s later, and the noise of a good recording."""
    t = np.arange(round(seconds * rate)) / rate
    one = sum(np.exp(-0.5 * ((t - x) / 0.012) ** 2) + 0.2 * np.exp(-0.5 * ((t - x - 0.3) / 0.04) ** 2) for x in times)
    noise = np.random.default_rng(0).normal(0, 0.004, (len(gains), t.size))
    return (np.asarray(gains)[:, None] * one + noise).astype(np.float32)


EVERY_800_MS = np.arange(0.5, 9.9, 0.8)


def test_the_median_beat_has_r_where_it_says_and_the_height_of_the_beats():
    signal = spikes(EVERY_800_MS, 500)
    beat = median_beat(signal, find_beats(signal, LEADS, 500).peaks, 500)
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
    beat = median_beat(signal, find_beats(signal, LEADS, 100).peaks, 100)
    assert beat is not None
    assert np.isnan(beat.signal).all(axis=1).tolist() == [lead == 7 for lead in range(12)]


def test_fewer_than_two_whole_beats_have_no_median_beat():
    signal = spikes(np.array([0.2, 1.4, 2.3]), seconds=2.5)
    assert median_beat(signal, np.array([20, 140, 230], dtype=np.int32), 100) is None


def test_leads_of_nan_are_nan_in_the_median_beat_and_change_no_other():
    signal = spikes(EVERY_800_MS)
    peaks = find_beats(signal, LEADS, 100).peaks
    whole = median_beat(signal, peaks, 100)
    signal[[2, 9]] = np.nan
    found = median_beat(signal, peaks, 100)
    assert whole is not None
    assert found is not None
    assert np.isnan(found.signal[[2, 9]]).all()
    others = [lead for lead in range(12) if lead not in (2, 9)]
    assert np.abs(found.signal[others] - whole.signal[others]).max() < 0.01


def test_padding_is_no_part_of_the_median_beat():
    signal = spikes(EVERY_800_MS)
    peaks = find_beats(signal, LEADS, 100).peaks
    padded = np.pad(signal, ((0, 0), (211, 89)), constant_values=np.nan)
    whole, found = median_beat(signal, peaks, 100), median_beat(padded, peaks + np.int32(211), 100)
    assert whole is not None
    assert found is not None
    assert np.array_equal(whole.signal, found.signal)


def test_beats_beside_a_dropout_do_not_enter_the_median_beat():
    signal = spikes(EVERY_800_MS)
    signal[:, 250:270] = 3.0  # an artefact, half of which the recorder recognised
    signal[4, 260:265] = np.nan
    peaks = np.round(100 * EVERY_800_MS).astype(np.int32)
    clean = median_beat(spikes(EVERY_800_MS), peaks, 100)
    found = median_beat(signal, peaks, 100)
    assert clean is not None
    assert found is not None
    assert np.abs(found.signal - clean.signal).max() < 0.05


def test_a_dropout_beside_every_beat_leaves_no_median_beat():
    signal = spikes(EVERY_800_MS)
    peaks = np.round(100 * EVERY_800_MS).astype(np.int32)
    for peak in peaks:
        signal[:, peak + 20 : peak + 26] = np.nan
    assert median_beat(signal, peaks, 100) is None


def test_the_median_of_very_many_beats_is_that_of_some_evenly_spread(monkeypatch):
    signal = spikes(EVERY_800_MS)
    peaks = np.round(100 * EVERY_800_MS).astype(np.int32)
    every = median_beat(signal, peaks, 100)
    monkeypatch.setattr("data_modules.measuring.median_beat._MOST_BEATS", 5)
    few = median_beat(signal, peaks, 100)
    assert every is not None
    assert few is not None
    assert not np.array_equal(few.signal, every.signal)
    assert np.abs(few.signal - every.signal).max() < 0.02
