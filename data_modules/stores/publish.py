"""publish: copy a finished RecordStore to S3 or Google Cloud Storage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from data_modules.stores.store_files import MANIFEST, LocalFiles, RemoteFiles, store_files
from ecgfair.errors import StoreError


def publish(folder: str | Path, location: str) -> None:
    """Copy a store behind a URI. Its manifest goes last: without one, what is there is no store.

    Every file is compared with the manifest before it goes, and the sizes that arrived before the manifest does. What
    an interrupted call left is written over by the next.

    Args:
        folder: A finished store of this machine.
        location: ``s3://bucket/path`` or ``gs://bucket/path`` that holds no store yet; see ``remote_folder.connect``.

    Raises:
        StoreError: The folder is no finished store or is damaged, the location holds a store or can't be written.
    """
    source, target = LocalFiles(Path(folder)), store_files(location)
    if not isinstance(target, RemoteFiles) or target.location.startswith("http"):
        raise StoreError(f"{target.location} is neither s3:// nor gs://: copy the folder there by other means.")
    files = _files(source)
    try:
        target.read(MANIFEST)
    except FileNotFoundError:
        pass
    else:
        raise StoreError(f"{target.location} holds a store already: remove it, or choose another place.")
    for name, entry in files.items():
        if source.checksum(name) != entry["sha256"]:
            raise StoreError(f"{source.folder / name} is damaged: its SHA-256 is not the manifest's. Prepare it again.")
        target.write(name, source.folder / name)
    arrived = target.sizes()
    for name, entry in files.items():
        if arrived is not None and arrived.get(name) != entry["bytes"]:
            raise StoreError(
                f"{target.location}: {name} arrived with {arrived.get(name)} of {entry['bytes']} bytes. Publish again."
            )
    target.write(MANIFEST, source.folder / MANIFEST)
    _tell_what_stays(source.folder, files)
    Console().print(f"Store: {target.location}", highlight=False, markup=False, soft_wrap=True)


def _tell_what_stays(folder: Path, files: Mapping[str, Any]) -> None:
    """Name what is no part of the store, such as the truth of a synthetic one, and was therefore not copied."""
    others = sorted(path.name for path in folder.iterdir() if path.name not in {*files, MANIFEST})
    if others:
        told = f"Not copied, since {MANIFEST} does not list it: {', '.join(others)}."
        Console().print(told, highlight=False, markup=False, soft_wrap=True)


def _files(source: LocalFiles) -> Mapping[str, Mapping[str, Any]]:
    try:
        files: Mapping[str, Mapping[str, Any]] = json.loads(source.read(MANIFEST))["files"]
        wanted = {name: entry["bytes"] for name, entry in files.items()}
    except FileNotFoundError as error:
        raise StoreError(f"{source.folder} is no finished RecordStore: it has no {MANIFEST}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{source.folder / MANIFEST} is damaged ({error!r}): prepare the store again.") from error
    sizes = source.sizes()
    for name, size in wanted.items():
        if sizes.get(name) != size:
            raise StoreError(
                f"{source.folder / name} has {sizes.get(name)} bytes, {MANIFEST} says {size}: prepare again."
            )
    return files
