"""PTB-XL as PhysioNet publishes it: two tables and one WFDB record a row (Wagner et al., Sci. Data 7:154, 2020)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pandas as pd

from data_modules.readers import fields
from data_modules.readers.wfdb_signal import read_signal
from data_modules.records import LabelSets, Record, Rejected
from ecgfair.ecg import AGE_OVER_89, FEMALE, LEADS, MALE
from ecgfair.errors import ConfigurationError, RecordError, SourceError

DATABASE: Final = "ptbxl_database.csv"
STATEMENTS: Final = "scp_statements.csv"

_SECONDS: Final = 10
_FILE_COLUMNS: Final = {100: "filename_lr", 500: "filename_hr"}
_COLUMNS: Final = ("ecg_id", "patient_id", "age", "sex", "recording_date", "scp_codes", "strat_fold")
_STATEMENT_COLUMNS: Final = ("diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass")
_SUPERCLASSES: Final = ("NORM", "MI", "STTC", "CD", "HYP")
_PUBLISHED_AGES: Final = {300.0: AGE_OVER_89}
_SEXES: Final = {"0": MALE, "1": FEMALE}
_HOW_TO_GET_IT: Final = (
    "PTB-XL is at https://physionet.org/content/ptb-xl/1.0.3/; "
    "`wget -r -N -c -np https://physionet.org/files/ptb-xl/1.0.3/` downloads it."
)


class PtbXlReader:
    """Reads the official folder of PTB-XL, or one laid out like it.

    All statements are kept with their likelihood, 0 (unknown) included. Nothing is lost in silence: a record that can't
    be read, or is not ten seconds at the rate asked for, is ``Rejected``; a value that can't be true is taken as
    missing and noted on the record. Pickled, a reader is its arguments: a worker reads the tables once.

    Args:
        source: Folder with ``ptbxl_database.csv``, ``scp_statements.csv`` and the folders of records.
        sampling_rate: 100 or 500 Hz.

    Raises:
        ConfigurationError: PTB-XL has no records at this sampling rate.
        SourceError: The folder, a table or a column is missing, or a table can't be read.
    """

    source_name = "PTB-XL"

    def __init__(self, source: str | Path, sampling_rate: int = 100) -> None:
        if sampling_rate not in _FILE_COLUMNS:
            raise ConfigurationError(f"sampling_rate is {sampling_rate} Hz: PTB-XL has records at 100 and at 500 Hz.")
        self.source = Path(source)
        self.sampling_rate = sampling_rate
        if not self.source.is_dir():
            raise SourceError(f"No folder {self.source}: expected the folder of PTB-XL. {_HOW_TO_GET_IT}")
        columns = [*_COLUMNS, _FILE_COLUMNS[sampling_rate]]
        database = _read_table(self.source / DATABASE, columns)
        statements = _read_table(self.source / STATEMENTS, _STATEMENT_COLUMNS)
        self.label_sets: LabelSets = label_sets_of(statements)
        columns += [name for name in _FILE_COLUMNS.values() if name in database.columns and name not in columns]
        rows = database[columns].itertuples(index=False, name=None)
        self._rows = [dict(zip(columns, row, strict=True)) for row in rows]
        first: dict[str, int] = {}
        for position, row in enumerate(self._rows):
            first.setdefault(row["ecg_id"], position)
        self._first = first

    def __reduce__(self) -> tuple[Callable[..., PtbXlReader], tuple[Any, ...]]:
        # The tables' time stamps are part of the key, or a worker kept alive would go on reading an older table.
        stamps = tuple((self.source / name).stat().st_mtime_ns for name in (DATABASE, STATEMENTS))
        return _reopen, (self.source, self.sampling_rate, stamps)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the two tables and the sampling rate."""
        digest = hashlib.sha256(str(self.sampling_rate).encode())
        for name in (DATABASE, STATEMENTS):
            digest.update((self.source / name).read_bytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        """Return how many rows ``ptbxl_database.csv`` has."""
        return len(self._rows)

    def read(self, positions: Sequence[int]) -> Iterator[Record | Rejected]:
        """Yield one ``Record`` or ``Rejected`` for each row of the table, counted from 0."""
        for position in positions:
            row = self._rows[position]
            try:
                yield self._record(position, row)
            except RecordError as error:
                yield Rejected(row["ecg_id"] or f"row {position + 1}", str(error))

    def _record(self, position: int, row: Mapping[str, str]) -> Record:
        self._check_identity(position, row)
        notes: list[str] = []
        codes = fields.likelihoods(row["scp_codes"], "scp_codes")
        known = self.label_sets["all"]
        notes += [
            f"unknown code: {code} is not in {STATEMENTS}, it is in no label set."
            for code in codes
            if code not in known
        ]
        name = row[_FILE_COLUMNS[self.sampling_rate]]
        others = [rate for rate, column in _FILE_COLUMNS.items() if row.get(column)]
        if not name and others:
            raise RecordError(
                f"other sampling rate: {DATABASE} names no file at {self.sampling_rate} Hz, but one at {others[0]} Hz: "
                f"say --sampling_rate {others[0]}."
            )
        recorded = read_signal(self.source, name)
        notes += recorded.notes
        missing = [lead for lead in LEADS if lead not in recorded.leads]
        if missing:
            listed = ", ".join(recorded.leads + recorded.other_leads)
            raise RecordError(f"lead missing: {name}.hea lacks {', '.join(missing)}; it has {listed}.")
        if recorded.sampling_rate != self.sampling_rate:
            raise RecordError(
                f"sampling rate: {name} has {recorded.sampling_rate:g} Hz, expected {self.sampling_rate} Hz."
            )
        samples = recorded.signal.shape[1]
        if samples != _SECONDS * self.sampling_rate:
            raise RecordError(
                f"length: {name} has {samples} samples, expected {_SECONDS * self.sampling_rate}, ten seconds."
            )
        return Record(
            record_id=row["ecg_id"],
            patient_id=row["patient_id"].removesuffix(".0"),
            signal=recorded.signal,
            leads=recorded.leads,
            sampling_rate=recorded.sampling_rate,
            age=fields.age(row["age"], notes, _PUBLISHED_AGES),
            sex=fields.sex(row["sex"].removesuffix(".0"), notes, _SEXES),
            codes=codes,
            fold=fields.fold(row["strat_fold"], notes),
            recorded_at=fields.date(row["recording_date"], notes),
            notes=tuple(notes),
        )

    def _check_identity(self, position: int, row: Mapping[str, str]) -> None:
        if not row["ecg_id"]:
            raise RecordError(f"identity missing: row {position + 1} of {DATABASE} has no ecg_id.")
        first = self._first[row["ecg_id"]]
        if first != position:
            raise RecordError(
                f"ecg_id there twice: rows {first + 1} and {position + 1} of {DATABASE} have ecg_id {row['ecg_id']}; "
                "the first is kept."
            )
        if not row["patient_id"]:
            raise RecordError(
                f"patient missing: ecg_id {row['ecg_id']} has no patient_id, so it can't be kept in one fold with the "
                "patient's other records."
            )


@lru_cache(maxsize=2)
def _reopen(source: Path, sampling_rate: int, _stamps: tuple[int, ...]) -> PtbXlReader:
    return PtbXlReader(source, sampling_rate)


def label_sets_of(statements: pd.DataFrame) -> dict[str, dict[str, tuple[str, ...]]]:
    """Group the codes as the PTB-XL benchmark does (Strodthoff et al., IEEE JBHI 25:1519, 2021).

    Args:
        statements: ``scp_statements.csv`` as text, its first column holding the codes.

    Returns:
        Label set -> label -> codes. ``all``, ``diagnostic``, ``form`` and ``rhythm`` keep the table's order with one
        code a label; ``subdiagnostic`` and ``superdiagnostic`` gather the diagnostic codes of a class, sorted by name,
        but for the five official superclasses, which stand in the order in which the literature prints them.
    """
    rows = list(statements.to_dict("index").values())
    codes = [str(row[statements.columns[0]]).strip() for row in rows]

    def plain(column: str | None) -> dict[str, tuple[str, ...]]:
        return {code: (code,) for code, row in zip(codes, rows, strict=True) if column is None or _is_set(row[column])}

    def grouped(column: str) -> dict[str, tuple[str, ...]]:
        groups: dict[str, tuple[str, ...]] = {}
        for code, row in zip(codes, rows, strict=True):
            if _is_set(row["diagnostic"]) and row[column]:
                groups[row[column]] = (*groups.get(row[column], ()), code)
        return {name: groups[name] for name in sorted(groups)}

    superdiagnostic = grouped("diagnostic_class")
    if set(superdiagnostic) == set(_SUPERCLASSES):
        superdiagnostic = {name: superdiagnostic[name] for name in _SUPERCLASSES}
    return {
        "all": plain(None),
        "diagnostic": plain("diagnostic"),
        "subdiagnostic": grouped("diagnostic_subclass"),
        "superdiagnostic": superdiagnostic,
        "form": plain("form"),
        "rhythm": plain("rhythm"),
    }


def _is_set(value: str) -> bool:
    return value.strip() not in ("", "0", "0.0")


def _read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table as text: what an empty cell or a 300 means is decided column by column, not by pandas."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError as error:
        raise SourceError(
            f"No {path.name} in {path.parent}: expected the folder of PTB-XL. {_HOW_TO_GET_IT}"
        ) from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} can't be read as a table ({error}). {_HOW_TO_GET_IT}") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise SourceError(f"{path} lacks {', '.join(missing)}: expected the columns of PTB-XL 1.0.3. {_HOW_TO_GET_IT}")
    stripped: pd.DataFrame = table.apply(lambda column: column.str.strip())
    return stripped
