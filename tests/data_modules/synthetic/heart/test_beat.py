"""The shape of a beat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_modules.synthetic.heart.beat import (
    NORMAL_BEAT,
    Beat,
    atrial_waves,
    turned,
    ventricular_waves,
    with_axis,
)
from ecgfair.ecg import LEADS
from tests.data_modules.synthetic.drawn import ONSET, PERSONS, RATE, drawn_beat, in_leads

P_DURATION = 0.11
"""Seconds."""
ONE = np.array([ONSET / RATE])


def leads_of(beat: Beat, size: float = 1.0, turn: float = 0.0) -> dict[str, np.ndarray]:
    return in_leads([ventricular_waves(ONE, beat, np.array([size]), np.array([turn]))])


def all_of(leads: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([leads[lead] for lead in LEADS])


def test_turning_is_a_rotation_about_the_axis_from_front_to_back():
    vectors = np.random.default_rng(0).standard_normal((5, 3))
    assert np.allclose(turned(vectors, 50.0), Rotation.from_euler("z", 50, degrees=True).apply(vectors))


@pytest.mark.parametrize("axis", range(-90, 121, 15))
def test_a_beat_is_turned_to_the_axis_that_was_asked_for(axis: int):
    leads = leads_of(with_axis(replace(NORMAL_BEAT, t=np.zeros(3)), float(axis)))
    measured = np.degrees(np.arctan2(2 * leads["aVF"].sum() / np.sqrt(3), leads["I"].sum()))
    assert measured == pytest.approx(axis, abs=0.01)


@pytest.mark.parametrize("person", PERSONS)
def test_the_axis_of_a_healthy_beat_is_that_of_the_person(person: str):
    assert drawn_beat(PERSONS[person]).axis() == pytest.approx(PERSONS[person].axis, abs=0.5)


@pytest.mark.parametrize("person", PERSONS)
def test_a_healthy_beat_is_normal_in_every_lead(person: str):
    beat = drawn_beat(PERSONS[person])
    r_waves = [beat.first_r(lead) for lead in ("V1", "V2", "V3", "V4")]
    assert r_waves == sorted(r_waves)
    assert 0.1 < beat.first_r("V1") < 0.5 * beat.deepest("V1")
    assert beat.s("V1") + beat.r("V5") < 3.5
    assert beat.height("II") > 0.5
    assert all(beat.q_duration(lead) < 30 for lead in ("I", "II", "III", "aVL", "aVF", "V4", "V5", "V6"))
    assert all(abs(beat.st(lead)) < 0.05 for lead in LEADS)
    assert all(beat.t(lead) > 0.05 for lead in ("I", "II", "V2", "V3", "V4", "V5", "V6"))
    assert beat.t("aVR") < -0.05


def test_the_tangent_at_the_end_of_t_meets_the_baseline_where_qt_ends():
    for qt in (0.32, 0.40, 0.52):
        for symmetric in (0.0, 0.5, 1.0):
            beat = replace(NORMAL_BEAT, qt=qt, symmetric_t=symmetric)
            wave = leads_of(beat)["II"]
            late = slice(ONSET + round(1000 * (qt - 0.19 * qt)), ONSET + round(1000 * qt))
            slope = np.gradient(wave)[late]
            steepest = late.start + int(slope.argmin())
            end = steepest - wave[steepest] / slope.min()
            assert end - ONSET == pytest.approx(1000 * qt, abs=0.012 * 1000 * qt)


def test_a_usual_t_is_steeper_at_its_end_and_a_symmetric_one_is_not():
    def steepness(symmetric: float) -> float:
        wave = leads_of(replace(NORMAL_BEAT, vectors=np.zeros((4, 3)), symmetric_t=symmetric))["II"]
        slope = np.gradient(wave)
        return -slope.min() / slope.max()

    assert steepness(0.0) > 1.2
    assert steepness(1.0) == pytest.approx(1, abs=0.01)


def test_qrs_lies_between_its_onset_and_its_end_however_long_it_is():
    for qrs in (0.07, 0.09, 0.12, 0.16):
        waves = all_of(leads_of(replace(NORMAL_BEAT, qrs=qrs, t=np.zeros(3))))
        inside = slice(ONSET, ONSET + round(1000 * qrs))
        outside = np.delete(waves, np.arange(inside.start, inside.stop), axis=1)
        assert np.abs(outside).max() < 0.12 * np.abs(waves).max()
        assert (outside**2).sum() < 0.002 * (waves**2).sum()


def test_st_is_level_and_as_high_as_asked_for():
    beat = replace(NORMAL_BEAT, vectors=np.zeros((4, 3)), t=np.zeros(3), st=np.array([0.3, 0.0, 0.0]))
    wave = leads_of(beat)["I"]
    begin, end = 1000 * beat.qrs, 1000 * beat.t_onset
    level = wave[ONSET + round(begin + 0.3 * (end - begin)) : ONSET + round(begin + 0.75 * (end - begin))]
    assert np.allclose(level, 0.632 * 0.3, rtol=0.07)
    assert 0.3 * level.max() < wave[ONSET + round(begin)] < 0.9 * level.max()
    assert wave[ONSET + round(begin) - 60] < 0.1 * level.max()


def test_size_and_breathing_act_on_the_whole_beat():
    usual = all_of(leads_of(NORMAL_BEAT))
    assert np.allclose(all_of(leads_of(NORMAL_BEAT, size=1.3)), 1.3 * usual)
    turned_by_hand = replace(
        NORMAL_BEAT, **{name: turned(getattr(NORMAL_BEAT, name), 20.0) for name in ("vectors", "st", "t", "spike")}
    )
    assert np.allclose(all_of(leads_of(NORMAL_BEAT, turn=20.0)), all_of(leads_of(turned_by_hand)))


def p_waves(ectopic: bool = False, stretch: float = 1.0) -> dict[str, np.ndarray]:
    return in_leads([atrial_waves(ONE, np.array([ectopic]), 1.0, stretch)])


def test_p_lasts_as_long_as_it_says_and_points_to_the_left_and_downwards():
    leads = p_waves()
    waves = all_of(leads)
    energy = (waves[:, ONSET : ONSET + round(1000 * P_DURATION)] ** 2).sum() / (waves**2).sum()
    assert energy > 0.99
    assert leads["I"].max() > 0.03
    assert 0.08 < leads["II"].max() < 0.25
    assert leads["aVR"].min() < -0.05
    assert leads["V1"].max() > 0.02
    assert leads["V1"].min() < -0.02


def test_a_premature_p_comes_from_elsewhere():
    assert p_waves(ectopic=True)["aVF"].min() < -0.02


def test_a_shorter_p_is_the_same_wave_in_less_time():
    usual, shorter = p_waves()["II"], p_waves(stretch=0.8)["II"]
    after = np.arange(100)
    assert np.allclose(shorter[ONSET + after], np.interp(after / 0.8, np.arange(200), usual[ONSET:][:200]), atol=1e-3)
