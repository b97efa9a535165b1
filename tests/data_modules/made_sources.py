"""The same few ECGs as each kind of source has them, to be prepared whole, or with one record or all of them broken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import pandas as pd
import wfdb
from numpy.typing import NDArray

from data_modules.stores.store import RecordStore
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.signals.recording import to_signal
from data_modules.synthetic.writing.synthesize import synthesize
from ecgfair.__main__ import main
from ecgfair.ecg import LEADS
from tests.data_modules.code15_source import exam, padded, tracing, write_exams, write_part

KINDS: Final = ("ptbxl", "wfdb", "code15", "records")
FIRST_PART: Final = (1, 2)
"""Exams of CODE-15 %'s first part; the others are in its second."""

_TABLES: Final = {"ptbxl": "ptbxl_database.csv", "code15": "exams.csv", "records": "records.csv"}
_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "ptbxl": {"record_id": "ecg_id", "fold": "strat_fold", "signal": "filename_lr"},
    "wfdb": {"age": "Age", "sex": "Sex", "patient_id": "Patient ID"},
    "code15": {"record_id": "exam_id", "sex": "is_male", "signal": "trace_file"},
    "records": {},
}
_OPTIONS: Final = {
    "records": (
        f"--files.leads=[{','.join(LEADS)}]",
        "--files.sampling_rate=100",
        "--files.millivolts_per_unit=0.001",
    )
}


Rows = dict[str, tuple[dict[str, Any], bytes]]
"""All that a store holds of each record, by its id: its row, and the bytes of its signal."""


def rows_of(store: RecordStore) -> Rows:
    """Read a whole store, to be compared with another."""
    signals = store.gather(np.arange(len(store)))
    rows = store.records.to_pylist()
    return {row["record_id"]: (row, signal.tobytes()) for row, signal in zip(rows, signals, strict=True)}


@dataclass(frozen=True)
class Source:
    """A source of one kind in a folder of its own; records count from 1."""

    kind: str
    folder: Path
    records: int

    def record_id(self, number: int) -> str:
        return f"r{number}" if self.kind in ("wfdb", "records") else str(number)

    def prepare(self, store: Path, jobs: int = 1) -> int:
        """Return the exit status of the command a user types."""
        return main(["prepare", *self.arguments(store), "--jobs", str(jobs)])

    def arguments(self, store: Path) -> list[str]:
        named = self.table if self.kind == "records" else self.folder
        return [self.kind, str(named), str(store), *_OPTIONS.get(self.kind, ())]

    @property
    def table(self) -> Path:
        return self.folder / _TABLES[self.kind]

    def stem(self, number: int) -> Path:
        """Return the path of a WFDB record, without a suffix."""
        return self.folder / (f"records100/00000/{number:05d}_lr" if self.kind == "ptbxl" else f"r{number}")

    @property
    def second_part(self) -> Path:
        return self.folder / "exams_part1.hdf5"

    def state(self, number: int, field: str, text: str) -> None:
        """Have the source's table, or a header's comments, say something else of a record."""
        column = _COLUMNS[self.kind].get(field, field)
        if self.kind == "wfdb":
            self.edit_header(number, rf"^# {column}: .*$", f"# {column}: {text}")
            return
        table = pd.read_csv(self.table, dtype=str, keep_default_na=False)
        table.loc[number - 1, column] = text
        table.to_csv(self.table, index=False)

    def edit_header(self, number: int, pattern: str, replacement: str) -> None:
        path = self.stem(number).with_suffix(".hea")
        changed = re.sub(pattern, replacement, path.read_text(), flags=re.MULTILINE)
        assert changed != path.read_text()
        path.write_text(changed)

    def rewrite(self, number: int, signal: NDArray[np.number], leads: tuple[str, ...] = LEADS) -> None:
        """Write another signal, (leads, time) microvolts, in the place of a record's own."""
        if self.kind == "code15":
            with h5py.File(self.second_part, "r+") as file:
                file["tracings"][number - len(FIRST_PART) - 1] = padded((signal / 1000).astype(np.float32).T)
            return
        stem = self.stem(number)
        write_wfdb(stem, signal, _comments(number) if self.kind == "wfdb" else [], leads)

    def save_npy(self, number: int, signal: NDArray[np.number]) -> None:
        """Have the table of own records name a ``.npy`` file, which holds microvolts."""
        np.save(self.folder / f"{number}.npy", signal)
        self.state(number, "signal", f"{number}.npy")

    def save_csv(self, number: int, text: str) -> None:
        (self.folder / f"{number}.csv").write_text(text)
        self.state(number, "signal", f"{number}.csv")


def make_source(kind: str, folder: Path, records: int = 4) -> Source:
    """Write a source without a fault."""
    source = Source(kind, folder, records)
    numbers = range(1, records + 1)
    if kind == "ptbxl":
        synthesize(str(folder), records)
        # A patient's sex and age may be missing there; here each is stated, so that damage shows.
        for number in numbers:
            source.state(number, "sex", "1")
            source.state(number, "age", "57.0")
        return source
    folder.mkdir()
    if kind == "code15":
        parts = [numbers[: len(FIRST_PART)], numbers[len(FIRST_PART) :]]
        for part, exams in enumerate(parts):
            write_part(folder / f"exams_part{part}.hdf5", {number: tracing(number) for number in exams})
        places = [(number, f"exams_part{part}.hdf5") for part, exams in enumerate(parts) for number in exams]
        write_exams(folder, [exam(number, trace_file=name) for number, name in places])
        return source
    for number in numbers:
        write_wfdb(source.stem(number), to_signal(truth(number)), _comments(number) if kind == "wfdb" else [])
    if kind == "records":
        rows = [
            {"record_id": f"r{number}", "patient_id": f"p{number}", "age": "57", "sex": "F", "fold": number % 10 + 1}
            | {"signal": f"r{number}.hea"}
            for number in numbers
        ]
        pd.DataFrame(rows).to_csv(source.table, index=False)
    return source


def write_wfdb(stem: Path, signal: NDArray[np.number], comments: list[str], leads: tuple[str, ...] = LEADS) -> None:
    count = len(leads)
    wfdb.wrsamp(
        stem.name,
        fs=100,
        units=["mV"] * count,
        sig_name=list(leads),
        d_signal=signal.T.astype(np.int64),
        fmt=["16"] * count,
        adc_gain=[1000.0] * count,
        baseline=[0] * count,
        comments=comments,
        write_dir=str(stem.parent),
    )


def _comments(number: int) -> list[str]:
    return ["Age: 57", "Sex: F", f"Patient ID: p{number}", "Dx: 426783006"]
