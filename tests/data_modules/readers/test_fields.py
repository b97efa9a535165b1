"""Fields: what a person can be is read, anything else is missing, and noted where the source states it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules.readers import fields
from ecgfair.ecg import AGE_OVER_89, FEMALE, MALE

MISSING = ["", "  ", "nan", "NaN", "None", "null", "NA", "n/a", "Unknown", "NaT", "<NA>"]


@pytest.mark.parametrize("text", MISSING)
def test_a_missing_cell_is_missing_without_a_note(text):
    notes: list[str] = []
    assert fields.age(text, notes) is None
    assert fields.sex(text, notes) is None
    assert fields.fold(text, notes) is None
    assert fields.date(text, notes) is None
    assert fields.positive(text, "AF", notes) is False
    assert notes == []


@pytest.mark.parametrize(("text", "age"), [("57", 57), ("57.0", 57), (" 0.5 ", 0.5), ("0", 0), ("130", 130)])
def test_an_age_that_somebody_has_is_read(text, age):
    notes: list[str] = []
    assert fields.age(text, notes) == age
    assert notes == []


@pytest.mark.parametrize("text", ["-1", "131", "300", "inf", "-inf", "57y", "1_0", "0x20", "fifty", "1e3"])
def test_an_age_that_nobody_has_is_missing_with_a_note(text):
    notes: list[str] = []
    assert fields.age(text, notes) is None
    assert notes == [f"age implausible: {text}, expected 0 to 130; taken as missing."]


def test_a_sources_own_code_for_an_age_is_read_and_named_in_notes():
    notes: list[str] = []
    assert fields.age("300", notes, {300.0: AGE_OVER_89}) == AGE_OVER_89
    assert notes == []
    assert fields.age("301", notes, {300.0: AGE_OVER_89}) is None
    assert notes == ["age implausible: 301, expected 0 to 130 or 300; taken as missing."]


@pytest.mark.parametrize(
    ("text", "sex"), [("M", MALE), ("male", MALE), (" Male ", MALE), ("F", FEMALE), ("FEMALE", FEMALE)]
)
def test_the_usual_words_for_sex_are_read(text, sex):
    notes: list[str] = []
    assert fields.sex(text, notes) == sex
    assert notes == []


def test_a_source_spells_sex_as_it_likes_and_then_only_so():
    notes: list[str] = []
    assert fields.sex("W", notes, {"w": FEMALE, "m": MALE}) == FEMALE
    assert fields.sex("female", notes, {"w": FEMALE, "m": MALE}) is None
    assert notes == ["sex unknown: female, expected w (female), m (male); taken as missing."]


@pytest.mark.parametrize("text", ["1", "10", "3.0", "127"])
def test_a_fold_is_a_whole_number_from_1(text):
    notes: list[str] = []
    assert fields.fold(text, notes) == int(float(text))
    assert notes == []


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "128", "train", "1e9"])
def test_any_other_fold_is_missing_with_a_note(text):
    notes: list[str] = []
    assert fields.fold(text, notes) is None
    assert [note.split(":")[0] for note in notes] == ["fold unusable"]


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("1984-11-09 09:17:34", "1984-11-09T09:17:34"),
        (" 1984-11-09T09:17:34 ", "1984-11-09T09:17:34"),
        ("1984-11-09", "1984-11-09T00:00:00"),
    ],
)
def test_an_iso_date_is_read(text, date):
    notes: list[str] = []
    assert fields.date(text, notes) == date
    assert notes == []


@pytest.mark.parametrize("text", ["09/11/1984", "1984-13-01", "yesterday"])
def test_a_date_that_could_mean_two_days_is_missing_with_a_note(text):
    notes: list[str] = []
    assert fields.date(text, notes) is None
    assert [note.split(":")[0] for note in notes] == ["date unreadable"]


@pytest.mark.parametrize(
    ("text", "positive"), [("1", True), ("True", True), ("1.0", True), ("0", False), ("FALSE", False)]
)
def test_a_label_is_yes_or_no(text, positive):
    notes: list[str] = []
    assert fields.positive(text, "AF", notes) is positive
    assert notes == []


@pytest.mark.parametrize("text", ["0.7", "2", "-1", "yes", "AF"])
def test_a_label_that_is_neither_is_not_positive_and_noted(text):
    notes: list[str] = []
    assert fields.positive(text, "AF", notes) is False
    assert notes == [f"label unreadable: AF is {text}, expected 1, true, 0, false or nothing; not taken as positive."]


@given(st.text())
def test_no_text_is_too_odd(text):
    notes: list[str] = []
    age = fields.age(text, notes)
    assert age is None or 0 <= age <= 130
    fold = fields.fold(text, notes)
    assert fold is None or 1 <= fold <= 127
    assert fields.sex(text, notes) in (None, MALE, FEMALE)
    number = fields.number(text)
    assert number is None or math.isfinite(number)
    fields.date(text, notes)
    assert all(": " in note for note in notes)
