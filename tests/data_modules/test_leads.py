"""Leads by name, and the limb leads that follow from others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules.leads import derivable, standard_name, standard_rows, with_derived
from ecgfair.ecg import LEADS
from ecgfair.errors import RecordError

INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
DERIVED = ("III", "aVR", "aVL", "aVF")


def made(leads: tuple[str, ...], samples: int = 50) -> np.ndarray:
    """Voltages of a patient: any I and II, the limb leads by Einthoven and Goldberger, any chest leads."""
    chance = np.random.default_rng(0)
    one, two = chance.normal(size=(2, samples))
    limb = {
        "I": one,
        "II": two,
        "III": two - one,
        "aVR": -(one + two) / 2,
        "aVL": (one - (two - one)) / 2,
        "aVF": (two + (two - one)) / 2,
    }
    return np.array([limb.get(lead, chance.normal(size=samples)) for lead in leads])


@pytest.mark.parametrize(
    ("recorded", "lead"),
    [
        *((lead, lead) for lead in LEADS),
        *((lead.upper(), lead) for lead in LEADS),
        *((f" {lead.lower()} ", lead) for lead in LEADS),
        ("MLII", "II"),
        ("ML II", "II"),
        ("Lead II", "II"),
        ("lead_avf", "aVF"),
        ("ECG aVL", "aVL"),
        ("EKG: V3", "V3"),
        ("ECG_V1", "V1"),
        ("C4", "V4"),
        ("MV5", "V5"),
        ("V-6", "V6"),
        ("D1", "I"),
        ("DIII", "III"),
        ("L2", "II"),
    ],
)
def test_a_lead_is_known_by_the_names_devices_give_it(recorded: str, lead: str):
    assert standard_name(recorded) == lead


@pytest.mark.parametrize(
    "recorded",
    ["-aVR", "- avr", "ECG -aVR", "-II", "vx", "V3R", "V7", "V0", "V", "IV", "MCL1", "RESP", "ECG", "", None],
)
def test_any_other_signal_is_no_standard_lead(recorded: str | None):
    assert standard_name(recorded) is None


@given(st.text())
def test_any_text_is_a_standard_lead_or_none(text: str):
    assert standard_name(text) in (*LEADS, None)


def test_rows_are_found_by_name_in_the_order_of_the_standard():
    assert list(standard_rows(["v6", "vx", "AVR", None, "i"], "record 1").items()) == [("I", 4), ("aVR", 2), ("V6", 0)]


def test_a_lead_there_twice_is_refused_with_both_rows():
    with pytest.raises(RecordError, match=r"lead there twice: record 1 names II in rows 1 \(II\) and 3 \(MLII\)"):
        standard_rows(["II", "V1", "MLII"], "record 1")


@pytest.mark.parametrize("names", [["vx", "-aVR"], [None], []])
def test_no_standard_lead_at_all_is_refused(names: list[str | None]):
    with pytest.raises(RecordError, match=r"no standard lead: record 1 has .*expected some of I, II"):
        standard_rows(names, "record 1")


def test_eight_independent_leads_give_the_four_others():
    signal, leads, derived = with_derived(made(INDEPENDENT), INDEPENDENT)
    assert derived == DERIVED
    assert leads == (*INDEPENDENT, *DERIVED)
    assert signal.dtype == np.float32
    np.testing.assert_allclose(signal, made(leads), atol=1e-6)


@pytest.mark.parametrize("pair", [(first, other) for first in LEADS[:6] for other in LEADS[:6] if first != other])
def test_any_two_limb_leads_give_the_other_four(pair: tuple[str, str]):
    signal, leads, derived = with_derived(made(pair), pair)
    assert set(leads) == set(LEADS[:6])
    assert set(derived) == set(LEADS[:6]) - set(pair)
    np.testing.assert_allclose(signal, made(leads), atol=1e-6)


@pytest.mark.parametrize("leads", [("I", "V1"), ("V1", "V2"), LEADS])
def test_with_one_limb_lead_or_all_six_nothing_is_derived(leads: tuple[str, ...]):
    recorded = made(leads).astype(np.float32)
    signal, names, derived = with_derived(recorded, leads)
    assert (names, derived) == (leads, ())
    assert np.array_equal(signal, recorded)
    assert derivable(leads) == ()


def test_what_was_recorded_stays_as_it_is_even_where_leads_disagree():
    recorded = np.random.default_rng(1).normal(size=(4, 20)).astype(np.float32)
    signal, _, derived = with_derived(recorded, ("I", "II", "III", "V1"))
    assert np.array_equal(signal[:4], recorded)
    assert derived == ("aVR", "aVL", "aVF")


def test_where_a_lead_was_not_recorded_the_leads_from_it_are_not_either():
    recorded = made(INDEPENDENT)
    recorded[1, 7] = np.nan
    recorded[2, 9] = np.nan
    signal, leads, _ = with_derived(recorded, INDEPENDENT)
    missing = {(leads[row], int(sample)) for row, sample in np.argwhere(np.isnan(signal))}
    assert missing == {(lead, 7) for lead in ("II", *DERIVED)} | {("V1", 9)}
