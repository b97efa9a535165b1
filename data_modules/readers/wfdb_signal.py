"""The standard leads of a WFDB record in millivolts, believed only where header and signal files agree.

The ``wfdb`` package trusts headers: it takes a gain of 0 for 200 steps a millivolt, reads the samples the header asks
for and no more, and checks no checksum. Each of these would change voltages or lengths in silence, so each is checked.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_modules.leads import standard_name, standard_rows
from data_modules.readers.wfdb_header import MAX_HEADER_BYTES, Header, parse_header, positive_number
from data_modules.readers.wfdb_samples import check_size, is_plain, read_steps, to_millivolts
from ecgfair.errors import RecordError

MAX_SECONDS: Final = 3600
"""A recording longer than this is refused from its header. An hour of twelve leads at 1000 Hz is 173 MB of float32, a
day is 4 GB in each worker: what a Holter recorder keeps must be cut into records of the length to learn from."""

_MILLIVOLTS: Final = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}


@dataclass(frozen=True)
class RecordedSignal:
    """The standard leads of one WFDB record.

    Args:
        signal: (leads, time) float32 millivolts; NaN where the file has WFDB's "no sample".
        leads: Names of the rows, in the order of ``ecgfair.ecg.LEADS``; at least one.
        sampling_rate: Hz.
        comments: The header's comment lines, without their ``#``.
        recorded_at: ISO 8601 date and time of the first sample, or None.
        other_leads: Signals of the record that are no standard lead, as it names them; not among ``signal``.
        notes: What the header states and is taken as missing, or how a file was found, see ``Record.notes``.
    """

    signal: NDArray[np.float32]
    leads: tuple[str, ...]
    sampling_rate: float
    comments: tuple[str, ...]
    recorded_at: str | None
    other_leads: tuple[str, ...]
    notes: tuple[str, ...]


def read_signal(folder: Path, name: str) -> RecordedSignal:
    """Read the standard leads of one WFDB record, found by name, whatever their case and order.

    Args:
        folder: Folder the record's name is relative to.
        name: Record name as the source's table gives it, with ``/`` and without a suffix.

    Raises:
        RecordError: A file is missing, header and signal file contradict each other, voltages are not calibrated, there
            is no standard lead or one twice, or the record is longer than ``MAX_SECONDS``.
    """
    check_inside(name)
    header = read_header(folder, name)
    rows = standard_rows([line.name for line in header.signals], header.where)
    factors = {row: _millivolts_a_unit(header, row) for row in _to_calibrate(header)}
    files, notes = _locate(header, folder, name)
    for file_name, path in files.items():
        check_size(header, file_name, path)
    _check_duration(header)
    _check_rates(header, rows)
    steps = read_steps(header, files, folder, name)
    signal = np.stack([to_millivolts(steps[row], header.signals[row], factors[row]) for row in rows.values()])
    if np.isinf(signal).any():
        raise RecordError(f"gain unusable: with the gains of {header.where} voltages are beyond any number.")
    return RecordedSignal(
        signal=signal,
        leads=tuple(rows),
        sampling_rate=header.frame_rate * header.signals[next(iter(rows.values()))].samples_per_frame,
        comments=header.comments,
        recorded_at=header.recorded_at,
        other_leads=tuple(
            line.name or f"unnamed signal {row + 1}"
            for row, line in enumerate(header.signals)
            if row not in rows.values()
        ),
        notes=header.notes + notes,
    )


def read_header(folder: Path, name: str) -> Header:
    """Read and parse ``name.hea``, without a look at its signal files.

    Raises:
        RecordError: It is missing or no header of a record of one segment.
    """
    where = f"{name}.hea"
    try:
        if not stat.S_ISREG((folder / where).stat().st_mode):
            raise RecordError(f"file missing: {where} is no file.")
        with (folder / where).open("rb") as file:
            content = file.read(MAX_HEADER_BYTES + 1)
    except OSError as error:
        raise RecordError(
            f"file missing: {where} can't be opened ({error.strerror}); complete the download of the source."
        ) from error
    return parse_header(content, where)


def check_inside(name: str) -> None:
    """Refuse names that lead out of the source's folder: a table from elsewhere must not open this machine's files.

    Raises:
        RecordError: The name is empty, absolute, or has a ``..`` or a character of other systems' paths in it.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise RecordError(f"file name not allowed: {name!r}; expected a path inside the source's folder.")


def _to_calibrate(header: Header) -> list[int]:
    """Return the standard leads and what has no name: it could be one. Other signals need not be in volts."""
    return [row for row, line in enumerate(header.signals) if not line.name or standard_name(line.name) is not None]


def _millivolts_a_unit(header: Header, row: int) -> float:
    line = header.signals[row]
    if positive_number(line.gain) is None:
        raise RecordError(
            f"gain unusable: {header.where} gives lead {row + 1} the gain {line.gain!r}; "
            "expected a positive number of steps a unit."
        )
    factor = _MILLIVOLTS.get(line.unit.lower())
    if factor is None:
        raise RecordError(f"unit unknown: {header.where} gives voltages in {line.unit!r}; expected V, mV, uV or nV.")
    return factor


def _locate(header: Header, folder: Path, name: str) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the path of each signal file the header names.

    A record that was renamed without its header being told has its one signal file under its own name. It is taken if
    each lead has a checksum, which is compared later, so that no other file would pass.
    """
    files: dict[str, Path] = {}
    for file_name in dict.fromkeys(line.file_name for line in header.signals):
        path = folder / PurePosixPath(name).with_name(file_name)
        if not _is_file(path):
            renamed = PurePosixPath(name).name + PurePosixPath(file_name).suffix
            one_file = all(line.checksum is not None and line.file_name == file_name for line in header.signals)
            if not (one_file and is_plain(header)) or not _is_file(path.with_name(renamed)):
                raise RecordError(
                    f"file missing: {PurePosixPath(name).with_name(file_name)}, named in {header.where}; complete the "
                    "download of the source."
                )
            note = f"file renamed: {header.where} names {file_name}, which is missing; {renamed} has its checksums."
            return {file_name: path.with_name(renamed)}, (note,)
        files[file_name] = path
    return files, ()


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _check_duration(header: Header) -> None:
    seconds = header.frames / header.frame_rate
    if seconds > MAX_SECONDS:
        raise RecordError(
            f"too long: {header.where} has {seconds / 3600:.1f} hours, expected at most {MAX_SECONDS / 3600:g}; cut it "
            "into shorter records."
        )


def _check_rates(header: Header, rows: dict[str, int]) -> None:
    if any(line.skew for line in header.signals):
        raise RecordError(f"leads not aligned: {header.where} has skewed signals, which are not supported.")
    rates = {lead: header.signals[row].samples_per_frame * header.frame_rate for lead, row in rows.items()}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{lead} {rate:g}" for lead, rate in rates.items())
        raise RecordError(f"leads not aligned: {header.where} has leads of different sampling rates in Hz: {listed}.")
