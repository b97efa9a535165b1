from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data_modules.measuring.beats import find_beats
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
    beats = find_beats(spikes(EVERY_800_MS, rate), LEADS, rate).peaks
    assert beats.dtype == np.int32
    assert beats.size == EVERY_800_MS.size
    assert np.abs(beats / rate - EVERY_800_MS).max() <= 0.015


def test_beats_cut_by_the_edges_are_found_and_lie_inside():
    times = np.arange(0.08, 10, 0.828)  # the last one 50 ms before the end
    beats = find_beats(spikes(times), LEADS, 100).peaks
    assert beats.size == times.size
    assert beats[0] >= 0
    assert beats[-1] < 1000
    assert (np.diff(beats) > 0).all()
    assert np.abs(beats / 100 - times).max() <= 0.03


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_padding_and_missing_leads_change_no_beat(missing):
    signal = spikes(EVERY_800_MS)
    whole = find_beats(signal, LEADS, 100)
    padded = np.full((12, 1700), missing, dtype=np.float32)
    padded[:, 300:1300] = signal
    padded[[1, 6]] = missing
    found = find_beats(padded, LEADS, 100)
    assert np.abs(found.peaks - 300 - whole.peaks).max() <= 1
    assert found.rr.tolist() == pytest.approx(whole.rr.tolist(), abs=2)


def test_in_a_dropout_of_all_leads_there_are_no_beats_and_no_interval_spans_it():
    signal = spikes(EVERY_800_MS)
    signal[:, 400:620] = np.nan
    found = find_beats(signal, LEADS, 100)
    assert not ((found.peaks >= 400) & (found.peaks < 620)).any()
    assert np.count_nonzero(np.isnan(found.rr)) == 1
    assert np.nanmax(found.rr) <= 82


def test_a_dropout_in_lead_ii_costs_no_beat():
    signal = spikes(EVERY_800_MS)
    signal[1, 400:490] = np.nan
    assert np.abs(find_beats(signal, LEADS, 100).peaks / 100 - EVERY_800_MS).max() <= 0.03


def test_beats_stand_out_less_the_noisier_the_signal():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (12, 1000))
    contrasts = [
        find_beats((spikes(EVERY_800_MS) + level * noise).astype(np.float32), LEADS, 100).contrast
        for level in (0, 0.02, 0.05, 0.1)
    ]
    assert (np.diff(contrasts) < 0).all()


def test_a_flat_lead_ii_is_replaced_by_another_lead():
    signal = spikes(EVERY_800_MS)
    signal[1] = 0
    assert find_beats(signal, LEADS, 100).peaks.size == EVERY_800_MS.size


def test_a_noisy_lead_ii_is_replaced_by_another_lead():
    signal = spikes(EVERY_800_MS)
    signal[1] += np.random.default_rng(1).normal(0, 1, 1000).astype(np.float32)
    beats = find_beats(signal, LEADS, 100).peaks
    assert beats.size == EVERY_800_MS.size
    assert np.abs(beats / 100 - EVERY_800_MS).max() <= 0.03


def test_t_waves_higher_than_the_qrs_complex_in_lead_ii_are_not_beats():
    signal = spikes(EVERY_800_MS)
    t = np.arange(1000) / 100
    signal[1] = sum(
        0.1 * np.exp(-0.5 * ((t - x) / 0.012) ** 2) + 0.8 * np.exp(-0.5 * ((t - x - 0.3) / 0.04) ** 2)
        for x in EVERY_800_MS
    )
    beats = find_beats(signal, LEADS, 100).peaks
    assert np.abs(beats / 100 - EVERY_800_MS).max() <= 0.03


def test_leads_are_chosen_by_name_not_by_position():
    names = ("V1", "II")
    signal = spikes(EVERY_800_MS, gains=(-0.3, 1.0))
    assert np.array_equal(find_beats(signal, names, 100).peaks, find_beats(signal[::-1], names[::-1], 100).peaks)


def test_beats_of_unknown_lead_names_are_found():
    assert find_beats(spikes(EVERY_800_MS, gains=(1.0,)), ["chest strap"], 100).peaks.size == EVERY_800_MS.size


@pytest.mark.parametrize("leads", [1, 2, 12])
@pytest.mark.parametrize("seed", range(3))
def test_noise_holds_no_beats(leads, seed):
    noise = np.random.default_rng(seed).normal(0, 0.1, (leads, 1000)).astype(np.float32)
    assert find_beats(noise, LEADS[:leads], 100).peaks.size == 0
