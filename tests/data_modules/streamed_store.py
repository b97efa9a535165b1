"""A small store to stream from, whose columns a test can choose; a signal says which record it is of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_modules.records import LabelSets
from data_modules.stores.schema import StoreRow
from data_modules.stores.store_writer import Part, StoreWriter
from ecgfair.ecg import MISSING_SAMPLE, Preprocessing

PREPROCESSING = Preprocessing(leads=("I", "II"), length=20)
LABEL_SETS = {"rhythms": {"often": ("often",), "rarely": ("rarely",)}}
PART = 16
"""Records a file of signals."""


def signal_of(position: int, preprocessing: Preprocessing = PREPROCESSING) -> np.ndarray:
    """Steps that differ between records, leads and samples."""
    lead, time = np.ogrid[: len(preprocessing.leads), : preprocessing.length]
    return (position * 100 + lead * 50 + time).astype(np.int16)


def stream_store(
    path: Path,
    count: int = 50,
    source_name: str = "made",
    label_sets: LabelSets = LABEL_SETS,
    preprocessing: Preprocessing = PREPROCESSING,
    incomplete: Sequence[int] = (),
    **columns: Sequence[object],
) -> str:
    """Write a store of records in folds 1 to 10 by turns, each of its own patient.

    Args:
        path: Where.
        count: How many records.
        source_name: What they are from.
        label_sets: Its label sets.
        preprocessing: Its preprocessing.
        incomplete: Records whose second lead was not recorded.
        **columns: Values of columns, a value a record.
    """
    rows, signals = [], []
    for position in range(count):
        chosen = {name: values[position] for name, values in columns.items()}
        settings = {
            "record_id": f"r{position}",
            "patient_id": f"p{position}",
            "age": 20.0 + position,
            "sex": position % 2,
            "fold": position % 10 + 1,
            "codes": ["rarely"] if position % 5 == 0 else ["often"],
            "beats": list(range(3, 20, 5)),
            "heart_rate": 60.0 + position,
        } | chosen
        settings["likelihoods"] = [100.0] * len(settings["codes"])
        rows.append(StoreRow(**settings, complete=position not in incomplete))
        signal = signal_of(position, preprocessing)
        if position in incomplete:
            signal[1] = MISSING_SAMPLE
        signals.append(signal)
    with StoreWriter(path, preprocessing, label_sets, source_name) as writer:
        for start in range(0, count, PART):
            writer.write(Part(rows[start : start + PART], signals[start : start + PART], []))
    return str(path)
