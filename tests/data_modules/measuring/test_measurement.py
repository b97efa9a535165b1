from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from data_modules.measuring.measurement import Measurement, measure, measure_batch
from data_modules.stores.schema import MEASUREMENTS
from ecgfair.ecg import LEADS

INTERVALS = ("pr", "qrs", "qt", "qtc")
# How each wave shows in each lead of ``LEADS``, as it does in a normal ECG: aVR negative, V1 mostly S, V5 mostly R.
P_GAIN = np.array([0.6, 1.0, 0.5, -0.8, 0.1, 0.8, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4])
QRS_GAINS = np.array(
    [
        [-0.1, -0.2, -0.1, 0.1, -0.1, -0.1, 0.2, 0.3, 0.2, -0.1, -0.2, -0.2],
        [0.6, 1.0, 0.5, -0.8, 0.2, 0.8, -0.6, -0.4, 0.5, 1.2, 1.4, 1.0],
        [-0.1, -0.2, -0.2, 0.2, -0.1, -0.2, -0.5, -0.9, -0.6, -0.4, -0.2, -0.1],
    ]
)
T_GAIN = np.array([0.5, 0.8, 0.3, -0.6, 0.1, 0.5, -0.1, 0.5, 0.7, 0.8, 0.7, 0.5])


def waves(t: NDArray[np.float64], onset: float, pr: float, qrs: float, qt: float, p: float) -> NDArray[np.float64]:
    """One beat of Gaussians with its QRS onset at ``onset``; (leads, time). Intervals in seconds, ``p`` in millivolts.

    The tangent to the steepest point of a Gaussian meets zero two standard deviations from its centre: there lie P
    onset and T end. The QRS complex is three Gaussians, the outer edges three standard deviations from their centres.
    """

    def wave(centre: float, deviation: float) -> NDArray[np.float64]:
        return np.exp(-0.5 * ((t - centre) / deviation) ** 2)

    beat = np.outer(p * P_GAIN, wave(onset - pr + 0.04, 0.02)) + np.outer(0.4 * T_GAIN, wave(onset + qt - 0.09, 0.045))
    for gain, place in zip(QRS_GAINS, (0.25, 0.5, 0.75), strict=True):
        beat += np.outer(gain, wave(onset + place * qrs, qrs / 12))
    return beat


def ecg(
    rate: float = 100,
    heart_rate: float = 70,
    *,
    seconds: float = 10,
    pr: float = 0.16,
    qrs: float = 0.09,
    qt: float = 0.38,
    p: float = 0.15,
    noise: float = 0.005,
) -> NDArray[np.float32]:
    t = np.arange(round(seconds * rate)) / rate
    signal = np.random.default_rng(0).normal(0, noise, (12, t.size))
    for onset in np.arange(0.35, seconds + 1, 60 / heart_rate):
        signal += waves(t, onset, pr, qrs, qt, p)
    return signal.astype(np.float32)


def of(signal: NDArray[np.float32], rate: float = 100) -> Measurement:
    return measure(signal, LEADS, rate)


@pytest.mark.parametrize("rate", [100, 250, 500])
@pytest.mark.parametrize("heart_rate", [45, 70, 100])
def test_the_heart_rate_is_within_one_beat_per_minute(rate, heart_rate):
    assert of(ecg(rate, heart_rate, qt=0.32), rate).heart_rate == pytest.approx(heart_rate, abs=1)


@pytest.mark.parametrize("rate", [100, 500])
@pytest.mark.parametrize("pr", [0.12, 0.16, 0.22, 0.28])
def test_pr_is_within_12_ms(rate, pr):
    assert of(ecg(rate, pr=pr), rate).pr == pytest.approx(1000 * pr, abs=12)


@pytest.mark.parametrize("rate", [100, 500])
@pytest.mark.parametrize("qrs", [0.08, 0.1, 0.12, 0.15])
def test_qrs_is_within_20_ms(rate, qrs):
    assert of(ecg(rate, qrs=qrs), rate).qrs == pytest.approx(1000 * qrs, abs=20)


@pytest.mark.parametrize("rate", [100, 500])
@pytest.mark.parametrize("qt", [0.34, 0.4, 0.48, 0.56])
def test_qt_is_within_16_ms(rate, qt):
    assert of(ecg(rate, 60, qt=qt), rate).qt == pytest.approx(1000 * qt, abs=16)


@pytest.mark.parametrize("heart_rate", [50, 60, 90])
def test_qtc_is_qt_over_the_cube_root_of_rr(heart_rate):
    found = of(ecg(500, heart_rate, qt=0.36), 500)
    assert found.qt is not None
    assert found.qtc == pytest.approx(found.qt / (60 / heart_rate) ** (1 / 3), abs=1)


def test_100_and_500_hz_measure_alike():
    slow, fast = of(ecg(100), 100), of(ecg(500), 500)
    for name in INTERVALS:
        assert getattr(slow, name) == pytest.approx(getattr(fast, name), abs=10), name


@pytest.mark.parametrize("heart_rate", [60, 70, 100])
@pytest.mark.parametrize("noise", [0.0, 0.005, 0.02])
def test_without_a_p_wave_only_pr_is_missing(noise, heart_rate):
    found = of(ecg(heart_rate=heart_rate, qt=0.3, p=0, noise=noise))
    assert found.pr is None
    assert found.qrs is not None
    assert found.qt is not None


def test_irregular_rhythm_with_fibrillating_baseline_has_no_pr():
    rng = np.random.default_rng(0)
    t = np.arange(1000) / 100
    signal = rng.normal(0, 0.005, (12, 1000))
    phase = 2 * np.pi * np.cumsum(rng.normal(6, 1.5, 1000)) / 100
    signal += np.outer(P_GAIN, 0.05 * np.sin(phase))
    onset = 0.3
    while onset < 11:
        signal += waves(t, onset, 0.16, 0.09, 0.36, 0)
        onset += rng.uniform(0.5, 1.1)
    assert of(signal.astype(np.float32)).pr is None


def test_twice_the_voltage_measures_the_same():
    once, twice = of(ecg()), of(2 * ecg())
    assert np.array_equal(once.beats, twice.beats)
    for name in INTERVALS:
        assert getattr(once, name) == pytest.approx(getattr(twice, name)), name


def test_wander_and_mains_hum_change_intervals_by_few_milliseconds():
    t = np.arange(5000) / 500
    disturbance = 0.3 * np.sin(2 * np.pi * 0.25 * t) + 0.02 * np.sin(2 * np.pi * 50 * t)
    clean, disturbed = of(ecg(500), 500), of((ecg(500) + disturbance).astype(np.float32), 500)
    for name in INTERVALS:
        assert getattr(disturbed, name) == pytest.approx(getattr(clean, name), abs=10), name


@pytest.mark.parametrize("rate", [100, 500])
def test_ectopic_beats_do_not_change_the_intervals(rate):
    t = np.arange(10 * rate) / rate
    clean = np.random.default_rng(0).normal(0, 0.005, (12, t.size))
    ectopic = clean.copy()
    for place, onset in enumerate(np.arange(0.35, 11, 60 / 70)):
        clean += waves(t, onset, 0.16, 0.09, 0.38, 0.15)
        if place in (3, 8):  # ventricular: early, wide, without P wave, T wave opposite
            ectopic -= 1.5 * waves(t, onset - 0.2, 0.16, 0.17, 0.42, 0)
        else:
            ectopic += waves(t, onset, 0.16, 0.09, 0.38, 0.15)
    without, with_ectopic = of(clean.astype(np.float32), rate), of(ectopic.astype(np.float32), rate)
    assert with_ectopic.heart_rate == pytest.approx(70, abs=1)
    for name in INTERVALS:
        assert getattr(with_ectopic, name) == pytest.approx(getattr(without, name), abs=6), name


def test_beats_ascend_and_lie_inside_the_signal():
    beats = of(ecg()).beats
    assert beats.dtype == np.int32
    assert beats.size == 12
    assert (np.diff(beats) > 0).all()
    assert beats[0] >= 0
    assert beats[-1] < 1000


def test_the_same_signal_measures_the_same_twice_and_is_left_as_it_was():
    signal = ecg()
    before = signal.copy()
    first, second = of(signal), of(signal)
    assert np.array_equal(signal, before)
    assert first.beats.tolist() == second.beats.tolist()
    assert [getattr(first, name) for name in INTERVALS] == [getattr(second, name) for name in INTERVALS]


@pytest.mark.parametrize("row", range(12))
def test_any_single_lead_has_a_heart_rate(row):
    found = measure(ecg()[row : row + 1], LEADS[row : row + 1], 100)
    assert found.heart_rate == pytest.approx(70, abs=1)


def noise(leads: int, samples: int) -> NDArray[np.float64]:
    return np.random.default_rng(3).normal(0, 0.2, (leads, samples))


BEATLESS = {
    "zero": np.zeros((12, 1000)),
    "constant": np.full((12, 1000), 0.7),
    "nan": np.full((12, 1000), np.nan),
    "one flat lead": np.zeros((1, 1000)),
    "noise": noise(12, 1000),
    "noise in one lead": noise(1, 1000),
    "sine": np.tile(np.sin(np.arange(1000) / 3), (12, 1)),
    "step": np.outer(np.ones(12), np.arange(1000) > 500),
    "empty": np.zeros((12, 0)),
    "one sample": noise(12, 1),
    "300 ms": noise(12, 30),
    "1.9 s": ecg(seconds=1.9),
}


@pytest.mark.parametrize("kind", BEATLESS)
def test_where_no_beats_can_be_told_all_is_missing(kind):
    signal = BEATLESS[kind].astype(np.float32)
    found = measure(signal, LEADS[: len(signal)], 100)
    assert found.beats.size == 0
    assert found.beats.dtype == np.int32
    assert [getattr(found, name) for name in MEASUREMENTS] == [None] * len(MEASUREMENTS)
    assert [getattr(found, f"{name}_quality") for name in MEASUREMENTS] == [0] * len(MEASUREMENTS)


@pytest.mark.parametrize("seconds", [2.0, 2.5, 3.0, 4.0])
@pytest.mark.parametrize("heart_rate", [30, 60, 180])
def test_short_recordings_of_any_rate_are_measured_or_missing(seconds, heart_rate):
    found = of(ecg(heart_rate=heart_rate, seconds=seconds, qt=0.3))
    if found.heart_rate is not None:
        assert found.heart_rate == pytest.approx(heart_rate, rel=0.05)


def test_a_rate_below_50_hz_is_not_measured():
    assert measure(ecg(100)[:, ::4], LEADS, 25).beats.size == 0


def test_every_measurement_of_the_store_has_a_value_and_a_quality():
    found = of(ecg())
    for name in MEASUREMENTS:
        assert isinstance(getattr(found, name), float), name
        assert 0 < getattr(found, f"{name}_quality") <= 1, name


def same(first: Measurement, second: Measurement, shift: int = 0, tolerance: float = 1e-6) -> None:
    """Check that two measurements agree, the beats of the second being ``shift`` samples later."""
    assert np.array_equal(first.beats + shift, second.beats)
    for name in MEASUREMENTS:
        for field in (name, f"{name}_quality"):
            assert getattr(second, field) == pytest.approx(getattr(first, field), abs=tolerance), field


def test_a_record_measures_the_same_in_any_company():
    kinds = [
        ecg(),
        ecg(heart_rate=50, pr=0.24),
        BEATLESS["zero"],
        ecg(qrs=0.15, p=0),
        BEATLESS["noise"],
        ecg(noise=0.05),
    ]
    kinds += [ecg(heart_rate=rate) for rate in range(40, 100)]  # more than are measured together
    signals = np.stack(kinds).astype(np.float32)
    batch = measure_batch(signals, LEADS, 100)
    assert len(batch) == len(kinds)
    for signal, found in zip(signals, batch, strict=True):
        same(measure(signal, LEADS, 100), found)


def test_a_batch_of_none_is_empty():
    assert measure_batch(np.zeros((0, 12, 1000), dtype=np.float32), LEADS, 100) == []


def test_padding_is_not_measured_as_signal():
    signal = ecg()
    padded = np.pad(signal, ((0, 0), (250, 450)), constant_values=np.nan)
    same(of(signal), of(padded), shift=250)


def test_a_missing_lead_measures_as_if_it_were_not_named():
    signal = ecg()
    kept = [row for row in range(12) if row not in (3, 8)]
    signal[[3, 8]] = np.nan
    same(measure(signal[kept], [LEADS[row] for row in kept], 100), of(signal))


def test_a_short_dropout_changes_little():
    signal = ecg()
    signal[:, 480:495] = signal[2, 610:640] = np.nan
    clean, found = of(ecg()), of(signal)
    assert found.heart_rate == pytest.approx(clean.heart_rate, abs=1)
    for name in INTERVALS:
        assert getattr(found, name) == pytest.approx(getattr(clean, name), abs=8), name


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_lost_beats_lie_in_what_was_recorded_and_missing_values_have_no_quality(seed):
    rng = np.random.default_rng(seed)
    signals = np.stack([ecg()] * 8)
    for signal in signals:
        signal[:, : rng.integers(0, 300)] = np.nan
        signal[rng.random(12) < rng.choice([0, 0.5])] = np.nan
        signal[rng.random(signal.shape) < rng.choice([0, 0.02, 0.5])] = np.inf
        for start in rng.integers(0, 1000, 4):
            leads = rng.random(12) < rng.choice([0.2, 1])
            signal[leads, start : start + rng.integers(1, 200)] = rng.choice([np.nan, 0])
    for signal, found in zip(signals, measure_batch(signals, LEADS, 100), strict=True):
        assert (np.diff(found.beats) > 0).all()
        # A bridged dropout of 20 ms may hide the peak itself.
        assert all(np.isfinite(signal[:, max(0, beat - 2) : beat + 3]).any() for beat in found.beats)
        for name in MEASUREMENTS:
            assert (getattr(found, name) is None) == (getattr(found, f"{name}_quality") == 0), name


def test_without_lead_i_or_avf_there_is_no_axis():
    for row in (0, 5):
        signal = ecg()
        signal[row] = np.nan
        found = of(signal)
        assert found.axis is None
        assert found.axis_quality == 0
        assert found.qrs is not None


def test_the_axis_follows_the_leads_by_name_in_any_spelling():
    signal, names = ecg(), [name.upper() for name in LEADS]
    axis = of(signal).axis
    assert axis is not None
    assert measure(signal[::-1], names[::-1], 100).axis == pytest.approx(axis, abs=0.5)
    turned = signal.copy()
    turned[0] *= -1  # the wires of both arms exchanged
    assert of(turned).axis == pytest.approx(180 - axis, abs=0.5)


def test_an_irregular_rhythm_varies_more_than_one_with_an_ectopic_beat():
    rng = np.random.default_rng(1)
    t = np.arange(1000) / 100

    def recording(rr: list[float]) -> Measurement:
        signal = rng.normal(0, 0.005, (12, 1000))
        for onset in 0.3 + np.cumsum(rr):
            signal += waves(t, onset, 0.16, 0.09, 0.36, 0)
        return of(signal.astype(np.float32))

    steady = recording([0.8] * 12).rr_variability
    ectopic = recording([0.8] * 4 + [0.5, 1.1] + [0.8] * 6).rr_variability
    fibrillation = recording(rng.uniform(0.5, 1.1, 12).tolist()).rr_variability
    assert steady is not None
    assert ectopic is not None
    assert fibrillation is not None
    assert steady < 0.02
    assert steady < ectopic < 0.6 * fibrillation


LEVELS = (0.0, 0.01, 0.03, 0.1, 0.3)
"""Millivolts of noise: none, a good recording, and up to one whose P waves and then all intervals are lost."""


@pytest.fixture(scope="module")
def noisier() -> list[list[Measurement]]:
    """For each of ``LEVELS`` the same 24 recordings of one heart."""
    rng = np.random.default_rng(5)
    clean = np.stack([ecg(noise=0)] * 24)
    return [measure_batch(clean + rng.normal(0, level, clean.shape), LEADS, 100) for level in LEVELS]


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_quality_falls_as_noise_grows(noisier, name):
    grown = np.array([np.mean([getattr(record, f"{name}_quality") for record in found]) for found in noisier])
    assert ((np.diff(grown) < 0) | (grown[1:] == 0)).all(), grown
    assert grown[0] > 0.75
    assert grown[-1] < 0.5


@pytest.mark.parametrize("name", ["pr", "qrs", "qt", "qtc", "axis"])
def test_values_of_lower_quality_are_further_from_the_truth(noisier, name):
    truth = getattr(noisier[0][0], name)
    told = [record for found in noisier for record in found if getattr(record, name) is not None]
    errors = np.array([abs(getattr(record, name) - truth) for record in told])
    order = np.argsort([getattr(record, f"{name}_quality") for record in told])
    worst, middle, best = (part.mean() for part in np.array_split(errors[order], 3))
    assert worst > middle > best


def test_where_noise_hides_a_wave_it_is_missing_not_guessed(noisier):
    assert all(record.pr is not None for record in noisier[1])
    assert all(record.pr is None for record in noisier[-1])


@pytest.mark.data
def test_r_peaks_of_mit_bih_100_are_those_of_its_annotations(real_data: Path):
    path = str(real_data / "mitbih" / "100")
    record, notes = wfdb.rdrecord(path), wfdb.rdann(path, "atr")
    beats = notes.sample[[symbol in "NLRBAaJSVrFejnE/fQ" for symbol in notes.symbol]]
    found = measure(record.p_signal.T.astype(np.float32), record.sig_name, record.fs).beats
    near = round(0.075 * record.fs)
    of_beat = np.abs(found - beats[:, None])
    # A beat and a peak match if each is the other's nearest, so that none counts twice.
    nearest, place = of_beat.argmin(axis=1), np.arange(beats.size)
    matched = (of_beat.argmin(axis=0)[nearest] == place) & (of_beat[place, nearest] <= near)
    assert matched.sum() / beats.size > 0.995
    assert matched.sum() / found.size > 0.995


class Ptbxl:
    """Measurements of PTB-XL's records with a statement, those of folds 1 to 9 in the order of their ids."""

    def __init__(self, source: Path, count: int) -> None:
        table = pd.read_csv(source / "ptbxl_database.csv").sort_values("ecg_id")
        self.table, self.source, self.count = table[table.strat_fold < 10], source, count
        self.codes = self.table.scp_codes.map(lambda text: set(ast.literal_eval(text)))

    def found(self, code: str, *others: str) -> list[Measurement]:
        chosen = self.table[[code in each and not each & set(others) for each in self.codes]].head(self.count)
        signals = [wfdb.rdrecord(str(self.source / name)).p_signal.T for name in chosen.filename_lr]
        return measure_batch(np.stack(signals).astype(np.float32), LEADS, 100)


def values(name: str, found: list[Measurement]) -> NDArray[np.float64]:
    """Those that could be told."""
    return np.array([getattr(record, name) for record in found if getattr(record, name) is not None])


def check_diagnoses(ptbxl: Ptbxl) -> None:
    diagnoses = {
        "CLBBB": ("qrs", 0.98),
        "CRBBB": ("qrs", 0.94),
        "1AVB": ("pr", 0.97),
        "LNGQT": ("qtc", 0.97),
        "STACH": ("heart_rate", 0.98),
        "AFIB": ("rr_variability", 0.95),
    }
    normal = ptbxl.found("NORM", *diagnoses)
    for code, (name, floor) in diagnoses.items():
        diseased, healthy = values(name, ptbxl.found(code)), values(name, normal)
        truth = [0] * healthy.size + [1] * diseased.size
        assert roc_auc_score(truth, np.concatenate((healthy, diseased))) >= floor, code
    for name, low, high in (("pr", 110, 220), ("qrs", 60, 120), ("qt", 320, 460)):
        measured = values(name, normal)
        assert measured.size >= 0.98 * len(normal), name
        assert np.mean((measured >= low) & (measured <= high)) >= 0.95, name
    axis = values("axis", ptbxl.found("LAFB"))
    assert np.mean((axis > -90) & (axis < -30)) > 0.85


@pytest.mark.data
def test_diagnoses_show_in_the_measurements_of_real_recordings(ptbxl_source: Path):
    check_diagnoses(Ptbxl(ptbxl_source, 60))


@pytest.mark.data
@pytest.mark.slow
def test_diagnoses_show_in_the_measurements_of_all_training_recordings(ptbxl_source: Path):
    check_diagnoses(Ptbxl(ptbxl_source, 10000))
