"""Where the signs of a condition are, and that the ECG differs there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_modules.synthetic.heart.beat import NORMAL_BEAT
from data_modules.synthetic.heart.rhythm import Rhythm
from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.signals.masks import Mask, mask_array, masks_of
from data_modules.synthetic.signals.recording import SECONDS, Recording, record
from ecgfair.ecg import LEADS
from tests.data_modules.synthetic.drawn import plain

RATE = 500
MOVES_BEATS = ("PACE", "AFIB", "AFLT", "2AVB", "STACH", "SBRAD", "PAC", "PVC")
"""With or without these beats come at other times, so that the two ECGs can't be compared sample by sample."""

BEATS = np.array([1.0, 2.0, 3.5])


def masks(code: str, ventricular: int | None = None, atrial: int | None = None, **changes: object) -> tuple[Mask, ...]:
    """Masks of three beats that are 0.16 s after their P wave."""
    of = np.arange(BEATS.size)
    rhythm = Rhythm(
        beats=BEATS,
        ventricular=of == ventricular,
        atrial=of == atrial,
        pr=np.where(of == ventricular, np.nan, 0.16),
        usual_pr=0.16,
        blocked=np.array([2.7]) if code == "2AVB" else np.zeros(0),
    )
    asked = plain(code)
    ectopic = replace(NORMAL_BEAT, qrs=0.16, qt=0.44)
    return masks_of(replace(asked, **changes), rhythm, NORMAL_BEAT, ectopic, SECONDS)


@pytest.mark.parametrize(
    ("code", "start", "end"),
    [
        ("1AVB", -0.16, 0.0),
        ("LAFB", 0.0, NORMAL_BEAT.qrs),
        ("STD_", NORMAL_BEAT.qrs, NORMAL_BEAT.t_onset),
        ("INVT", NORMAL_BEAT.t_onset, NORMAL_BEAT.qt),
    ],
)
def test_masks_of_usual_beats_are_the_parts_that_are_drawn(code: str, start: float, end: float):
    onsets = BEATS - NORMAL_BEAT.main
    assert [mask.start for mask in masks(code)] == pytest.approx(onsets + start)
    assert [mask.end for mask in masks(code)] == pytest.approx(onsets + end)
    assert {mask.leads for mask in masks(code)} == {CONDITIONS[code].leads}


def test_the_mask_of_a_paced_beat_begins_with_the_spike_before_it():
    drawn = plain("PACE")
    made = record(drawn, RATE)
    seconds = np.arange(SECONDS * RATE) / RATE
    starts = np.array([mask.start for mask in made.masks])
    steep = np.abs(np.gradient(made.signal[1].astype(float)))
    spikes = seconds[steep > 0.5 * steep.max()]
    assert len(spikes) > SECONDS
    # Each is a few milliseconds after the onset of a mask.
    assert all(np.any((spike - starts >= 0) & (spike - starts < 0.02)) for spike in spikes)


def test_premature_beats_of_the_ventricles_do_not_show_the_signs_of_usual_ones():
    assert [mask.start for mask in masks("INVT", ventricular=1)] == pytest.approx(
        [beat - NORMAL_BEAT.main + NORMAL_BEAT.t_onset for beat in BEATS[[0, 2]]]
    )


def test_the_mask_of_premature_beats_covers_them_and_no_other():
    (mask,) = masks("PVC", ventricular=1)
    onset = BEATS[1] - NORMAL_BEAT.places[1] * 0.16
    assert (mask.start, mask.end, mask.leads) == (pytest.approx(onset), pytest.approx(onset + 0.44), LEADS)
    (mask,) = masks("PAC", atrial=2)
    onset = BEATS[2] - NORMAL_BEAT.main
    assert (mask.start, mask.end) == (pytest.approx(onset - 0.16), pytest.approx(onset + NORMAL_BEAT.qt))


def test_a_pause_lasts_from_the_p_wave_that_is_not_conducted_to_the_next_qrs():
    onset = 2.7 - NORMAL_BEAT.main
    assert (pytest.approx(onset - 0.16), pytest.approx(3.5 - NORMAL_BEAT.main)) in [
        (mask.start, mask.end) for mask in masks("2AVB")
    ]


def test_reversed_arms_move_a_sign_to_the_lead_that_now_shows_it():
    reversed_arms = plain("IMI", ALR=1.0)
    shown = masks("IMI", present=("IMI", "ALR"), strength=reversed_arms.strength)
    assert {mask.leads for mask in shown if mask.code == "IMI"} == {("II", "III", "aVF")}
    shown = masks("LAFB", present=("LAFB", "ALR"), strength={**plain("LAFB").strength, "ALR": 1.0})
    assert {mask.leads for mask in shown if mask.code == "LAFB"} == {("I", "II", "III", "aVR", "aVF")}
    assert {mask.leads for mask in shown if mask.code == "ALR"} == {CONDITIONS["ALR"].leads}


def test_a_condition_whose_signs_are_not_drawn_has_no_mask():
    assert masks("LAFB", strength={**plain("LAFB").strength, "LAFB": 0.0}) == ()
    assert masks("LAFB", present=()) == ()


def test_a_sample_is_masked_if_its_time_is_from_the_start_to_before_the_end():
    shown = mask_array([Mask("LAFB", ("II", "V6"), 0.02, 0.05), Mask("INVT", ("I",), 0.0, 10.0)], "LAFB", 1000, 100)
    assert shown.shape == (12, 1000)
    assert np.flatnonzero(shown.any(axis=0)).tolist() == [2, 3, 4]
    assert np.flatnonzero(shown.any(axis=1)).tolist() == [LEADS.index("II"), LEADS.index("V6")]
    shown = mask_array([Mask("LAFB", ("II",), 0.0211, 0.0499)], "LAFB", 1000, 100)
    assert np.flatnonzero(shown.any(axis=0)).tolist() == [3, 4]
    assert mask_array([Mask("LAFB", LEADS, 0.0, 10.0)], "LAFB", 1000, 100).all()
    assert not mask_array([], "LAFB", 1000, 100).any()


def test_masks_of_a_population_lie_within_the_recording_and_belong_to_what_is_present():
    for number in range(1, 301):
        drawn = truth(number)
        shown = record(drawn).masks
        assert {mask.code for mask in shown} == {code for code in drawn.present if drawn.strength[code] > 0}
        for mask in shown:
            assert 0 <= mask.start < mask.end <= SECONDS
            assert mask.leads


def compared(code: str, number: int) -> tuple[Recording, np.ndarray]:
    """A record with a condition, and the energy (12, time) by which it differs from itself without it."""
    # Alike but for the axis and voltage of another person.
    person = truth(number).constitution
    with_it, without = (
        record(plain(code, number, person, **{code: share}), RATE).signal.astype(float) for share in (1.0, 0.0)
    )
    return record(plain(code, number, person), RATE), ((with_it - without) / 1000) ** 2


@pytest.mark.parametrize("code", [code for code in CONDITIONS if code not in MOVES_BEATS])
def test_the_ecg_differs_where_the_mask_is(code: str):
    made, energy = zip(*(compared(code, number) for number in range(1, 9)), strict=True)
    shown = np.stack([mask_array(one.masks, code, SECONDS * RATE, RATE) for one in made])
    different = np.stack(energy)
    times, leads = shown.any(axis=1), shown.any(axis=(0, 2))
    assert different.transpose(0, 2, 1)[times].sum() > 0.85 * different.sum()
    assert different[shown].sum() > 0.65 * different.sum()
    of_leads = different.transpose(1, 0, 2)[:, times].mean(axis=1)
    assert leads[of_leads.argmax()]
    if not leads.all():
        assert of_leads[leads].mean() > 2 * of_leads[~leads].mean()


@pytest.mark.parametrize("number", range(1, 6))
def test_premature_beats_of_the_ventricles_differ_within_their_mask_and_where_the_usual_beat_would_have_been(
    number: int,
):
    made, energy = compared("PVC", number)
    shown = mask_array(made.masks, "PVC", SECONDS * RATE, RATE).any(axis=0)
    assert energy[:, shown].sum() > 0.85 * energy.sum()
    assert 0 < shown.mean() < 0.25


@pytest.mark.parametrize("code", [code for code, condition in CONDITIONS.items() if condition.segments == ("record",)])
def test_what_concerns_the_whole_recording_is_masked_all_over(code: str):
    made = record(plain(code))
    shown = mask_array(made.masks, code, 10 * 100, 100)
    rows = np.isin(LEADS, CONDITIONS[code].leads)
    assert shown[rows].all()
    assert not shown[~rows].any()
