"""Checkpoints of Lightning on the disk: written whole or not at all, read without running code, refused if damaged."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any, Final

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from ecgfair.errors import CheckpointError, WriteError

DRAFT: Final = ".draft"
"""Ends the name of a file that is being written. Only a killed process leaves one."""

_OURS: Final = ("state_dict", "preprocessing", "epoch", "global_step", "loops")
"""What every checkpoint of ``fit`` holds; ``preprocessing`` is of ecgfair's modules alone."""
_ADVICE: Final = "Expected a checkpoint that `python -m ecgfair fit` wrote, such as RUN/checkpoints/best.ckpt."


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, so that a crash or a full disk never costs the one that was there.

    A checkpoint is written under another name in the same folder, flushed to the disk, renamed, and the folder flushed:
    whoever looks finds the old or the new one, whole. It is always read by ``read_checkpoint``.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: What Lightning keeps.
            path: Where to; a file that is there is replaced.
            storage_options: None; there are none for files.

        Raises:
            WriteError: It could not be written; a file that was there is as it was.
        """
        if storage_options is not None:
            raise TypeError(f"storage_options is {storage_options!r}: expected None, checkpoints are local files.")
        # Torch's own writer hides what the operating system says behind an error of its own.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_whole(Path(path), content.getbuffer())

    @override
    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, see ``read_checkpoint``; with ``weights_only``, whatever is asked for."""
        return read_checkpoint(path, map_location)


def read_checkpoint(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of ``fit``: tensors and plain values alone, nothing in it is run.

    Torch does not compare the checksums that it writes, and loads a file with a wrong bit without a word. They are
    compared here, at the cost of reading the file twice. They tell damage, not a forger, who can write others.

    Args:
        path: The file.
        map_location: Where tensors go, see ``torch.load``.

    Returns:
        What Lightning kept.

    Raises:
        CheckpointError: It is missing, truncated, damaged, no checkpoint of ecgfair, or holds more than plain values.
    """
    path = Path(path)
    try:
        _compare_checksums(path)
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no checkpoint at {path}. {_ADVICE}") from error
    except CheckpointError:
        raise
    except Exception as error:  # what a damaged or foreign file raises has no common class
        raise CheckpointError(f"{path} can't be read as a checkpoint: {_reason(error)}. {_ADVICE}") from error
    missing = [name for name in _OURS if not isinstance(checkpoint, dict) or name not in checkpoint]
    if missing:
        raise CheckpointError(f"{path} is no checkpoint of ecgfair: it has no {', '.join(missing)}. {_ADVICE}")
    values: dict[str, Any] = checkpoint
    return values


def _compare_checksums(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise CheckpointError(
            f"{path} is damaged: its part {damaged} is not what was written, by its checksum. Copy it again, or take "
            "another checkpoint."
        )


def _reason(error: Exception) -> str:
    """Say in a line what a file is not; torch's own advice, to load it without a check, is left out."""
    if isinstance(error, zipfile.BadZipFile):
        return "it is truncated, or no such file at all"
    said = str(error).strip()
    if "Weights only load failed" in said:
        return "it holds more than tensors and plain values, which could run code and is never loaded"
    return said.splitlines()[0].rstrip(".") if said else type(error).__name__


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file as a whole or not at all, and to the disk before it takes its name.

    Args:
        path: Its folder is made if need be; a file that is there is replaced.
        content: What is in it.

    Raises:
        WriteError: It can't be written, or not all of it; nothing is left of it.
    """
    draft = path.with_name(path.name + DRAFT)
    kept = f"{path}, as it was written before, is kept" if path.exists() else "nothing was there before"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise WriteError(
            f"{path} can't be written ({error.strerror or error}): {kept}. Make room or mend the disk; the same "
            "command then goes on from the last checkpoint."
        ) from error


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes left half written in a folder."""
    for draft in folder.glob(f"*{DRAFT}"):
        draft.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Have the disk keep a renaming, where folders can be flushed: not on Windows."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
