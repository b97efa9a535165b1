"""Where the files of a RecordStore lie: in a folder of this machine, or behind a URI and a bounded local cache."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pyarrow as pa

from data_modules.stores.remote_folder import RemoteFolder, Uri, connect
from data_modules.stores.shard_cache import CacheSettings, OpenFile, ShardCache
from ecgfair.errors import StoreError

MANIFEST: Final = "manifest.json"

PAUSES: Final = (0.5, 2.0)
"""Seconds before each new attempt. One that is never answered takes 5 to 10 seconds, so that all take half a minute.

Google's client is the exception: it tries again by itself, and gives up a silent server after two minutes.
"""

T = TypeVar("T")
Entry = Mapping[str, Any]
"""What the manifest says of a file: ``bytes`` and ``sha256``."""


class StoreFiles(Protocol):
    """The files of one store. Pickles to its location and settings, and connects at first use in each process."""

    @property
    def location(self) -> str:
        """The folder or URI, as messages show it: without login and query, which may be secret."""

    def read(self, name: str) -> bytes:
        """Return a file's content as it is now, never from the cache.

        Raises:
            FileNotFoundError: There is no such file.
            StoreError: It can't be read.
        """

    def sizes(self) -> dict[str, int] | None:
        """Return name and bytes of every file, or None where that can't be told at once.

        That is HTTP, and a bucket that grants reading but not listing: there each file is compared as it is fetched.

        Raises:
            StoreError: The files can't be listed.
        """

    def checksum(self, name: str) -> str:
        """Read a whole file where the store lies, not in the cache, and return its SHA-256.

        Raises:
            StoreError: It can't be read.
        """

    def open(self, name: str, entry: Entry) -> OpenFile:
        """Open a file, fetched first if it lies elsewhere and compared with its entry.

        Raises:
            StoreError: It is missing, damaged, or can't be fetched.
        """

    def keeps(self, entry: Entry, *, use: bool) -> bool:
        """Tell whether a file that was opened is still kept; with ``use``, it also counts as used now.

        An open file stays on the disk when it is removed. Who keeps files open lets go of those that are no longer
        kept, or the cache outgrows its bound. Always true of a local store.
        """


def store_files(location: str | Path, cache: CacheSettings | None = None) -> StoreFiles:
    """Return the files of a store, wherever it is.

    Shards are fetched whole. Reading at random all over a store that is larger than the cache therefore fetches
    nearly a shard a record: shuffle within a window of shards, as the training sampler does, that is smaller.

    Args:
        location: A folder, ``file://…``, ``s3://…``, ``gs://…``, ``http://…`` or ``https://…``; see
            ``remote_folder.connect`` for their options.
        cache: Where to keep what is fetched; the environment says if not given.

    Raises:
        StoreError: The location is a URI of an unknown kind.
        ConfigurationError: The cache's size in the environment is none.
    """
    text = str(location)
    if isinstance(location, Path) and re.match(r"[a-z][a-z0-9]+:/", text):
        raise StoreError(f"A store's {text.partition(':')[0]}:// location was made a path: give it as text.")
    if "://" not in text:
        return LocalFiles(Path(location))
    if not text.startswith("file://"):
        return RemoteFiles(text, cache or CacheSettings.from_environment())
    parts = urlsplit(text, allow_fragments=False)
    if parts.netloc not in ("", "localhost"):
        raise StoreError(f"{text} names another machine: write file:///folder.")
    return LocalFiles(Path(url2pathname(parts.path)))


class LocalFiles:
    """A store in a folder of this machine, used in place.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def location(self) -> str:
        """The folder."""
        return str(self.folder)

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(f"{self.folder / name} is missing.") from error
        except OSError as error:
            raise StoreError(f"{self.folder / name} can't be read: {error}.") from error

    def sizes(self) -> dict[str, int]:
        """Return name and bytes of every file."""
        try:
            with os.scandir(self.folder) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except OSError as error:
            raise StoreError(f"{self.folder} can't be listed: {error}.") from error

    def checksum(self, name: str) -> str:
        """Return a file's SHA-256."""
        try:
            with (self.folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise StoreError(f"{self.folder / name} can't be read: {error}.") from error

    def open(self, name: str, entry: Entry) -> OpenFile:
        """Open a file where it lies; its size was compared as the store was opened."""
        try:
            return OpenFile(self.folder / name)
        except OSError as error:
            raise StoreError(f"{self.folder / name} can't be read: {error}.") from error

    def keeps(self, entry: Entry, *, use: bool) -> bool:
        """Nothing is ever removed."""
        return True


class RemoteFiles:
    """A store behind a URI. What fails in passing is tried again, see ``PAUSES``; then it is an error.

    Args:
        uri: Folder of the store.
        cache: Where to keep what is fetched.

    Raises:
        StoreError: The URI is of an unknown kind.
    """

    def __init__(self, uri: str, cache: CacheSettings) -> None:
        self._uri = Uri.parse(uri)
        self._settings = cache
        self._cache = ShardCache(cache)
        self._connections: dict[int, RemoteFolder] = {}

    def __reduce__(self) -> tuple[type[RemoteFiles], tuple[str, CacheSettings]]:
        return RemoteFiles, (self._uri.text, self._settings)

    @property
    def location(self) -> str:
        """The URI, without login and query."""
        return str(self._uri)

    def read(self, name: str) -> bytes:
        """Return a file's content as it is there now."""
        try:
            return self._retried(name, lambda: b"".join(self._blocks(name)))
        except _MissingError as error:
            raise FileNotFoundError(str(error)) from None

    def sizes(self) -> dict[str, int] | None:
        """Return name and bytes of every file, None where they can't be listed."""
        return self._retried("", self._list)

    def checksum(self, name: str) -> str:
        """Read a whole file there, past the cache, and return its SHA-256."""

        def attempt() -> str:
            digest = hashlib.sha256()
            for block in self._blocks(name):
                digest.update(block)
            return digest.hexdigest()

        return self._retried(name, attempt)

    def open(self, name: str, entry: Entry) -> OpenFile:
        """Open the cached copy of a file, fetched and compared first if there is none."""
        key, size = str(entry.get("sha256")), entry.get("bytes")
        if not re.fullmatch("[0-9a-f]{64}", key) or not isinstance(size, int) or size < 1:
            raise StoreError(f"{self._file(MANIFEST)} is damaged: size or SHA-256 of {name} are none.")

        def fetch(path: Path) -> None:
            self._retried(name, lambda: self._download(name, key, size, path))

        return self._cache.open(key, size, fetch)

    def keeps(self, entry: Entry, *, use: bool) -> bool:
        """Tell whether the copy of a file is still in the cache; with ``use``, it also counts as used now."""
        return self._cache.keeps(entry["sha256"], use=use)

    def write(self, name: str, source: Path) -> None:
        """Write a file there, or replace it.

        Raises:
            StoreError: It can't be written.
        """

        def attempt() -> None:
            with self._asking(name):
                self._connected().upload(name, source)

        self._retried(name, attempt)

    def _connected(self) -> RemoteFolder:
        """Connect once in each process: a forked one may not use its parent's connection, nor even close it."""
        connection = self._connections.get(os.getpid())
        if connection is None:
            connection = self._connections[os.getpid()] = connect(self._uri)
        return connection

    def _blocks(self, name: str) -> Iterator[bytes]:
        with self._asking(name):
            yield from self._connected().blocks(name)

    def _list(self) -> dict[str, int] | None:
        with self._asking(""):
            return self._connected().sizes()

    def _download(self, name: str, key: str, size: int, path: Path) -> None:
        digest = hashlib.sha256()
        read = 0
        with path.open("r+b") as file:
            for block in self._blocks(name):
                read += len(block)
                if read > size:
                    break
                digest.update(block)
                file.write(block)
        if read < size:
            raise _PassingError(f"it ends after {read} of {size} bytes")
        if read > size or digest.hexdigest() != key:
            raise StoreError(
                f"{self._file(name)} is damaged: it is not the {size} bytes with the SHA-256 of {MANIFEST}. "
                "Publish the store again."
            )

    def _file(self, name: str) -> str:
        """Name a file as messages show it."""
        return f"{self.location}/{name}".rstrip("/")

    def _retried(self, name: str, attempt: Callable[[], T]) -> T:
        pauses = () if self._uri.scheme == "gs" else PAUSES  # Google's client tries again by itself
        for pause in pauses:
            try:
                return attempt()
            except _PassingError:
                time.sleep(pause)
        try:
            return attempt()
        except _PassingError as error:
            times = f"{len(pauses) + 1} times " if pauses else ""
            raise StoreError(
                f"{self._file(name)} failed {times}({error}): check address, network and credentials."
            ) from None

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """Sort errors by what to do about them; the causes are not chained, since they may hold credentials."""
        try:
            yield
        except FileNotFoundError:
            raise _MissingError(f"{self._file(name)} is missing: publish the store again.") from None
        except (PermissionError, pa.ArrowException) as error:
            raise StoreError(f"{self._file(name)} can't be used: {self._uri.cleaned(error)}.") from None
        except (OSError, HTTPException) as error:
            raise _PassingError(self._uri.cleaned(error)) from None


class _MissingError(StoreError):
    """What is asked for is not there."""


class _PassingError(Exception):
    """An attempt failed in a way that the next one may not."""
