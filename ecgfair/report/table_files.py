"""Columns of a Parquet or CSV file as numbers or texts, the same from either."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ecgfair.errors import ConfigurationError

MISSING: Final = ("", "nan", "none", "null", "n/a", "na", "unknown", "unk", "nat", "<na>")
"""Texts, in lower case, that say that nothing is known."""

_TRUTH: Final = {"true": 1.0, "false": 0.0}
_UNREADABLE: Final = (OSError, ValueError, csv.Error, pa.ArrowException)


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns, in order.

    Args:
        path: A ``.parquet`` file, or a comma-separated ``.csv`` file with a header row, in UTF-8.

    Raises:
        ConfigurationError: There is no such file, or it is no table.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ConfigurationError(f"{path} {what}: expected a prediction table, a .parquet or .csv file.")
    kind = path.suffix.lower()
    if kind not in (".parquet", ".csv"):
        raise ConfigurationError(f"{path} ends in {path.suffix!r}: expected a .parquet or .csv file.")
    try:
        names = list(pq.read_schema(path).names) if kind == ".parquet" else _header(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise ConfigurationError(f"{path} seems to be separated by semicolons or tabs: expected commas.")
    return [name.strip() for name in names]


def file_metadata(path: Path) -> dict[bytes, bytes]:
    """Return the key-value metadata of a Parquet file; a CSV file has none."""
    return dict(pq.read_schema(path).metadata or {}) if path.suffix.lower() == ".parquet" else {}


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a table; those of a CSV file come as text.

    Args:
        path: As for ``column_names``.
        columns: Names of columns that are there once.

    Raises:
        ConfigurationError: The table can't be read, or has no rows.
    """
    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                written = {name.strip(): name for name in file.schema_arrow.names}
                table = file.read([written[name] for name in columns])
                table = table.select([written[name] for name in columns])
        else:
            written = {name.strip(): name for name in _header(path)}
            wanted = [written[name] for name in columns]
            table = pyarrow.csv.read_csv(
                path,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
                ),
            )
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not table.num_rows:
        raise ConfigurationError(f"{path} is empty: expected a row for each record.")
    return table.rename_columns(list(columns))


def numbers(column: pa.ChunkedArray, name: str, source: str, record_ids: Sequence[str]) -> NDArray[np.float64]:
    """Return a column as float64, NaN where missing; a truth value is 0 or 1.

    Raises:
        ConfigurationError: It holds something else; the message names the column and the first such record.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise ConfigurationError(f"{source}: the column {name!r} holds {kind} values, expected numbers.")
        return _parsed(column, name, source, record_ids)
    filled: NDArray[np.float64] = column.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy()
    return filled


def texts(column: pa.ChunkedArray) -> list[str]:
    """Return a column as people write it, empty where missing: a whole number has no decimals, a date is ISO 8601."""
    return [_as_text(value) for value in column.to_pylist()]


def is_missing(text: str) -> bool:
    """Whether a cell says that nothing is known."""
    return text.lower() in MISSING


def _parsed(column: pa.ChunkedArray, name: str, source: str, record_ids: Sequence[str]) -> NDArray[np.float64]:
    trimmed = pc.utf8_trim_whitespace(column.cast(pa.string()))
    known = pc.if_else(pc.is_in(pc.utf8_lower(trimmed), pa.array(MISSING)), pa.scalar(None, pa.string()), trimmed)
    try:
        fast: NDArray[np.float64] = known.cast(pa.float64()).fill_null(math.nan).to_numpy()
    except pa.ArrowInvalid:  # one cell at least is text, or spelt in a way that Arrow does not know, such as "+0.5"
        cells = known.to_pylist()
        values = [math.nan if cell is None else _number(cell) for cell in cells]
        for cell, value, record_id in zip(cells, values, record_ids, strict=True):
            if value is None:
                raise ConfigurationError(
                    f"{source}: the column {name!r} holds {cell[:40]!r} for record {record_id}, expected a number."
                ) from None
        return np.array(values, dtype=np.float64)
    return fast


def _number(text: str) -> float | None:
    if "_" in text:
        return None  # Python alone reads 1_0 as 10
    try:
        return float(text)
    except ValueError:
        return _TRUTH.get(text.lower())


def _as_text(value: Any) -> str:
    # NaN and NaT are the values that differ from themselves.
    if value is None or value != value:
        return ""
    if isinstance(value, datetime | date):
        return value.isoformat()
    text = str(value).strip()
    whole, point, decimals = text.partition(".")
    # A column with gaps makes floats of whole numbers, and a CSV file of it has "1.0".
    return whole if point and not decimals.strip("0") and whole.lstrip("-").isdecimal() else text


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return next(csv.reader(lines), [])


def _unreadable(path: Path, error: Exception) -> ConfigurationError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return ConfigurationError(f"{path} can't be read as a table ({reason}): expected a .parquet or .csv file.")
