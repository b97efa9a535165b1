"""A person's own records: a table that names a signal file a row, its columns mapped in YAML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from data_modules.readers import fields
from data_modules.readers.own_columns import Columns, mapped, require
from data_modules.readers.signal_files import PlainFiles, read_signal_file
from data_modules.readers.tables import column_names, read_columns
from data_modules.records import LabelSets, Record, Rejected
from ecgfair.ecg import FEMALE, MALE
from ecgfair.errors import ConfigurationError, RecordError, SourceError, did_you_mean

_SEXES: Final = {"male": MALE, "female": FEMALE}
_BY_NAME: Final = Columns()
_NOTHING_SAID: Final = PlainFiles()


class OwnRecordsReader:
    """Reads the records that a CSV or Parquet table lists: WFDB, ``.npy`` or ``.csv`` files, a row each.

    Every row becomes a ``Record`` or is ``Rejected``; a value that can't be true is taken as missing and noted. Leads
    are found by their names, and nothing that neither a file nor an argument says is guessed. Pickled, a reader is its
    arguments: a worker reads the table once.

    Args:
        table: The table, ``.csv`` (comma-separated, with a header row, UTF-8) or ``.parquet``.
        columns: Which column holds what.
        labels: Columns with 1 or true where the label of that name applies; 0, false or nothing where it does not.
        label_sets: Label set -> label -> the codes that make it positive. ``all`` has each code by itself and need not
            be given.
        sexes: How the table spells ``male`` and ``female``, as in ``{"1": male, "2": female}``; by default in English,
            or by the initial.
        signals: Folder that the paths of signal files are relative to and can't leave; by default the table's.
        files: What ``.npy`` and ``.csv`` files don't say of themselves: leads, sampling rate, unit.
        name: What the source is called in the store.

    Raises:
        ConfigurationError: An argument names a column or a code that is not there, or has an impossible value.
        SourceError: The table is missing or can't be read.
    """

    def __init__(
        self,
        table: str | Path,
        columns: Columns = _BY_NAME,
        labels: Sequence[str] | None = None,
        label_sets: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        sexes: Mapping[str, str] | None = None,
        signals: str | Path | None = None,
        files: PlainFiles = _NOTHING_SAID,
        name: str = "own records",
    ) -> None:
        self.source_name = name
        self._arguments = {
            "table": str(table),
            "columns": asdict(columns),
            "labels": list(labels or ()),
            "label_sets": {
                key: {label: list(of) for label, of in value.items()} for key, value in (label_sets or {}).items()
            },
            "sexes": None if sexes is None else dict(sexes),
            "signals": None if signals is None else str(signals),
            "files": asdict(files),
            "name": name,
        }
        self._table = Path(table)
        self._signals = self._table.parent if signals is None else Path(signals)
        self._files = files
        self._sexes = _sex_codes(sexes)
        self._labels = tuple(labels or ())
        found = column_names(self._table)
        self.stamp = self._table.stat().st_mtime_ns
        if not self._signals.is_dir():
            raise ConfigurationError(f"signals is {self._signals}: expected the folder that holds the signal files.")
        self._columns = mapped(columns, found, self._table)
        for label in self._labels:
            require("labels", label, found, self._table)
        rows = read_columns(self._table, [*dict.fromkeys((*self._columns.values(), *self._labels))])
        self._names = list(rows.columns)
        self._rows = rows.to_numpy(dtype=object)
        self._first: dict[str, int] = {}
        for position, record_id in enumerate(self._column("record_id" if "record_id" in self._columns else "signal")):
            self._first.setdefault(record_id, position)
        self.label_sets: LabelSets = self._label_sets(label_sets or {})

    def __reduce__(self) -> tuple[Callable[..., OwnRecordsReader], tuple[Any, ...]]:
        return _reopen, (json.dumps(self._arguments), self.stamp)

    def __len__(self) -> int:
        """Return how many rows the table has."""
        return len(self._rows)

    @property
    def fingerprint(self) -> str:
        """Changes with the bytes of the table and with every other argument; signal files are not looked at."""
        arguments = {key: value for key, value in self._arguments.items() if key != "table"}
        digest = hashlib.sha256(self._table.read_bytes())
        digest.update(json.dumps(arguments).encode())
        return digest.hexdigest()

    def read(self, positions: Sequence[int]) -> Iterator[Record | Rejected]:
        """Yield one ``Record`` or ``Rejected`` for each row of the table, counted from 0."""
        for position in positions:
            row = self._row(position)
            try:
                yield self._record(position, row)
            except RecordError as error:
                yield Rejected(self._record_id(row) or f"row {position + 1}", str(error))

    def _row(self, position: int) -> dict[str, str]:
        return dict(zip(self._names, self._rows[position], strict=True))

    def _column(self, field: str) -> Sequence[str]:
        cells: list[str] = self._rows[:, self._names.index(self._columns[field])].tolist()
        return cells

    def _cell(self, row: Mapping[str, str], field: str) -> str:
        """Return what a row says of a field, the empty text if no column does."""
        return row[self._columns[field]] if field in self._columns else ""

    def _record_id(self, row: Mapping[str, str]) -> str:
        return self._cell(row, "record_id" if "record_id" in self._columns else "signal")

    def _record(self, position: int, row: Mapping[str, str]) -> Record:
        record_id = self._record_id(row)
        first = self._first[record_id]
        if not record_id:
            raise RecordError(f"identity missing: row {position + 1} of {self._table.name} has no record_id.")
        if first != position:
            raise RecordError(
                f"record_id there twice: rows {first + 1} and {position + 1} of {self._table.name} have {record_id}; "
                "the first is kept."
            )
        notes: list[str] = []
        patient_id = self._patient_id(record_id, row, notes)
        codes = self._codes(row, notes)
        files = self._files_of(row)
        recorded = read_signal_file(self._signals, self._cell(row, "signal"), files)
        if files is not self._files and recorded.sampling_rate != files.sampling_rate:
            raise RecordError(
                f"sampling rate contradicts itself: {record_id} has {recorded.sampling_rate:g} Hz in its file, "
                f"{files.sampling_rate:g} Hz in the table."
            )
        if recorded.other_leads:
            notes.append(f"other signals: {', '.join(recorded.other_leads)} are no standard leads; left out.")
        return Record(
            record_id=record_id,
            patient_id=patient_id,
            signal=recorded.signal,
            leads=recorded.leads,
            sampling_rate=recorded.sampling_rate,
            age=fields.age(self._cell(row, "age"), notes),
            sex=fields.sex(self._cell(row, "sex"), notes, self._sexes),
            codes=codes,
            fold=fields.fold(self._cell(row, "fold"), notes),
            recorded_at=fields.date(self._cell(row, "recorded_at"), notes) or recorded.recorded_at,
            notes=(*notes, *recorded.notes),
        )

    def _patient_id(self, record_id: str, row: Mapping[str, str], notes: list[str]) -> str:
        if "patient_id" not in self._columns:
            notes.append("patient unknown: the table has no column of patients; taken as a patient of its own.")
            return record_id
        patient_id = self._cell(row, "patient_id").removesuffix(".0")
        if fields.is_missing(patient_id):
            raise RecordError(
                f"patient missing: {record_id} has no patient_id, so it can't be kept in one fold with the patient's "
                "other records."
            )
        return patient_id

    def _files_of(self, row: Mapping[str, str]) -> PlainFiles:
        text = self._cell(row, "sampling_rate")
        if fields.is_missing(text):
            return self._files
        rate = fields.number(text)
        if rate is None or rate <= 0:
            raise RecordError(f"sampling rate unusable: {text}, expected a positive number of Hz.")
        return replace(self._files, sampling_rate=rate)

    def _codes(self, row: Mapping[str, str], notes: list[str]) -> dict[str, float]:
        codes = parse_codes(self._cell(row, "codes"))
        return codes | {label: 0.0 for label in self._labels if fields.positive(row[label], label, notes)}

    def _label_sets(self, asked: Mapping[str, Mapping[str, Sequence[str]]]) -> LabelSets:
        occurring: set[str] = set()
        for text in set(self._column("codes") if "codes" in self._columns else ()):
            try:
                occurring.update(parse_codes(text))
            except RecordError:
                continue  # its records are rejected with this reason when they are read
        if "all" in asked:
            raise ConfigurationError(
                "label_sets.all is there without a line, each code by itself: choose another name."
            )
        known = [*self._labels, *sorted(occurring - set(self._labels))]
        for key, labels in asked.items():
            for label, codes in labels.items():
                unknown = [code for code in codes if code not in known]
                if unknown and "codes" not in self._columns:
                    raise ConfigurationError(
                        f"label_sets.{key}.{label} names {unknown[0]!r}, which is not among labels."
                        f"{did_you_mean(unknown[0], known)}"
                    )
        by_itself = {"all": {code: (code,) for code in known}}
        return by_itself | {key: {label: tuple(codes) for label, codes in of.items()} for key, of in asked.items()}


@lru_cache(maxsize=2)
def _reopen(arguments: str, stamp: int) -> OwnRecordsReader:
    """Read the table in another process; positions would mean other records if it had changed in between."""
    values = json.loads(arguments)
    values |= {"columns": Columns(**values["columns"]), "files": PlainFiles(**values["files"])}
    reader = OwnRecordsReader(**values)
    if reader.stamp != stamp:
        raise SourceError(f"{values['table']} changed while it was read: leave it as it is and start again.")
    return reader


def parse_codes(text: str) -> dict[str, float]:
    """Return label codes with their likelihood in percent, 0 where it is not stated.

    Args:
        text: ``AFIB;LBBB``, or a dictionary in JSON or Python.

    Raises:
        RecordError: A dictionary is none, or a likelihood is not from 0 to 100.
    """
    if not text.startswith("{"):
        codes = [code.strip() for code in text.split(";")]
        return {code: 0.0 for code in codes if not fields.is_missing(code)}
    return fields.likelihoods(text, "codes")


def _sex_codes(sexes: Mapping[str, str] | None) -> dict[str, int] | None:
    if sexes is None:
        return None
    for spelling, sex in sexes.items():
        if sex not in _SEXES:
            raise ConfigurationError(f"sexes gives {spelling!r} the value {sex!r}: expected male or female.")
    return {str(spelling).strip().lower(): _SEXES[sex] for spelling, sex in sexes.items()}
