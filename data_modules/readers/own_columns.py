"""Which column of a person's own table holds what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ecgfair.errors import ConfigurationError, did_you_mean

_OPTIONAL: Final = ("record_id", "patient_id", "age", "sex", "fold", "recorded_at", "sampling_rate", "codes")


@dataclass(frozen=True)
class Columns:
    """Which column of the table holds what.

    A column of the field's own name needs no mapping. ``null`` leaves a field out, even if there is such a column.

    Args:
        signal: Path of the signal file.
        record_id: Unique name of the record; without it, the path of the signal file.
        patient_id: The same for all records of a patient; without it, each record is taken as a patient of its own.
        age: Years.
        sex: As ``sexes`` spells it.
        fold: A whole number from 1; all records of a patient in one.
        recorded_at: Date and time, ISO 8601.
        sampling_rate: Hz, of this row's ``.npy`` or ``.csv`` file; a WFDB record must have the same.
        codes: Label codes: ``AFIB;LBBB``, or a dictionary of codes with their likelihood in percent, as in
            ``{"AFIB": 80}``.
    """

    signal: str = "signal"
    record_id: str | None = "record_id"
    patient_id: str | None = "patient_id"
    age: str | None = "age"
    sex: str | None = "sex"
    fold: str | None = "fold"
    recorded_at: str | None = "recorded_at"
    sampling_rate: str | None = "sampling_rate"
    codes: str | None = "codes"


def mapped(columns: Columns, found: Sequence[str], table: Path) -> dict[str, str]:
    """Return the column of each field that has one.

    Raises:
        ConfigurationError: A field is mapped to a column that is not there, or all but its own name is.
    """
    fields = {"signal": require("columns.signal", columns.signal, found, table)}
    for field in _OPTIONAL:
        column = getattr(columns, field)
        if column is None:
            continue
        if column != field:
            fields[field] = require(f"columns.{field}", column, found, table)
        elif column in found:
            fields[field] = column
        else:
            alike = [name for name in found if _letters(name) == _letters(field)]
            if alike:
                raise ConfigurationError(
                    f"{table} has no column {field!r} but {alike[0]!r}: set columns.{field} to {alike[0]!r}, or to "
                    "null to leave it out."
                )
    return fields


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def require(argument: str, column: str, found: Sequence[str], table: Path) -> str:
    """Return the column that an argument names.

    Raises:
        ConfigurationError: The table has no such column.
    """
    if column not in found:
        raise ConfigurationError(f"{argument} names {column!r}, no column of {table}.{did_you_mean(column, found)}")
    return column
