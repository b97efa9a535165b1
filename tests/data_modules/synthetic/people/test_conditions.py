"""The catalogue of conditions: complete, in an order that can be drawn, with a long tail."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pandas as pd

from data_modules.synthetic.heart.signs import SHAPES
from data_modules.synthetic.people.conditions import COMPATIBLE_WITH_NORMAL, CONDITIONS

EXAMPLES = Path(__file__).parents[4] / "experiments/synthetic/README.md"


def test_what_hides_a_condition_stands_before_it():
    codes = list(CONDITIONS)
    for place, condition in enumerate(CONDITIONS.values()):
        assert set(condition.hidden_by) <= set(codes[:place]), condition.code


def test_numbers_are_such_as_a_condition_can_have():
    for one in CONDITIONS.values():
        assert 0 < one.prevalence < 0.5, one.code
        assert 0.5 <= one.per_decade <= 2, one.code
        assert 0.5 <= one.male <= 2, one.code
        assert one.separation >= 4, one.code
        assert one.segments, one.code
        assert one.signs.endswith("."), one.code


def test_the_tail_reaches_below_half_a_percent():
    rare = [one.code for one in CONDITIONS.values() if one.prevalence < 0.005]
    assert len(rare) >= 5
    assert sum(one.prevalence >= 0.1 for one in CONDITIONS.values()) >= 2


def test_only_diagnoses_have_a_class_as_in_ptb_xl():
    for one in CONDITIONS.values():
        assert bool(one.diagnostic_class) == bool(one.diagnostic_subclass) == (one.kind == "diagnostic"), one.code


def test_tables_name_codes_of_the_catalogue_and_only_premature_beats_are_marked_beat_by_beat():
    assert set(SHAPES) <= set(CONDITIONS)
    assert set(COMPATIBLE_WITH_NORMAL) <= set(CONDITIONS)
    # A rhythm is of the record; a chronic condition can't be of some beats only.
    assert {one.code for one in CONDITIONS.values() if "beat" in one.segments} == {"PVC", "PAC"}


def test_codes_and_prevalences_are_those_of_ptb_xl_within_a_factor_of_three(ptbxl_source: Path):
    statements = pd.read_csv(ptbxl_source / "scp_statements.csv", index_col=0)
    records = pd.read_csv(ptbxl_source / "ptbxl_database.csv", usecols=["scp_codes"])["scp_codes"]
    counts = Counter(code for codes in records for code in ast.literal_eval(codes))
    counts["AMI"] += counts["ASMI"]  # anterior and anteroseptal are one condition here
    for one in CONDITIONS.values():
        if one.code == "ALR":  # PTB-XL has no statement for it
            continue
        assert one.code in statements.index
        assert statements.loc[one.code, one.kind] == 1
        if one.kind == "diagnostic":
            assert statements.loc[one.code, "diagnostic_class"] == one.diagnostic_class
        if counts[one.code] >= 10:  # fewer say little about a share
            assert 1 / 3 < one.prevalence / (counts[one.code] / len(records)) < 3, one.code


def test_every_condition_has_an_example_with_its_page():
    text = EXAMPLES.read_text(encoding="utf-8")
    for code in ("NORM", *CONDITIONS):
        assert f"## {code}: " in text
        assert f"(pages/{code.rstrip('_')}.png)" in text
        assert (EXAMPLES.parent / "pages" / f"{code.rstrip('_')}.png").stat().st_size > 10_000
    assert len(list((EXAMPLES.parent / "pages").iterdir())) == 1 + len(CONDITIONS)
