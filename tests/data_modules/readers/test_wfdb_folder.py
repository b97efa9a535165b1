"""WfdbFolderReader: every record below a folder, what its comments state, and the labels that its codes make."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.readers.label_table import read_label_table
from data_modules.readers.wfdb_folder import WfdbFolderReader
from data_modules.records import Record, Rejected
from ecgfair.ecg import FEMALE, LEADS, MALE
from ecgfair.errors import SourceError

COMMENTS = ["Age: 57", "Sex: Male", "Dx: 426783006,164889003", "Rx: Unknown"]


def write(folder: Path, name: str = "r1", comments: list[str] | None = None) -> None:
    """Write a record of 12 leads and 30 samples as wfdb does."""
    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        name,
        fs=500,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        d_signal=np.random.default_rng(0).integers(-1000, 1000, size=(30, 12)),
        fmt=["16"] * 12,
        adc_gain=[1000.0] * 12,
        baseline=[0] * 12,
        comments=COMMENTS if comments is None else comments,
        write_dir=str(folder),
    )


def read(source: Path, comments: list[str]) -> Record:
    names_patient = any(comment.startswith("Patient") for comment in comments)
    write(source, comments=comments if names_patient else [*comments, "Patient ID: 1"])
    (record,) = WfdbFolderReader(source).read([0])
    assert isinstance(record, Record), record
    return record


def outcomes(reader: WfdbFolderReader) -> list[Record | Rejected]:
    return list(reader.read(range(len(reader))))


def kinds(record: Record) -> list[str]:
    return [note.split(":")[0] for note in record.notes]


def test_a_record_is_read_with_what_its_comments_state(tmp_path: Path):
    record = read(tmp_path, ["Exam ID: 7", "Patient ID: 42", "Age: 81", "Sex: Female", "Chagas label: True"])
    assert np.array_equal(record.signal, wfdb.rdrecord(str(tmp_path / "r1")).p_signal.T.astype(np.float32))
    assert (record.record_id, record.patient_id, record.sampling_rate, record.leads) == ("r1", "42", 500, LEADS)
    assert (record.age, record.sex, record.codes, record.notes) == (81, FEMALE, {"Chagas": 0.0}, ())


@pytest.mark.parametrize("style", ["#{}: {}", "# {}: {}", "#{}:{}", "  #  {} :  {}  "])
def test_comments_are_understood_whatever_their_blanks_and_case(tmp_path: Path, style: str):
    write(tmp_path, comments=[])
    stated = {"AGE": "57", "sex": "M", "dX": "426783006, 164889003,426783006", "PATIENT  id": "p"}
    with (tmp_path / "r1.hea").open("a") as header:
        header.writelines(style.format(*item) + "\n" for item in stated.items())
    (record,) = WfdbFolderReader(tmp_path).read([0])
    assert isinstance(record, Record)
    assert (record.age, record.sex, record.patient_id) == (57, MALE, "p")
    assert record.codes == {"426783006": 0.0, "164889003": 0.0}


def test_records_of_all_subfolders_are_found_in_the_order_of_their_paths(tmp_path: Path):
    for place in ("b", "a/c", "."):
        write(tmp_path / place, "r1")
    reader = WfdbFolderReader(tmp_path)
    assert len(reader) == 3
    found = list(reader.read([2, 0, 1]))
    assert [record.record_id for record in found] == ["r1", "a/c/r1", "b/r1"]
    assert all(isinstance(record, Record) and record.patient_id == record.record_id for record in found)


def test_listing_reads_no_header(tmp_path: Path):
    write(tmp_path)
    os.mkfifo(tmp_path / "never-ends.hea")
    reader = WfdbFolderReader(tmp_path)
    assert (len(reader), len(reader.fingerprint)) == (2, 64)


@pytest.mark.parametrize(
    ("stated", "age", "noted"),
    [
        ("0", 0.0, []),
        ("57.5", 57.5, []),
        ("NaN", None, []),
        ("Unknown", None, []),
        ("", None, []),
        ("-5", None, ["age implausible"]),
        ("300", None, ["age implausible"]),
        ("old", None, ["age implausible"]),
    ],
)
def test_an_age_is_read_or_missing_and_noted_if_implausible(
    tmp_path: Path, stated: str, age: float | None, noted: list[str]
):
    record = read(tmp_path, [f"Age: {stated}"])
    assert (record.age, kinds(record)) == (age, noted)


@pytest.mark.parametrize(
    ("stated", "sex", "noted"),
    [
        ("M", MALE, []),
        ("F", FEMALE, []),
        ("male", MALE, []),
        ("Unknown", None, []),
        ("", None, []),
        ("1", None, ["sex unknown"]),
    ],
)
def test_a_sex_is_read_or_missing_and_noted_if_unknown(tmp_path: Path, stated: str, sex: int | None, noted: list[str]):
    record = read(tmp_path, [f"Sex: {stated}"])
    assert (record.sex, kinds(record)) == (sex, noted)


def test_comments_that_contradict_each_other_are_missing_and_noted(tmp_path: Path):
    record = read(tmp_path, ["Age: 57", "Sex: Male", "age: 58", "Sex: Male"])
    assert (record.age, record.sex) == (None, MALE)
    assert record.notes == ("comments contradict each other: age is 57 and 58; taken as missing.",)


def test_a_record_of_two_patients_is_rejected(tmp_path: Path):
    write(tmp_path, comments=["Patient ID: 1", "Patient ID: 2"])
    (outcome,) = WfdbFolderReader(tmp_path).read([0])
    assert outcome == Rejected("r1", "patient unclear: r1.hea names the patients 1, 2.")


def test_a_record_that_names_no_patient_is_one_of_its_own_and_says_so(tmp_path: Path):
    write(tmp_path, comments=["Age: 57"])
    (record,) = WfdbFolderReader(tmp_path).read([0])
    assert isinstance(record, Record)
    assert record.patient_id == "r1"
    assert record.notes == ("patient unknown: the header names none; taken as a patient of its own.",)


def test_an_unknown_code_stays_with_the_record_and_is_noted(tmp_path: Path):
    record = read(tmp_path, ["Dx: 426783006,12345,Unknown,", "Dx: XYZ"])
    assert list(record.codes) == ["426783006", "12345", "XYZ"]
    assert record.notes == tuple(
        f"unknown code: {code} is not in the table of labels, it is in no label set." for code in ("12345", "XYZ")
    )


@pytest.mark.parametrize(
    ("value", "codes", "noted"),
    [
        ("True", ["Chagas"], []),
        ("true", ["Chagas"], []),
        ("False", [], []),
        ("", [], []),
        ("2", [], ["label unreadable"]),
    ],
)
def test_a_boolean_label_is_a_code_where_it_is_true(tmp_path: Path, value: str, codes: list[str], noted: list[str]):
    record = read(tmp_path, [f"Chagas label: {value}"])
    assert (list(record.codes), kinds(record)) == (codes, noted)


def broken_header(folder: Path) -> None:
    (folder / "bad.hea").write_bytes(bytes(range(256)))


def link_out_of_the_folder(folder: Path) -> None:
    write(folder.parent / "elsewhere", "bad")
    for suffix in (".hea", ".dat"):
        (folder / f"bad{suffix}").symlink_to(folder.parent / "elsewhere" / f"bad{suffix}")


def name_in_no_encoding(folder: Path) -> None:
    write(folder, "bad")
    os.rename(folder / "bad.hea", os.fsencode(folder) + b"/bad\xff.hea")  # noqa: PTH104 - pathlib takes no bytes


@pytest.mark.parametrize(
    ("breaking", "reason"),
    [
        (broken_header, "header unreadable: bad.hea is not text"),
        (lambda folder: (folder / "bad.hea").touch(), "header unreadable: bad.hea is empty"),
        (lambda folder: (folder / "bad.hea").symlink_to("bad.hea"), "file missing: bad.hea can't be opened"),
        (lambda folder: (folder / "bad.hea").symlink_to("gone.hea"), "file missing: bad.hea can't be opened"),
        (link_out_of_the_folder, "link not followed: bad.hea leads out of the folder"),
        (name_in_no_encoding, "file name not allowed: 'bad"),
    ],
)
def test_what_can_not_be_read_is_rejected_and_the_rest_is_read(
    tmp_path: Path, breaking: Callable[[Path], object], reason: str
):
    source = tmp_path / "source"
    write(source, "a")
    write(source, "z")
    breaking(source)
    first, outcome, last = outcomes(WfdbFolderReader(source))
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert isinstance(outcome, Rejected)
    assert outcome.record_id in ("bad", "bad\N{REPLACEMENT CHARACTER}")
    assert outcome.reason.startswith(reason)
    assert str(tmp_path) not in outcome.reason


def test_a_link_to_a_folder_is_not_followed_and_not_forgotten(tmp_path: Path):
    write(tmp_path / "elsewhere", "x")
    write(tmp_path / "source", "r1")
    (tmp_path / "source" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source" / "round").symlink_to(tmp_path / "source")
    more, record, around = outcomes(WfdbFolderReader(tmp_path / "source"))
    assert isinstance(record, Record)
    for link, name in ((more, "more/"), (around, "round/")):
        assert isinstance(link, Rejected)
        assert link.record_id == name
        assert link.reason.startswith(f"link not followed: {name} is a link to a folder")


def test_a_missing_folder_and_one_without_records_are_named(tmp_path: Path):
    with pytest.raises(SourceError, match=r"No folder .*nowhere: expected one with WFDB records"):
        WfdbFolderReader(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"has no \.hea below it"):
        WfdbFolderReader(tmp_path)


def test_the_fingerprint_changes_with_what_is_there_and_with_the_labels(tmp_path: Path):
    source = tmp_path / "source"
    write(source, "a")
    seen = [WfdbFolderReader(source).fingerprint]
    assert WfdbFolderReader(source).fingerprint == seen[0]
    write(source, "b")
    seen.append(WfdbFolderReader(source).fingerprint)
    with (source / "b.hea").open("a") as header:
        header.write("# Age: 1\n")
    seen.append(WfdbFolderReader(source).fingerprint)
    os.utime(source / "b.hea", (1, 1))
    seen.append(WfdbFolderReader(source).fingerprint)
    (tmp_path / "labels.csv").write_text("code,label\nx,y\n")
    seen.append(WfdbFolderReader(source, tmp_path / "labels.csv").fingerprint)
    assert len(set(seen)) == len(seen)
    shutil.copytree(source, tmp_path / "copy")  # with its times
    assert WfdbFolderReader(tmp_path / "copy").fingerprint == seen[3]


def test_a_pickled_reader_is_small_and_reads_the_same_positions(tmp_path: Path):
    for name in "abc":
        write(tmp_path, name)
    pickled = pickle.dumps(WfdbFolderReader(tmp_path))
    assert len(pickled) < 1000
    (record,) = pickle.loads(pickled).read([1])  # noqa: S301 - made above
    assert record.record_id == "b"


def test_a_folder_changed_since_is_refused_where_positions_would_mean_other_records(tmp_path: Path):
    write(tmp_path, "b")
    pickled = pickle.dumps(WfdbFolderReader(tmp_path))
    write(tmp_path, "a")
    with pytest.raises(SourceError, match="changed while it was read"):
        pickle.loads(pickled)  # noqa: S301 - made above


def test_a_table_of_ones_own_makes_the_labels(tmp_path: Path):
    write(tmp_path / "source", comments=["Dx: a,c", "Patient ID: 1"])
    (tmp_path / "labels.csv").write_text("label,code,remark\nfirst,a,x\nfirst,b,\nother,d,\n")
    reader = WfdbFolderReader(tmp_path / "source", tmp_path / "labels.csv")
    assert reader.label_sets == {"all": {"first": ("a", "b"), "other": ("d",)}}
    (record,) = reader.read([0])
    assert isinstance(record, Record)
    assert record.notes == ("unknown code: c is not in the table of labels, it is in no label set.",)
    (tmp_path / "labels.csv").write_text("code,label,label_set\na,A,one\na,B,two\n")
    assert read_label_table(tmp_path / "labels.csv") == {"one": {"A": ("a",)}, "two": {"B": ("a",)}}


@pytest.fixture(scope="module")
def one_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    write(folder)
    return folder


@settings(deadline=None, max_examples=200)
@given(
    comments=st.lists(st.text(st.characters(codec="utf-8")) | st.sampled_from(["Age:", "Dx:,", " label: True", ": x"]))
)
def test_any_comments_give_a_record_or_a_reason(one_record: Path, comments: list[str]):
    header = one_record / "r1.hea"
    fields = [line for line in header.read_text().split("\n") if line.startswith("r1")]
    header.write_bytes("\n".join([*fields, *(f"# {comment}" for comment in comments)]).encode())
    (outcome,) = WfdbFolderReader(one_record).read([0])
    reasons = outcome.notes if isinstance(outcome, Record) else (outcome.reason,)
    assert all(re.match(r"[a-z][a-z ]*: ", reason) for reason in reasons)


@pytest.mark.data
@pytest.mark.parametrize(
    ("source", "found", "noted"),
    [
        ("cinc2021", 72, {"date unreadable": 72, "patient unknown": 72}),
        ("code400", 104, {"file renamed": 1}),
        ("cinc2011", 700, {"patient unknown": 700}),
        ("ptb", 1, {"patient unknown": 1, "other signals": 1}),
        ("mitbih", 1, {"patient unknown": 1}),
    ],
)
def test_every_real_record_is_read(real_data: Path, source: str, found: int, noted: dict[str, int]):
    records = outcomes(WfdbFolderReader(real_data / source))
    assert [outcome for outcome in records if isinstance(outcome, Rejected)] == []
    assert len(records) == found
    notes = [kind for record in records if isinstance(record, Record) for kind in kinds(record)]
    assert {kind: notes.count(kind) for kind in notes} == noted


@pytest.mark.data
def test_real_comments_are_read_as_they_stand(real_data: Path):
    records = {outcome.record_id: outcome for outcome in outcomes(WfdbFolderReader(real_data / "cinc2021"))}
    mended = records["Georgia/E09141"]  # wfdb refuses its header, which names the record E09141.mat
    assert isinstance(mended, Record)
    assert (mended.age, mended.sex, mended.codes) == (80, MALE, {"426783006": 0.0})
    raw = np.fromfile(real_data / "cinc2021" / "Georgia" / "E09141.mat", "<i2", offset=24).reshape(-1, 12)
    assert np.array_equal(mended.signal, (raw / 1000).T.astype(np.float32))
    worded = records["CPSC2018/A0015"]
    assert isinstance(worded, Record)
    assert (worded.age, worded.sex, worded.codes) == (41, FEMALE, {"RBBB": 0.0})
