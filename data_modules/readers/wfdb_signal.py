"""One twelve-lead signal out of a WFDB record, believed only where header and signal file agree.

The ``wfdb`` package trusts headers: it takes a gain of 0 for 200 steps a millivolt, reads the samples the header asks
for and no more, and checks no checksum. Each of these would change voltages or lengths in silence, so each is checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import wfdb
from numpy.typing import NDArray

from ecgfair.ecg import LEADS
from ecgfair.errors import RecordError

_MILLIVOLTS: Final = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}
_STANDARD: Final = {lead.upper(): lead for lead in LEADS}
_BYTES_PER_SAMPLE: Final = {"16": 2, "61": 2, "24": 3, "32": 4, "80": 1}
_CHECKSUM_MODULUS: Final = 1 << 16
_HEADER_ERRORS: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What wfdb was seen to raise on headers that are none."""


def read_signal(folder: Path, name: str) -> tuple[NDArray[np.float32], float]:
    """Read the twelve standard leads of one WFDB record.

    Leads are found by name, whatever their case and order; leads besides the twelve are left out.

    Args:
        folder: Folder the record's name is relative to.
        name: Record name as the source's table gives it, with ``/`` and without a suffix.

    Returns:
        The signal, (12, time) float32 millivolts in the order of ``ecgfair.ecg.LEADS``, and its sampling rate in Hz.

    Raises:
        RecordError: A file is missing, header and signal file contradict each other, or a lead is missing or double.
    """
    _check_inside(name)
    header_name = f"{name}.hea"
    _check_lines(_header_text(folder, header_name), header_name)
    record = _read_record(folder, name)
    _check_sums(record, name)
    rows = lead_rows(record.sig_name, header_name)
    factors = np.asarray([_factor(unit, header_name) for unit in record.units])
    return np.ascontiguousarray((record.dac() * factors).T[rows], dtype=np.float32), float(record.fs)


def lead_rows(names: Sequence[str | None], where: str) -> list[int]:
    """Return the position in ``names`` of each standard lead, in the order of ``LEADS``.

    Args:
        names: Lead names as recorded, of any case.
        where: What they belong to, for the message.

    Raises:
        RecordError: A standard lead is missing or there twice.
    """
    found: dict[str, int] = {}
    for row, recorded in enumerate(names):
        lead = _STANDARD.get((recorded or "").strip().upper())
        if lead is None:
            continue
        if lead in found:
            raise RecordError(f"lead there twice: {where} names {lead} in rows {found[lead] + 1} and {row + 1}.")
        found[lead] = row
    missing = [lead for lead in LEADS if lead not in found]
    if missing:
        listed = ", ".join(str(recorded) for recorded in names) or "no lead"
        raise RecordError(f"lead missing: {where} lacks {', '.join(missing)}; it has {listed}.")
    return [found[lead] for lead in LEADS]


def _check_inside(name: str) -> None:
    """Refuse names that lead out of the source's folder: a table from elsewhere must not open this machine's files."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise RecordError(f"file name not allowed: {name!r}; expected a path inside the source's folder.")


def _header_text(folder: Path, header_name: str) -> str:
    try:
        return (folder / header_name).read_text(encoding="utf-8")
    except OSError as error:
        raise RecordError(
            f"file missing: {header_name} can't be opened ({error.strerror}); complete the download of the source."
        ) from error
    except UnicodeDecodeError as error:
        raise RecordError(f"header unreadable: {header_name} is not text ({error.reason}).") from error


def _check_lines(text: str, header_name: str) -> None:
    """Check what can't wait for wfdb: file names, before it opens them, and gains, while a 0 is still a 0."""
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for row, fields in enumerate(lines[1:], start=1):
        if PurePosixPath(fields[0]).name != fields[0] or "\\" in fields[0]:
            raise RecordError(f"file name not allowed: {header_name} names {fields[0]!r}; expected a file beside it.")
        gain = fields[2].split("/")[0].split("(")[0] if len(fields) > 2 else ""
        try:
            calibrated = math.isfinite(float(gain)) and float(gain) > 0
        except ValueError:
            calibrated = False
        if not calibrated:
            raise RecordError(
                f"gain unusable: {header_name} gives lead {row} the gain {gain!r}; "
                "expected a positive number of steps a unit."
            )


def _read_record(folder: Path, name: str) -> wfdb.Record:
    """Read the samples as stored; where wfdb fails, find out what it failed at."""
    try:
        record = wfdb.rdrecord(str(folder / name), physical=False)
    except (*_HEADER_ERRORS, OSError, NotImplementedError, MemoryError) as error:
        _check_signal_file(_parse_header(folder, name), folder, name)
        raise RecordError(f"signal unreadable: the signal of {name} can't be read ({error}).") from error
    _check_header(record, name)
    _check_signal_file(record, folder, name)
    return record


def _parse_header(folder: Path, name: str) -> wfdb.Record:
    try:
        header = wfdb.rdheader(str(folder / name))
    except _HEADER_ERRORS as error:
        raise RecordError(f"header unreadable: {name}.hea is not a WFDB header ({error}).") from error
    _check_header(header, name)
    return header


def _check_header(header: wfdb.Record | wfdb.MultiRecord, name: str) -> None:
    if not isinstance(header, wfdb.Record) or not header.n_sig:
        raise RecordError(f"header unreadable: {name}.hea describes no signal of a single segment.")
    if len(header.file_name) != header.n_sig:
        raise RecordError(
            f"header contradicts itself: {name}.hea announces {header.n_sig} leads and "
            f"describes {len(header.file_name)}."
        )
    if not header.sig_len:
        raise RecordError(f"header unreadable: {name}.hea does not say how many samples there are.")


def _check_signal_file(header: wfdb.Record, folder: Path, name: str) -> None:
    """Compare the size of each signal file with what the header says it holds."""
    for file_name in dict.fromkeys(header.file_name):
        relative = str(PurePosixPath(name).with_name(file_name))
        path = folder / relative
        if not path.is_file():
            raise RecordError(f"file missing: {relative}, named in {name}.hea; complete the download of the source.")
        rows = [row for row in range(header.n_sig) if header.file_name[row] == file_name]
        formats = {header.fmt[row] for row in rows}
        if len(formats) > 1:
            raise RecordError(
                f"header contradicts itself: {name}.hea gives {relative} the formats {', '.join(sorted(formats))}."
            )
        width = _BYTES_PER_SAMPLE.get(formats.pop())
        if width is None:
            continue  # packed formats: wfdb itself fails on a file that is too short
        bytes_per_sample = width * len(rows)
        samples = (path.stat().st_size - (header.byte_offset[rows[0]] or 0)) / bytes_per_sample
        if samples != header.sig_len:
            raise RecordError(
                f"samples missing or left over: {relative} holds {samples:g} samples of {len(rows)} leads, "
                f"{name}.hea says {header.sig_len}."
            )


def _check_sums(record: wfdb.Record, name: str) -> None:
    """Compare each lead's sum with the header's checksum: a damaged byte must not become a diagnosis."""
    sums = record.d_signal.sum(axis=0, dtype=np.int64) % _CHECKSUM_MODULUS
    for row, expected in enumerate(record.checksum):
        if expected is not None and int(sums[row]) != expected % _CHECKSUM_MODULUS:
            raise RecordError(
                f"signal damaged: lead {record.sig_name[row]} of {name} sums up to {int(sums[row])}, "
                f"its header's checksum is {expected}."
            )


def _factor(unit: str | None, header_name: str) -> float:
    factor = _MILLIVOLTS.get((unit or "mV").lower())
    if factor is None:
        raise RecordError(f"unit unknown: {header_name} gives voltages in {unit!r}; expected V, mV, uV or nV.")
    return factor
