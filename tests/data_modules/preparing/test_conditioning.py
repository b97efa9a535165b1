"""Conditioning: leads by name, time in place, and what was not recorded stays not recorded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from data_modules.preparing.conditioning import condition, to_int16, to_millivolts
from data_modules.records import Record
from ecgfair.ecg import LEADS, MISSING_SAMPLE, Preprocessing
from ecgfair.errors import RecordError


def made(signal: np.ndarray, *, leads: Sequence[str] = LEADS, sampling_rate: float = 100) -> Record:
    return Record("1", "1", signal.astype(np.float32), tuple(leads), sampling_rate)


def noise(samples: int = 1000, leads: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(leads, samples)).astype(np.float32)


def test_another_sampling_rate_is_resampled_along_time_only():
    seconds = np.arange(2500) / 500
    waves = np.stack([np.sin(2 * np.pi * rate * seconds) + rate for rate in range(1, 13)])
    resampled = condition(made(waves, sampling_rate=500), Preprocessing(length=500))
    expected = waves[:, ::5]
    assert resampled.signal.shape == (12, 500)
    assert np.abs(resampled.signal - expected)[:, 20:-20].max() < 0.01


def test_a_longer_record_keeps_its_first_samples():
    signal = np.random.default_rng(0).normal(size=(12, 1300))
    kept = condition(made(signal), Preprocessing())
    assert np.array_equal(kept.signal, signal[:, :1000].astype(np.float32))
    assert kept.kept == (0, 1000)


def test_the_middle_of_a_longer_record_is_kept_if_asked_for():
    signal = noise(1300)
    kept = condition(made(signal), Preprocessing(crop="center"))
    assert np.array_equal(kept.signal, signal[:, 150:1150])
    assert kept.kept == (150, 1150)


@pytest.mark.parametrize("crop", ["start", "center"])
def test_a_crop_equals_that_of_the_whole_record_resampled_and_filtered(crop: str):
    signal = np.cumsum(noise(20000), axis=1) * 0.01
    settings = Preprocessing(crop=crop, band_pass=(0.5, 40.0))
    whole = condition(made(signal, sampling_rate=500), Preprocessing(length=4000, band_pass=(0.5, 40.0)))
    start = 1500 if crop == "center" else 0
    kept = condition(made(signal, sampling_rate=500), settings)
    # The whole record has no edge near the crop; a few seconds of margin leave next to nothing of the filters' start.
    assert np.abs(kept.signal - whole.signal[:, start : start + 1000]).max() < 0.01 * np.abs(whole.signal).max()


@pytest.mark.parametrize(("pad", "offset"), [("start", 0), ("center", 150)])
def test_a_shorter_record_stands_where_asked_for_and_the_rest_was_not_recorded(pad: str, offset: int):
    signal = noise(700)
    padded = condition(made(signal), Preprocessing(pad=pad))
    assert padded.offset == offset
    assert np.array_equal(padded.signal[:, offset : offset + 700], signal)
    assert np.isnan(padded.signal).sum() == 12 * 300


@pytest.mark.parametrize(("samples", "sampling_rate", "found"), [(999, 100, 999), (4990, 500, 998)])
def test_a_shorter_record_is_rejected_if_asked_for(samples: int, sampling_rate: int, found: int):
    with pytest.raises(RecordError, match=f"too short: {found} samples at 100 Hz, expected 1000; set pad"):
        condition(made(noise(samples), sampling_rate=sampling_rate), Preprocessing(pad="reject"))


def test_a_longer_record_is_rejected_if_asked_for():
    with pytest.raises(RecordError, match="too long: 1001 samples at 100 Hz, expected 1000; set crop"):
        condition(made(noise(1001)), Preprocessing(crop="reject"))


@pytest.mark.parametrize("samples", [0, 1, 199])
def test_a_recording_below_two_seconds_is_no_ecg(samples: int):
    with pytest.raises(RecordError, match=f"too short: {samples} samples at 100 Hz"):
        condition(made(noise(samples)), Preprocessing())


@pytest.mark.parametrize("signal", [np.zeros((12, 1000)), np.full((12, 1000), 3.0), np.full((12, 1000), np.nan)])
def test_a_recording_without_any_change_is_no_ecg(signal: np.ndarray):
    with pytest.raises(RecordError, match="no signal"):
        condition(made(signal), Preprocessing())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("sampling_rate", [50, 100, 500])
def test_a_gap_stays_a_gap_of_its_length_and_changes_nothing_around_it(value: float, sampling_rate: int):
    seconds = np.arange(10 * sampling_rate) / sampling_rate
    whole = np.tile(np.sin(2 * np.pi * 3 * seconds), (12, 1))
    broken = whole.copy()
    broken[4, 4 * sampling_rate : 5 * sampling_rate] = value
    kept = condition(made(broken, sampling_rate=sampling_rate), Preprocessing()).signal
    missing = np.isnan(kept)
    assert abs(int(missing[4].sum()) - 100) <= 2
    assert not np.delete(missing, 4, axis=0).any()
    around = condition(made(whole, sampling_rate=sampling_rate), Preprocessing()).signal
    assert np.abs(kept - around)[4, np.r_[:380, 520:1000]].max() < 0.02


def test_the_eight_independent_leads_give_all_twelve():
    limbs = noise(leads=2)
    signal = np.concatenate((limbs, noise(leads=6)))
    result = condition(made(signal, leads=("I", "II", *LEADS[6:])), Preprocessing())
    assert result.derived == ("III", "aVR", "aVL", "aVF")
    assert result.missing == ()
    one, two = limbs.astype(np.float64)
    expected = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    assert np.abs(result.signal[:6] - expected).max() < 1e-6


def test_a_lead_that_was_not_recorded_is_missing_and_named():
    result = condition(made(noise(leads=1), leads=("V2",)), Preprocessing())
    assert result.missing == tuple(lead for lead in LEADS if lead != "V2")
    assert np.isnan(np.delete(result.signal, 7, axis=0)).all()
    assert not np.isnan(result.signal[7]).any()


def test_leads_are_chosen_by_name():
    signal = noise()
    kept = condition(made(signal, leads=LEADS[::-1]), Preprocessing(leads=("V6", "I")))
    assert np.array_equal(kept.signal, signal[[0, 11]])


@pytest.mark.parametrize(
    ("leads", "reason"),
    [
        (tuple("abcdefghijkl"), "lead missing: none of I, II, III"),
        ((*LEADS[:11], "I"), "lead there twice"),
        (LEADS[:11], r"leads unclear: a signal of the shape \(12, 1000\), 11 names"),
    ],
)
def test_unclear_leads_are_rejected(leads: tuple[str, ...], reason: str):
    with pytest.raises(RecordError, match=reason):
        condition(made(noise(), leads=leads), Preprocessing())


def test_the_band_is_passed_along_time_and_in_phase():
    seconds = np.arange(1000) / 100
    heart, drift = np.sin(2 * np.pi * 8 * seconds), 2 + 0.3 * np.sin(2 * np.pi * 0.05 * seconds)
    signal = np.zeros((12, 1000))
    signal[4] = heart + drift
    passed = condition(made(signal), Preprocessing(band_pass=(0.5, 40.0))).signal
    assert np.abs(passed[4] - heart)[200:-200].max() < 0.05
    assert np.abs(np.delete(passed, 4, axis=0)).max() == 0


@pytest.mark.parametrize("scale", [0.001, 0.00488, 0.005])
def test_millivolts_survive_rounding_to_steps_and_back(scale: float):
    steps = np.arange(-32767, 32768, dtype=np.int16).reshape(5, -1)
    assert np.array_equal(to_int16(steps * np.float64(scale), scale), steps)
    assert np.array_equal(to_int16(to_millivolts(steps, scale).astype(np.float64), scale), steps)


def test_what_is_missing_is_missing_after_rounding_and_back():
    steps = to_int16(np.array([[1.0, np.nan]]), 0.001)
    assert steps.tolist() == [[1000, MISSING_SAMPLE]]
    assert np.isnan(to_millivolts(steps, 0.001)).tolist() == [[False, True]]


@pytest.mark.parametrize("voltage", [32.7676, -32.7686, -32.768, 1000.0])
def test_a_voltage_int16_can_not_hold_is_an_error_not_a_plateau(voltage: float):
    signal = np.zeros((2, 5))
    signal[1, 3] = voltage
    with pytest.raises(RecordError, match=f"voltage too high: 1 samples, up to {abs(voltage):g} mV, .*32.767 mV"):
        to_int16(signal, 0.001)


@pytest.mark.parametrize("sampling_rate", [0.0, -100.0, 150_000.0, 250_000.0])
def test_a_rate_that_can_not_be_resampled_is_rejected(sampling_rate: float):
    with pytest.raises(RecordError, match="can't be resampled to 100 Hz"):
        condition(made(noise(), sampling_rate=sampling_rate), Preprocessing())


def test_a_constant_is_no_ecg_after_a_filter_either():
    with pytest.raises(RecordError, match="no signal"):
        condition(made(np.full((12, 1000), 0.5)), Preprocessing(band_pass=(0.5, 40.0)))
