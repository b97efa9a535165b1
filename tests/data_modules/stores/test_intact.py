"""A file of signals that is not what was written gives no record away."""

import hashlib
import os
import re

import numpy as np
import pytest

from data_modules.stores import store as store_module
from data_modules.stores.store import RecordStore
from ecgfair.errors import StoreError
from tests.data_modules.made_store import made_signals, write

FIRST, SECOND = "signals-00000.arrow", "signals-00001.arrow"


@pytest.fixture
def store(tmp_path):
    """Eleven records in files of four, four and three."""
    return write(tmp_path / "store")


def flip(path, later=True):
    """Change one bit of the signals in place, as somebody who writes into the file does."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)  # among the signals
        byte = file.read(1)[0]
        file.seek(before.st_size // 2)
        file.write(bytes([byte ^ 1]))
    # File systems with coarse clocks would need a pause; a disk that rots changes no time at all.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9 * later))


def damaged(store, name):
    return rf"^{re.escape(str(store.path / name))} is damaged: its SHA-256 is [0-9a-f]{{12}}…, the manifest says "


def test_a_wrong_bit_is_found_before_the_first_record_is_read(store):
    flip(store.path / SECOND, later=False)
    opened = RecordStore(store.path)
    np.testing.assert_array_equal(opened.gather(np.arange(4)), made_signals()[:4])
    found = hashlib.sha256((store.path / SECOND).read_bytes()).hexdigest()
    with pytest.raises(StoreError, match=damaged(store, SECOND) + ".*copy the store again") as told:
        opened.gather(np.array([0, 4]))
    assert found[:12] in str(told.value)
    assert store.manifest["files"][SECOND]["sha256"][:12] in str(told.value)


@pytest.mark.parametrize("mapped", [True, False])
def test_a_file_that_is_changed_while_it_is_open_is_found_at_the_next_batch(store, monkeypatch, mapped):
    if not mapped:
        monkeypatch.setattr(store_module, "MAPPED_BYTES", 0)
    opened = RecordStore(store.path)
    opened.gather(np.arange(11))
    flip(store.path / FIRST)
    np.testing.assert_array_equal(opened.gather(np.array([5, 9])), made_signals()[[5, 9]])
    with pytest.raises(StoreError, match=damaged(store, FIRST)):
        opened.gather(np.array([2, 5]))


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_file_that_gets_another_size_while_it_is_open_is_found_before_it_is_touched(store, size):
    opened = RecordStore(store.path)
    opened.gather(np.arange(11))
    before = (store.path / FIRST).stat().st_size
    os.truncate(store.path / FIRST, size)
    with pytest.raises(StoreError, match=f"{FIRST} is damaged: it has {size} bytes, the manifest says {before}"):
        opened.gather(np.array([2]))


def test_a_file_whose_time_alone_changes_is_read_on_and_compared_once(store, monkeypatch):
    opened = RecordStore(store.path)
    opened.gather(np.arange(4))
    compared = []
    digest = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda: compared.append(FIRST) or digest())
    for _ in range(3):
        opened.gather(np.arange(4))
    assert compared == []
    os.utime(store.path / FIRST)
    for _ in range(3):
        np.testing.assert_array_equal(opened.gather(np.arange(4)), made_signals()[:4])
    assert compared == [FIRST]


def test_a_file_that_takes_the_place_of_an_open_one_changes_nothing_until_it_is_opened(store):
    opened = RecordStore(store.path)
    opened.gather(np.arange(4))
    other = store.path / "other"
    other.write_bytes(bytes((store.path / FIRST).stat().st_size))
    other.replace(store.path / FIRST)
    np.testing.assert_array_equal(opened.gather(np.arange(4)), made_signals()[:4])
    with pytest.raises(StoreError, match=damaged(store, FIRST)):
        RecordStore(store.path).gather(np.arange(4))


def test_of_a_large_store_only_what_changes_is_compared(store, monkeypatch):
    monkeypatch.setattr(store_module, "COMPARED_BYTES", 0)
    flip(store.path / FIRST, later=False)
    opened = RecordStore(store.path)
    assert opened.gather(np.arange(4)).shape == (4, 2, 50)
    with pytest.raises(StoreError, match=f"{FIRST} is damaged"):
        opened.verify()
    os.utime(store.path / FIRST, ns=(0, 10**18))
    with pytest.raises(StoreError, match=damaged(store, FIRST)):
        opened.gather(np.arange(4))
