from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray

from data_modules.measuring.beats import find_beats
from data_modules.measuring.quality import Quality, assess
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.population import Population
from data_modules.synthetic.signals.recording import record
from ecgfair.ecg import LEADS
from experiments.benchmarks.quality import auroc, judge
from tests.conftest import missing_data

Signal = NDArray[np.float32]
V2 = LEADS.index("V2")
QUIET = Population(noise=0.5)
"""Disturbed half as much as people commonly are."""
NUMBERS = [number for number in range(1, 25) if not record(truth(number, 0, QUIET)).problems.electrodes_problems][:20]
"""Of records on which no electrode loses contact."""


def ecg(number: int = 1, rate: int = 100) -> tuple[Signal, NDArray[np.int64]]:
    """A clean record of ten seconds in millivolts, and its R peaks."""
    made = record(truth(number, 0, QUIET), rate)
    beats = np.rint(made.beats * rate).astype(np.int64)
    return (made.signal / 1000).astype(np.float32), beats[beats < made.signal.shape[1]]


def flags(quality: Quality) -> dict[str, tuple[str, ...]]:
    """The flags that are raised."""
    names = ("flat", "saturated", "interrupted", "invalid")
    return {name: getattr(quality, f"{name}_leads") for name in names if getattr(quality, f"{name}_leads")}


def judged(signal: Signal, rate: int = 100, number: int = 1) -> Quality:
    return assess(signal, LEADS, rate, ecg(number, rate)[1])


def test_enough_records_are_clean_and_the_first_is_one():
    assert len(NUMBERS) == 20
    assert NUMBERS[0] == 1


@pytest.mark.parametrize("rate", [100, 500, 1000])
def test_clean_records_raise_no_flag_and_score_high(rate):
    for number in NUMBERS:
        quality = judged(ecg(number, rate)[0], rate, number)
        assert flags(quality) == {}
        assert quality.score > 0.7
    assert judged(ecg(1, rate)[0], rate).score > 0.95


def during(lead: Signal, start: float, end: float, value: float) -> Signal:
    """A lead of ten seconds with one value from second to second."""
    t = np.linspace(0, 10, lead.size, endpoint=False)
    return np.where((t >= start) & (t < end), np.float32(value), lead)


FAULTS: dict[str, tuple[str, Callable[[Signal], Signal]]] = {
    "zeros": ("flat", lambda lead: 0 * lead),
    "one voltage": ("flat", lambda lead: 0 * lead + 1.2),
    "rounding alone": ("flat", lambda lead: np.random.default_rng(0).choice([0, 0.001], lead.size)),
    "both sides clipped": ("saturated", lambda lead: np.clip(2 * lead, -0.8, 0.8)),
    "one side clipped": ("saturated", lambda lead: np.maximum(2 * lead, -0.8)),
    "off for two seconds": ("interrupted", lambda lead: during(lead, 4, 6, 0)),
    "off at the start": ("interrupted", lambda lead: during(lead, 0, 2, 0)),
    "off at the end": ("interrupted", lambda lead: during(lead, 8.5, 10, 0.4)),
    "jumping": ("interrupted", lambda lead: lead + during(during(0 * lead, 2, 3, 8), 5, 6, 8)),
    "one NaN": ("invalid", lambda lead: during(lead, 3, 3.001, np.nan)),
    "one infinity": ("invalid", lambda lead: during(lead, 3, 3.001, np.inf)),
    "two seconds of NaN": ("invalid", lambda lead: during(lead, 2, 4, np.nan)),
    "NaN throughout": ("invalid", lambda lead: np.nan * lead),
}


@pytest.mark.parametrize("rate", [100, 500])
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_raises_its_flag_on_its_lead_alone_and_lowers_the_score(name, rate):
    flag, fault = FAULTS[name]
    signal, _ = ecg(1, rate)
    clean = judged(signal, rate).score
    signal[V2] = fault(signal[V2])
    quality = judged(signal, rate)
    assert flags(quality) == {flag: ("V2",)}
    assert quality.score < clean


def test_a_lead_pinned_at_the_rail_throughout_is_flat_and_saturated():
    signal, _ = ecg()
    signal[V2] = -16
    assert flags(judged(signal)) == {"flat": ("V2",), "saturated": ("V2",)}


def test_a_lead_at_the_rail_for_a_part_is_interrupted_and_saturated():
    signal, _ = ecg()
    signal[V2, 600:] = 16
    assert flags(judged(signal)) == {"saturated": ("V2",), "interrupted": ("V2",)}


def test_an_electrode_off_for_less_than_a_second_raises_no_flag_but_lowers_the_score():
    signal, beats = ecg()
    clean = judged(signal).score
    signal[V2, beats[3] - 30 : beats[3] + 50] += 3
    assert flags(judged(signal)) == {}
    assert judged(signal).score < clean


def test_a_record_of_zeros_is_flat_in_all_leads_and_unusable():
    quality = assess(np.zeros((12, 1000), dtype=np.float32), LEADS, 100, np.zeros(0, dtype=np.int32))
    assert flags(quality) == {"flat": LEADS}
    assert quality.score == 0


def test_a_record_without_a_number_is_invalid_and_unusable():
    quality = assess(np.full((12, 1000), np.nan, dtype=np.float32), LEADS, 100, np.zeros(0, dtype=np.int32))
    assert flags(quality) == {"invalid": LEADS}
    assert quality.score == 0


@pytest.mark.parametrize("samples", [0, 1, 99])
def test_less_than_a_second_is_unusable_and_only_its_numbers_are_judged(samples):
    signal = np.zeros((12, samples), dtype=np.float32)
    signal[2, :1] = np.nan
    quality = assess(signal, LEADS, 100)
    assert flags(quality) == ({"invalid": ("III",)} if samples else {})
    assert quality.score == 0


def test_two_seconds_are_enough_to_be_judged():
    signal, beats = ecg()
    signal[V2, 20:180] = 0
    assert flags(assess(signal[:, :200], LEADS, 100, beats[beats < 200])) == {"interrupted": ("V2",)}


def test_an_hour_is_judged_like_ten_seconds():
    signal, beats = ecg()
    hour = np.tile(signal, 360)
    hour[V2, 100_000:100_300] = 0
    quality = assess(hour, LEADS, 100, (beats + 1000 * np.arange(360)[:, None]).ravel())
    assert flags(quality) == {"interrupted": ("V2",)}
    assert quality.score == pytest.approx(judged(signal).score, abs=0.02)


def test_values_beyond_any_converter_are_no_reason_to_fail():
    signal, _ = ecg()
    signal[V2, 200:400] = 1e30
    quality = judged(signal)
    assert flags(quality) == {"saturated": ("V2",), "interrupted": ("V2",)}
    assert 0 <= quality.score < 0.6


def test_the_signal_given_is_left_as_it_is():
    signal, _ = ecg()
    signal[V2, 300] = np.nan
    before = signal.copy()
    judged(signal)
    np.testing.assert_array_equal(signal, before)


# What looks like a fault and is none.


def test_low_voltage_is_not_flat():
    for number in NUMBERS:
        signal, _ = ecg(number)
        assert flags(judged(signal * np.float32(0.15), number=number)) == {}


@pytest.mark.parametrize("rate", [100, 500])
def test_a_pause_of_the_heart_is_not_an_interruption(rate):
    signal, beats = ecg(1, rate)
    noise = np.random.default_rng(0).normal(0, 0.005, (12, 4 * rate))  # what an amplifier adds stays
    signal[:, 3 * rate : 7 * rate] = np.rint(noise * 1000) / 1000
    beats = beats[(beats < 3 * rate) | (beats >= 7 * rate)]
    assert flags(assess(signal, LEADS, rate, beats)) == {}


def test_asystole_throughout_is_not_flat():
    signal = np.random.default_rng(0).normal(0, 0.005, (12, 1000)).astype(np.float32)
    quality = assess(signal, LEADS, 100, np.zeros(0, dtype=np.int32))
    assert flags(quality) == {}
    assert quality.score < 0.5


@pytest.mark.parametrize(("rate", "samples"), [(100, 1), (500, 1), (1000, 2)])
def test_pacing_spikes_are_not_saturation(rate, samples):
    signal, beats = ecg(1, rate)
    for beat in beats:
        signal[:, max(0, beat - 16 * rate // 100) :][:, :samples] = 6  # as high as each other: the pacemaker's pulse
    assert flags(judged(signal, rate)) == {}


@pytest.mark.parametrize("rate", [100, 500])
def test_large_waves_are_not_saturation_nor_jumps(rate):
    for number in NUMBERS:
        signal, _ = ecg(number, rate)
        signal *= np.float32(8 / np.abs(signal).max())
        assert flags(judged(signal, rate, number)) == {}


def test_a_coarse_converter_is_not_saturation():
    for number in NUMBERS:
        signal, _ = ecg(number, 500)
        assert flags(judged(np.rint(signal / np.float32(0.005)) * np.float32(0.005), 500, number)) == {}


def test_slow_wander_is_no_interruption_but_lowers_the_score():
    signal, _ = ecg()
    clean = judged(signal).score
    signal[V2] += np.linspace(-6, 6, 1000, dtype=np.float32)
    assert flags(judged(signal)) == {}
    assert judged(signal).score < clean - 0.3


# The score.


def test_the_score_falls_with_noise():
    signal, _ = ecg()
    noise = np.random.default_rng(0).normal(0, 1, signal.shape).astype(np.float32)
    scores = [judged(signal + np.float32(level) * noise).score for level in (0, 0.05, 0.1, 0.2, 0.5, 2)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.2


def test_the_score_falls_with_each_further_bad_lead():
    signal, _ = ecg()
    scores = [judged(signal).score]
    for lead in range(12):
        signal[lead] = 0
        scores.append(judged(signal).score)
    assert (np.diff(scores) < 0).all()
    assert scores[-1] == 0


def test_the_score_falls_where_no_beats_are_found_but_not_where_beats_are_unknown():
    signal, beats = ecg()
    none = assess(signal, LEADS, 100, beats[:0]).score
    unknown = assess(signal, LEADS, 100).score
    assert none < 0.5 * assess(signal, LEADS, 100, beats).score
    assert unknown >= assess(signal, LEADS, 100, beats).score


def test_the_score_falls_with_missing_leads():
    signal, beats = ecg()
    all_there = assess(signal[:10], LEADS[:10], 100, beats).score
    assert assess(signal[:10], LEADS[:10], 100, beats, missing=LEADS[10:]).score < all_there


def test_beats_of_two_shapes_are_not_taken_for_noise():
    signal, beats = ecg(10)  # of a usual rate: premature beats of a fast heart would run into the next ones
    ectopic = beats[1::2]
    t = np.arange(1000)
    wide = sum(np.exp(-0.5 * ((t - beat) / 6) ** 2) for beat in ectopic)
    both = signal + np.linspace(1.5, -1.5, 12, dtype=np.float32)[:, None] * wide.astype(np.float32)
    assert judged(both, number=10).score > 0.8  # far less if each beat were compared with the median beat


def test_the_score_hardly_depends_on_the_sampling_rate():
    for number in NUMBERS:
        slow, fast = judged(ecg(number)[0], number=number), judged(ecg(number, 500)[0], 500, number)
        assert slow.score == pytest.approx(fast.score, abs=0.1)


@pytest.mark.data
def test_the_score_tells_what_readers_found_unacceptable(real_data: Path):
    folder = real_data / "cinc2011"
    if not (folder / "quality.csv").is_file():
        missing_data(f"There is no quality.csv in {folder}.")
    table = judge(folder)
    assert len(table) == 699
    assert auroc(table[~table["held_out"]]) >= 0.90
    assert auroc(table[table["held_out"]]) >= 0.90


@pytest.mark.data
def test_flags_are_rare_in_clinical_records(ptbxl_source: Path):
    headers = sorted((ptbxl_source / "records100").rglob("*.hea"))[:200]
    flagged = 0
    for header in headers:
        read = wfdb.rdrecord(str(header.with_suffix("")))
        signal = read.p_signal.T.astype(np.float32)
        beats = find_beats(signal, read.sig_name, read.fs).peaks
        flagged += bool(flags(assess(signal, read.sig_name, read.fs, beats)))
    assert flagged <= 2
