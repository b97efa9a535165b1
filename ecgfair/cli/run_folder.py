"""The folder of a run: one run in it, and the same command goes on with one that was not finished."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from ecgfair.callbacks import LAST
from ecgfair.cli.run_state import FINISHED, RUN, read_run
from ecgfair.errors import RunFolderError
from ecgfair.training.checkpoint_io import DRAFT

CONFIG: Final = "config.yaml"
LOCK: Final = ".lock"


def is_other_process() -> bool:
    """Whether this is not the first process of a run: the first alone writes into its folder."""
    return bool(getattr(rank_zero_only, "rank", 0))


@dataclass(frozen=True)
class Start:
    """How a ``fit`` begins.

    Args:
        checkpoint: What it goes on from; ``None`` to start anew.
        earlier: ``run.json`` of the run that it goes on with, or that it starts over; ``None`` for a new one.
        chosen: Whether the checkpoint follows from the folder, not from ``--ckpt_path``.
    """

    checkpoint: str | None = None
    earlier: Mapping[str, Any] | None = None
    chosen: bool = False


def plan_start(folder: Path, *, overwrite: bool, checkpoint: str | None) -> Start:
    """Decide whether a ``fit`` starts, goes on or is refused.

    It depends on nothing that the first process changes before all processes have met, so each of them, whenever it
    asks, decides alike: a run that has started is not finished, and its last checkpoint is there or is not.

    Args:
        folder: The run folder.
        overwrite: Whether a run in it is to be replaced.
        checkpoint: Checkpoint that was asked for.

    Raises:
        RunFolderError: Another run is in the folder, or what is in it is none.
    """
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} is a file: expected a folder or nothing there. Choose another --run.")
    earlier = read_run(folder)
    if checkpoint is not None:
        return Start(checkpoint, earlier)
    # A process that was killed at once left its lock, or half a file, and no run.
    if not folder.exists() or all(entry.name == LOCK or entry.name.endswith(DRAFT) for entry in folder.iterdir()):
        return Start()
    if earlier is None and not (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder} is not empty and holds no run of ecgfair: choose another folder with --run.")
    if overwrite:
        return Start()
    if earlier is None or earlier["state"] == FINISHED:
        raise RunFolderError(
            f"{folder} holds a run already. Go on with it (--ckpt_path {folder / LAST}), replace it "
            "(--overwrite true) or choose another folder (--run)."
        )
    last = folder / LAST
    return Start(str(last) if last.is_file() else None, earlier, chosen=True)


class Occupied:
    """Keeps a second process from writing into a run folder, by a lock that the system takes back from the dead."""

    def __init__(self) -> None:
        self._lock: FileLock | None = None

    def enter(self, folder: Path) -> None:
        """Take the folder, and make it if need be.

        Raises:
            RunFolderError: A run in it goes on at this moment.
        """
        if self._lock is not None or is_other_process():
            return
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(
                f"{folder} is in use: another process trains into it at this moment. Wait for its end or choose "
                "another folder with --run."
            ) from None
        except (NotImplementedError, OSError):
            return  # a file system without locks
        self._lock = lock

    def leave(self) -> None:
        """Give the folder back, without a trace; this can be called twice."""
        if self._lock is None:
            return
        # Removed while it is held: who waits for nothing has no file to mistake for his own.
        with contextlib.suppress(OSError):
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()
        self._lock = None


def clear(folder: Path) -> None:
    """Delete the run that is in a folder, but for its lock; last what tells that there was one.

    So whoever looks meanwhile, or after this was stopped, finds a run that may be replaced, or nothing.
    """
    marks = (CONFIG, RUN)
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name in marks):
        if entry.name == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def set_aside(path: Path) -> None:
    """Rename a file to the first free ``name-1``, ``name-2``, … beside it."""
    number = 1
    while (aside := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    path.rename(aside)
