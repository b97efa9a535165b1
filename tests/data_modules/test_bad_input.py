"""Bad input of every kind and from every source, as a user prepares it: each record is read, or rejected by name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.preparing import prepare as prepare_module
from data_modules.preparing.prepare import prepare
from data_modules.readers.code15 import Code15Reader
from data_modules.readers.own_records import OwnRecordsReader
from data_modules.readers.ptbxl import PtbXlReader
from data_modules.readers.wfdb_folder import WfdbFolderReader
from data_modules.records import Reader
from data_modules.stores.store import RecordStore
from data_modules.streaming.datamodules import EcgDataModule
from data_modules.synthetic_ecg import to_signal, truth
from ecgfair.ecg import LEADS, MISSING_SAMPLE, Preprocessing
from ecgfair.errors import SplitError
from tests.data_modules.made_sources import FIRST_PART, KINDS, Source, make_source, write_wfdb
from tests.data_modules.readers.test_wfdb_header import EDITS, mutated

ROOT = Path(__file__).parents[2]
BAD = 3
"""The record that is broken, where one is."""
DAY = 24 * 3600
WFDB = ("ptbxl", "wfdb", "records")
FILLERS = 2
"""Empty rows that end the parts of CODE-15 %: they are found, and rejected."""

Damage = Callable[[Source, int], None]


def header(pattern: str, replacement: str) -> Damage:
    return lambda source, number: source.edit_header(number, pattern, replacement)


def states(field: str, text: str) -> Damage:
    return lambda source, number: source.state(number, field, text)


def rewritten(signal: np.ndarray, leads: tuple[str, ...] = LEADS) -> Damage:
    return lambda source, number: source.rewrite(number, signal, leads)


def npy(signal: np.ndarray) -> Damage:
    return lambda source, number: source.save_npy(number, signal)


def truncated(source: Source, number: int) -> None:
    os.truncate(source.stem(number).with_suffix(".dat"), 1000)


def a_day_long(source: Source, number: int) -> None:
    source.edit_header(number, r"^(\S+ 12 100) 1000", rf"\1 {DAY * 100}")
    os.truncate(source.stem(number).with_suffix(".dat"), DAY * 100 * 12 * 2)  # sparse: no byte of it is on the disk


def a_day_long_npy(source: Source, number: int) -> None:
    np.lib.format.open_memmap(source.folder / f"{number}.npy", "w+", np.int16, (12, DAY * 100))
    source.state(number, "signal", f"{number}.npy")


def truncated_npy(source: Source, number: int) -> None:
    source.save_npy(number, to_signal(truth(number)))
    os.truncate(source.folder / f"{number}.npy", 1000)


def id_of_the_second(source: Source, number: int) -> None:
    source.state(number, "record_id", source.record_id(2))


def outside(source: Source) -> Path:
    """A whole record beside the source's folder, which a name that climbs would find."""
    stem = source.folder.parent / "outside"
    write_wfdb(stem, to_signal(truth(1)), [])
    np.save(stem.with_suffix(".npy"), to_signal(truth(1)))
    return stem


def climbing(source: Source, number: int) -> None:
    outside(source)
    source.state(number, "signal", "../outside")


def climbing_npy(source: Source, number: int) -> None:
    outside(source)
    source.state(number, "signal", "a/../../outside.npy")


def absolute(source: Source, number: int) -> None:
    source.state(number, "signal", str(outside(source)))


def climbing_header(source: Source, number: int) -> None:
    outside(source)
    source.edit_header(number, r"^\S+\.dat ", "../outside.dat ")


def linked_header(source: Source, number: int) -> None:
    path = source.stem(number).with_suffix(".hea")
    path.unlink()
    path.symlink_to(outside(source).with_suffix(".hea"))


def linked_npy(source: Source, number: int) -> None:
    (source.folder / f"{number}.npy").symlink_to(outside(source).with_suffix(".npy"))
    source.state(number, "signal", f"{number}.npy")


def tracing_of_no_number(source: Source, number: int) -> None:
    with h5py.File(source.second_part, "r+") as file:
        file["tracings"][number - len(FIRST_PART) - 1] = np.nan


ZERO = np.zeros((12, 1000), dtype=np.int64)
ONE = np.full((12, 1), 7)
ECG = to_signal(truth(BAD))


class Case(NamedTuple):
    name: str
    damage: Damage
    kinds: tuple[str, ...]
    said: str


REJECTED = [
    Case("truncated .dat", truncated, WFDB, "samples missing or left over"),
    Case("no .dat", lambda source, number: source.stem(number).with_suffix(".dat").unlink(), WFDB, "file missing"),
    Case("checksum", header(r"(1000.*) \S+ 0 II$", r"\1 12345 0 II"), WFDB, "signal damaged"),
    Case("NaN gain", header(r"1000(\.0)?\(0\)/mV", "nan(0)/mV"), WFDB, "gain unusable"),
    Case("zero gain", header(r"1000(\.0)?\(0\)/mV", "0(0)/mV"), WFDB, "gain unusable"),
    Case("more leads than announced", header(r"^(\S+) 12 ", r"\1 11 "), WFDB, "header contradicts itself"),
    Case("fewer leads than announced", header(r"^(\S+) 12 ", r"\1 13 "), WFDB, "header contradicts itself"),
    Case("a lead cut off", header(r"^(\S+) 12 ([^$]*)\n.* V6$", r"\1 11 \2"), WFDB, "samples missing or left over"),
    Case("eleven leads", rewritten(ECG[:11], LEADS[:11]), ("ptbxl",), "lead missing"),
    Case("eleven rows in .npy", npy(ECG[:11]), ("records",), "wrong shape"),
    Case("two leads of one name", header(r" V3$", " V2"), WFDB, "lead there twice"),
    Case("a lead under two names", header(r" V3$", " MV2"), WFDB, "lead there twice"),
    Case(
        "two columns of one name",
        lambda source, number: source.save_csv(number, "I,II,Lead II\n" + "1,2,3\n" * 1000),
        ("records",),
        "lead there twice",
    ),
    Case("1 sample", rewritten(ONE), ("ptbxl",), "length"),
    Case("1 sample", rewritten(ONE), ("wfdb", "records", "code15"), "too short"),
    Case("1 sample in .npy", npy(ONE), ("records",), "too short"),
    Case("no sample in .npy", npy(ONE[:, :0]), ("records",), "no signal"),
    Case("24 hours", a_day_long, WFDB, "too long"),
    Case("24 hours in .npy", a_day_long_npy, ("records",), "too long"),
    Case("all zero", rewritten(ZERO), KINDS, "no signal"),
    Case("all zero in .npy", npy(ZERO), ("records",), "no signal"),
    Case("no number", tracing_of_no_number, ("code15",), "no signal"),
    Case("no number in .npy", npy(np.full((12, 1000), np.nan)), ("records",), "no signal"),
    Case("truncated .npy", truncated_npy, ("records",), "signal unreadable"),
    Case("an exam that no part holds", states("record_id", "99"), ("code15",), "exam not found"),
    Case("record id there twice", id_of_the_second, ("ptbxl",), "ecg_id there twice"),
    Case("record id there twice", id_of_the_second, ("code15",), "exam_id there twice"),
    Case("record id there twice", id_of_the_second, ("records",), "record_id there twice"),
    Case("no record id", states("record_id", ""), ("ptbxl", "code15", "records"), "identity missing"),
    Case("no patient", states("patient_id", ""), ("ptbxl", "code15", "records"), "patient missing"),
    Case("a path that climbs", climbing, ("ptbxl",), "file name not allowed"),
    Case("a path that climbs", climbing, ("records",), "path not allowed"),
    Case("a path that climbs to .npy", climbing_npy, ("records",), "path not allowed"),
    Case("an absolute path", absolute, ("ptbxl",), "file name not allowed"),
    Case("an absolute path", absolute, ("records",), "path not allowed"),
    Case("a header that climbs", climbing_header, WFDB, "file name not allowed"),
    Case("a link out of the folder", linked_header, ("wfdb",), "link not followed"),
    Case("a link out of the folder", linked_header, ("records",), "path not allowed"),
    Case("a link to .npy out of the folder", linked_npy, ("records",), "path not allowed"),
]
"""What one record can be rejected for, and the kind of reason that is told."""

KEPT = [
    Case("negative age", states("age", "-5"), KINDS, "age implausible: -5"),
    Case("age NaN", states("age", "NaN"), KINDS, ""),
    Case("sex Unknown", states("sex", "Unknown"), KINDS, ""),
    Case("sex X", states("sex", "X"), KINDS, "sex unknown: X"),
]
"""What one record is kept in spite of, and the note that it then has, if any."""

RENAMED = {"record id there twice": 2, "an exam that no part holds": 99, "no record id": 0}
"""Cases in which a record has another id than its own: its number, 0 for none."""


def of_every_kind(cases: list[Case]) -> list[object]:
    return [pytest.param(kind, case, id=f"{kind}-{case.name}") for case in cases for kind in case.kinds]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Source, RecordStore]]:
    """A source of each kind without a fault, and its store."""
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        source = make_source(kind, folder / "source")
        assert source.prepare(folder / "store") == 0
        made[kind] = source, RecordStore(folder / "store")
    return made


@pytest.fixture
def copied(whole: dict[str, tuple[Source, RecordStore]], tmp_path: Path) -> Callable[[str], Source]:
    """Make a copy of the source of a kind, to be broken."""

    def copy(kind: str) -> Source:
        return replace(whole[kind][0], folder=Path(shutil.copytree(whole[kind][0].folder, tmp_path / "source")))

    return copy


Rows = dict[str, tuple[dict[str, object], bytes]]


def rows_of(store: RecordStore) -> Rows:
    """All that a store holds of each record: its row, and the bytes of its signal."""
    signals = store.gather(np.arange(len(store)))
    rows = store.records.to_pylist()
    return {row["record_id"]: (row, signal.tobytes()) for row, signal in zip(rows, signals, strict=True)}


def opened(store: Path, told: str, found: int) -> RecordStore:
    """Open a store that a command said it wrote, and see that all that was found is in it or among the rejected."""
    result = RecordStore(store)
    result.verify()
    assert f"{len(result)} of {found} records read, {result.rejected.num_rows} rejected" in told
    assert len(result) + result.rejected.num_rows == found
    return result


def reasons(store: RecordStore) -> dict[str, str]:
    """Why each record was rejected; but for the fillers of CODE-15 %, which are always there."""
    rejected = store.rejected.to_pylist()
    return {row["record_id"]: row["reason"] for row in rejected if not row["reason"].startswith("filler row")}


def told(stderr: str) -> list[str]:
    """What was said, but for the empty lines that a progress bar leaves where it is no terminal's."""
    return [line for line in stderr.splitlines() if line]


@pytest.mark.parametrize(("kind", "case"), of_every_kind(REJECTED))
def test_a_bad_record_is_rejected_by_name_and_the_others_are_untouched(
    whole, copied, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, case: Case
):
    source = copied(kind)
    case.damage(source, BAD)
    assert source.prepare(tmp_path / "store") == 0
    intact = rows_of(whole[kind][1])
    found = len(intact) + (FILLERS + (case.name in RENAMED) if kind == "code15" else 0)
    store = opened(tmp_path / "store", capfd.readouterr().out, found)
    named = RENAMED.get(case.name, BAD)
    expected = {source.record_id(named) if named else f"row {BAD}": case.said}
    if kind == "code15" and case.name in RENAMED:
        expected[str(BAD)] = "not in exams.csv"  # its tracing is still there, under the exam's own id
    assert {record: reason.split(":")[0] for record, reason in reasons(store).items()} == expected
    del intact[source.record_id(BAD)]
    assert rows_of(store) == intact


@pytest.mark.parametrize(("kind", "case"), of_every_kind(KEPT))
def test_a_person_nobody_can_be_is_kept_without_what_is_wrong(
    whole, copied, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, case: Case
):
    source = copied(kind)
    case.damage(source, BAD)
    assert source.prepare(tmp_path / "store") == 0
    expected = rows_of(whole[kind][1])
    store = opened(tmp_path / "store", capfd.readouterr().out, len(expected) + (FILLERS if kind == "code15" else 0))
    found = rows_of(store)
    row, _ = found[source.record_id(BAD)]
    notes = row["notes"]
    assert isinstance(notes, list)
    assert [note[: len(case.said)] for note in notes] == ([case.said] if case.said else [])
    field = case.name.split()[0].replace("negative", "age")
    assert row[field] is None
    assert expected[source.record_id(BAD)][0][field] is not None
    expected[source.record_id(BAD)][0].update({field: None, "notes": notes})
    assert found == expected


@pytest.mark.parametrize("kind", ["wfdb", "records"])
def test_a_lead_that_is_not_there_is_marked_as_missing_and_not_zero(copied, tmp_path: Path, kind: str):
    source = copied(kind)
    source.rewrite(BAD, ECG[:11], LEADS[:11])
    assert source.prepare(tmp_path / "store") == 0
    store = RecordStore(tmp_path / "store")
    assert store.records["missing_leads"].to_pylist() == [[], [], ["V6"], []]
    (stored,) = store.gather(np.array([BAD - 1]))
    assert np.array_equal(stored[:11], ECG[:11])
    assert (stored[11] == MISSING_SAMPLE).all()


def shaped(shape: tuple[int, ...], leads: int = 12) -> Callable[[Path], None]:
    def write(part: Path) -> None:
        with h5py.File(part, "r+") as file:
            del file["tracings"]
            file.create_dataset("tracings", (len(file["exam_id"]), *shape, leads), np.float32)

    return write


def linked_part(part: Path) -> None:
    """Have a part's tracings come from another file of this machine."""
    other = part.parent.parent / "outside.hdf5"
    shutil.copy(part, other)
    with h5py.File(part, "r+") as file:
        del file["tracings"]
        file["tracings"] = h5py.ExternalLink(str(other), "tracings")


PARTS = {
    "missing": (Path.unlink, "part missing"),
    "truncated": (lambda part: os.truncate(part, part.stat().st_size // 2), "part damaged"),
    "no HDF5": (lambda part: part.write_text("<html>404</html>"), "part damaged"),
    "empty": (lambda part: part.write_bytes(b""), "part damaged"),
    "eleven leads": (shaped((4096,), leads=11), "part damaged"),
    "24 hours": (shaped((DAY * 400,)), "part damaged"),
    "another axis": (shaped((4096, 1)), "part damaged"),
    "a link out of the folder": (linked_part, "part damaged"),
}


@pytest.mark.parametrize("damage", PARTS)
def test_the_exams_of_a_part_that_can_not_be_read_are_rejected_one_by_one(
    whole, copied, tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: str
):
    source = copied("code15")
    break_part, said = PARTS[damage]
    break_part(source.second_part)
    assert source.prepare(tmp_path / "store") == 0
    store = opened(tmp_path / "store", capfd.readouterr().out, 4 + 1)
    assert [(exam, reason.split(":")[0]) for exam, reason in reasons(store).items()] == [("3", said), ("4", said)]
    expected = rows_of(whole["code15"][1])
    assert rows_of(store) == {exam: expected[exam] for exam in ("1", "2")}


def test_a_tracing_that_is_not_the_one_of_a_row_is_found_and_rejected(
    whole, copied, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    source = copied("code15")
    with h5py.File(source.second_part, "r+") as file:
        file["exam_id"][1] = 1  # exam 4 is now another tracing of exam 1
        file["exam_id"][0] = 77  # and exam 3 one of an exam that is not in the table
    assert source.prepare(tmp_path / "store") == 0
    store = opened(tmp_path / "store", capfd.readouterr().out, 4 + 2 + FILLERS)
    kinds = {exam: reason.split(":")[0] for exam, reason in reasons(store).items()}
    assert kinds == {"3": "exam not found", "4": "exam not found"} | {
        "1": "tracing there twice",
        "77": "not in exams.csv",
    }
    assert set(rows_of(store)) == {"1", "2"}


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_it_at_once_is_told_apart_and_two_processes_write_the_same_bytes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
):
    monkeypatch.setattr(prepare_module, "CHUNK", 4)
    cases = [case for case in (*REJECTED, *KEPT) if kind in case.kinds and case.name not in RENAMED]
    source = make_source(kind, tmp_path / "source", records=len(cases) + BAD)
    for number, case in enumerate(cases, start=BAD):
        case.damage(source, number)
    for jobs in (1, 2):
        assert source.prepare(tmp_path / f"store{jobs}", jobs) == 0
        fillers = FILLERS if kind == "code15" else 0
        store = opened(tmp_path / f"store{jobs}", capfd.readouterr().out, source.records + fillers)
    contents = [{path.name: path.read_bytes() for path in (tmp_path / f"store{jobs}").iterdir()} for jobs in (1, 2)]
    assert contents[0] == contents[1]
    bad = {source.record_id(number): case for number, case in enumerate(cases, start=BAD) if case in REJECTED}
    assert {record: reason.split(":")[0] for record, reason in reasons(store).items()} == {
        record: case.said for record, case in bad.items()
    }
    listed = {source.record_id(number) for number in range(1, source.records + 1)}
    assert set(rows_of(store)) == listed - set(bad)


@pytest.mark.parametrize("kind", ["ptbxl", "records"])
def test_a_patient_in_two_folds_is_refused_by_name_before_anything_is_trained(copied, tmp_path: Path, kind: str):
    source = copied(kind)
    for number, fold in enumerate((1, 2, 3, 1), start=1):
        source.state(number, "fold", str(fold))
        source.state(number, "patient_id", f"p{number % 3}")
    source.state(4, "patient_id", "p2")
    assert source.prepare(tmp_path / "store") == 0
    module = EcgDataModule(str(tmp_path / "store"), train_folds=[1], validation_folds=[2], test_folds=[3])
    with pytest.raises(SplitError, match="1 patients have records in train and in validation, for example 'p2'"):
        module.split  # noqa: B018  # a property that the command line reads when it builds the model


FULL_DISK = """
import resource, sys
from ecgfair.__main__ import main

for command in sys.argv[1:]:
    room, *arguments = command.split("|")
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), resource.RLIM_INFINITY))
    print(main(arguments), flush=True)
"""


def test_a_full_disk_is_one_clear_line_and_leaves_nothing_behind(whole, tmp_path: Path):
    """Where not even the plan of a preparation finds room, and where it does and the signals do not."""
    places = {tmp_path / f"{kind}{room}": (kind, room) for kind in KINDS for room in (100, 50_000)}
    commands = [
        "|".join([str(room), "prepare", *whole[kind][0].arguments(place), "--jobs", "1"])
        for place, (kind, room) in places.items()
    ]
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *commands], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ended.stdout.split() == ["2"] * len(places)
    for place, line in zip(places, told(ended.stderr), strict=True):
        assert line.startswith(f"ecgfair: {place} can't be written")
        assert "make room" in line
    assert list(tmp_path.iterdir()) == []


def all_bad(source: Source) -> None:
    for number in range(1, source.records + 1):
        source.rewrite(number, ZERO)


WHOLE = [
    ("ptbxl", lambda source: shutil.rmtree(source.folder), "No folder"),
    ("ptbxl", lambda source: source.table.unlink(), "No ptbxl_database.csv in"),
    ("ptbxl", lambda source: source.table.write_bytes(b""), "ptbxl_database.csv can't be read as a table"),
    ("ptbxl", lambda source: source.table.write_bytes(b"\xff\x00"), "ptbxl_database.csv can't be read as a table"),
    ("ptbxl", lambda source: source.table.write_text("ecg_id\n1\n"), "lacks patient_id, age"),
    ("ptbxl", lambda source: os.truncate(source.table, source.table.read_text().index("\n") + 1), "lists no record"),
    ("ptbxl", lambda source: (source.folder / "scp_statements.csv").unlink(), "No scp_statements.csv in"),
    ("ptbxl", all_bad, "PTB-XL: all 4 records were rejected, so nothing was written."),
    ("wfdb", lambda source: shutil.rmtree(source.folder), "No folder"),
    ("wfdb", lambda source: [path.unlink() for path in source.folder.glob("*.hea")], "has no .hea below it"),
    ("wfdb", all_bad, "WFDB folder: all 4 records were rejected, so nothing was written."),
    ("code15", lambda source: shutil.rmtree(source.folder), "No exams.csv in"),
    ("code15", lambda source: source.table.unlink(), "No exams.csv in"),
    ("code15", lambda source: source.table.write_bytes(b"\xff\x00"), "exams.csv can't be read as a table"),
    ("code15", lambda source: source.table.write_text("exam_id,age\n1,50\n"), "lacks is_male"),
    (
        "code15",
        lambda source: [path.unlink() for path in source.folder.glob("*.hdf5")],
        "CODE-15 %: all 4 records were rejected, so nothing was written.",
    ),
    ("records", lambda source: source.table.unlink(), "There is no table"),
    ("records", lambda source: source.table.write_bytes(b""), "columns.signal names 'signal', no column of"),
    ("records", lambda source: source.table.write_bytes(b"signal\n\xff\n"), "records.csv can't be read as a table"),
    ("records", lambda source: source.table.write_text("signal,signal\na,b\n"), "has two columns 'signal'"),
    ("records", lambda source: source.table.write_text("signal\n"), "lists no record"),
    ("records", all_bad, "own records: all 4 records were rejected, so nothing was written."),
]


@pytest.mark.parametrize(("kind", "damage", "said"), WHOLE, ids=[f"{kind}-{said}" for kind, _, said in WHOLE])
def test_a_source_with_nothing_to_read_is_one_clear_line_and_leaves_nothing_behind(
    copied, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, damage: Callable[[Source], None], said: str
):
    source = copied(kind)
    damage(source)
    assert source.prepare(tmp_path / "store") == 2
    (line,) = told(capfd.readouterr().err)
    assert line.startswith("ecgfair: ")
    assert said in line
    assert list(tmp_path.glob("store*")) == []


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], Rows]:
    """A folder of five short WFDB records, what their headers are, and their store's rows."""
    folder = tmp_path_factory.mktemp("headers")
    (folder / "source").mkdir()
    for number in range(1, 6):
        write_wfdb(folder / "source" / f"r{number}", to_signal(truth(number))[:, :250], ["Age: 57", "Sex: F"])
    prepare(WfdbFolderReader(folder / "source"), folder / "store", SHORT, jobs=1, progress=False)
    whole = {path.name: path.read_bytes() for path in (folder / "source").glob("*.hea")}
    return folder, whole, rows_of(RecordStore(folder / "store"))


SHORT = Preprocessing(length=250)
BROKEN = st.dictionaries(st.sampled_from(["r1", "r2", "r4", "r5"]), EDITS, min_size=1)


@settings(deadline=None, max_examples=30)
@given(broken=BROKEN)
def test_whatever_the_headers_say_all_records_are_read_or_rejected(
    headers: tuple[Path, dict[str, bytes], Rows], broken: dict[str, list[tuple[str, int, object]]]
):
    folder, whole, rows = headers
    for name, content in whole.items():
        stem = name.removesuffix(".hea")
        (folder / "source" / name).write_bytes(mutated(content, broken[stem]) if stem in broken else content)
    shutil.rmtree(folder / "store", ignore_errors=True)
    reader = WfdbFolderReader(folder / "source")
    summary = prepare(reader, folder / "store", SHORT, jobs=1, progress=False)  # r3 is whole, so there is a store
    store = RecordStore(folder / "store")
    store.verify()
    rejected = store.rejected.to_pylist()
    assert summary.found == len(whole) == len(store) + len(rejected)
    assert all(re.match(r"[a-z][a-z -]*: .", row["reason"]) for row in rejected)
    found = rows_of(store)
    assert sorted([*found, *(row["record_id"] for row in rejected)]) == sorted(rows)
    assert {record: found.get(record) for record in rows if record not in broken} == {
        record: row for record, row in rows.items() if record not in broken
    }


CELLS = st.one_of(
    st.sampled_from(
        ["", "0", "-1", "300", "1e400", "nan", "inf", "NaT", "Unknown", "1_0", "127", "128", "1.5", "-0", "True", "{}"]
        + [
            "{'NORM': nan}",
            "{'NORM'}",
            "[",
            "(" * 200,
            "AFIB;AFIB;",
            "../r2",
            "r2.hea",
            ".",
            "/",
            "2",
            "\u0661",
            "99999-01-01",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)


@pytest.fixture(scope="module")
def tables(
    whole: dict[str, tuple[Source, RecordStore]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Source, pd.DataFrame, Rows]]:
    """A copy of each source that has a table, the table, and its store's rows."""
    made = {}
    for kind, (source, store) in whole.items():
        if kind != "wfdb":
            folder = tmp_path_factory.mktemp(kind) / "source"
            copy = replace(source, folder=Path(shutil.copytree(source.folder, folder)))
            made[kind] = copy, pd.read_csv(copy.table, dtype=str, keep_default_na=False), rows_of(store)
    return made


@settings(deadline=None, max_examples=30)
@given(data=st.data(), kind=st.sampled_from(["ptbxl", "code15", "records"]))
def test_whatever_a_table_says_all_records_are_read_or_rejected(
    tables: dict[str, tuple[Source, pd.DataFrame, Rows]], data: st.DataObject, kind: str
):
    source, table, rows = tables[kind]
    places = st.tuples(st.integers(1, len(table) - 1), st.sampled_from(list(table.columns)))
    broken = data.draw(st.dictionaries(places, CELLS, min_size=1, max_size=6))
    changed = table.copy()
    for (row, column), cell in broken.items():
        changed.loc[row, column] = cell
    changed.to_csv(source.table, index=False)
    place = source.folder.with_name("store")
    shutil.rmtree(place, ignore_errors=True)
    reader = READERS[kind](source)
    summary = prepare(reader, place, Preprocessing(), jobs=1, progress=False)  # row 1 is whole, so there is a store
    store = RecordStore(place)
    store.verify()
    rejected = store.rejected.to_pylist()
    assert summary.found == len(reader) == len(store) + len(rejected) >= len(table)
    assert all(re.match(r"[a-z][a-zA-Z_. -]*: .", row["reason"]) for row in rejected)
    found = rows_of(store)
    twice = {row["record_id"] for row in rejected if "there twice" in row["reason"]}
    untouched = {source.record_id(row + 1) for row in range(len(table)) if row not in {row for row, _ in broken}}
    assert {record: found[record] for record in untouched - twice} == {
        record: rows[record] for record in untouched - twice
    }


READERS: dict[str, Callable[[Source], Reader]] = {
    "ptbxl": lambda source: PtbXlReader(source.folder),
    "code15": lambda source: Code15Reader(source.folder),
    "records": lambda source: OwnRecordsReader(source.table),
}
