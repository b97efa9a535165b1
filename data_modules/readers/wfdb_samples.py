"""The signal files of a WFDB record: whether they hold what the header says, and the steps in them.

Formats are those of signal(5) in the WFDB Applications Guide. What NumPy has a type for is read as it stands; packed
and compressed formats are unpacked by the ``wfdb`` package, which must then be able to read the header, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import numpy as np
import wfdb
from numpy.typing import NDArray

from data_modules.readers.wfdb_header import Header, SignalLine
from ecgfair.errors import RecordError

Steps = NDArray[np.integer[Any]]
"""(time,) samples of one signal as stored, before gain and baseline."""

_CHECKSUM_MODULUS: Final = 1 << 16
_WFDB_ERRORS: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    OSError,
    RuntimeError,  # soundfile on a damaged FLAC stream, and NotImplementedError
    MemoryError,
)
"""What wfdb was seen to raise on records that are none."""


class _Format(NamedTuple):
    """How samples lie in a file: the bits they have, their bytes, and, where NumPy has it, their type and its zero."""

    bits: int | None
    size: Fraction | None = None
    dtype: str | None = None
    zero: int = 0


_FORMATS: Final = {
    "8": _Format(None, Fraction(1)),
    "16": _Format(16, Fraction(2), "<i2"),
    "24": _Format(24, Fraction(3)),
    "32": _Format(32, Fraction(4), "<i4"),
    "61": _Format(16, Fraction(2), ">i2"),
    "80": _Format(8, Fraction(1), "u1", 1 << 7),
    "160": _Format(16, Fraction(2), "<u2", 1 << 15),
    "212": _Format(12, Fraction(3, 2)),
    "310": _Format(10, Fraction(4, 3)),
    "311": _Format(10, Fraction(4, 3)),
    "508": _Format(8),
    "516": _Format(16),
    "524": _Format(24),
}
"""Formats of signal(5) of the WFDB Applications Guide. The most negative number of ``bits`` means "no sample"; format 8
has none, and the FLAC formats have no size that a header tells."""
_GROUP_BYTES: Final = 4
"""Packed formats may fill up their last group, of three or four bytes."""


def check_size(header: Header, file_name: str, path: Path) -> None:
    """Compare the size of a signal file with what the header says it holds.

    Args:
        header: As parsed.
        file_name: The file's name in the header.
        path: Where it is.

    Raises:
        RecordError: It holds more or less, or is of a format that WFDB does not have.
    """
    lines = [line for line in header.signals if line.file_name == file_name]
    relative = str(PurePosixPath(header.where).with_name(path.name))
    layouts = {(line.format, line.byte_offset) for line in lines}
    if len(layouts) > 1:
        listed = ", ".join(sorted(f"{stored}+{offset}" for stored, offset in layouts))
        raise RecordError(f"header contradicts itself: {header.where} gives {relative} the formats {listed}.")
    stored, offset = layouts.pop()
    layout = _FORMATS.get(stored)
    if layout is None:
        raise RecordError(f"format unknown: {header.where} gives {relative} the format {stored}.")
    if layout.size is None:
        return  # wfdb finds out, and is asked for no more samples than there can be in an hour
    frame = layout.size * sum(line.samples_per_frame for line in lines)
    size = path.stat().st_size - offset
    if not 0 <= size - frame * header.frames < (1 if layout.size.denominator == 1 else _GROUP_BYTES):
        raise RecordError(
            f"samples missing or left over: {relative} holds {float(size / frame):g} samples of {len(lines)} leads, "
            f"{header.where} says {header.frames}."
        )


def is_plain(header: Header) -> bool:
    """Whether NumPy reads all signals as they stand."""
    return all(
        line.samples_per_frame == 1 and line.format in _FORMATS and _FORMATS[line.format].dtype is not None
        for line in header.signals
    )


def read_steps(header: Header, files: Mapping[str, Path], folder: Path, name: str) -> list[Steps]:
    """Return the steps of each signal, in the order of the header, once their sums agree with its checksums.

    Args:
        header: As parsed.
        files: Path of each signal file by its name in the header; ``check_size`` has found nothing wrong with it.
        folder: Folder the record's name is relative to.
        name: The record's name.

    Raises:
        RecordError: The samples can't be read, or a checksum does not agree: a damaged byte must not become a
            diagnosis.
    """
    try:
        steps = _read_plain(header, files) if is_plain(header) else _unpack(header, folder, name)
    except _WFDB_ERRORS as error:
        # The same source elsewhere must make the same store: no full path, and no object by its address.
        what = type(error).__name__ if re.search(r"[/\\<]", str(error)) else str(error)
        raise RecordError(f"signal unreadable: the signal of {name} can't be read ({what}).") from error
    for line, samples in zip(header.signals, steps, strict=True):
        total = int(samples.sum(dtype=np.int64)) % _CHECKSUM_MODULUS
        if line.checksum is not None and total != line.checksum % _CHECKSUM_MODULUS:
            raise RecordError(
                f"signal damaged: lead {line.name} of {name} sums up to {total}, its header's checksum is "
                f"{line.checksum}."
            )
    return steps


def to_millivolts(steps: Steps, line: SignalLine, millivolts: float) -> NDArray[np.float32]:
    """Apply gain and baseline; rounded to float32 only at the end.

    Args:
        steps: (time,) as stored.
        line: What the header says of them; its gain is a positive number.
        millivolts: Millivolts in one of its units.

    Returns:
        (time,) millivolts, NaN where the file has "no sample", infinite where float32 can't hold them.
    """
    bits = _FORMATS[line.format].bits
    voltages = (steps.astype(np.float64) - line.baseline) / float(line.gain) * millivolts
    if bits is not None:
        voltages[steps == -(1 << (bits - 1))] = np.nan
    with np.errstate(over="ignore"):
        return voltages.astype(np.float32)


def _read_plain(header: Header, files: Mapping[str, Path]) -> list[Steps]:
    samples: dict[int, Steps] = {}
    for file_name, path in files.items():
        rows = [row for row, line in enumerate(header.signals) if line.file_name == file_name]
        line = header.signals[rows[0]]
        layout = _FORMATS[line.format]
        steps = np.fromfile(path, layout.dtype, offset=line.byte_offset).reshape(header.frames, len(rows))
        samples |= zip(rows, (steps.astype(np.int32) - layout.zero if layout.zero else steps).T, strict=True)
    return [samples[row] for row in range(len(header.signals))]


def _unpack(header: Header, folder: Path, name: str) -> list[Steps]:
    record = wfdb.rdrecord(str(folder / name), physical=False, smooth_frames=False)
    samples: list[Steps] = record.e_d_signal
    expected = [header.frames * line.samples_per_frame for line in header.signals]
    if [len(steps) for steps in samples] != expected:
        raise ValueError("wfdb unpacks another number of samples than the header announces")
    return samples
