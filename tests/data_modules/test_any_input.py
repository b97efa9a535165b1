"""Any input at all: whatever headers and tables say, what is read and what is rejected make what was found."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.preparing.prepare import prepare
from data_modules.readers.code15 import Code15Reader
from data_modules.readers.own_records import OwnRecordsReader
from data_modules.readers.ptbxl import PtbXlReader
from data_modules.readers.wfdb_folder import WfdbFolderReader
from data_modules.records import Reader
from data_modules.stores.store import RecordStore
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.signals.recording import to_signal
from ecgfair.ecg import Preprocessing
from tests.data_modules.made_sources import Rows, Source, make_source, rows_of, write_wfdb
from tests.data_modules.readers.test_wfdb_header import EDITS, mutated

SHORT = Preprocessing(length=250)
BROKEN = st.dictionaries(st.sampled_from(["r1", "r2", "r4", "r5"]), EDITS, min_size=1)
CELLS = st.one_of(
    st.sampled_from(
        ["", "0", "-1", "300", "1e400", "nan", "inf", "NaT", "Unknown", "1_0", "127", "128", "1.5", "True"]
    ),
    st.sampled_from(["{}", "{'NORM': nan}", "{'NORM'}", "[", "(" * 200, "AFIB;AFIB;", "99999-01-01", "\u0661"]),
    st.sampled_from(["../r2", "r2.hea", ".", "/", "2", "r2"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
READERS: dict[str, Callable[[Source], Reader]] = {
    "ptbxl": lambda source: PtbXlReader(source.folder),
    "code15": lambda source: Code15Reader(source.folder),
    "records": lambda source: OwnRecordsReader(source.table),
}


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


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Source, pd.DataFrame, Rows]]:
    """A source of each kind that has a table, the table, and its store's rows."""
    made = {}
    for kind in READERS:
        folder = tmp_path_factory.mktemp(kind)
        source = make_source(kind, folder / "source")
        prepare(READERS[kind](source), folder / "store", Preprocessing(), jobs=1, progress=False)
        table = pd.read_csv(source.table, dtype=str, keep_default_na=False)
        made[kind] = source, table, rows_of(RecordStore(folder / "store"))
    return made


@settings(deadline=None, max_examples=30)
@given(data=st.data(), kind=st.sampled_from(list(READERS)))
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
