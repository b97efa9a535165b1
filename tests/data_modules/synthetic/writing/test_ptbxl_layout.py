"""The layout of PTB-XL: read back as it was made, by this project's reader and by wfdb."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

from data_modules.readers.ptbxl import DATABASE, STATEMENTS, PtbXlReader, label_sets_of
from data_modules.records import Record, Rejected
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.signals.recording import record, to_signal
from data_modules.synthetic.writing import published
from data_modules.synthetic.writing.ptbxl_layout import DATABASE_COLUMNS, database_row
from data_modules.synthetic.writing.synthesize import synthesize
from ecgfair.ecg import AGE_OVER_89, FEMALE, LEADS


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layout") / "source"
    synthesize(str(folder), 150, jobs=1)
    return folder


@pytest.fixture(scope="module")
def table(many: Path) -> pd.DataFrame:
    return pd.read_csv(many / DATABASE)


@pytest.mark.parametrize(("rate", "name"), [(100, "records100/00000/00003_lr"), (500, "records500/00000/00003_hr")])
def test_wfdb_reads_what_was_made(tmp_path: Path, rate: int, name: str):
    synthesize(str(tmp_path / "source"), 3, sampling_rate=rate, jobs=1)
    read = wfdb.rdrecord(str(tmp_path / "source" / name), physical=False)
    assert [lead.upper() for lead in LEADS] == read.sig_name
    assert (read.fs, read.sig_len, set(read.adc_gain), set(read.units)) == (rate, 10 * rate, {1000.0}, {"mV"})
    assert np.array_equal(read.d_signal.T, to_signal(truth(3), rate))


def test_records_at_the_other_sampling_rate_are_told_with_the_flag_that_reads_them(tmp_path: Path):
    synthesize(str(tmp_path / "source"), 2, sampling_rate=500, jobs=1)
    for outcome in PtbXlReader(tmp_path / "source").read(range(2)):
        assert isinstance(outcome, Rejected)
        assert "but one at 500 Hz: say --sampling_rate 500" in outcome.reason


def test_the_reader_reads_the_diseases_and_people_asked_for_without_a_note(many: Path, table: pd.DataFrame):
    oldest = unknown = 0
    for number, read in enumerate(PtbXlReader(many).read(range(150)), start=1):
        asked = truth(number)
        assert isinstance(read, Record), read
        assert read.notes == ()
        assert (read.record_id, read.patient_id) == (str(number), str(asked.patient))
        assert tuple(read.codes) == asked.stated
        assert (read.fold, read.recorded_at) == (asked.fold, asked.recorded_at)
        assert read.sex == (asked.sex if asked.sex_known else None)
        over = asked.age_known and asked.age > 89
        assert read.age == (None if not asked.age_known else AGE_OVER_89 if over else asked.age)
        oldest += over
        unknown += (not asked.age_known) + (not asked.sex_known)
    assert oldest
    assert (table["age"] == 300).sum() == oldest
    assert unknown
    assert table[["age", "sex"]].isna().sum().sum() == unknown


def test_the_reader_reads_500_hz_as_well(tmp_path: Path):
    synthesize(str(tmp_path / "source"), 2, sampling_rate=500, jobs=1)
    first, second = PtbXlReader(tmp_path / "source", 500).read([0, 1])
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert np.array_equal(np.rint(second.signal * 1000), to_signal(truth(2), 500))


def test_the_tables_have_the_official_columns(many: Path, table: pd.DataFrame):
    assert tuple(table.columns) == DATABASE_COLUMNS
    statements = pd.read_csv(many / STATEMENTS, dtype=str, keep_default_na=False)
    assert (many / STATEMENTS).read_text().startswith(",description,diagnostic,form,rhythm,diagnostic_class,")
    assert label_sets_of(statements) == label_sets_of(published.statements())
    assert set(statements.iloc[:, 0]) == set(published.LABELS)


def test_the_label_sets_are_those_of_the_literature():
    sets = label_sets_of(published.statements())
    assert list(sets["superdiagnostic"]) == ["NORM", "MI", "STTC", "CD", "HYP"]
    assert {name: len(labels) for name, labels in sets.items()} == {
        "all": 25,
        "diagnostic": 13,
        "subdiagnostic": 12,
        "superdiagnostic": 5,
        "form": 6,
        "rhythm": 6,
    }


def test_a_file_is_named_for_the_rate_that_was_written_alone(table: pd.DataFrame, many: Path):
    assert table["filename_hr"].isna().all()
    for name in table["filename_lr"]:
        assert (many / f"{name}.hea").is_file()
    asked = truth(1234)
    row = database_row(asked, record(asked, 500), 500)
    assert row["filename_hr"] == "records500/01000/01234_hr"
    assert "filename_lr" not in row


def test_diagnoses_have_a_likelihood_and_rhythms_and_forms_none():
    asked = replace(truth(1), stated=("NORM", "IMI", "2AVB", "AFIB", "PVC", "SR"))
    assert published.likelihoods(asked) == {"NORM": 100, "IMI": 100, "2AVB": 100, "AFIB": 0, "PVC": 0, "SR": 0}


def test_pacemakers_extra_beats_and_infarctions_are_in_their_columns_as_they_are_stated():
    made = record(truth(1))

    def row(*stated: str) -> list[object]:
        told = database_row(replace(truth(1), stated=stated), made, 100)
        return [told[name] for name in ("pacemaker", "extra_beats", "infarction_stadium1")]

    assert row("NORM", "SR") == [None, None, None]
    assert row("PACE") == ["ja, pacemaker", None, None]
    assert row("PVC", "PAC", "SR") == [None, "VES, SVES", None]
    assert row("LMI", "PAC", "SR") == [None, "SVES", "unknown"]


def test_what_disturbs_a_record_is_noted_in_the_columns_of_signal_quality(table: pd.DataFrame):
    names = {"baseline_drift", "static_noise", "burst_noise", "electrodes_problems"}
    assert table[list(names)].notna().any().any()
    for row in table.to_dict("records"):
        problems = record(truth(row["ecg_id"])).problems
        for name in names:
            leads = getattr(problems, name)
            expected = "alles" if len(leads) == 12 else ", ".join(lead.upper() for lead in leads)
            assert (row[name] if isinstance(row[name], str) else "") == expected


@pytest.mark.parametrize(("age", "written", "read"), [(89.0, 89.0, 89.0), (90.0, 300.0, 90.0), (95.0, 300.0, 90.0)])
def test_an_age_above_89_is_one_category(age: float, written: float, read: float):
    asked = replace(truth(1), age=age, age_known=True)
    assert database_row(asked, record(asked), 100)["age"] == written
    assert published.age(asked) == read


def test_what_is_not_known_is_left_empty():
    asked = replace(truth(1), sex=FEMALE, age_known=False, sex_known=False)
    row = database_row(asked, record(asked), 100)
    assert (row["age"], row["sex"]) == (None, None)
