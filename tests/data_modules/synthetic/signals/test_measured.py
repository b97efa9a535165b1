"""What is measured on synthetic ECGs is what they were drawn with, by this project's measurement and by neurokit2."""

from __future__ import annotations

import warnings
from dataclasses import replace

import neurokit2
import numpy as np
import pytest

from data_modules.measuring.measurement import measure_batch
from data_modules.synthetic.people.draw import example, truth
from data_modules.synthetic.signals.recording import SECONDS, Recording, record
from ecgfair.ecg import LEADS

RECORDS = 20
MEDIAN_WITHIN = {"heart_rate": 1.0, "pr": 5.0, "qrs": 6.0, "qt": 6.0}
"""Beats a minute and milliseconds, of measured minus asked."""
MOST_WITHIN = {"heart_rate": 2.0, "pr": 8.0, "qrs": 10.0, "qt": 10.0}
"""Of nine records in ten."""
R_PEAK_WITHIN = 0.02
EDGE = 0.3
"""Seconds at both ends in which beats are not counted: neurokit2 does not find those in the first."""


def people_with(code: str, rate: int) -> list[Recording]:
    """Records of people as they come, with one condition and the usual disturbances."""
    return [
        record(replace(example(code, number=number), constitution=truth(number).constitution, noise=1.0), rate)
        for number in range(1, RECORDS + 1)
    ]


@pytest.mark.parametrize("rate", [100, 500])
@pytest.mark.parametrize("code", ["NORM", "CLBBB", "CRBBB", "1AVB", "LNGQT"])
def test_the_measurement_finds_the_rate_and_the_intervals_that_were_asked_for(code: str, rate: int):
    made = people_with(code, rate)
    found = measure_batch(np.stack([one.signal for one in made]) / 1000, LEADS, rate)
    for name, tolerance in MEDIAN_WITHIN.items():
        measured = np.array([getattr(one, name) for one in found], dtype=np.float64)
        deviation = measured - [getattr(one.asked, name) for one in made]
        assert abs(np.median(deviation)) <= tolerance, name
        assert np.mean(np.abs(deviation) <= MOST_WITHIN[name]) >= 0.9, name


@pytest.mark.parametrize("rate", [100, 500])
def test_the_measurement_finds_the_axis_of_healthy_people(rate: int):
    made = people_with("NORM", rate)
    found = measure_batch(np.stack([one.signal for one in made]) / 1000, LEADS, rate)
    deviation = np.array([one.axis for one in found], dtype=np.float64) - [one.asked.axis for one in made]
    assert np.abs(deviation).max() < 5


def test_the_measurement_finds_no_p_wave_in_fibrillation():
    made = people_with("AFIB", 100)
    found = measure_batch(np.stack([one.signal for one in made]) / 1000, LEADS, 100)
    assert np.mean([one.pr is None for one in found]) >= 0.8
    assert np.median([one.rr_variability for one in found]) > 0.08


@pytest.mark.parametrize("rate", [100, 500])
def test_neurokit2_alone_finds_every_beat_of_healthy_people_where_it_is(rate: int):
    beats_found, peaks_right, rates = [], [], []
    for one in people_with("NORM", rate):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, info = neurokit2.ecg_peaks(neurokit2.ecg_clean(one.signal[1] / 1000, rate), rate)
        peaks = np.asarray(info["ECG_R_Peaks"]) / rate
        distance = np.abs(one.beats[:, None] - peaks)
        beats_found += (distance.min(axis=1) <= R_PEAK_WITHIN)[
            (one.beats > EDGE) & (one.beats < SECONDS - EDGE)
        ].tolist()
        peaks_right += (distance.min(axis=0) <= R_PEAK_WITHIN)[(peaks > EDGE) & (peaks < SECONDS - EDGE)].tolist()
        rates.append(60 / np.median(np.diff(peaks)) - one.asked.heart_rate)
    assert np.mean(beats_found) > 0.99
    assert np.mean(peaks_right) > 0.99
    assert np.abs(rates).max() < 2
