"""ShardCache: a bounded folder of whole files fetched from elsewhere, shared by every process of a machine."""

from __future__ import annotations

import os
import re
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final, Self

from filelock import FileLock, Timeout

from ecgfair.errors import ConfigurationError, StoreError

DEFAULT_BYTES: Final = 50_000_000_000
FOLDER_VARIABLE: Final = "ECGFAIR_CACHE"
BYTES_VARIABLE: Final = "ECGFAIR_CACHE_BYTES"

_PART: Final = ".part"
_OWN: Final = re.compile(rf"[0-9a-f]{{64}}({re.escape(_PART)})?")
"""Files that a cache makes; others in its folder are somebody's, and never removed."""

_WAIT_SECONDS: Final = 0.05
_UNITS: Final = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY_UNITS: Final = {"ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}


class OpenFile:
    """A file held open for reading until nothing refers to it any more; removed meanwhile, it can still be read.

    Args:
        path: The file.

    Attributes:
        descriptor: Of the operating system.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)

    def map(self) -> mmap:
        """Map it into memory; ValueError if it is empty."""
        return mmap(self.descriptor, 0, access=ACCESS_READ)


@dataclass(frozen=True)
class CacheSettings:
    """Where fetched files are kept, and how many bytes of them.

    Attributes:
        folder: Best on a disk of this machine: over a network file system each read crosses the network after all.
        limit: Bytes that the files may have together.
    """

    folder: Path
    limit: int

    @classmethod
    def from_environment(cls) -> Self:
        """Read ``ECGFAIR_CACHE`` (``~/.cache/ecgfair/shards``) and ``ECGFAIR_CACHE_BYTES`` (50 GB).

        Raises:
            ConfigurationError: ``ECGFAIR_CACHE_BYTES`` is no size.
        """
        folder = Path(os.environ.get(FOLDER_VARIABLE) or "~/.cache/ecgfair/shards").expanduser()
        named = os.environ.get(BYTES_VARIABLE)
        return cls(folder.absolute(), parse_bytes(named) if named else DEFAULT_BYTES)


def parse_bytes(text: str) -> int:
    """Return the bytes that ``50000000``, ``50 MB``, ``1.5GB`` or ``2GiB`` stand for.

    Raises:
        ConfigurationError: It is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    size = (_UNITS | _BINARY_UNITS).get(match[2]) if match else None
    if match is None or size is None or float(match[1]) == 0:
        raise ConfigurationError(f"{BYTES_VARIABLE} is {text!r}: give a size such as 20GB, 500MB or 20GiB.")
    return int(float(match[1]) * size)


class ShardCache:
    """Keeps whole files by the SHA-256 of their content, at most ``limit`` bytes of them.

    Names made of the content mean that a store that was replaced is never served from old files, and that two stores
    with a shard in common share it. Before a file is fetched, those used longest ago are removed; what another process
    is fetching stays and counts in full. A process that has mapped a removed file reads on undisturbed, and the disk
    gets its room back when the last of them lets go: whoever keeps mappings asks ``keeps`` now and then. Of several
    processes that want the same file one fetches it and the others wait; what a killed one left half fetched is
    removed by the next. What is found in the cache is compared by size alone: its checksum was compared as it was
    fetched. The folder is made for its owner alone, since records of patients lie in it.

    Args:
        settings: Folder and bound.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self._folder = settings.folder
        self._limit = settings.limit

    def open(self, key: str, size: int, fetch: Callable[[Path], None]) -> OpenFile:
        """Open a file, fetched first if it is not here.

        Args:
            key: SHA-256 of the content, in hexadecimal.
            size: Bytes of the content.
            fetch: Writes the content over the ``size`` zeros of the file it is given, and raises if it can't. The file
                must keep its size, which is what reserves the room.

        Raises:
            StoreError: The file is larger than the cache may be, or the folder can't be used; or what ``fetch`` raises.
        """
        if size > self._limit:
            raise StoreError(
                f"A file of {size} bytes does not fit into a cache of {self._limit}: "
                f"set {BYTES_VARIABLE} to some times that, such as {max(1, round(10 * size / 1e9))}GB."
            )
        with self._using():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / "locks").mkdir(exist_ok=True)
            with self._whole_folder():
                found = self._found(key, size)
        return found if found is not None else self._fetched(key, size, fetch)

    def keeps(self, key: str, *, use: bool) -> bool:
        """Tell whether a file is here; with ``use``, it also counts as used now."""
        path = self._folder / key
        if not use:
            return path.exists()
        with self._using():
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def _fetched(self, key: str, size: int, fetch: Callable[[Path], None]) -> OpenFile:
        part = self._folder / f"{key}{_PART}"
        with self._using():
            lock = self._lock(key).acquire()
        with lock:
            found = self._reserve(part, key, size)
            if found is not None:  # another process fetched it while this one waited for the lock
                return found
            try:
                with self._using():
                    fetch(part)
                    with part.open("rb") as file:
                        os.fsync(file.fileno())  # a file of the right size must not turn to zeros by a power cut
                with self._using(), self._whole_folder():
                    part.rename(self._folder / key)
                    # Opened under the lock, since another process may remove it right after.
                    return OpenFile(self._folder / key)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    def _reserve(self, part: Path, key: str, size: int) -> OpenFile | None:
        """Make ``part`` a file of ``size`` zeros once there is room, or return the whole file if it has come to be."""
        while True:
            with self._using(), self._whole_folder():
                found = self._found(key, size)
                if found is not None:
                    return found
                part.unlink(missing_ok=True)  # of a process that was killed: a living one would hold the lock
                if self._make_room(size, key):
                    with part.open("wb") as file:
                        file.truncate(size)
                    return None
            time.sleep(_WAIT_SECONDS)

    def _found(self, key: str, size: int) -> OpenFile | None:
        path = self._folder / key
        try:
            if path.stat().st_size == size:
                os.utime(path)
                return OpenFile(path)
        except FileNotFoundError:
            return None
        path.unlink()
        return None

    def _make_room(self, size: int, key: str) -> bool:
        """Remove what was used longest ago; false if what others are fetching leaves too little room."""
        with os.scandir(self._folder) as entries:
            files = [(entry.stat(), Path(entry.path)) for entry in entries if _OWN.fullmatch(entry.name)]
        files.sort(key=lambda file: file[0].st_mtime_ns)
        excess = sum(state.st_size for state, _ in files) + size - self._limit
        for state, path in files:
            if excess <= 0:
                break
            if path.suffix == _PART and self._in_progress(path, key):
                continue
            path.unlink()
            excess -= state.st_size
        return excess <= 0

    def _in_progress(self, part: Path, own_key: str) -> bool:
        if _stripe(part.name) == _stripe(own_key):
            return False  # this process holds the lock of its maker, who must be dead
        with suppress(Timeout), self._lock(part.name).acquire(timeout=0):
            return False
        return True

    def _lock(self, key: str) -> FileLock:
        return FileLock(self._folder / "locks" / _stripe(key))

    def _whole_folder(self) -> FileLock:
        """Held for moments only: to look, to make room, to put a file in its place; never to fetch."""
        return FileLock(self._folder / "locks" / "folder")

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Say what a full disk or a forbidden folder means for the cache."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"The cache folder {self._folder} can't be used ({error}): make room there, or set {FOLDER_VARIABLE} "
                "to another folder."
            ) from error


def _stripe(key: str) -> str:
    """Name one of 256 locks, for one a file would leave a lock behind for each file that ever was."""
    return key[:2]
