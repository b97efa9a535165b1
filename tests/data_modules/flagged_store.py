"""A made store in which everything occurs that a store can tell about its records, and the rows it was made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_modules.records import Rejected
from data_modules.stores.schema import StoreRow
from data_modules.stores.store import RecordStore
from data_modules.stores.store_writer import Part, StoreWriter
from ecgfair.ecg import MISSING_SAMPLE, Preprocessing

PREPROCESSING = Preprocessing(leads=("I", "II", "V1"), length=50, crop="center")
LABEL_SETS = {
    "all": {"A": ("A",), "B": ("B",), "C": ("C",), "never": ("D",)},
    "grouped": {"AB": ("A", "B"), "C": ("C",)},
    "none": {},
}
CODES = ({"A": 100.0}, {"B": 50.0, "C": 0.0}, {}, {"A": 30.0, "B": 80.0}, {"unlisted": 100.0})
SECONDS = (0.5, 0.5, 0.3, 12.0, None, 0.504)
REJECTED = (
    Rejected("r90", "file missing: r90.dat is not there."),
    Rejected("r91", "too [bold]odd[/]: a reason with brackets."),
    Rejected("r92", "file missing: r92.dat is not there."),
)


def row(number: int) -> StoreRow:
    codes = CODES[number % len(CODES)]
    return StoreRow(
        record_id=f"r{number}",
        patient_id=f"p{number // 2}",
        age=None if number % 4 == 3 else 30.0 + 10 * (number % 7),
        sex=None if number % 5 == 4 else number % 2,
        fold=None if number == 6 else number % 3 + 1,
        recorded_at="1999-12-31T23:59:58" if number else None,
        codes=list(codes),
        likelihoods=list(codes.values()),
        seconds=SECONDS[number % len(SECONDS)],
        beats=[] if number % 6 == 5 else [5, 25, 45],
        heart_rate=60.0 + number,
        pr=None if number % 3 else 160.0 + number,
        qrs=90.0,
        qt=400.0,
        qtc=410.0,
        axis=-30.0,
        heart_rate_quality=0.9,
        pr_quality=None if number % 3 else 0.25,
        qrs_quality=0.75,
        signal_quality=None if number == 1 else number / 12,
        complete=number % 4 != 0,
        derived_leads=["V1"] if number == 2 else [],
        flat_leads=["I", "V1"] if number % 5 == 0 else [],
        notes=["age implausible: -3.", "unknown code: X."] if number % 6 == 0 else [],
    )


ROWS = tuple(row(number) for number in range(13))


def signal(number: int) -> np.ndarray:
    """Steps of a store; the first record has a gap."""
    steps = np.random.default_rng(number).integers(-1000, 1000, (3, 50)).astype(np.int16)
    if number == 0:
        steps[1, 10:20] = MISSING_SAMPLE
    return steps


def write(path: Path, rows: tuple[StoreRow, ...] = ROWS, rejected: tuple[Rejected, ...] = REJECTED) -> RecordStore:
    """Write the store in parts of five."""
    signals = [signal(number) for number in range(len(rows))]
    with StoreWriter(path, PREPROCESSING, LABEL_SETS, "made") as writer:
        for start in range(0, len(rows), 5):
            last = start + 5 >= len(rows)
            writer.write(Part(rows[start : start + 5], signals[start : start + 5], rejected if last else ()))
    return RecordStore(path)
