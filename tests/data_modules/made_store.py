"""A small store made by hand, for the tests of what reads and writes stores."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_modules.records import Rejected
from data_modules.stores.schema import StoreRow
from data_modules.stores.store import RecordStore
from data_modules.stores.store_files import MANIFEST
from data_modules.stores.store_writer import Part, StoreWriter
from ecgfair.ecg import Preprocessing

PREPROCESSING = Preprocessing(leads=("I", "II"), length=50)
LABEL_SETS = {"all": {"A": ("A",), "B": ("B",), "C": ("C",)}, "grouped": {"AB": ("A", "B"), "C": ("C",)}, "none": {}}
CODES = [{"A": 100.0}, {"B": 50.0, "C": 0.0}, {}, {"A": 30.0, "B": 80.0}, {"unlisted": 100.0}]


def row(number: int) -> StoreRow:
    codes = CODES[number % len(CODES)]
    return StoreRow(
        record_id=f"r{number}",
        patient_id=f"p{number // 2}",
        age=None if number % 4 == 3 else 40.0 + number,
        sex=None if number % 5 == 4 else number % 2,
        fold=number % 10 + 1,
        recorded_at=None,
        codes=list(codes),
        likelihoods=list(codes.values()),
        beats=list(range(5, 45, 10 + number)),
        heart_rate=60.0 + number,
        pr=None,
        qrs=90.0,
        qt=400.0,
        qtc=410.0,
        seconds=10.0,
        notes=["kind: detail"] if number == 0 else [],
    )


def made_signals(count: int = 11) -> np.ndarray:
    return np.random.default_rng(0).integers(-32768, 32768, (count, 2, 50)).astype(np.int16)


def parts(signals: Iterable[np.ndarray] | None = None, size: int = 4) -> list[Part]:
    """Eleven records, if not told otherwise, in parts of four, and one that was rejected at the end."""
    given = list(made_signals() if signals is None else signals)
    rows = [row(number) for number in range(len(given))]
    chunks = [slice(start, start + size) for start in range(0, len(given), size)]
    made = [Part(rows[chunk], given[chunk], []) for chunk in chunks]
    return [*made[:-1], Part(made[-1].rows, made[-1].signals, [Rejected("r99", "kind: because")])]


def write(path: Path, signals: Iterable[np.ndarray] | None = None, *, overwrite: bool = False) -> RecordStore:
    with StoreWriter(path, PREPROCESSING, LABEL_SETS, "made", overwrite=overwrite) as writer:
        for part in [] if writer.finished else parts(signals)[writer.done :]:
            writer.write(part)
    return RecordStore(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def edit_manifest(store: RecordStore, **changes: object) -> None:
    manifest = json.loads((store.path / MANIFEST).read_text())
    manifest.update(changes)
    (store.path / MANIFEST).write_text(json.dumps(manifest))
