"""Whether a file of signals is what the manifest says: compared before it is first read, and whenever it changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any, Final

from data_modules.stores.shard_cache import OpenFile
from ecgfair.errors import StoreError

COMPARED_BYTES: Final = 1 << 30
"""Bytes of signals of a store up to which checksums are compared before records are read: it takes each process
that reads them a second or two in all. Of a larger store `inspect --verify` compares them."""
_READ_BYTES: Final = 1 << 20


class Intact:
    """One open file of signals, and what the manifest says of it.

    What changes while a training reads it, by size or by the time of its last change, is compared once more, in a store
    of any size. A disk that returns other bytes without either is found at the first reading alone.

    Args:
        file: The file.
        name: Where it lies, for messages.
        entry: Its ``bytes`` and ``sha256`` in the manifest.
        at_once: Whether its checksum is compared before its first use.
    """

    def __init__(self, file: OpenFile, name: str, entry: Mapping[str, Any], *, at_once: bool) -> None:
        self._file = file
        self._name = name
        self._entry = entry
        self._compared = None if at_once else self._stamp()

    def check(self) -> None:
        """Compare what has not been compared since the file was last changed.

        Raises:
            StoreError: It is not the file that was written; the message names it, what was found and what was expected.
        """
        stamp = self._stamp()
        size, expected = stamp[0], self._entry["bytes"]
        if size != expected:
            # Looked at first: what is read of a mapped file beyond its end kills the process.
            raise self._damaged(f"it has {size} bytes, the manifest says {expected}")
        if stamp == self._compared:
            return
        found, written = self._digest(), self._entry["sha256"]
        if found != written:
            raise self._damaged(f"its SHA-256 is {found[:12]}…, the manifest says {written[:12]}…")
        self._compared = stamp

    def _digest(self) -> str:
        # Read by position: what is touched of a mapped file counts as the process's memory.
        digest, place = hashlib.sha256(), 0
        while part := os.pread(self._file.descriptor, _READ_BYTES, place):
            digest.update(part)
            place += len(part)
        return digest.hexdigest()

    def _stamp(self) -> tuple[int, int]:
        status = os.fstat(self._file.descriptor)
        return status.st_size, status.st_mtime_ns

    def _damaged(self, how: str) -> StoreError:
        return StoreError(
            f"{self._name} is damaged: {how}. It was changed since it was written: copy the store again, or prepare it "
            "again."
        )
