"""OwnRecordsReader: a table of one's own, mapped in YAML, every row of it read or rejected by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pandas as pd
import pytest
import wfdb

from data_modules.readers.own_columns import Columns
from data_modules.readers.own_records import OwnRecordsReader, parse_codes
from data_modules.readers.signal_files import PlainFiles
from data_modules.records import Record, Rejected
from ecgfair.ecg import FEMALE, LEADS, MALE
from ecgfair.errors import ConfigurationError, RecordError, SourceError

FILES = PlainFiles(LEADS, sampling_rate=500, millivolts_per_unit=0.001)
EXAMPLE = Path("experiments/own_records/records.yaml")


def microvolts(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2000, 2000, (12, 100))


@pytest.fixture
def table() -> pd.DataFrame:
    """Three records of two patients."""
    return pd.DataFrame(
        {
            "signal": ["a.npy", "b.npy", "c.npy"],
            "record_id": ["r1", "r2", "r3"],
            "patient_id": ["p1", "p1", "p2"],
            "age": ["57", "58.5", ""],
            "sex": ["F", "female", "male"],
            "fold": ["1", "1", "2"],
            "recorded_at": ["2024-05-31 09:15:00", "", ""],
            "AFIB": ["1", "0", ""],
            "LBBB": ["True", "False", "true"],
        }
    )


@pytest.fixture
def folder(tmp_path: Path, table: pd.DataFrame) -> Path:
    for seed, name in enumerate(table["signal"]):
        np.save(tmp_path / name, microvolts(seed))
    return tmp_path


def write(folder: Path, table: pd.DataFrame, name: str = "records.csv") -> Path:
    path = folder / name
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path


def read_all(reader: OwnRecordsReader) -> list[Record | Rejected]:
    outcomes = list(reader.read(range(len(reader))))
    assert len(outcomes) == len(reader)
    return outcomes


def read(folder: Path, table: pd.DataFrame, **arguments) -> list[Record | Rejected]:
    return read_all(OwnRecordsReader(write(folder, table), **{"files": FILES, **arguments}))


def rejected(outcome: Record | Rejected) -> str:
    assert isinstance(outcome, Rejected), outcome
    return outcome.reason


def test_a_row_becomes_a_record_with_all_that_it_says(folder, table):
    first, second, third = read(folder, table, labels=["AFIB", "LBBB"])
    assert isinstance(first, Record)
    assert np.array_equal(first.signal, (microvolts(0) / 1000).astype(np.float32))
    assert (first.record_id, first.patient_id, first.age, first.sex, first.fold) == ("r1", "p1", 57, FEMALE, 1)
    assert (first.recorded_at, first.leads, first.sampling_rate) == ("2024-05-31T09:15:00", LEADS, 500)
    assert first.codes == {"AFIB": 0, "LBBB": 0}
    assert first.notes == ()
    assert (second.age, second.sex, second.codes) == (58.5, FEMALE, {})
    assert (third.age, third.sex, third.codes, third.notes) == (None, MALE, {"LBBB": 0}, ())


def test_parquet_with_types_gives_the_same_records_as_csv(folder, table):
    typed = table.assign(
        age=[57.0, 58.5, None],
        fold=pd.array([1, 1, 2]),
        recorded_at=pd.to_datetime(["2024-05-31 09:15:00", None, None]),
        AFIB=pd.array([1, 0, None], dtype="Int8"),
        LBBB=[True, False, True],
    )
    of_csv = read(folder, table, labels=["AFIB", "LBBB"])
    of_parquet = read_all(OwnRecordsReader(write(folder, typed, "t.parquet"), labels=["AFIB", "LBBB"], files=FILES))
    for mine, other in zip(of_csv, of_parquet, strict=True):
        assert isinstance(mine, Record)
        assert np.array_equal(mine.signal, other.signal)
        assert {**vars(mine), "signal": None} == {**vars(other), "signal": None}


def test_columns_of_other_names_are_mapped(folder, table):
    names = {"signal": "file", "record_id": "study", "patient_id": "patient", "age": "years", "sex": "gender"}
    renamed = table.rename(columns=names)
    outcomes = read(folder, renamed, columns=Columns(**names))
    assert [(one.record_id, one.patient_id, one.age, one.sex) for one in outcomes] == [
        ("r1", "p1", 57, FEMALE),
        ("r2", "p1", 58.5, FEMALE),
        ("r3", "p2", None, MALE),
    ]


def test_a_mapped_column_that_is_not_there_is_an_error_with_the_nearest_name(folder, table):
    with pytest.raises(ConfigurationError, match=r"columns\.age names 'agee', no column of .* Did you mean 'age'"):
        read(folder, table, columns=Columns(age="agee"))
    with pytest.raises(ConfigurationError, match=r"columns\.signal names 'signal'"):
        read(folder, table.rename(columns={"signal": "path"}))
    with pytest.raises(ConfigurationError, match=r"labels names 'LBB', no column of .* Did you mean 'LBBB'"):
        read(folder, table, labels=["LBB"])


def test_a_column_of_nearly_a_fields_name_is_not_overlooked(folder, table):
    with pytest.raises(ConfigurationError, match="no column 'patient_id' but 'PatientID'"):
        read(folder, table.rename(columns={"patient_id": "PatientID"}))


def test_null_leaves_a_field_out(folder, table):
    for outcome in read(folder, table, columns=Columns(age=None, sex=None, fold=None)):
        assert (outcome.age, outcome.sex, outcome.fold) == (None, None, None)


def test_without_a_column_of_patients_each_record_is_a_patient_and_says_so(folder, table):
    outcomes = read(folder, table.drop(columns="patient_id"))
    assert [one.patient_id for one in outcomes] == ["r1", "r2", "r3"]
    assert {one.notes for one in outcomes} == {
        ("patient unknown: the table has no column of patients; taken as a patient of its own.",)
    }


def test_without_a_column_of_ids_the_path_is_the_id(folder, table):
    table.loc[2, "signal"] = "a.npy"
    outcomes = read(folder, table.drop(columns="record_id"))
    assert [one.record_id for one in outcomes] == ["a.npy", "b.npy", "a.npy"]
    assert rejected(outcomes[2]).startswith("record_id there twice: rows 1 and 3 of records.csv have a.npy")


def test_of_two_rows_of_one_id_the_first_is_kept(folder, table):
    table.loc[1, "record_id"] = "r1"
    outcomes = read(folder, table)
    assert isinstance(outcomes[0], Record)
    assert rejected(outcomes[1]) == ("record_id there twice: rows 1 and 2 of records.csv have r1; the first is kept.")


def test_a_row_without_an_id_or_a_patient_is_rejected(folder, table):
    table.loc[0, "record_id"] = ""
    table.loc[1, "patient_id"] = "nan"
    outcomes = read(folder, table)
    assert (outcomes[0].record_id, outcomes[1].record_id) == ("row 1", "r2")
    assert rejected(outcomes[0]).startswith("identity missing: row 1 of records.csv")
    assert rejected(outcomes[1]).startswith("patient missing: r2")


def test_patients_saved_as_decimals_are_the_same_patients(folder, table):
    table["patient_id"] = ["57", "57.0", "58"]
    assert [one.patient_id for one in read(folder, table)] == ["57", "57", "58"]


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("age", "-1", "age implausible"),
        ("age", "200", "age implausible"),
        ("age", "NaN", None),
        ("age", "", None),
        ("sex", "Unknown", None),
        ("sex", "", None),
        ("sex", "3", "sex unknown"),
        ("fold", "0", "fold unusable"),
        ("fold", "train", "fold unusable"),
        ("recorded_at", "31.05.2024", "date unreadable"),
    ],
)
def test_a_value_that_can_not_be_true_is_missing_and_noted(folder, table, column, value, kind):
    table.loc[0, column] = value
    outcome = read(folder, table)[0]
    assert getattr(outcome, column) is None
    assert [note.split(":")[0] for note in outcome.notes] == ([kind] if kind else [])


def test_sexes_are_spelled_as_the_mapping_says(folder, table):
    table["sex"] = ["1", "2", "female"]
    outcomes = read(folder, table, sexes={"1": "male", "2": "female"})
    assert [one.sex for one in outcomes] == [MALE, FEMALE, None]
    assert outcomes[2].notes[0].startswith("sex unknown: female, expected 1 (male), 2 (female)")
    with pytest.raises(ConfigurationError, match="sexes gives '2' the value 'f': expected male or female"):
        read(folder, table, sexes={"2": "f"})


def test_a_label_that_is_neither_yes_nor_no_is_not_positive_and_noted(folder, table):
    table.loc[0, "AFIB"] = "0.7"
    outcome = read(folder, table, labels=["AFIB"])[0]
    assert outcome.codes == {}
    assert outcome.notes[0].startswith("label unreadable: AFIB is 0.7")


def test_codes_in_one_column_become_labels(folder, table):
    table["codes"] = ["AFIB; LBBB", '{"AFIB": 80, "RBBB": 0}', ""]
    reader = OwnRecordsReader(write(folder, table), files=FILES)
    assert [one.codes for one in read_all(reader)] == [{"AFIB": 0, "LBBB": 0}, {"AFIB": 80, "RBBB": 0}, {}]
    assert reader.label_sets == {"all": {code: (code,) for code in ("AFIB", "LBBB", "RBBB")}}


def test_codes_that_can_not_be_read_reject_the_record_and_not_its_diagnosis(folder, table):
    table["codes"] = ["{'AFIB': 'high'}", "{oops", "AFIB"]
    outcomes = read(folder, table)
    assert [rejected(one).split(":")[0] for one in outcomes[:2]] == ["codes unreadable", "codes unreadable"]
    assert outcomes[2].codes == {"AFIB": 0}


@pytest.mark.parametrize(
    "text", ["{'AFIB': -1}", "{'AFIB': 101}", "{1: 100}", "{'AFIB': True}", "{'AFIB': None}", "{'A'}"]
)
def test_a_likelihood_is_a_number_of_percent(text):
    with pytest.raises(RecordError, match="codes unreadable"):
        parse_codes(text)


def test_lists_and_maps_of_parquet_are_codes(folder, table):
    table["codes"] = [["AFIB", "LBBB"], [], None]
    outcomes = read_all(OwnRecordsReader(write(folder, table, "t.parquet"), files=FILES))
    assert [one.codes for one in outcomes] == [{"AFIB": 0, "LBBB": 0}, {}, {}]


def test_label_sets_group_codes_beside_the_set_of_all(folder, table):
    sets = {"conduction": {"block": ["LBBB", "RBBB"]}}
    with pytest.raises(ConfigurationError, match=r"label_sets\.conduction\.block names 'RBBB'.* Did you mean 'LBBB'"):
        read(folder, table, labels=["AFIB", "LBBB"], label_sets=sets)
    table["RBBB"] = "0"
    reader = OwnRecordsReader(write(folder, table), labels=["AFIB", "LBBB", "RBBB"], label_sets=sets, files=FILES)
    assert list(reader.label_sets["all"]) == ["AFIB", "LBBB", "RBBB"]
    assert reader.label_sets["conduction"] == {"block": ("LBBB", "RBBB")}


def test_a_table_without_labels_has_an_empty_set(folder, table):
    assert OwnRecordsReader(write(folder, table), files=FILES).label_sets == {"all": {}}


def test_a_row_states_its_own_sampling_rate(folder, table):
    table["sampling_rate"] = ["250", "", "-5"]
    outcomes = read(folder, table)
    assert [outcomes[0].sampling_rate, outcomes[1].sampling_rate] == [250, 500]
    assert rejected(outcomes[2]) == "sampling rate unusable: -5, expected a positive number of Hz."


def test_a_wfdb_record_of_another_rate_than_the_table_says_is_rejected(folder, table):
    wfdb.wrsamp("d", 250, ["mV"], ["II"], np.ones((100, 1)), fmt=["16"], write_dir=str(folder))
    table.loc[0, "signal"] = "d"
    assert read(folder, table)[0].sampling_rate == 250
    table["sampling_rate"] = "500"
    assert rejected(read(folder, table)[0]) == (
        "sampling rate contradicts itself: r1 has 250 Hz in its file, 500 Hz in the table."
    )


def test_signals_may_be_in_another_folder_but_not_outside_it(folder, table, tmp_path):
    (tmp_path / "tables").mkdir()
    table.loc[1, "signal"] = "../b.npy"
    table.loc[2, "signal"] = str(tmp_path / "c.npy")
    reader = OwnRecordsReader(write(tmp_path / "tables", table), signals=str(folder), files=FILES)
    outcomes = read_all(reader)
    assert isinstance(outcomes[0], Record)
    assert [rejected(one).split(":")[0] for one in outcomes[1:]] == ["path not allowed", "path not allowed"]
    with pytest.raises(ConfigurationError, match=r"signals is .*nowhere"):
        OwnRecordsReader(write(tmp_path / "tables", table), signals=tmp_path / "nowhere")


def test_a_bad_file_costs_its_record_alone(folder, table):
    (folder / "a.npy").unlink()
    np.save(folder / "b.npy", np.zeros((11, 100)))
    outcomes = read(folder, table)
    assert rejected(outcomes[0]).startswith("file missing: there is no a.npy")
    assert rejected(outcomes[1]).startswith("wrong shape: b.npy is (11, 100)")
    assert isinstance(outcomes[2], Record)


def test_signals_that_are_no_lead_are_noted(folder, table):
    (folder / "d.csv").write_text("time,II,resp\n0,1,5\n1,2,5\n")
    table.loc[0, "signal"] = "d.csv"
    outcome = read(folder, table)[0]
    assert outcome.leads == ("II",)
    assert outcome.notes == ("other signals: resp are no standard leads; left out.",)


def test_rows_are_read_in_any_order_and_more_than_once(folder, table):
    reader = OwnRecordsReader(write(folder, table), files=FILES)
    assert [one.record_id for one in reader.read([2, 0, 2])] == ["r3", "r1", "r3"]


def test_a_worker_gets_the_reader_without_its_table_and_reads_the_same(folder, table):
    reader = OwnRecordsReader(
        write(folder, table), labels=["AFIB"], sexes={"f": "female"}, files=FILES, label_sets={"x": {"y": ["AFIB"]}}
    )
    copy = pickle.loads(pickle.dumps(reader))  # noqa: S301 - pickled here
    assert len(pickle.dumps(reader)) < 2000
    assert (copy.fingerprint, copy.label_sets) == (reader.fingerprint, reader.label_sets)
    for mine, other in zip(read_all(reader), read_all(copy), strict=True):
        assert {**vars(mine), "signal": None} == {**vars(other), "signal": None}
        assert np.array_equal(mine.signal, other.signal)


def test_a_worker_does_not_go_on_with_a_table_that_changed(folder, table):
    pickled = pickle.dumps(OwnRecordsReader(write(folder, table)))
    write(folder, table.head(1))
    with pytest.raises(SourceError, match="changed while it was read"):
        pickle.loads(pickled)  # noqa: S301 - pickled three lines above


def test_the_fingerprint_follows_the_table_and_the_arguments(folder, table):
    path = write(folder, table)
    same = [OwnRecordsReader(path, files=FILES).fingerprint for _ in range(2)]
    others = [
        OwnRecordsReader(path).fingerprint,
        OwnRecordsReader(path, files=FILES, labels=["AFIB"]).fingerprint,
        OwnRecordsReader(write(folder, table.head(2)), files=FILES).fingerprint,
    ]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 4


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="There is no table"):
        OwnRecordsReader(tmp_path / "nowhere" / "records.csv")


def prepare_records(store: str, **options: Any) -> OwnRecordsReader:
    """As the verb of the command line, without the store."""
    assert store == "stores/own_records"
    return OwnRecordsReader(**options)


def test_the_example_configuration_reads_the_records_it_describes(tmp_path, monkeypatch):
    config = EXAMPLE.resolve()
    monkeypatch.chdir(tmp_path)
    Path("my_records").mkdir()
    rows = {"file": ["a.npy"], "study": ["s"], "patient": [7], "age_years": [81], "gender": [2]}
    pd.DataFrame(rows | {"AFIB": [1], "LBBB": [0], "RBBB": [1]}).to_csv("my_records/records.csv", index=False)
    np.save("my_records/a.npy", microvolts(0))
    flags = ["--config", str(config), "--name", "Hospital", "--columns.fold", "null"]
    reader = jsonargparse.auto_cli(prepare_records, args=flags)
    (outcome,) = read_all(reader)
    assert isinstance(outcome, Record), outcome
    assert np.array_equal(outcome.signal, (microvolts(0) / 1000).astype(np.float32))
    assert (outcome.record_id, outcome.patient_id, outcome.age, outcome.sex) == ("s", "7", 81, FEMALE)
    assert outcome.codes == {"AFIB": 0, "RBBB": 0}
    assert reader.source_name == "Hospital"
    assert reader.label_sets["conduction"] == {"bundle branch block": ("LBBB", "RBBB")}
