"""Each condition at full strength has what a textbook says of it, measured on a beat without disturbances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from data_modules.synthetic.heart.asked import FLUTTER, ask, conducted_flutter, conducted_pr
from data_modules.synthetic.heart.signs import SHAPES, shape
from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.people.constitution import Constitution
from data_modules.synthetic.people.draw import truth
from ecgfair.ecg import LEADS
from tests.data_modules.synthetic.drawn import AFTER_QRS, ONSET, PERSONS, DrawnBeat, drawn_beat, strength

LIMBS, CHEST = LEADS[:6], LEADS[6:]

Check = Callable[[DrawnBeat], bool]


def each(*leads: str, has: Callable[[DrawnBeat, str], bool]) -> Check:
    return lambda beat: all(has(beat, lead) for lead in leads)


def t_is_inverted(beat: DrawnBeat, lead: str) -> bool:
    return beat.t(lead) < -0.1


def st_is_raised(beat: DrawnBeat, lead: str) -> bool:
    return beat.st(lead) > 0.05


def st_is_lowered(beat: DrawnBeat, lead: str) -> bool:
    return beat.st(lead) < -0.05


def q_is_broad(beat: DrawnBeat, lead: str) -> bool:
    return beat.q_duration(lead) >= 30 and beat.q(lead) >= 0.25 * beat.r(lead)


def delta(beat: DrawnBeat) -> bool:
    """QRS rises slowly at first: after 30 ms it is far below R, and was little more than half as steep as later."""
    wave = beat.qrs("V5")
    slope = np.gradient(wave)
    return bool(0.1 < wave[30] < 0.4 * wave.max() and slope[:30].max() < 0.6 * slope.max())


def spike(beat: DrawnBeat) -> bool:
    """A deflection of less than 20 ms before QRS, and the baseline on both sides of it."""
    before = np.abs(beat.leads["II"][ONSET - 40 : ONSET])
    return bool(before.max() > 0.3 and (before > 0.05).sum() < 20 and max(before[0], before[-1]) < 0.06)


CRITERIA: dict[str, dict[str, Check]] = {
    "STACH": {"above 100 a minute": lambda beat: beat.asked.heart_rate > 100},
    "SBRAD": {"below 60 a minute": lambda beat: beat.asked.heart_rate < 60},
    "1AVB": {"PR above 200 ms": lambda beat: (beat.asked.pr or 0) > 200},
    "LNGQT": {"QTc of 500 ms": lambda beat: beat.asked.qtc >= 500},
    "PACE": {
        "no P": lambda beat: beat.asked.pr is None,
        "spike": spike,
        "QRS is wide": lambda beat: beat.asked.qrs >= 140,
        "to the left and upwards": lambda beat: -90 < beat.axis() < -30,
    },
    "WPW": {
        "PR below 120 ms": lambda beat: (beat.asked.pr or 200) < 120,
        "QRS of 110 ms": lambda beat: beat.asked.qrs >= 110,
        "delta wave": delta,
        "no q": each("I", "V5", "V6", has=lambda beat, lead: beat.q(lead) < 0.03),
        "T against the delta wave": each("I", "V5", "V6", has=lambda beat, lead: beat.t(lead) < -0.03),
        "ST against the delta wave": each("I", "V5", "V6", has=lambda beat, lead: beat.st(lead) < 0),
    },
    "CLBBB": {
        "QRS of 120 ms": lambda beat: beat.asked.qrs >= 120,
        "broad R": each("V5", "V6", has=lambda beat, lead: beat.lasts(lead, 1, 0.05) >= 120),
        "broad R in I and aVL": each("I", "aVL", has=lambda beat, lead: beat.lasts(lead, 1, 0.05) >= 100),
        "notch": each("I", "V5", "V6", has=lambda beat, lead: beat.peaks(lead) >= 2),
        "no q": each("I", "V5", "V6", has=lambda beat, lead: beat.q(lead) < 0.02),
        "deep S": each("V1", "V2", "V3", has=lambda beat, lead: beat.deepest(lead) > 4 * beat.first_r(lead) + 0.3),
        "T inverted": each("I", "aVL", "V5", "V6", has=t_is_inverted),
        "T upright": each("V1", "V2", has=lambda beat, lead: beat.t(lead) > 0.2),
        "ST lowered": each("V5", "V6", has=st_is_lowered),
        "ST raised": each("V1", "V2", has=st_is_raised),
    },
    "CRBBB": {
        "QRS of 120 ms": lambda beat: beat.asked.qrs >= 120,
        "rsR' in V1": lambda beat: beat.second_r("V1") > beat.first_r("V1") + 0.2 > 0.3 and beat.deepest("V1") > 0.1,
        "broad S": each("I", "V6", has=lambda beat, lead: beat.lasts(lead, -1, 0.02) >= 40 and beat.s(lead) > 0.2),
        "T inverted": each("V1", "V2", has=t_is_inverted),
        "T upright in V6": lambda beat: beat.t("V6") > 0.1,
    },
    "RVH": {
        "axis to the right": lambda beat: 90 < beat.axis() < 180,
        "R above S in V1": lambda beat: beat.r("V1") > max(beat.deepest("V1"), 0.5),
        "deep S": each("V4", "V5", "V6", has=lambda beat, lead: beat.s(lead) > beat.r(lead)),
        "ST lowered": each("V1", "V2", "V3", has=st_is_lowered),
        "T inverted": each("V1", "V2", "V3", has=t_is_inverted),
    },
    "LVH": {
        "more than 3.5 mV": lambda beat: beat.s("V1") + beat.r("V5") > 3.5,
        "T inverted": each("I", "aVL", "V5", "V6", has=t_is_inverted),
        "ST lowered": each("V5", "V6", has=lambda beat, lead: beat.st(lead) < -0.04),
        "ST not raised": each("I", "aVL", has=lambda beat, lead: beat.st(lead) < -0.01),
        "ST and T against S": each("V1", "V2", has=lambda beat, lead: beat.st(lead) > 0.02 and beat.t(lead) > 0.1),
    },
    "AMI": {
        "no R": each("V1", "V2", "V3", has=lambda beat, lead: beat.first_r(lead) < 0.05),
        "deep QS": each("V1", "V2", "V3", has=lambda beat, lead: beat.deepest(lead) > 0.5),
        "ST above 0.1 mV in V2": lambda beat: beat.st("V2") > 0.1,
        "ST raised": each("V1", "V2", "V3", "V4", has=st_is_raised),
        "T inverted": each("V1", "V2", "V3", "V4", has=lambda beat, lead: beat.t(lead) < -0.08),
    },
    "IMI": {
        "broad Q": each("II", "III", "aVF", has=q_is_broad),
        "ST raised": each("II", "III", "aVF", has=st_is_raised),
        "T inverted": each("II", "III", "aVF", has=t_is_inverted),
    },
    "LMI": {
        "broad Q": each("I", "aVL", "V4", "V5", "V6", has=q_is_broad),
        "ST raised": each("I", "aVL", "V4", "V5", "V6", has=st_is_raised),
        "T inverted": each("I", "aVL", "V4", "V5", "V6", has=t_is_inverted),
        "no Q of an anterior infarction": each("V1", "V2", has=lambda beat, lead: beat.first_r(lead) > 0.1),
    },
    "LAFB": {
        "axis of -45 degrees": lambda beat: -90 < beat.axis() <= -45,
        "qR": each("I", "aVL", has=lambda beat, lead: 0.02 < beat.q(lead) < 0.5 * beat.r(lead)),
        "rS": each("II", "III", "aVF", has=lambda beat, lead: 0.05 < beat.first_r(lead) < beat.deepest(lead)),
        "QRS below 120 ms": lambda beat: beat.asked.qrs < 120,
    },
    "STD_": {
        "ST of -0.1 mV": each("II", "V3", "V4", "V5", has=lambda beat, lead: beat.st(lead) <= -0.1),
        "ST lowered in V6": lambda beat: beat.st("V6") <= -0.08,
        "T upright": each("II", "V3", "V4", "V5", has=lambda beat, lead: beat.t(lead) > 0.1),
    },
    "INVT": {
        "T inverted": each("I", "II", "aVF", "V3", "V4", "V5", "V6", has=t_is_inverted),
        "T upright": each("V1", "V2", has=lambda beat, lead: beat.t(lead) > 0),
        "ST not lowered": each(*LEADS, has=lambda beat, lead: abs(beat.st(lead)) < 0.05),
    },
    "LVOLT": {
        "below 0.5 mV": each(*LIMBS, has=lambda beat, lead: beat.height(lead) < 0.5),
        "below 1 mV": each(*CHEST, has=lambda beat, lead: beat.height(lead) < 1),
    },
}
"""Code -> what is to be seen on a single beat; the rest of the catalogue is about rhythm, see ``test_rhythm``."""


@pytest.mark.parametrize("person", PERSONS)
@pytest.mark.parametrize(("code", "criterion"), [(code, name) for code, checks in CRITERIA.items() for name in checks])
def test_a_condition_at_full_strength_meets_the_criteria_of_a_textbook(code: str, criterion: str, person: str):
    assert CRITERIA[code][criterion](drawn_beat(PERSONS[person], code))


SPECIFIC = {
    "CLBBB": "broad R",
    "CRBBB": "rsR' in V1",
    "RVH": "R above S in V1",
    "LVH": "more than 3.5 mV",
    "AMI": "no R",
    "IMI": "broad Q",
    "LMI": "broad Q",
    "LAFB": "axis of -45 degrees",
    "STD_": "ST of -0.1 mV",
    "INVT": "T inverted",
    "LVOLT": "below 0.5 mV",
    "WPW": "delta wave",
    "PACE": "spike",
}


@pytest.mark.parametrize("person", PERSONS)
@pytest.mark.parametrize("code", SPECIFIC)
def test_healthy_people_do_not_meet_them(code: str, person: str):
    assert not CRITERIA[code][SPECIFIC[code]](drawn_beat(PERSONS[person]))


GROWS: dict[str, Callable[[DrawnBeat], float]] = {
    "STACH": lambda beat: beat.asked.heart_rate,
    "SBRAD": lambda beat: -beat.asked.heart_rate,
    "1AVB": lambda beat: beat.asked.pr or 0,
    "LNGQT": lambda beat: beat.asked.qtc,
    "WPW": lambda beat: beat.asked.qrs - (beat.asked.pr or 0),
    "CLBBB": lambda beat: beat.lasts("V6", 1, 0.05),
    "CRBBB": lambda beat: beat.second_r("V1"),
    "RVH": lambda beat: beat.r("V1") - beat.deepest("V1"),
    "LVH": lambda beat: beat.s("V1") + beat.r("V5"),
    "AMI": lambda beat: beat.st("V2"),
    "IMI": lambda beat: beat.q("aVF"),
    "LMI": lambda beat: beat.q("V6"),
    "LAFB": lambda beat: -beat.axis(),
    "STD_": lambda beat: -beat.st("V5"),
    "INVT": lambda beat: -beat.t("V5"),
    "LVOLT": lambda beat: -beat.height("V5"),
}


def test_every_condition_whose_signs_grow_is_measured_here():
    assert set(GROWS) == {code for code, condition in CONDITIONS.items() if condition.graded}


@pytest.mark.parametrize("person", PERSONS)
@pytest.mark.parametrize("code", GROWS)
def test_signs_grow_with_strength(code: str, person: str):
    sizes = [GROWS[code](drawn_beat(PERSONS[person], code, share)) for share in np.linspace(0, 1, 9)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[4] < sizes[8]


@pytest.mark.parametrize("code", CONDITIONS)
def test_a_condition_without_strength_changes_nothing(code: str):
    person = PERSONS["man of 25"]
    healthy, without = drawn_beat(person), drawn_beat(person, code, 0.0)
    assert without.asked == healthy.asked
    assert all(np.array_equal(without.leads[lead], healthy.leads[lead]) for lead in LEADS)


def test_every_condition_that_changes_the_shape_of_a_beat_has_one():
    person = PERSONS["woman of 80"]
    for code in SHAPES:
        assert np.abs(drawn_beat(person, code).leads["V3"] - drawn_beat(person).leads["V3"]).max() > 0.1


def test_what_is_asked_of_a_healthy_person_is_the_person():
    person: Constitution = PERSONS["woman of 25"]
    asked = ask(person, strength())
    assert (asked.heart_rate, asked.pr, asked.qrs, asked.axis) == (
        person.heart_rate,
        person.pr,
        person.qrs,
        person.axis,
    )
    assert asked.qtc == pytest.approx(person.qtc)
    assert asked.qt == pytest.approx(person.qtc * (60 / person.heart_rate) ** (1 / 3))


@pytest.mark.parametrize("code", ["PACE", "AFIB", "AFLT", "2AVB"])
def test_no_pr_interval_is_asked_for_where_no_p_belongs_to_qrs_or_it_varies(code: str):
    assert ask(PERSONS["man of 80"], strength(code)).pr is None


def test_an_axis_is_asked_for_only_where_no_condition_changes_qrs_and_the_arms_are_right():
    assert ask(PERSONS["man of 80"], strength("LAFB")).axis is None
    assert ask(PERSONS["man of 80"], strength("ALR")).axis is None
    assert ask(PERSONS["man of 80"], strength("INVT")).axis == PERSONS["man of 80"].axis


def test_conducted_beats_of_second_degree_block_have_a_pr_interval_of_their_own():
    person = PERSONS["man of 25"]
    assert conducted_pr(person, strength("2AVB")) > conducted_pr(person, strength()) == person.pr


@pytest.mark.parametrize("person", PERSONS)
def test_fluttering_atria_beat_two_to_four_times_as_often_as_the_ventricles(person: str):
    rate = ask(PERSONS[person], strength("AFLT")).heart_rate
    assert conducted_flutter(rate) in (2, 3, 4)
    assert FLUTTER[0] <= conducted_flutter(rate) * rate / 60 <= FLUTTER[1]


def test_every_combination_of_conditions_leaves_a_beat_whose_parts_follow_each_other():
    for number in range(1, 2001):
        record = truth(number)
        asked = ask(record.constitution, record.strength)
        beat = shape(asked, record.constitution, record.strength)
        assert 40 <= asked.heart_rate <= 150
        assert 0 < beat.qrs < beat.t_onset < beat.qt < min(0.75, 60 / asked.heart_rate)
        assert asked.pr is None or 70 < asked.pr < 300
        assert 1000 * beat.t_onset > asked.qrs + AFTER_QRS or asked.heart_rate > 90
