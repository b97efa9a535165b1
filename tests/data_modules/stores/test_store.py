"""RecordStore: what was written comes out, or an error says why not."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_modules.stores import store as store_module
from data_modules.stores.intact import Intact
from data_modules.stores.schema import RECORDS, REJECTED
from data_modules.stores.store import RecordStore
from data_modules.stores.store_files import MANIFEST
from ecgfair.errors import ConfigurationError, StoreError
from tests.data_modules.made_store import (
    CODES,
    LABEL_SETS,
    PREPROCESSING,
    edit_manifest,
    made_signals,
    row,
    write,
)


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    """Eleven records in shards of four, four and three."""
    return write(tmp_path / "store")


def test_a_store_gives_back_what_was_written(store: RecordStore):
    assert len(store) == 11
    assert store.preprocessing == PREPROCESSING
    assert store.records.to_pylist()[0] == {
        name: list(x) if isinstance(x, tuple) else x for name, x in vars(row(0)).items()
    }
    assert store.records.column("record_id").to_pylist() == [f"r{number}" for number in range(11)]
    assert store.rejected.to_pylist() == [{"record_id": "r99", "reason": "kind: because"}]
    assert store.manifest["source_name"] == "made"
    assert store.manifest["counts"]["records"] == 11
    assert store.manifest["counts"]["rejected"] == 1
    assert store.manifest["counts"]["positives"] == {"A": 5, "B": 4, "C": 2, "unlisted": 2}
    store.verify()


def test_missing_values_stay_missing(store: RecordStore):
    rows = store.records.to_pylist()
    assert rows[3]["age"] is None
    assert rows[4]["sex"] is None
    assert rows[0]["pr"] is None


@pytest.mark.parametrize("size", [1, 3, 40])
def test_gather_equals_direct_reading_for_random_positions_across_shards(store: RecordStore, size: int):
    for seed in range(10):
        indices = np.random.default_rng(seed).integers(0, 11, size)
        gathered = store.gather(indices)
        assert gathered.dtype == np.int16
        assert np.array_equal(gathered, made_signals()[indices])


@pytest.mark.parametrize("size", [1, 40])
def test_a_store_too_large_to_be_mapped_is_read_by_position(
    store: RecordStore, size: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store_module, "MAPPED_BYTES", 0)
    monkeypatch.setattr(store_module, "_physical_memory", lambda: 0.0)
    opened = RecordStore(store.path)
    for indices in (np.random.default_rng(0).integers(0, 11, size), np.array([4] * size), np.array([8, 10] * size)):
        assert np.array_equal(opened.gather(indices), made_signals()[indices])
    assert all(shard._mapped is None for shard in opened._shards.values())


def test_a_file_cut_short_while_it_is_open_is_an_error(store: RecordStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_module, "MAPPED_BYTES", 0)
    opened = RecordStore(store.path)
    opened.gather(np.arange(4))
    os.truncate(store.path / "signals-00000.arrow", 500)
    with pytest.raises(StoreError, match=r"signals-00000\.arrow is damaged: it has 500 bytes"):
        opened.gather(np.arange(4))
    # Cut between being looked at and being read.
    monkeypatch.setattr(Intact, "check", lambda _: None)
    with pytest.raises(StoreError, match="signals can't be read"):
        opened.gather(np.arange(4))


def test_a_column_comes_in_parts_that_make_the_whole(store: RecordStore):
    parts = list(store.column_parts("record_id"))
    assert [value for part in parts for value in part.to_pylist()] == store.records["record_id"].to_pylist()


def test_gather_of_nothing_is_an_empty_batch(store: RecordStore):
    assert store.gather(np.zeros(0, dtype=np.int64)).shape == (0, 2, 50)


@pytest.mark.parametrize("indices", [[11], [-1], [0, 400]])
def test_gather_beyond_the_store_is_an_error(store: RecordStore, indices: list[int]):
    with pytest.raises(IndexError, match="has 0 to 10"):
        store.gather(np.array(indices))


def test_a_gathered_batch_is_a_copy_that_may_be_changed(store: RecordStore):
    for indices in (np.array([0]), np.array([0, 10])):
        store.gather(indices)[:] = 0
        assert np.array_equal(store.gather(indices), made_signals()[indices])


def test_a_store_is_opened_lazily_and_pickles_as_its_path(store: RecordStore):
    store.gather(np.arange(11))
    assert store.records.num_rows == 11
    pickled = pickle.dumps(store)
    assert len(pickled) < 500
    copy = pickle.loads(pickled)  # noqa: S301
    assert copy._shards == {}
    assert copy._records is None
    assert copy.fingerprint == store.fingerprint


def test_a_spawned_process_reads_the_same_records(store: RecordStore):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(store.gather, (np.array([10, 0]),)), made_signals()[[10, 0]])


def test_the_signals_are_plain_arrow_that_says_its_layout(store: RecordStore):
    with pa.memory_map(str(store.path / "signals-00002.arrow")) as source:
        reader = pa.ipc.open_file(source)
        assert reader.num_record_batches == 1
        assert reader.schema.metadata[b"layout"] == b"leads, time"
        assert json.loads(reader.schema.metadata[b"leads"]) == ["I", "II"]
        assert reader.get_batch(0).column("signal")[0].as_py() == made_signals()[8].ravel().tolist()


def naive_labels(label_set: str, min_likelihood: float) -> list[list[float]]:
    def counts(code: str, codes: dict[str, float]) -> bool:
        return code in codes and (codes[code] >= min_likelihood or codes[code] == 0)

    stated = [CODES[number % len(CODES)] for number in range(11)]
    return [
        [float(any(counts(code, codes) for code in members)) for members in LABEL_SETS[label_set].values()]
        for codes in stated
    ]


@pytest.mark.parametrize("label_set", ["all", "grouped", "none"])
@pytest.mark.parametrize("min_likelihood", [0.0, 50.0, 81.0])
def test_labels_equal_a_plain_loop(store: RecordStore, label_set: str, min_likelihood: float):
    names, labels = store.labels(label_set, min_likelihood)
    assert names == list(LABEL_SETS[label_set])
    assert labels.dtype == np.uint8
    assert labels.tolist() == naive_labels(label_set, min_likelihood)


def test_an_unknown_label_set_is_an_error_with_the_nearest_name(store: RecordStore):
    with pytest.raises(ConfigurationError, match=r"no label set 'groupd'\. Did you mean 'grouped'"):
        store.labels("groupd")


def test_a_folder_without_manifest_is_no_store(tmp_path: Path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(StoreError, match=r"not a RecordStore.*no manifest\.json.*prepare"):
            RecordStore(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_a_manifest_that_is_none_is_an_error(store: RecordStore, content: str):
    (store.path / MANIFEST).write_text(content)
    with pytest.raises(StoreError, match=r"manifest\.json"):
        RecordStore(store.path)


def test_a_store_of_another_format_version_is_refused(store: RecordStore):
    edit_manifest(store, format_version=1)
    with pytest.raises(StoreError, match="format version 1, this ecgfair reads 2"):
        RecordStore(store.path)


@pytest.mark.parametrize("part", ["shards", "files", "preprocessing"])
def test_a_manifest_without_one_of_its_parts_is_damaged(store: RecordStore, part: str):
    edit_manifest(store, **{part: None})
    with pytest.raises(StoreError, match=f"damaged: {part}"):
        RecordStore(store.path)


def test_a_manifest_can_not_name_files_elsewhere(store: RecordStore):
    edit_manifest(store, files={**store.manifest["files"], "../x": {"bytes": 0, "sha256": ""}})
    with pytest.raises(StoreError, match=r"'\.\./x'"):
        RecordStore(store.path)


@pytest.mark.parametrize("name", ["signals-00001.arrow", RECORDS, REJECTED])
def test_a_missing_file_is_named(store: RecordStore, name: str):
    (store.path / name).unlink()
    with pytest.raises(StoreError, match=f"{name} is missing"):
        RecordStore(store.path)


@pytest.mark.parametrize("name", ["signals-00001.arrow", RECORDS, REJECTED])
def test_a_file_of_another_size_is_named(store: RecordStore, name: str):
    (store.path / name).write_bytes((store.path / name).read_bytes()[:-1])
    with pytest.raises(StoreError, match=f"{name} has .* bytes, manifest.json says"):
        RecordStore(store.path)


@pytest.mark.parametrize("name", ["signals-00001.arrow", RECORDS, REJECTED])
def test_a_damaged_file_is_named_by_verify(store: RecordStore, name: str):
    content = bytearray((store.path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (store.path / name).write_bytes(content)
    with pytest.raises(StoreError, match=f"{name} is damaged"):
        RecordStore(store.path).verify()


@pytest.mark.parametrize(("name", "use"), [("signals-00000.arrow", "gather"), (RECORDS, "records")])
def test_a_file_that_became_something_else_is_named_when_it_is_read(store: RecordStore, name: str, use: str):
    path = store.path / name
    path.write_bytes(bytes(path.stat().st_size))
    opened = RecordStore(store.path)
    with pytest.raises(StoreError, match=f"{name} (can't be read|is damaged: its SHA-256)"):
        opened.gather(np.array([0])) if use == "gather" else opened.records


@pytest.mark.parametrize("min_likelihood", [-1, 101, 200])
def test_a_likelihood_that_is_no_percentage_is_refused(store: RecordStore, min_likelihood: float):
    with pytest.raises(ConfigurationError, match=f"min_likelihood is {min_likelihood}: expected 0 to 100"):
        store.labels("all", min_likelihood)
