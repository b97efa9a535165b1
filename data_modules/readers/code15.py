"""CODE-15 % as Zenodo publishes it: one table and eighteen HDF5 parts (Ribeiro et al., 10.5281/zenodo.4916206, 2021).

The parts name neither leads nor unit, so both come from the publication. The order is DI, DII, DIII, AVR, AVL, AVF, V1
to V6 (README of antonior92/automatic-ecg-diagnosis, which the data set's page refers to), and each record is checked
against it as far as limb leads can tell, see ``limb_order``. The unit is the millivolt: that README speaks of "the
scale 1e-4V", but of signals in volts as to be multiplied by 1000, which gives millivolts, and the 2025 PhysioNet
challenge takes them so (its ``prepare_code15_data.py`` writes 1000 steps a millivolt). From trough to peak, lead II of
its 103 conversions at hand has 2.3 mV in the median, as hearts do; a tenth of that would be no ECG.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data_modules.readers import fields, limb_order
from data_modules.readers.code15_parts import Place, Tracings, list_part, part_files
from data_modules.readers.signal_files import without_infinities
from data_modules.readers.tables import column_names, read_columns
from data_modules.records import LabelSets, Record, Rejected
from ecgfair.ecg import FEMALE, LEADS, MALE
from ecgfair.errors import RecordError, SourceError

EXAMS: Final = "exams.csv"
SAMPLING_RATE: Final = 400.0
ABNORMALITIES: Final = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")
NORMAL: Final = "NORMAL"

_LABEL_COLUMNS: Final = {name: name for name in ABNORMALITIES} | {NORMAL: "normal_ecg"}
_COLUMNS: Final = ("exam_id", "age", "is_male", *_LABEL_COLUMNS.values(), "patient_id", "trace_file")
_SEXES: Final = {"true": MALE, "false": FEMALE}
_FILLER: Final = "0"
Stamps = tuple[tuple[str, int, int], ...]
"""Name, size and time of change of ``exams.csv`` and each part."""

_HOW_TO_GET_IT: Final = (
    "CODE-15 % is at https://zenodo.org/records/4916206: put exams.csv into a folder, and unzip exams_part0.zip to "
    "exams_part17.zip beside it."
)


class Code15Reader:
    """Reads the folder of CODE-15 %: ``exams.csv`` and any of the parts, unzipped.

    Every row of ``exams.csv`` is an entry, whether its part is there or not. After them comes an entry for each tracing
    that is not the one of a row, because its exam is not in the table or has a tracing already; it is rejected with
    that reason, and so is the empty row that ends some parts: nothing vanishes. An exam found in another part than its
    row says is read, and noted.

    The zeros that fill a tracing up to 4096 samples are removed at both ends, where all twelve leads have them; zeros
    inside are kept. A label is stated without a likelihood, which is kept as 0. Pickled, a reader is its arguments: a
    worker reads the table and the ids once.

    Args:
        source: Folder with ``exams.csv`` and the parts.

    Raises:
        SourceError: ``exams.csv`` is missing, can't be read, or lacks a column.
    """

    source_name = "CODE-15 %"

    def __init__(self, source: str | Path) -> None:
        self.source = Path(source)
        self.label_sets: LabelSets = {
            "abnormalities": {name: (name,) for name in ABNORMALITIES},
            "all": {name: (name,) for name in _LABEL_COLUMNS},
        }
        table = self.source / EXAMS
        if not table.is_file():
            raise SourceError(f"No {EXAMS} in {self.source}: expected the folder of CODE-15 %. {_HOW_TO_GET_IT}")
        self.stamps = _stamps(self.source)
        found = column_names(table)
        missing = [column for column in _COLUMNS if column not in found]
        if missing:
            raise SourceError(f"{table} lacks {', '.join(missing)}: expected the published columns. {_HOW_TO_GET_IT}")
        self._rows = read_columns(table, _COLUMNS).to_numpy(dtype=object)
        self._first: dict[str, int] = {}
        for position, row in enumerate(self._rows):
            self._first.setdefault(_plain_id(row[0]), position)
        self._parts = {path.name: list_part(path) for path in part_files(self.source)}
        self._places, self._left_over = self._find_tracings()

    def __reduce__(self) -> tuple[Callable[..., Code15Reader], tuple[Any, ...]]:
        return _reopen, (self.source, self.stamps)

    def __len__(self) -> int:
        """Return how many rows ``exams.csv`` has, and tracings that are not theirs."""
        return len(self._rows) + len(self._left_over)

    @property
    def fingerprint(self) -> str:
        """Changes with the bytes of ``exams.csv`` and with the name, size and time stamp of each part."""
        digest = hashlib.sha256((self.source / EXAMS).read_bytes())
        digest.update(repr(self.stamps[1:]).encode())
        return digest.hexdigest()

    def read(self, positions: Sequence[int]) -> Iterator[Record | Rejected]:
        """Yield one ``Record`` or ``Rejected`` for each position: rows of the table, then tracings left over."""
        with Tracings(self.source) as tracings:
            for position in positions:
                if position >= len(self._rows):
                    yield self._rejected(*self._left_over[position - len(self._rows)], tracings)
                    continue
                row = dict(zip(_COLUMNS, self._rows[position], strict=True))
                try:
                    yield self._record(position, row, tracings)
                except RecordError as error:
                    yield Rejected(_plain_id(row["exam_id"]) or f"row {position + 1}", str(error))

    def _find_tracings(self) -> tuple[dict[str, Place], list[tuple[str, Place]]]:
        """Find each exam's tracing, in the part that its row names or else the first that has it; list the others."""
        named = {exam: self._rows[position][-1] for exam, position in self._first.items()}
        tracings = [
            (exam, Place(name, row)) for name, part in self._parts.items() for row, exam in enumerate(part.exams)
        ]
        places: dict[str, Place] = {}
        for exam, place in tracings:
            if exam in named and place.part == named[exam]:
                places.setdefault(exam, place)
        for exam, place in tracings:
            if exam in named:
                places.setdefault(exam, place)
        return places, [(exam, place) for exam, place in tracings if places.get(exam) != place]

    def _record(self, position: int, row: Mapping[str, str], tracings: Tracings) -> Record:
        exam = _plain_id(row["exam_id"])
        self._check_identity(position, row)
        place = self._places.get(exam)
        if place is None:
            raise RecordError(self._why_missing(exam, row["trace_file"]))
        notes: list[str] = []
        if place.part != row["trace_file"]:
            notes.append(f"trace_file wrong: exam {exam} is in {place.part}, {EXAMS} says {row['trace_file']!r}.")
        signal = without_infinities(_without_padding(tracings.read(place), exam, place), notes)
        doubt = limb_order.doubt(signal)
        if doubt:
            notes.append(f"lead order doubtful: {doubt}; read in the order published.")
        return Record(
            record_id=exam,
            patient_id=_plain_id(row["patient_id"]),
            signal=signal,
            leads=LEADS,
            sampling_rate=SAMPLING_RATE,
            age=fields.age(row["age"], notes),
            sex=fields.sex(row["is_male"], notes, _SEXES),
            codes=_codes(row, notes),
            notes=tuple(notes),
        )

    def _check_identity(self, position: int, row: Mapping[str, str]) -> None:
        exam = _plain_id(row["exam_id"])
        if not exam:
            raise RecordError(f"identity missing: row {position + 1} of {EXAMS} has no exam_id.")
        first = self._first[exam]
        if first != position:
            raise RecordError(
                f"exam_id there twice: rows {first + 1} and {position + 1} of {EXAMS} have exam_id {exam}; "
                "the first is kept."
            )
        if fields.is_missing(row["patient_id"]):
            raise RecordError(
                f"patient missing: exam {exam} has no patient_id, so it can't be kept in one fold with the patient's "
                "other exams."
            )

    def _why_missing(self, exam: str, name: str) -> str:
        part = self._parts.get(name)
        if part is None:
            return f"part missing: {name or 'no trace_file'}, which {EXAMS} names for exam {exam}. {_HOW_TO_GET_IT}"
        if part.fault:
            return f"part damaged: {name} {part.fault}; download it again."
        return f"exam not found: no part holds exam {exam}, {EXAMS} says {name}."

    def _rejected(self, exam: str, place: Place, tracings: Tracings) -> Rejected:
        """Say why a tracing that is not the one of a row is left out."""
        kept = self._places.get(exam)
        if kept is not None:
            return Rejected(exam, f"tracing there twice: exam {exam} is in {kept} and {place}; the first is kept.")
        try:
            is_filler = exam == _FILLER and not tracings.read(place).any()
        except RecordError as error:
            return Rejected(exam, str(error))
        if is_filler:
            return Rejected(exam, f"filler row: {place} has exam_id 0 and only zeros, it is no exam.")
        return Rejected(exam, f"not in {EXAMS}: exam {exam}, {place}, has no row, so its patient is unknown.")


@lru_cache(maxsize=2)
def _reopen(source: Path, stamps: Stamps) -> Code15Reader:
    """Read the table and the ids in another process; positions would mean other exams if they had changed."""
    reader = Code15Reader(source)
    if reader.stamps != stamps:
        raise SourceError(f"{source} changed while it was read: leave it as it is and start again.")
    return reader


def _stamps(source: Path) -> Stamps:
    stats = [(path.name, path.stat()) for path in (source / EXAMS, *part_files(source))]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _plain_id(text: str) -> str:
    """Return an id as the parts have it: a table that was joined in pandas has 57.0."""
    return text.removesuffix(".0")


def _without_padding(tracing: NDArray[np.float32], exam: str, place: Place) -> NDArray[np.float32]:
    """Cut off the zeros at both ends of a (time, 12) tracing; return (12, time)."""
    recorded = np.flatnonzero(tracing.any(axis=1))
    if not len(recorded):
        raise RecordError(f"no signal: exam {exam}, {place}, holds only zeros.")
    return np.ascontiguousarray(tracing[recorded[0] : recorded[-1] + 1].T)


def _codes(row: Mapping[str, str], notes: list[str]) -> dict[str, float]:
    codes = {}
    for code, column in _LABEL_COLUMNS.items():
        if fields.is_missing(row[column]):
            notes.append(f"label missing: {column} is empty; not taken as positive.")
        elif fields.positive(row[column], column, notes):
            codes[code] = 0.0
    return codes
