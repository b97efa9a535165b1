"""The HDF5 parts of CODE-15 %: which exams each holds, and their tracings as stored."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ecgfair.ecg import LEADS
from ecgfair.errors import RecordError

SAMPLES: Final = 4096
"""Of every tracing, zeros at its ends included."""

_PATTERN: Final = "exams_part*.hdf5"
_HDF5_ERRORS: Final = (OSError, RuntimeError, KeyError)


class Place(NamedTuple):
    """Where a tracing is: in which part, and in which row of it, counted from 0."""

    part: str
    row: int

    def __str__(self) -> str:
        return f"{self.part} tracings[{self.row}]"


@dataclass(frozen=True)
class Part:
    """One HDF5 file: the exam of each of its rows, or why it can't be read."""

    exams: tuple[str, ...] = ()
    fault: str | None = None


def part_files(source: Path) -> list[Path]:
    """Return the parts that are there, part 2 before part 10."""

    def number_and_name(path: Path) -> tuple[list[int], str]:
        return [int(digits) for digits in re.findall(r"\d+", path.stem)], path.name

    return sorted(source.glob(_PATTERN), key=number_and_name)


def list_part(path: Path) -> Part:
    """Read the ids of a part, and see whether it is laid out as published; its tracings are not read."""
    try:
        with _open(path) as file:
            fault = _fault(file)
            return Part(fault=fault) if fault else Part(exams=tuple(map(str, file["exam_id"][:].tolist())))
    except _HDF5_ERRORS as error:
        # Some of HDF5's messages hold the time and the full path, and the same source must make the same store.
        return Part(fault="is cut short" if "truncated" in str(error) else "is no HDF5 file that can be read")


class Tracings:
    """Reads tracings from parts, each opened once and for reading alone; closes them at the end of a ``with``."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._files: dict[str, h5py.File] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Tracings:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, place: Place) -> NDArray[np.float32]:
        """Return one tracing as stored, (time, 12) float32.

        Raises:
            RecordError: Its bytes can't be read.
        """
        try:
            if place.part not in self._files:
                self._files[place.part] = self._stack.enter_context(_open(self._source / place.part))
            return np.asarray(self._files[place.part]["tracings"][place.row], dtype=np.float32)
        except _HDF5_ERRORS as error:
            raise RecordError(f"tracing unreadable: {place} is damaged; download the part again.") from error


def _open(path: Path) -> h5py.File:
    # Many network file systems have no locks; "best-effort" then reads all the same.
    return h5py.File(path, "r", locking="best-effort")


def _fault(file: h5py.File) -> str | None:
    """Say how a part is not laid out as published, or that it would have other files of this machine read."""
    for name in ("exam_id", "tracings"):
        is_link = not isinstance(file.get(name, getlink=True), h5py.HardLink)
        if is_link or not isinstance(file[name], h5py.Dataset) or file[name].external or file[name].is_virtual:
            return f"has no data set {name!r} of its own"
    exams, tracings = file["exam_id"], file["tracings"]
    if tracings.dtype.kind != "f" or tracings.ndim != 3 or tracings.shape[1:] != (SAMPLES, len(LEADS)):
        expected = f"expected float32 of (N, {SAMPLES}, {len(LEADS)})"
        return f"has {tracings.dtype} tracings of shape {tracings.shape}, {expected}"
    if exams.dtype.kind not in "iu" or exams.shape != tracings.shape[:1]:
        return (
            f"has {exams.dtype} exam_id of shape {exams.shape}, expected a whole number for each of "
            f"{tracings.shape[0]} tracings"
        )
    return None
