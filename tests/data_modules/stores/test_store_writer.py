"""StoreWriter: whole or not at all, the same bytes always, and a stopped one goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from data_modules.stores import store_writer
from data_modules.stores.store import RecordStore
from data_modules.stores.store_writer import Part, StoreWriter
from ecgfair.errors import SourceError, StoreError
from tests.data_modules.made_store import (
    LABEL_SETS,
    PREPROCESSING,
    contents,
    edit_manifest,
    made_signals,
    parts,
    row,
    write,
)


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    """Eleven records in shards of four, four and three."""
    return write(tmp_path / "store")


def test_the_same_rows_make_the_same_bytes(store: RecordStore, tmp_path: Path):
    again = write(tmp_path / "again")
    assert contents(again.path) == contents(store.path)
    assert again.fingerprint == store.fingerprint


def test_other_content_has_another_fingerprint(store: RecordStore, tmp_path: Path):
    signals = made_signals()
    signals[7, 1, 20] ^= 1
    assert write(tmp_path / "other", signals).fingerprint != store.fingerprint


def test_the_order_of_labels_is_part_of_the_fingerprint(store: RecordStore):
    before = store.fingerprint
    edit_manifest(store, label_sets={name: LABEL_SETS[name] for name in ("grouped", "all", "none")})
    assert RecordStore(store.path).fingerprint != before


def test_a_store_without_rejected_records_has_an_empty_table_of_them(tmp_path: Path):
    with StoreWriter(tmp_path / "store", PREPROCESSING, LABEL_SETS, "made") as writer:
        writer.write(Part([row(0)], made_signals(1), []))
    rejected = RecordStore(tmp_path / "store").rejected
    assert rejected.num_rows == 0
    assert rejected.column_names == ["record_id", "reason"]


def test_an_existing_path_is_not_overwritten_unless_asked(store: RecordStore):
    before = contents(store.path)
    with pytest.raises(StoreError, match="is there already: remove it, choose another folder, or say --overwrite true"):
        write(store.path)
    assert contents(store.path) == before
    assert len(write(store.path, made_signals(3), overwrite=True)) == 3
    assert [path.name for path in store.path.parent.iterdir()] == ["store"]


def test_overwrite_never_removes_what_is_no_store(tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(StoreError, match="not a RecordStore"):
        write(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def write_parts(path: Path, made: Sequence[Part], plan: dict[str, str] | None = None) -> None:
    with StoreWriter(path, PREPROCESSING, LABEL_SETS, "made", plan) as writer:
        for part in made:
            writer.write(part)


def stop_after(done: int, path: Path, error: BaseException, plan: dict[str, str] | None = None) -> None:
    """Write some parts and raise."""

    class Stopping(list[Part]):
        def __iter__(self) -> Iterator[Part]:
            yield from parts()[:done]
            raise error

    with pytest.raises(type(error)):
        write_parts(path, Stopping(), plan)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("done", [0, 2])
def test_what_was_done_before_an_error_stays_beside_the_place_and_only_that(
    tmp_path: Path, error: type[BaseException], done: int
):
    stop_after(done, tmp_path / "store", error())
    assert [path.name for path in tmp_path.iterdir()] == (["store.partial"] if done else [])


def test_a_fault_of_the_source_leaves_nothing_to_go_on_with(tmp_path: Path):
    stop_after(1, tmp_path / "store", SourceError("all wrong"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_stopped_writer_goes_on_to_the_same_bytes(store: RecordStore, tmp_path: Path, done: int):
    stop_after(done, tmp_path / "again", ValueError())
    with StoreWriter(tmp_path / "again", PREPROCESSING, LABEL_SETS, "made") as writer:
        assert writer.done == done
        for part in parts()[done:]:
            writer.write(part)
    assert contents(tmp_path / "again") == contents(store.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "store"]


def killed_at(step: int, path: Path, *, overwrite: bool) -> bool:
    """Write the store in a process that dies before its ``step``-th change on disk; whether it lived to the end."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    calls = iter(range(step))

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            if next(calls, None) is None:
                os._exit(9)  # as abrupt as SIGKILL: nothing is cleaned up, nothing flushed
            return function(*arguments, **keywords)

        return call

    # Every call that changes what is on disk.
    for owner, names in (
        (Path, ("rename", "replace", "write_text", "mkdir", "unlink")),
        (store_writer.pq, ("write_table",)),
        (store_writer.shutil, ("rmtree",)),
        (StoreWriter, ("_write_signals",)),
    ):
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))
    write(path, overwrite=overwrite)
    os._exit(0)


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_before_any_change_on_disk_and_started_again_it_ends_in_the_same_bytes(
    store: RecordStore, tmp_path: Path, overwrite: bool
):
    step, lived, resumed = 0, False, 0
    while not lived:
        target = tmp_path / f"killed-{step}" / "store"
        if overwrite:
            write(target, made_signals(3))
        lived = killed_at(step, target, overwrite=overwrite)
        if not lived and target.with_name("store.partial").exists():
            # Killed a second time as well, in what the second start does.
            killed_at(step % 5, target, overwrite=overwrite)
            write(target, overwrite=overwrite)
            resumed += 1
        elif not lived and (overwrite or not target.exists()):
            write(target, overwrite=overwrite)  # killed before anything was begun
        assert contents(target) == contents(store.path)
        step += 1
    assert resumed > 20


def test_a_writer_of_another_plan_starts_anew_and_says_what_differs(store: RecordStore, tmp_path: Path):
    path = tmp_path / "again"
    stop_after(1, path, ValueError(), {"source": "b"})
    with StoreWriter(path, PREPROCESSING, LABEL_SETS, "made", {"source": "c"}) as writer:
        assert (writer.done, writer.started_anew) == (0, ("source",))
        for part in parts():
            writer.write(part)
    assert contents(path) == contents(store.path)


def test_two_writers_at_one_place_are_one_too_many(tmp_path: Path):
    with StoreWriter(tmp_path / "store", PREPROCESSING, LABEL_SETS, "made") as writer:
        with (
            pytest.raises(StoreError, match="is being prepared by another process"),
            StoreWriter(tmp_path / "store", PREPROCESSING, LABEL_SETS, "made"),
        ):
            pass
        for part in parts():
            writer.write(part)
    assert len(RecordStore(tmp_path / "store")) == 11


def test_a_record_id_there_twice_is_a_fault_of_the_reader(tmp_path: Path):
    twice = [replace(part, rows=part.rows[:1], signals=part.signals[:1]) for part in (*parts(), parts()[0])]
    with pytest.raises(SourceError, match=r"1 record ids of made are there more than once, for example 'r0'"):
        write_parts(tmp_path / "store", twice)
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from data_modules.stores.store_writer import StoreWriter
from ecgfair.errors import StoreError
from tests.data_modules.made_store import LABEL_SETS, PREPROCESSING, parts

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    with StoreWriter(Path(sys.argv[1]), PREPROCESSING, LABEL_SETS, "made") as writer:
        for number, part in enumerate(parts()):
            if number == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
            writer.write(part)
except StoreError as error:
    print(error)
"""


def test_where_no_byte_more_can_be_written_the_parts_done_wait_for_room(store: RecordStore, tmp_path: Path):
    path = tmp_path / "again"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[3]).stdout
    assert "again can't be written" in told
    assert "make room and start again" in told
    with StoreWriter(path, PREPROCESSING, LABEL_SETS, "made") as writer:
        assert writer.done == 2
        writer.write(parts()[2])
    assert contents(path) == contents(store.path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_if_the_last_step_fails_the_old_store_stands_and_the_new_one_waits(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch, overwrite: bool
):
    before, path = contents(store.path), store.path if overwrite else store.path.with_name("new")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.parent.name.endswith(".partial") and self.name == "store":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(StoreError, match="No space left on device"):
            write(path, made_signals(3), overwrite=overwrite)
    assert contents(store.path) == before
    assert len(write(path, made_signals(3), overwrite=overwrite)) == 3


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/store can't be written"):
        write(tmp_path / "file" / "store")


def test_preprocessing_with_a_band_survives_the_manifest(tmp_path: Path):
    preprocessing = replace(PREPROCESSING, band_pass=(0.5, 40.0))
    with StoreWriter(tmp_path / "store", preprocessing, LABEL_SETS, "made") as writer:
        writer.write(Part([row(0)], made_signals(1), []))
    assert RecordStore(tmp_path / "store").preprocessing == preprocessing


def test_a_folder_of_the_same_name_that_is_no_stopped_preparation_is_left_alone(tmp_path: Path):
    (tmp_path / "store.partial").mkdir()
    (tmp_path / "store.partial" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"store\.partial holds 'thesis.tex', which is of no stopped preparation"):
        write(tmp_path / "store")
    assert (tmp_path / "store.partial" / "thesis.tex").read_text() == "years of work"


def test_parts_removed_by_a_start_anew_that_was_killed_are_not_counted_as_done(store: RecordStore, tmp_path: Path):
    path = tmp_path / "again"
    stop_after(2, path, ValueError())
    (tmp_path / "again.partial" / "store" / "signals-00001.arrow").unlink()
    with StoreWriter(path, PREPROCESSING, LABEL_SETS, "made") as writer:
        assert writer.done == 1
        for part in parts()[1:]:
            writer.write(part)
    assert contents(path) == contents(store.path)


@pytest.mark.parametrize(
    ("path", "message"), [("s3://bucket/x", "publish FOLDER s3://bucket/x"), ("/", "name a folder")]
)
def test_a_place_that_can_be_no_store_is_refused_at_once(path: str, message: str):
    with pytest.raises(StoreError, match=message):
        StoreWriter(path, PREPROCESSING, LABEL_SETS, "made")
