"""RecordStore and StoreWriter: what goes in comes out, or an error says why not, and nothing half-written stays."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_modules.records import Rejected
from data_modules.store import MANIFEST, RECORDS, REJECTED, RecordStore
from data_modules.store_writer import StoreRow, StoreWriter, to_int16
from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError, RecordError, StoreError

PREPROCESSING = Preprocessing(leads=("I", "II"), length=50)
LABEL_SETS = {"all": {"A": ("A",), "B": ("B",), "C": ("C",)}, "grouped": {"AB": ("A", "B"), "C": ("C",)}, "none": {}}
CODES = [{"A": 100.0}, {"B": 50.0, "C": 0.0}, {}, {"A": 30.0, "B": 80.0}, {"unlisted": 100.0}]


def row(number: int) -> StoreRow:
    codes = CODES[number % len(CODES)]
    return StoreRow(
        record_id=f"r{number}",
        patient_id=f"p{number // 2}",
        age=None if number % 4 == 3 else 40.0 + number,
        sex=None if number % 5 == 4 else number % 2,
        fold=number % 10 + 1,
        recorded_at=None,
        codes=list(codes),
        likelihoods=list(codes.values()),
        beats=list(range(5, 45, 10 + number)),
        heart_rate=60.0 + number,
        pr=None,
        qrs=90.0,
        qt=400.0,
        qtc=410.0,
        notes=["kind: detail"] if number == 0 else [],
    )


def made_signals(count: int = 11) -> np.ndarray:
    return np.random.default_rng(0).integers(-32768, 32768, (count, 2, 50)).astype(np.int16)


def write(path: Path, signals: Iterable[np.ndarray] | None = None, *, overwrite: bool = False) -> RecordStore:
    with StoreWriter(path, PREPROCESSING, LABEL_SETS, "made", shard_rows=4, overwrite=overwrite) as writer:
        for number, signal in enumerate(made_signals() if signals is None else signals):
            writer.append(row(number), signal)
        writer.reject(Rejected("r99", "kind: because"))
    return RecordStore(path)


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    """Eleven records in shards of four, four and three."""
    return write(tmp_path / "store")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def edit_manifest(store: RecordStore, **changes: object) -> None:
    manifest = json.loads((store.path / MANIFEST).read_text())
    manifest.update(changes)
    (store.path / MANIFEST).write_text(json.dumps(manifest))


def test_a_store_gives_back_what_was_written(store: RecordStore):
    assert len(store) == 11
    assert store.preprocessing == PREPROCESSING
    assert store.records.to_pylist()[0] == vars(row(0))
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
    assert labels.dtype == np.float32
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
    edit_manifest(store, format_version=2)
    with pytest.raises(StoreError, match="format version 2, this ecgfair reads 1"):
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
    with pytest.raises(StoreError, match=f"{name} can't be read"):
        opened.gather(np.array([0])) if use == "gather" else opened.records


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
        writer.append(row(0), made_signals()[0])
    rejected = RecordStore(tmp_path / "store").rejected
    assert rejected.num_rows == 0
    assert rejected.column_names == ["record_id", "reason"]


def test_an_existing_path_is_not_overwritten_unless_asked(store: RecordStore):
    before = contents(store.path)
    with pytest.raises(StoreError, match="is there already: remove it, choose another folder, or say overwrite"):
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


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_stays_after_an_error_in_the_middle(tmp_path: Path, error: type[BaseException]):
    def fail() -> Iterator[np.ndarray]:
        yield from made_signals()
        assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["store.partial"]
        raise error

    with pytest.raises(error):
        write(tmp_path / "store", fail())
    assert list(tmp_path.iterdir()) == []


def test_an_old_store_stays_whole_after_an_error_while_overwriting(store: RecordStore):
    before = contents(store.path)
    with pytest.raises(ValueError, match="could not broadcast"):
        write(store.path, [made_signals()[0], np.zeros((2, 49), dtype=np.int16)], overwrite=True)
    assert contents(store.path) == before
    assert [path.name for path in store.path.parent.iterdir()] == ["store"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_stays_if_the_last_step_fails(store: RecordStore, monkeypatch: pytest.MonkeyPatch, overwrite: bool):
    before, path = contents(store.path), store.path if overwrite else store.path.with_name("new")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if "partial" in self.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StoreError, match="No space left on device"):
        write(path, made_signals(3), overwrite=overwrite)
    assert contents(store.path) == before
    assert [path.name for path in store.path.parent.iterdir()] == ["store"]


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/store can't be written"):
        write(tmp_path / "file" / "store")


@pytest.mark.parametrize("scale", [0.001, 0.00488, 0.005])
def test_millivolts_survive_rounding_to_steps(scale: float):
    steps = np.arange(-32768, 32768, dtype=np.int16).reshape(2, -1)
    assert np.array_equal(to_int16((steps * np.float64(scale)).astype(np.float32), scale), steps)


@pytest.mark.parametrize("voltage", [32.7676, -32.7686, 1000.0])
def test_a_voltage_int16_can_not_hold_is_an_error_not_a_plateau(voltage: float):
    signal = np.zeros((2, 5))
    signal[1, 3] = voltage
    with pytest.raises(RecordError, match=f"voltage too high: 1 samples, up to {abs(voltage):g} mV, .*32.767 mV"):
        to_int16(signal, 0.001)


def test_preprocessing_with_a_band_survives_the_manifest(tmp_path: Path):
    preprocessing = replace(PREPROCESSING, band_pass=(0.5, 40.0))
    with StoreWriter(tmp_path / "store", preprocessing, LABEL_SETS, "made") as writer:
        writer.append(row(0), made_signals()[0])
    assert RecordStore(tmp_path / "store").preprocessing == preprocessing
