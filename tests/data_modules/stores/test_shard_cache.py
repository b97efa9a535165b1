"""ShardCache: bounded, by content, and one fetch for all who ask at once."""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from data_modules.stores.shard_cache import DEFAULT_BYTES, CacheSettings, ShardCache, parse_bytes
from ecgfair.errors import ConfigurationError, StoreError

SPAWN = multiprocessing.get_context("spawn")


def content(number: int, size: int = 1000) -> bytes:
    return bytes([number]) * size


def key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fill(path: Path, data: bytes) -> None:
    """Write as the cache asks it: truncating would give room away that others then take."""
    with path.open("r+b") as file:
        file.write(data)


class Source:
    """Hands out content, and notes what it was asked for."""

    def __init__(self, cache: ShardCache) -> None:
        self.cache = cache
        self.fetched: list[int] = []

    def read(self, number: int, size: int = 1000) -> bytes:
        data = content(number, size)

        def fetch(path: Path) -> None:
            self.fetched.append(number)
            assert path.stat().st_size == size
            fill(path, data)

        return bytes(self.cache.open(key(data), size, fetch).map())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "parent" / "cache"


@pytest.fixture
def source(folder: Path) -> Source:
    """Behind a cache that three files of a thousand bytes fit into."""
    return Source(ShardCache(CacheSettings(folder, 3500)))


def held(folder: Path) -> int:
    with FileLock(folder / "locks" / "folder"):  # or a file could be counted under its old and its new name
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def test_a_file_is_fetched_once_and_then_read_from_the_cache(source: Source):
    assert [source.read(1), source.read(2), source.read(1)] == [content(1), content(2), content(1)]
    assert source.fetched == [1, 2]


def test_the_cache_never_outgrows_its_bound(source: Source, folder: Path):
    for number in range(20):
        assert source.read(number) == content(number)
        assert held(folder) <= 3500
    assert held(folder) == 3000


def test_what_was_used_longest_ago_is_removed_first(source: Source):
    for number in (1, 2, 3):
        source.read(number)
    source.read(1)
    source.read(4)
    assert source.cache.keeps(key(content(1)), use=False)
    assert not source.cache.keeps(key(content(2)), use=False)
    assert source.cache.keeps(key(content(3)), use=False)


def test_a_file_that_is_said_to_be_in_use_counts_as_used(source: Source):
    for number in (1, 2, 3):
        source.read(number)
    assert source.cache.keeps(key(content(1)), use=True)
    source.read(4)
    assert source.cache.keeps(key(content(1)), use=True)
    assert not source.cache.keeps(key(content(2)), use=True)


def test_an_open_file_outlives_the_removal_of_its_file(source: Source):
    opened = source.cache.open(key(content(1)), 1000, lambda path: fill(path, content(1)))
    for number in (2, 3, 4):
        source.read(number)
    assert not source.cache.keeps(key(content(1)), use=False)
    assert bytes(opened.map()) == content(1)


def test_a_file_that_can_never_fit_is_an_error_that_says_what_to_set(source: Source):
    with pytest.raises(StoreError, match=r"4000 bytes does not fit into a cache of 3500: set ECGFAIR_CACHE_BYTES"):
        source.read(1, 4000)
    assert source.fetched == []


def test_a_failed_fetch_leaves_nothing(source: Source, folder: Path):
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise StoreError("no more")

    with pytest.raises(StoreError, match="no more"):
        source.cache.open(key(content(1)), 1000, fail)
    assert held(folder) == 0
    assert source.read(1) == content(1)


def test_a_cached_file_of_another_size_is_fetched_again(source: Source, folder: Path):
    source.read(1)
    (folder / key(content(1))).write_bytes(b"cut")
    assert source.read(1) == content(1)
    assert source.fetched == [1, 1]


def test_what_a_killed_process_left_half_fetched_is_removed_for_room(source: Source, folder: Path):
    source.read(1)
    (folder / f"{key(content(9))}.part").write_bytes(bytes(3400))
    assert source.read(2) == content(2)
    assert not list(folder.glob("*.part"))


def test_what_a_killed_process_left_half_fetched_is_fetched_anew(source: Source, folder: Path):
    source.read(1)
    (folder / f"{key(content(2))}.part").write_bytes(bytes(3400))
    assert source.read(2) == content(2)
    assert not list(folder.glob("*.part"))


def test_a_file_that_another_is_fetching_is_not_removed_but_waited_for(source: Source, folder: Path):
    source.read(1)
    part = folder / f"{key(content(9))}.part"
    part.write_bytes(bytes(3000))
    with FileLock(folder / "locks" / key(content(9))[:2]):
        waiting = threading.Thread(target=source.read, args=(2,))
        waiting.start()
        while source.cache.keeps(key(content(1)), use=False):  # the old file goes; the other's part stays
            time.sleep(0.01)
        time.sleep(0.2)
        assert waiting.is_alive()
        assert part.exists()
        assert source.fetched == [1]
        part.unlink()
    waiting.join(10)
    assert source.fetched == [1, 2]


def fetch_slowly(folder: Path, log: Path, start: SPAWN.Barrier) -> None:
    data = content(1)

    def fetch(path: Path) -> None:
        with log.open("a") as file:
            file.write("fetched\n")
        time.sleep(0.3)
        fill(path, data)

    start.wait(30)
    assert bytes(ShardCache(CacheSettings(folder, 3500)).open(key(data), 1000, fetch).map()) == data


def test_processes_that_ask_at_once_fetch_once(folder: Path, tmp_path: Path):
    start, log = SPAWN.Barrier(3), tmp_path / "log"
    processes = [SPAWN.Process(target=fetch_slowly, args=(folder, log, start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "fetched\n"
    assert [path.name for path in folder.iterdir() if path.is_file()] == [key(content(1))]


def thrash(folder: Path, seed: int) -> None:
    source = Source(ShardCache(CacheSettings(folder, 1500)))
    for number in range(40):
        assert source.read((seed + number) % 7) == content((seed + number) % 7)
        assert held(folder) <= 1500


def test_threads_that_want_more_than_fits_take_turns(folder: Path):
    problems: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            thrash(folder, seed)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert not any(thread.is_alive() for thread in threads)


def test_the_folder_is_its_owners_alone(source: Source, folder: Path):
    source.read(1)
    assert folder.stat().st_mode & 0o077 == 0


def test_a_folder_that_can_t_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/cache can't be used .* set ECGFAIR_CACHE to another folder"):
        Source(ShardCache(CacheSettings(tmp_path / "file" / "cache", 3500))).read(1)


def test_a_full_disk_is_named(source: Source):
    def fail(_: Path) -> None:
        Path("/dev/full").write_bytes(b"x" * 100_000)

    if not Path("/dev/full").exists():
        pytest.skip("There is no /dev/full here.")
    with pytest.raises(StoreError, match=r"can't be used .*No space left on device.*make room"):
        source.cache.open(key(content(1)), 1000, fail)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", 1000),
        ("20GB", 20_000_000_000),
        ("20 gb", 20_000_000_000),
        ("1.5M", 1_500_000),
        ("2GiB", 2 << 30),
        ("3k", 3000),
        ("7b", 7),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes_are_read_with_their_unit(text: str, expected: int):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["much", "", "-5GB", "0", "5XB", "GB", "1e9", "5iB", "nan"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ConfigurationError, match=r"ECGFAIR_CACHE_BYTES is .*: give a size such as 20GB"):
        parse_bytes(text)


def test_the_environment_says_where_and_how_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ECGFAIR_CACHE", raising=False)
    monkeypatch.delenv("ECGFAIR_CACHE_BYTES", raising=False)
    assert CacheSettings.from_environment() == CacheSettings(tmp_path / ".cache/ecgfair/shards", DEFAULT_BYTES)
    monkeypatch.setenv("ECGFAIR_CACHE", "~/elsewhere")
    monkeypatch.setenv("ECGFAIR_CACHE_BYTES", "2GB")
    assert CacheSettings.from_environment() == CacheSettings(tmp_path / "elsewhere", 2_000_000_000)


def test_files_that_the_cache_did_not_make_are_left_alone(source: Source, folder: Path):
    folder.mkdir(parents=True)
    (folder / "my_results.bin").write_bytes(bytes(5000))
    for number in range(1, 6):
        source.read(number)
    assert (folder / "my_results.bin").stat().st_size == 5000
