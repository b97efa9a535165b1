"""Bad input of every kind and from every source, as a user prepares it: each record is read, or rejected by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from data_modules.preparing import prepare as prepare_module
from data_modules.stores.store import RecordStore
from data_modules.streaming.datamodules import EcgDataModule
from ecgfair.__main__ import main
from ecgfair.ecg import LEADS, MISSING_SAMPLE
from ecgfair.errors import SplitError
from tests.data_modules.bad_records import BAD, DAY, ECG, KEPT, REJECTED, RENAMED, ZERO, Case
from tests.data_modules.made_sources import KINDS, Source, make_source, rows_of

ROOT = Path(__file__).parents[2]
FILLERS = 2
"""Empty rows that end the parts of CODE-15 %: they are found, and rejected."""


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
    copied, tmp_path: Path, capfd: pytest.CaptureFixture[str]
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
def test_a_patient_in_two_folds_is_refused_by_name_before_anything_is_trained(
    copied, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
):
    source = copied(kind)
    for number, fold in enumerate((1, 2, 3, 1), start=1):
        source.state(number, "fold", str(fold))
        source.state(number, "patient_id", f"p{number % 3}")
    source.state(4, "patient_id", "p2")
    assert source.prepare(tmp_path / "store") == 0
    folds = {"train_folds": [1], "validation_folds": [2], "test_folds": [3]}
    said = "1 patients have records in train and in validation, for example 'p2'"
    with pytest.raises(SplitError, match=said):
        EcgDataModule(str(tmp_path / "store"), **folds).split  # noqa: B018  # a property
    options = [f"--data.init_args.{name}={numbers}" for name, numbers in folds.items()]
    options += ["--run", str(tmp_path / "run"), "--data.init_args.store", str(tmp_path / "store")]
    capfd.readouterr()
    assert main(["fit", "--config", str(ROOT / "experiments/smoke/pretrain.yaml"), *options]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "run").exists()


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
    for place, line in zip(places, ended.stderr.splitlines(), strict=True):
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
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("ecgfair: ")
    assert said in line
    assert list(tmp_path.glob("store*")) == []
