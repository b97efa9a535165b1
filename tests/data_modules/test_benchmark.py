"""Benchmarks: every way reads the same records, and a store of sparse files is as good as any to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_modules.benchmark import measure_speeds, print_speeds
from data_modules.large_store import make_sparse_store, read_apart
from data_modules.stores.store import RecordStore


def test_every_way_is_timed_over_the_same_records(
    synthetic_source: Path, synthetic_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    speeds = measure_speeds(synthetic_source, str(synthetic_store), tmp_path, batch_size=16, passes=1)
    assert len(speeds) == 7
    assert len({speed.records for speed in speeds[:5]}) == 1
    assert all(0 < speed.lowest <= speed.median <= speed.highest for speed in speeds)
    print_speeds(speeds, 16, 1)
    printed = capsys.readouterr().out
    assert all(speed.way.split()[0] in printed for speed in speeds)


def test_a_sparse_store_is_a_store_that_takes_no_room(tmp_path: Path):
    make_sparse_store(tmp_path / "store", 10_000)
    store = RecordStore(tmp_path / "store")
    assert len(store) == 10_000
    assert not store.gather(np.array([0, 5000, 9999])).any()
    taken = sum(path.stat().st_blocks * 512 for path in store.path.iterdir())
    assert taken < 0.01 * sum(path.stat().st_size for path in store.path.iterdir())


def test_memory_is_that_of_the_process_that_reads_and_not_of_its_parent(tmp_path: Path):
    make_sparse_store(tmp_path / "store", 1000)
    held = np.ones(200_000_000)  # 1.6 GB, more than what reads takes
    assert read_apart(tmp_path / "store", batch_size=256, most_batches=2)["megabytes of memory at most"] < 1000
    del held


@pytest.mark.slow
def test_a_store_of_two_million_records_is_read_shuffled_in_less_than_a_gigabyte(tmp_path: Path):
    make_sparse_store(tmp_path / "store", 2_000_000)
    measured = read_apart(tmp_path / "store", batch_size=256, most_batches=200)
    assert measured["records read, shuffled"] == 200 * 256
    assert measured["megabytes of memory at most"] < 1000
