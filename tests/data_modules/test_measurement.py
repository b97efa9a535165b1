from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from data_modules.measurement import Measurement, measure
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
    assert [found.heart_rate, found.pr, found.qrs, found.qt, found.qtc] == [None] * 5


@pytest.mark.parametrize("seconds", [2.0, 2.5, 3.0, 4.0])
@pytest.mark.parametrize("heart_rate", [30, 60, 180])
def test_short_recordings_of_any_rate_are_measured_or_missing(seconds, heart_rate):
    found = of(ecg(heart_rate=heart_rate, seconds=seconds, qt=0.3))
    if found.heart_rate is not None:
        assert found.heart_rate == pytest.approx(heart_rate, rel=0.05)


def test_a_rate_below_50_hz_is_not_measured():
    assert measure(ecg(100)[:, ::4], LEADS, 25).beats.size == 0


@pytest.mark.data
def test_diagnoses_show_in_the_intervals_of_real_recordings(ptbxl_source: Path):
    table = pd.read_csv(ptbxl_source / "ptbxl_database.csv").sort_values("ecg_id")
    codes = table.scp_codes.map(lambda text: set(ast.literal_eval(text)))

    def found(code: str, count: int, without: str = "") -> dict[str, NDArray[np.float64]]:
        chosen = table[[code in each and without not in each for each in codes]].head(count)
        rows = []
        for name in chosen.filename_lr:
            record = wfdb.rdrecord(str(ptbxl_source / name))
            rows.append(measure(record.p_signal.T.astype(np.float32), record.sig_name, record.fs))
        return {
            name: np.array([getattr(row, name) for row in rows], dtype=float) for name in ("heart_rate", *INTERVALS)
        }

    def auroc(name: str, diseased: dict[str, NDArray[np.float64]]) -> float:
        values = np.concatenate((normal[name], diseased[name]))
        values[np.isnan(values)] = np.nanmedian(normal[name])  # a missing value tells nothing
        return float(roc_auc_score([0] * normal[name].size + [1] * diseased[name].size, values))

    normal = found("NORM", 60, without="AFIB")
    assert auroc("qrs", found("CLBBB", 40)) > 0.97
    assert auroc("pr", found("1AVB", 40)) > 0.9
    assert auroc("heart_rate", found("STACH", 20)) > 0.97
    for name, low, high in (("pr", 110, 220), ("qrs", 60, 115), ("qt", 320, 460), ("qtc", 350, 470)):
        assert np.mean((normal[name] >= low) & (normal[name] <= high)) >= 0.9, name
