"""Source tables as text: what an empty cell, a 1 or a 300 means is decided field by field, not by a table library."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfair.errors import SourceError

_UNREADABLE = (OSError, ValueError, csv.Error, pa.ArrowException)


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns, in order.

    Args:
        path: A ``.parquet`` file, or a comma-separated file with a header row, in UTF-8.

    Raises:
        SourceError: There is no such file, or it is no table.
    """
    try:
        if path.suffix == ".parquet":
            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return [name.strip() for name in next(csv.reader(lines), [])]
    except FileNotFoundError as error:
        raise SourceError(f"There is no table {path}: expected a .csv or .parquet file.") from error
    except _UNREADABLE as error:
        raise SourceError(f"{path} can't be read as a table ({_first_line(error)}).") from error


def read_columns(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read some columns of a table as text without blanks around it; a missing value is the empty text.

    Args:
        path: As for ``column_names``.
        columns: Names of columns that are there.

    Returns:
        One column of ``str`` for each name, in the order asked for.

    Raises:
        SourceError: The table can't be read, or has a column asked for twice.
    """
    names = column_names(path)
    double = [column for column in columns if names.count(column) > 1]
    if double:
        raise SourceError(f"{path} has two columns {double[0]!r}: expected each name once.")
    wanted = list(dict.fromkeys(columns))
    try:
        if path.suffix == ".parquet":
            # Not by way of pandas, which makes floats of whole numbers where one is missing.
            table = pq.read_table(path, columns=wanted)
            return pd.DataFrame({name: [as_text(value) for value in table[name].to_pylist()] for name in wanted})
        rows = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", header=None, skiprows=1, skipinitialspace=True
        )
    except pd.errors.EmptyDataError:
        return pd.DataFrame({name: [] for name in wanted}, dtype=str)
    except _UNREADABLE as error:
        raise SourceError(f"{path} can't be read as a table ({_first_line(error)}).") from error
    if rows.shape[1] != len(names):
        raise SourceError(f"{path} names {len(names)} columns, but its first row has {rows.shape[1]} cells.")
    # A row that ends early lacks its last cells.
    return pd.DataFrame({name: rows[names.index(name)].fillna("").str.strip() for name in wanted})


def as_text(value: Any) -> str:
    """Return a typed cell as a person would write it into a CSV file.

    Missing values are empty, whole numbers have no ``.0``, dates are ISO 8601, a list is joined by ``;`` and a
    dictionary is JSON.
    """
    # NaN and NaT are the values that differ from themselves.
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list):
        is_map = bool(value) and all(isinstance(entry, tuple) for entry in value)
        return as_text(dict(value)) if is_map else ";".join(as_text(entry) for entry in value)
    if isinstance(value, dict):
        return json.dumps({key: entry for key, entry in value.items() if entry is not None})
    return str(value).strip()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
