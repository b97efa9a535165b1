"""From what is true of a record to its signal."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy._core import _multiarray_umath as numpy_core
from scipy.signal import periodogram

from data_modules.synthetic.heart.dipole import LEAD_MATRIX
from data_modules.synthetic.heart.rhythm import Pace, plan
from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.population import Disparity, Population
from data_modules.synthetic.people.streams import Purpose, stream
from data_modules.synthetic.signals import recording
from data_modules.synthetic.signals.recording import SECONDS, record, to_signal
from ecgfair.ecg import LEADS
from tests.data_modules.synthetic.drawn import digest, digest_of_all, plain, strength

ROOT = Path(__file__).parents[4]
FIRST_TWENTY = "dea624f483ae5eeacbbf623242fa29b8be1188a5e2c35ebdbd7643ea4300df4e"
EVERY_CONDITION = "ab15dc28e03f58601b2584f5c01e794356700f837513aad369cd601b389e3bba"
"""SHA-256 of signals. Whoever changes on purpose what is drawn takes the new ones from the assertions that fail."""


@pytest.mark.parametrize("code", ["NORM", *CONDITIONS])
def test_leads_obey_einthoven_and_goldberger_exactly(code: str):
    signal = record(plain(code, noise=1.0)).signal
    one, two, three, avr, avl, avf = signal[:6].astype(int)
    assert np.array_equal(three, two - one)
    assert np.array_equal(2 * avr, -(one + two))
    assert np.array_equal(2 * avl, one - three)
    assert np.array_equal(2 * avf, two + three)


def test_a_population_obeys_them_too_and_has_no_missing_sample():
    for number in range(1, 101):
        signal = to_signal(truth(number))
        one, two, three, avr, avl, avf = signal[:6].astype(int)
        assert np.array_equal(three, two - one)
        assert np.array_equal(2 * np.stack([avr, avl, avf]), np.stack([-(one + two), one - three, two + three]))
        assert signal.min() > -32768


@pytest.mark.parametrize("rate", [100, 250, 500])
def test_a_recording_is_twelve_leads_of_whole_microvolts_at_any_rate(rate: int):
    made = record(truth(1), rate)
    assert made.signal.shape == (len(LEADS), SECONDS * rate)
    assert made.signal.dtype == np.int16
    assert 300 < np.abs(made.signal).max() < 6000


def test_the_same_heart_is_sampled_at_every_rate():
    for code in ("NORM", "AFIB", "AFLT", "2AVB", "PVC", "CLBBB"):
        slow, fast = record(plain(code), 100), record(plain(code), 500)
        # At most a rounding apart, which is two microvolts in the limb leads.
        assert np.abs(slow.signal.astype(int) - fast.signal[:, ::5]).max() <= 2
        assert np.array_equal(slow.beats, fast.beats)
        assert (slow.masks, slow.asked) == (fast.masks, fast.asked)


@pytest.mark.parametrize("code", ["NORM", *CONDITIONS])
def test_beats_are_where_the_ecg_is_steep(code: str):
    rate = 500
    made = record(plain(code), rate)
    steepness = np.linalg.norm(np.diff(made.signal.astype(float), axis=1), axis=0)
    steep = (np.flatnonzero(steepness > 0.3 * steepness.max()) + 0.5) / rate
    distance = np.abs(steep[:, None] - made.beats)
    assert distance.min(axis=1).max() < 0.11
    whole = (made.beats > 0.11) & (made.beats < SECONDS - 0.11)
    # A pacemaker's spike is the steepest of all, and comes before QRS.
    assert distance.min(axis=0)[whole].max() < (0.1 if code == "PACE" else 0.06)


def test_beats_lie_within_the_recording_in_order():
    for number in range(1, 101):
        beats = record(truth(number)).beats
        assert ((beats >= 0) & (beats < SECONDS)).all()
        assert (np.diff(beats) > 0.2).all()


def test_there_is_no_p_wave_in_fibrillation_and_after_a_pacemaker():
    def before_qrs(code: str) -> float:
        """Millivolts, lowest to highest, of the mean of II from 0.22 to 0.11 s before the beat."""
        made = record(plain(code), 500)
        beats = made.beats[(made.beats > 1) & (made.beats < 9)]
        starts = np.rint((beats - 0.22) * 500).astype(int)
        return float(np.ptp(np.mean([made.signal[1, start : start + 55] for start in starts], axis=0))) / 1000

    assert before_qrs("NORM") > 0.08
    assert before_qrs("AFIB") < 0.05
    assert before_qrs("PACE") < 0.02


def of_atria(code: str) -> np.ndarray:
    """(8, time) millivolts of the atria alone in I, II and V1 to V6, one record after another."""
    seconds = np.arange(SECONDS * 100) / 100
    drawn = []
    for number in range(1, 31):
        rhythm = plan(Pace(90, 0.16, SECONDS, 0.25, 0.02), strength(code), stream(0, Purpose.RHYTHM, number))
        chances = np.random.default_rng(number).random(1 + 3 * recording._WAVELETS)
        drawn.append(LEAD_MATRIX @ recording._atria(plain(code), rhythm, chances, seconds))
    return np.concatenate(drawn, axis=1)


def test_fibrillating_atria_are_coarsest_in_v1_and_fast():
    atria = of_atria("AFIB")
    assert atria.std(axis=1).argmax() == 2
    assert 0.02 < atria[2].std() < 0.1
    frequencies, power = periodogram(atria[2], 100)
    assert power[(frequencies > 4) & (frequencies < 10)].sum() > 0.98 * power.sum()


def test_atria_do_not_show_in_other_rhythms_but_by_their_p_waves():
    assert not of_atria("PVC").any()


def test_flutter_is_a_saw_tooth_of_about_300_a_minute_in_the_inferior_leads_and_the_other_way_round_in_v1():
    atria = of_atria("AFLT")
    assert atria.std(axis=1).argmax() == 1
    assert np.corrcoef(atria[1], atria[2])[0, 1] < -0.9
    one = atria[1, : SECONDS * 100]
    frequencies, power = periodogram(one, 100)
    assert 260 <= 60 * frequencies[power.argmax()] <= 340
    assert (np.diff(one) < 0).mean() > 0.55  # slowly down, quickly up


def test_reversed_arms_turn_i_upside_down_and_swap_leads():
    usual, reversed_arms = record(plain("NORM")).signal.astype(int), record(plain("ALR")).signal.astype(int)
    one, two, three, avr, avl, avf = range(6)
    for now, before, sign in ((one, one, -1), (two, three, 1), (three, two, 1), (avr, avl, 1), (avl, avr, 1)):
        assert np.abs(reversed_arms[now] - sign * usual[before]).max() <= 3
    assert np.abs(reversed_arms[avf] - usual[avf]).max() <= 3
    assert np.array_equal(reversed_arms[6:], usual[6:])


def test_a_record_is_the_same_in_whatever_order_records_are_made():
    numbers = [5, 3, 1, 4, 2]
    made = {number: to_signal(truth(number)) for number in numbers}
    for number in sorted(numbers):
        assert np.array_equal(made[number], to_signal(truth(number)))
    assert len({signal.tobytes() for signal in made.values()}) == len(numbers)


def test_disturbances_and_nothing_else_grow_with_noise():
    usual, none, double = (record(replace(truth(9), noise=noise)) for noise in (1.0, 0.0, 2.0))
    first, second = (made.signal.astype(int) - none.signal for made in (usual, double))
    assert np.abs(second - 2 * first).max() <= 6
    assert np.array_equal(usual.beats, double.beats)
    assert usual.masks == double.masks


def test_planted_noise_changes_the_disturbances_of_the_group_alone():
    planted = Population(disparities=(Disparity(kind="noise", strength=1.0, sex="female"),))
    changed = {
        (truth(number).sex, not np.array_equal(to_signal(truth(number)), to_signal(truth(number, 0, planted))))
        for number in range(1, 21)
    }
    assert changed == {(0, False), (1, True)}


def test_the_first_records_of_a_population_are_those_that_they_always_were():
    assert digest(truth(number) for number in range(1, 21)) == FIRST_TWENTY


def test_a_record_of_each_condition_is_the_one_that_it_always_was():
    assert digest(plain(code, noise=1.0) for code in ("NORM", *CONDITIONS)) == EVERY_CONDITION


def elsewhere(**environment: str) -> str:
    """Digest of two hundred records in a process of its own."""
    command = "from tests.data_modules.synthetic.drawn import digest_of_all; print(digest_of_all(range(1, 201)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_fresh_process_draws_the_same_bytes():
    assert elsewhere(PYTHONHASHSEED="1") == digest_of_all(range(1, 201))


def test_an_older_processor_draws_the_same_bytes():
    """NumPy, OpenBLAS and the C library compute sines, products and powers in other ways there.

    Without rounding, beats of three of these records differ in their last bit.
    """
    features = [name for name in numpy_core.__cpu_dispatch__ if numpy_core.__cpu_features__[name]]
    older = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(features),
        "OPENBLAS_CORETYPE": "Prescott",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA,-AVX2_Usable,-FMA_Usable",
    }
    assert elsewhere(**older) == digest_of_all(range(1, 201))
