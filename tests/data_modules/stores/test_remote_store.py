"""RecordStore behind a URI: the same records as from its folder, through a cache that keeps its bound."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from data_modules.stores import store_files
from data_modules.stores.publish import publish
from data_modules.stores.schema import RECORDS, REJECTED
from data_modules.stores.store import RecordStore
from data_modules.stores.store_files import MANIFEST
from ecgfair.errors import StoreError
from tests.data_modules.loopback import BUCKET, S3, s3_server, web_server
from tests.data_modules.made_store import made_signals, write

SHARDS = ("signals-00000.arrow", "signals-00001.arrow", "signals-00002.arrow")
EVERY = np.arange(11)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    """Eleven records in shards of four, four and three."""
    return write(tmp_path_factory.mktemp("made") / "store")


@pytest.fixture(scope="module")
def server(local: RecordStore) -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with s3_server() as server:
            publish(local.path, server.uri("whole"))
            yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that everything fits into, and short pauses."""
    monkeypatch.setenv("ECGFAIR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ECGFAIR_CACHE_BYTES", "1GB")
    monkeypatch.setattr(store_files, "PAUSES", (0.005,))
    return tmp_path / "cache"


@pytest.fixture
def s3(server: S3, cache: Path) -> S3:  # noqa: ARG001  # the cache of every test is its own
    server.gets.clear()
    return server


def held(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.iterdir() if path.is_file())


def check_same(found: RecordStore, local: RecordStore) -> None:
    assert len(found) == 11
    assert found.fingerprint == local.fingerprint
    assert found.records.equals(local.records)
    assert found.rejected.equals(local.rejected)
    order = np.random.default_rng(0).permutation(np.repeat(EVERY, 2))
    np.testing.assert_array_equal(found.gather(order), made_signals()[order])
    assert found.labels("all")[0] == local.labels("all")[0]
    np.testing.assert_array_equal(found.labels("all")[1], local.labels("all")[1])
    found.verify()


def test_a_published_store_is_the_same_store(s3: S3, local: RecordStore):
    check_same(RecordStore(s3.uri("whole")), local)


@pytest.mark.usefixtures("cache")
def test_a_store_on_a_web_server_is_the_same_store(local: RecordStore):
    with web_server(local.path) as web:
        check_same(RecordStore(web.url), local)


def test_a_shard_is_fetched_once_at_its_first_use(s3: S3):
    store = RecordStore(s3.uri("whole"))
    assert not set(s3.gets) & {RECORDS, REJECTED, *SHARDS}
    store.gather(np.array([5]))
    assert {name: s3.gets[name] for name in SHARDS} == dict(zip(SHARDS, (0, 1, 0), strict=True))
    for _ in range(3):
        store.gather(EVERY)
    RecordStore(s3.uri("whole")).gather(EVERY)
    assert {name: s3.gets[name] for name in SHARDS} == dict.fromkeys(SHARDS, 1)


def test_the_cache_keeps_its_bound_and_lets_the_disk_go(
    s3: S3, local: RecordStore, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    shard = max(entry["bytes"] for name, entry in local.manifest["files"].items() if name in SHARDS)
    monkeypatch.setenv("ECGFAIR_CACHE_BYTES", str(2 * shard))
    store = RecordStore(s3.uri("whole"))
    for position in (0, 4, 8, 0, 5, 10, 3):
        np.testing.assert_array_equal(store.gather(np.array([position]))[0], made_signals()[position])
        assert held(cache) <= 2 * shard
    np.testing.assert_array_equal(store.gather(EVERY), made_signals())
    assert len(store._shards) == 2
    maps = Path("/proc/self/maps")
    if maps.exists():
        mapped = [line for line in maps.read_text().splitlines() if str(cache) in line]
        assert len(mapped) == 2
        assert not any("(deleted)" in line for line in mapped)


def test_what_another_process_removed_is_fetched_again(s3: S3, cache: Path):
    store = RecordStore(s3.uri("whole"))
    store.gather(EVERY)
    for path in cache.iterdir():
        if path.is_file():
            path.unlink()
    np.testing.assert_array_equal(store.gather(EVERY), made_signals())
    assert {name: s3.gets[name] for name in SHARDS} == dict.fromkeys(SHARDS, 2)


def test_a_store_that_was_replaced_is_never_read_from_old_files(s3: S3, tmp_path: Path):
    old = write(tmp_path / "old")
    s3.upload(old.path, "replaced")
    RecordStore(s3.uri("replaced")).gather(EVERY)
    new = write(tmp_path / "new", made_signals()[::-1])
    s3.upload(new.path, "replaced")
    np.testing.assert_array_equal(RecordStore(s3.uri("replaced")).gather(EVERY), made_signals()[::-1])


def test_a_damaged_shard_is_named_as_it_is_used_and_as_the_store_is_verified(s3: S3, local: RecordStore):
    s3.upload(local.path, "damaged")
    content = bytearray((local.path / SHARDS[1]).read_bytes())
    content[-300] ^= 1
    s3.client.put_object(Bucket=BUCKET, Key=f"damaged/{SHARDS[1]}", Body=bytes(content))
    store = RecordStore(s3.uri("damaged"))
    np.testing.assert_array_equal(store.gather(np.array([0]))[0], made_signals()[0])
    with pytest.raises(StoreError, match=r"^s3://bucket/damaged/signals-00001\.arrow is damaged"):
        store.gather(np.array([4]))
    with pytest.raises(StoreError, match=r"^s3://bucket/damaged/signals-00001\.arrow is damaged"):
        store.verify()


def test_verify_reads_what_lies_there_not_what_is_cached(s3: S3, local: RecordStore):
    s3.upload(local.path, "rotten")
    store = RecordStore(s3.uri("rotten"))
    store.gather(EVERY)
    store.verify()
    size = store.manifest["files"][SHARDS[0]]["bytes"]
    s3.client.put_object(Bucket=BUCKET, Key=f"rotten/{SHARDS[0]}", Body=bytes(size))
    with pytest.raises(StoreError, match=r"rotten/signals-00000\.arrow is damaged"):
        store.verify()


def test_a_file_that_is_missing_or_cut_is_named_as_the_store_is_opened(s3: S3, local: RecordStore):
    s3.upload(local.path, "broken")
    s3.client.put_object(Bucket=BUCKET, Key=f"broken/{SHARDS[2]}", Body=b"cut")
    with pytest.raises(StoreError, match=r"s3://bucket/broken/signals-00002\.arrow has 3 bytes"):
        RecordStore(s3.uri("broken"))
    s3.client.delete_object(Bucket=BUCKET, Key=f"broken/{SHARDS[2]}")
    with pytest.raises(StoreError, match=r"s3://bucket/broken/signals-00002\.arrow is missing"):
        RecordStore(s3.uri("broken"))


def test_a_store_without_a_manifest_is_none(s3: S3, local: RecordStore):
    s3.upload(local.path, "half")
    s3.client.delete_object(Bucket=BUCKET, Key=f"half/{MANIFEST}")
    with pytest.raises(StoreError, match=r"s3://bucket/half is not a RecordStore, or an unfinished one"):
        RecordStore(s3.uri("half"))


def test_a_shard_larger_than_the_cache_says_what_to_set(s3: S3, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECGFAIR_CACHE_BYTES", "500")
    with pytest.raises(StoreError, match="does not fit into a cache of 500: set ECGFAIR_CACHE_BYTES"):
        RecordStore(s3.uri("whole")).gather(EVERY)


def test_keys_in_a_location_are_neither_shown_nor_lost(s3: S3):
    store = pickle.loads(pickle.dumps(RecordStore(s3.uri("whole", "key:secret@"))))  # noqa: S301  # made here
    assert store.location == "s3://***@bucket/whole"
    np.testing.assert_array_equal(store.gather(EVERY), made_signals())


class Signals(Dataset[torch.Tensor]):
    """The signals of a store, one by one."""

    def __init__(self, store: RecordStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.store.gather(np.array([index]))[0])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # that threads are running is the point of the test
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_workers_of_a_loader_read_the_right_records_and_fetch_each_shard_once(s3: S3, method: str):
    store = RecordStore(s3.uri("whole"))
    assert store.records.num_rows == 11  # so that a forked worker inherits a connection that was used
    context = multiprocessing.get_context(method)
    loader = DataLoader(Signals(store), batch_size=2, num_workers=2, multiprocessing_context=context)
    np.testing.assert_array_equal(torch.cat(list(loader)).numpy(), made_signals())
    assert {name: s3.gets[name] for name in SHARDS} == dict.fromkeys(SHARDS, 1)
