"""Code15Reader: what it reads, and what becomes of every way in which a download can be wrong."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from data_modules.readers.code15 import Code15Reader
from data_modules.records import Record, Rejected
from ecgfair.ecg import FEMALE, LEADS, MALE
from ecgfair.errors import SourceError
from tests.data_modules.code15_source import (
    SAMPLES,
    SHORT,
    exam,
    make_source,
    padded,
    tracing,
    write_exams,
    write_part,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "code15")


def read_all(source: Path) -> dict[str, Record | Rejected]:
    """Read every entry, by its id; of several entries with one id the last."""
    reader = Code15Reader(source)
    outcomes = list(reader.read(range(len(reader))))
    assert len(outcomes) == len(reader)
    return {outcome.record_id: outcome for outcome in outcomes}


def record(source: Path, exam_id: int) -> Record:
    outcome = read_all(source)[str(exam_id)]
    assert isinstance(outcome, Record), outcome
    return outcome


def reason(source: Path, exam_id: int | str) -> str:
    outcome = read_all(source)[str(exam_id)]
    assert isinstance(outcome, Rejected), outcome
    return outcome.reason


def one_exam(folder: Path, signal: np.ndarray, **cells: object) -> Path:
    """A source of the one exam 11, in part 0."""
    folder.mkdir()
    write_part(folder / "exams_part0.hdf5", {11: signal}, filler=False)
    write_exams(folder, [exam(11, **cells)])
    return folder


def set_cell(source: Path, exam_id: int, column: str, value: object) -> None:
    table = pd.read_csv(source / "exams.csv", dtype=str, keep_default_na=False)
    table.loc[table["exam_id"] == str(exam_id), column] = str(value)
    table.to_csv(source / "exams.csv", index=False)


def test_an_exam_is_read_in_millivolts_with_the_published_leads(source):
    read = record(source, 11)
    assert np.array_equal(read.signal, tracing(11).T)
    assert read.signal.dtype == np.float32
    assert (read.leads, read.sampling_rate) == (LEADS, 400)
    assert (read.patient_id, read.age, read.sex, read.fold, read.recorded_at) == ("1011", 50, MALE, None, None)
    assert read.notes == ()


def test_labels_are_stated_without_a_likelihood(source):
    assert record(source, 22).codes == {"RBBB": 0, "AF": 0}
    assert record(source, 11).codes == {"NORMAL": 0}


def test_label_sets_are_the_six_abnormalities_and_all_with_normal(source):
    sets = Code15Reader(source).label_sets
    assert list(sets["abnormalities"]) == ["1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"]
    assert list(sets["all"]) == ["1dAVb", "RBBB", "LBBB", "SB", "ST", "AF", "NORMAL"]


def test_is_male_false_is_female(source):
    assert (record(source, 22).sex, record(source, 22).age) == (FEMALE, 81)


def test_exams_of_one_patient_share_their_patient_id(source):
    assert record(source, 11).patient_id == record(source, 13).patient_id


def test_zeros_that_fill_up_a_short_tracing_are_removed_at_both_ends(source):
    assert np.array_equal(record(source, 12).signal, tracing(12, SHORT).T)


def test_zeros_inside_and_in_single_leads_are_kept(tmp_path):
    signal = tracing(5, SHORT)
    signal[100:200] = 0
    signal[:50, :11] = 0
    signal[-50:, 1:] = 0
    assert np.array_equal(record(one_exam(tmp_path / "source", padded(signal)), 11).signal, signal.T)


def test_a_lead_that_is_nan_throughout_stays_nan_between_the_zeros(tmp_path):
    signal = tracing(5, SHORT)
    signal[:, 7] = np.nan
    assert np.array_equal(record(one_exam(tmp_path / "source", padded(signal)), 11).signal, signal.T, equal_nan=True)


def test_an_infinite_sample_is_not_recorded_and_noted(tmp_path):
    signal = tracing(5)
    signal[3, 8] = np.inf
    read = record(one_exam(tmp_path / "source", signal), 11)
    assert np.isnan(read.signal[8, 3])
    assert read.notes == ("samples infinite: 1 samples; taken as not recorded.",)


def test_entries_are_read_in_any_order_and_more_than_once(source):
    reader = Code15Reader(source)
    whole = list(reader.read(range(len(reader))))
    order = [5, 0, 3, 0, len(reader) - 1, 1]
    for read, position in zip(reader.read(order), order, strict=True):
        assert read.record_id == whole[position].record_id
        if isinstance(read, Record):
            assert np.array_equal(read.signal, whole[position].signal)


def test_the_table_comes_first_in_its_own_order(source):
    reader = Code15Reader(source)
    assert [read.record_id for read in reader.read(range(6))] == ["22", "11", "13", "21", "12", "23"]


def test_every_row_and_every_tracing_is_accounted_for(source):
    write_part(source / "exams_part2.hdf5", {31: tracing(31), 22: tracing(22), 11: tracing(11)})
    reader = Code15Reader(source)
    outcomes = list(reader.read(range(len(reader))))
    kinds = Counter(read.reason.split(":")[0] for read in outcomes if isinstance(read, Rejected))
    assert kinds == {"filler row": 3, "not in exams.csv": 1, "tracing there twice": 2}
    assert sum(isinstance(read, Record) for read in outcomes) == 6
    # Nine tracings and three fillers: each is read, or rejected once.
    assert len(outcomes) == 12


def test_the_row_of_zeros_that_ends_a_part_is_rejected_as_no_exam(source):
    assert reason(source, 0).startswith("filler row: exams_part1.hdf5 tracings[3] has exam_id 0")


def test_an_exam_0_that_has_a_signal_is_not_taken_for_filler(source):
    write_part(source / "exams_part1.hdf5", {0: tracing(0)}, filler=False)
    write_part(source / "exams_part0.hdf5", {11: tracing(0)}, filler=False)
    assert reason(source, 0).startswith("not in exams.csv: exam 0, exams_part1.hdf5 tracings[0]")


def test_exams_of_a_missing_part_say_which(source):
    (source / "exams_part1.hdf5").unlink()
    assert reason(source, 23).startswith("part missing: exams_part1.hdf5, which exams.csv names for exam 23.")
    assert isinstance(read_all(source)["11"], Record)


def test_a_source_without_any_part_rejects_every_exam(source):
    for path in source.glob("*.hdf5"):
        path.unlink()
    assert {read.reason.split(":")[0] for read in read_all(source).values()} == {"part missing"}


def test_an_exam_that_no_part_holds_is_rejected_by_name(source):
    set_cell(source, 12, "exam_id", 99)
    outcomes = read_all(source)
    assert outcomes["99"].reason == "exam not found: no part holds exam 99, exams.csv says exams_part0.hdf5."
    assert outcomes["12"].reason.startswith("not in exams.csv: exam 12, exams_part0.hdf5 tracings[1]")


def test_an_exam_in_another_part_than_the_table_says_is_read_and_noted(source):
    set_cell(source, 12, "trace_file", "exams_part1.hdf5")
    assert np.array_equal(record(source, 12).signal, tracing(12, SHORT).T)
    assert record(source, 12).notes == (
        "trace_file wrong: exam 12 is in exams_part0.hdf5, exams.csv says 'exams_part1.hdf5'.",
    )


def test_of_two_tracings_of_an_exam_the_one_in_the_part_its_row_names_is_kept(source):
    write_part(source / "exams_part0.hdf5", {21: tracing(99), 11: tracing(11)}, filler=False)
    reader = Code15Reader(source)
    outcomes = [read for read in reader.read(range(len(reader))) if read.record_id == "21"]
    assert isinstance(outcomes[0], Record)
    assert np.array_equal(outcomes[0].signal, tracing(21).T)
    assert outcomes[1:] == [
        Rejected(
            "21",
            "tracing there twice: exam 21 is in exams_part1.hdf5 tracings[0] and exams_part0.hdf5 tracings[0]; "
            "the first is kept.",
        )
    ]


def test_a_trace_file_elsewhere_on_the_machine_is_never_opened(source, tmp_path):
    write_part(tmp_path / "exams_part9.hdf5", {12: tracing(12)})
    write_part(source / "exams_part0.hdf5", {11: tracing(11), 13: tracing(13)})
    set_cell(source, 12, "trace_file", "../exams_part9.hdf5")
    assert reason(source, 12).startswith("part missing: ../exams_part9.hdf5")


def test_a_part_cut_short_rejects_its_exams_and_no_others(source):
    part = source / "exams_part0.hdf5"
    os.truncate(part, part.stat().st_size // 2)
    assert reason(source, 12) == "part damaged: exams_part0.hdf5 is cut short; download it again."
    assert isinstance(read_all(source)["21"], Record)


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"PK\x03\x04 a zip renamed"])
def test_a_part_that_is_no_hdf5_is_damaged(source, content):
    (source / "exams_part0.hdf5").write_bytes(content)
    assert reason(source, 12).startswith("part damaged: exams_part0.hdf5 is no HDF5 file")


def test_bytes_that_can_not_be_decompressed_cost_one_exam(source):
    path = source / "exams_part0.hdf5"
    with h5py.File(path, "w") as file:
        file["exam_id"] = [11, 12, 13]
        stored = np.stack([tracing(11), padded(tracing(12, SHORT)), tracing(13)])
        file.create_dataset("tracings", data=stored, chunks=(1, SAMPLES, 12), compression="gzip")
        chunk = file["tracings"].id.get_chunk_info(1)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * 100)
    assert reason(source, 12).startswith("tracing unreadable: exams_part0.hdf5 tracings[1] is damaged")
    assert np.array_equal(record(source, 13).signal, tracing(13).T)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3, SAMPLES, 11), "f4"), ((3, 12), "f4"), ((3, SAMPLES, 12), "i2"), ((2, SAMPLES, 12), "f4")]
)
def test_a_part_of_another_layout_is_rejected_with_what_it_has(source, shape, dtype):
    with h5py.File(source / "exams_part0.hdf5", "w") as file:
        file["exam_id"] = [11, 12, 13]
        file["tracings"] = np.ones(shape, dtype)
    assert reason(source, 12).startswith("part damaged: exams_part0.hdf5 has ")
    assert str(shape) in reason(source, 12) or "2 tracings" in reason(source, 12)


def test_a_part_without_ids_is_rejected(source):
    with h5py.File(source / "exams_part0.hdf5", "w") as file:
        file["tracings"] = np.ones((3, SAMPLES, 12), "f4")
    assert (
        reason(source, 12) == "part damaged: exams_part0.hdf5 has no data set 'exam_id' of its own; download it again."
    )


def test_a_part_that_links_to_another_file_is_not_followed(source, tmp_path):
    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["tracings"] = np.ones((3, SAMPLES, 12), "f4")
    with h5py.File(source / "exams_part0.hdf5", "w") as file:
        file["exam_id"] = [11, 12, 13]
        file["tracings"] = h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "tracings")
    assert "has no data set 'tracings' of its own" in reason(source, 12)


def test_an_exam_of_zeros_has_no_signal(tmp_path):
    source = one_exam(tmp_path / "source", np.zeros((SAMPLES, 12), np.float32))
    assert reason(source, 11) == "no signal: exam 11, exams_part0.hdf5 tracings[0], holds only zeros."


def test_of_two_rows_of_an_exam_the_first_is_kept(source):
    set_cell(source, 13, "exam_id", 11)
    reader = Code15Reader(source)
    outcomes = [read for read in reader.read(range(len(reader))) if read.record_id == "11"]
    assert isinstance(outcomes[0], Record)
    assert outcomes[1].reason == ("exam_id there twice: rows 2 and 3 of exams.csv have exam_id 11; the first is kept.")


def test_an_exam_without_a_patient_or_an_id_is_rejected(source):
    set_cell(source, 11, "patient_id", "")
    set_cell(source, 12, "exam_id", "")
    assert reason(source, 11).startswith("patient missing: exam 11 has no patient_id")
    assert reason(source, "row 5").startswith("identity missing: row 5 of exams.csv")


@pytest.mark.parametrize(("age", "note"), [("-1", True), ("131", True), ("NaN", False), ("", False)])
def test_an_age_that_nobody_has_is_missing_and_noted_if_stated(source, age, note):
    set_cell(source, 11, "age", age)
    read = record(source, 11)
    assert read.age is None
    assert [text.split(":")[0] for text in read.notes] == (["age implausible"] if note else [])


@pytest.mark.parametrize(("sex", "note"), [("", False), ("Unknown", False), ("maybe", True)])
def test_a_sex_that_is_neither_is_missing_and_noted_if_stated(source, sex, note):
    set_cell(source, 11, "is_male", sex)
    read = record(source, 11)
    assert read.sex is None
    assert [text.split(":")[0] for text in read.notes] == (["sex unknown"] if note else [])


def test_a_label_that_is_empty_or_neither_is_not_positive_and_noted(source):
    set_cell(source, 22, "AF", "")
    set_cell(source, 22, "RBBB", "0.7")
    read = record(source, 22)
    assert read.codes == {}
    assert sorted(text.split(":")[0] for text in read.notes) == ["label missing", "label unreadable"]


def test_ids_saved_as_decimals_are_the_same_ids(source):
    table = pd.read_csv(source / "exams.csv", dtype=str, keep_default_na=False)
    table["exam_id"] += ".0"
    table["patient_id"] += ".0"
    table.to_csv(source / "exams.csv", index=False)
    assert record(source, 11).patient_id == "1011"


def test_leads_in_another_order_than_published_are_doubted(tmp_path):
    swapped = tracing(5)[:, [0, 1, 2, 3, 5, 4, *range(6, 12)]]
    read = record(one_exam(tmp_path / "source", swapped), 11)
    assert np.array_equal(read.signal, swapped.T)
    (note,) = read.notes
    assert note.startswith("lead order doubtful: ")
    assert "I, II, III, aVR, aVF, aVL" in note


def test_a_worker_gets_the_reader_without_its_tables_and_reads_the_same(source):
    reader = Code15Reader(source)
    pickled = pickle.dumps(reader)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)  # noqa: S301 - pickled two lines above
    assert copy.fingerprint == reader.fingerprint
    for mine, others in zip(reader.read(range(len(reader))), copy.read(range(len(reader))), strict=True):
        assert type(mine) is type(others)
        assert mine.record_id == others.record_id


def test_a_worker_does_not_go_on_with_a_source_that_changed(source):
    pickled = pickle.dumps(Code15Reader(source))
    set_cell(source, 11, "exam_id", 7)
    with pytest.raises(SourceError, match="changed while it was read"):
        pickle.loads(pickled)  # noqa: S301 - pickled three lines above


def test_the_fingerprint_follows_the_table_and_the_parts(source):
    before = Code15Reader(source).fingerprint
    assert Code15Reader(source).fingerprint == before
    set_cell(source, 11, "age", 51)
    changed = Code15Reader(source).fingerprint
    (source / "exams_part1.hdf5").unlink()
    assert len({before, changed, Code15Reader(source).fingerprint}) == 3


def test_a_folder_without_the_table_says_where_to_get_it(tmp_path):
    with pytest.raises(SourceError, match=r"No exams.csv in .*zenodo"):
        Code15Reader(tmp_path)


def test_a_table_without_a_column_names_it(source):
    pd.read_csv(source / "exams.csv").drop(columns=["is_male", "AF"]).to_csv(source / "exams.csv", index=False)
    with pytest.raises(SourceError, match=r"exams.csv lacks is_male, AF"):
        Code15Reader(source)


def test_a_table_that_ends_in_the_middle_of_a_row_keeps_the_rows_before(source):
    text = (source / "exams.csv").read_text()
    (source / "exams.csv").write_text(text[: text.rindex(",1023,")])
    assert reason(source, 23).startswith("patient missing")
    assert isinstance(read_all(source)["12"], Record)


def test_parts_are_read_by_their_number(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for part in (10, 2):
        write_part(source / f"exams_part{part}.hdf5", {part: tracing(part)})
    write_exams(source, [])
    assert [read.record_id for read in Code15Reader(source).read(range(4))] == ["2", "0", "10", "0"]
