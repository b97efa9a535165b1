"""One signal out of a file that a person's own table names: WFDB, ``.npy`` or ``.csv``.

A WFDB record says all of itself. The other two hold numbers, so what these are is said by ``PlainFiles`` for all files
of a table; what nobody says is not guessed.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_modules.leads import standard_name, standard_rows
from data_modules.readers import fields
from data_modules.readers.wfdb_signal import MAX_SECONDS, RecordedSignal, read_signal
from ecgfair.errors import ConfigurationError, RecordError

_WFDB_SUFFIXES: Final = (".hea", ".dat", ".mat")
_NO_LEADS: Final = ("", "time", "t", "time_s", "time_ms", "seconds", "ms", "sample", "samples", "index")
"""What columns of a ``.csv`` file that count samples are called; the empty name is an index that pandas wrote."""
_MAX_CSV_BYTES: Final = 1 << 26


@dataclass(frozen=True)
class PlainFiles:
    """What ``.npy`` and ``.csv`` files don't say of themselves; None where nobody says it.

    Args:
        leads: Names of the leads in their order, for ``.npy`` and for ``.csv`` without a header.
        sampling_rate: Hz, where no column of the table says it.
        millivolts_per_unit: What a stored 1 is in millivolts: 1 for millivolts, 0.001 for microvolts.

    Raises:
        ConfigurationError: There is no lead or one twice, or a number is not positive.
    """

    leads: tuple[str, ...] | None = None
    sampling_rate: float | None = None
    millivolts_per_unit: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no file can be; lists, as YAML and JSON have them, become tuples."""
        for name in ("sampling_rate", "millivolts_per_unit"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"files.{name} is {value}: expected a positive number.")
        if self.leads is not None:
            object.__setattr__(self, "leads", tuple(self.leads))
            try:
                standard_rows(self.leads, "files.leads")
            except RecordError as error:
                raise ConfigurationError(str(error)) from error


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file below a folder, for reading.

    A table from elsewhere must not open this machine's files, neither by ``..`` nor by a link.

    Raises:
        RecordError: The name is empty, absolute, climbs, or leads out of the folder.
    """
    relative = PurePosixPath(name)
    is_plain = bool(name) and not relative.is_absolute() and ".." not in relative.parts
    if not is_plain or any(character in name for character in "\\:\0"):
        raise RecordError(f"path not allowed: {name!r}; expected a file below the folder of signals, with / between.")
    path = folder / relative
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RecordError(f"path not allowed: {name!r} is a link that leads out of the folder of signals.")
    return path


def read_signal_file(folder: Path, name: str, plain: PlainFiles) -> RecordedSignal:
    """Read the standard leads out of a file.

    Args:
        folder: Folder that the name is relative to.
        name: ``a/b.npy`` or ``a/b.csv``; or ``a/b``, ``a/b.hea``, ``a/b.dat`` or ``a/b.mat`` for the WFDB record a/b.
        plain: What ``.npy`` and ``.csv`` files hold; a WFDB record needs none of it.

    Raises:
        RecordError: The path is not allowed, there is no such file, it holds no signal of the shape expected, or
            something about it is nowhere said.
    """
    path = inside(folder, name)
    kind = path.suffix.lower()
    if kind not in (".npy", ".csv"):
        record = str(PurePosixPath(name).with_suffix("")) if kind in _WFDB_SUFFIXES else name
        if not inside(folder, f"{record}.hea").is_file():
            raise RecordError(
                f"file missing: {name}; expected a .npy or .csv file, or a WFDB record with {record}.hea."
            )
        return read_signal(folder, record)
    if not path.is_file():
        raise RecordError(f"file missing: there is no {name} in the folder of signals.")
    rate = _stated(plain.sampling_rate, "sampling rate", "files.sampling_rate", name)
    scale = _stated(plain.millivolts_per_unit, "unit", "files.millivolts_per_unit", name)
    values, names = _read_npy(path, name, plain.leads) if kind == ".npy" else _read_csv(path, name, plain.leads)
    rows = standard_rows(names, name)
    _check_duration(values.shape[1], rate, name)
    notes: list[str] = []
    return RecordedSignal(
        signal=without_infinities(np.asarray(values[list(rows.values())], dtype=np.float64) * scale, notes),
        leads=tuple(rows),
        sampling_rate=rate,
        comments=(),
        recorded_at=None,
        other_leads=tuple(other for other in names if standard_name(other) is None and other.lower() not in _NO_LEADS),
        notes=tuple(notes),
    )


def without_infinities(signal: NDArray[np.floating], notes: list[str]) -> NDArray[np.float32]:
    """Return millivolts as float32, with what no number can hold as not recorded; adds a note if there is any."""
    with np.errstate(over="ignore"):
        voltages = signal.astype(np.float32)
    infinite = np.isinf(voltages)
    if infinite.any():
        notes.append(f"samples infinite: {int(infinite.sum())} samples; taken as not recorded.")
        voltages[infinite] = np.nan
    return voltages


def _stated(value: float | None, what: str, argument: str, name: str) -> float:
    if value is None:
        raise RecordError(f"{what} unknown: {name} does not say it; set {argument}.")
    return value


def _check_duration(samples: int, rate: float, name: str) -> None:
    if not samples:
        raise RecordError(f"no signal: {name} holds no sample.")
    if samples > MAX_SECONDS * rate:
        raise RecordError(
            f"too long: {name} has {samples / rate / 3600:.1f} hours at {rate:g} Hz, expected at most "
            f"{MAX_SECONDS / 3600:g}; cut it into shorter records."
        )


def _read_npy(path: Path, name: str, leads: Sequence[str] | None) -> tuple[NDArray[Any], Sequence[str]]:
    """Return (leads, time) as stored, and the names of the rows; the axis with as many entries is that of the leads."""
    if leads is None:
        raise RecordError(f"leads unknown: {name} has no names of leads; set files.leads.")
    try:
        # Mapped, so that a header which promises more than the file holds takes no memory; nothing is unpickled.
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise RecordError(
            f"signal unreadable: {name} is no whole .npy file of numbers (pickled objects are not loaded)."
        ) from error
    if array.dtype.kind not in "iuf":
        raise RecordError(f"signal unreadable: {name} is no array of whole or floating-point numbers.")
    shape, count = array.shape, len(leads)
    if array.ndim != 2 or count not in shape:
        raise RecordError(
            f"wrong shape: {name} is {shape}, expected ({count}, time) or (time, {count}) as files.leads says."
        )
    if shape == (count, count):
        raise RecordError(
            f"axes ambiguous: {name} is {shape}, so either axis may be that of the leads; save it as .csv with names."
        )
    return (array if shape[0] == count else array.T), leads


def _read_csv(path: Path, name: str, leads: Sequence[str] | None) -> tuple[NDArray[Any], Sequence[str]]:
    """Return (columns, time) as stored, and the names of the columns; an empty cell, or a column of no lead, is NaN."""
    if path.stat().st_size > _MAX_CSV_BYTES:
        raise RecordError(f"file too large: {name} has over {_MAX_CSV_BYTES >> 20} MiB; save it as .npy or WFDB.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        widths = {len(row) for row in csv.reader(io.StringIO(text)) if row}
        first_row = [cell.strip() for cell in next(csv.reader(io.StringIO(text)), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"signal unreadable: {name} is no comma-separated text ({error}).") from error
    has_header = any(fields.number(cell) is None for cell in first_row)
    names = first_row if has_header else _names_for(first_row, leads, name)
    rows = sorted(standard_rows(names, name).values())
    if len(widths) > 1:
        listed = ", ".join(map(str, sorted(widths)))
        raise RecordError(f"rows differ in length: {name} has rows of {listed} cells; it may be cut short.")
    try:
        table = pd.read_csv(
            io.StringIO(text),
            header=None,
            skiprows=int(has_header),
            usecols=rows,
            dtype=np.float64,
            skipinitialspace=True,
        )
    except pd.errors.EmptyDataError:
        return np.empty((len(names), 0)), names
    except ValueError as error:
        raise RecordError(f"signal unreadable: {name} holds other than numbers ({error}).") from error
    return table.reindex(columns=range(len(names))).to_numpy().T, names


def _names_for(first_row: Sequence[str], leads: Sequence[str] | None, name: str) -> Sequence[str]:
    if leads is None:
        raise RecordError(f"leads unknown: {name} has no header with the names of leads; add one or set files.leads.")
    if len(leads) != len(first_row):
        raise RecordError(f"wrong shape: {name} has {len(first_row)} columns, files.leads names {len(leads)}.")
    return leads
