"""A small source in the layout of CODE-15 %: ``exams.csv`` and parts in HDF5, made of arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_modules.leads import with_derived

SAMPLES = 4096
SHORT = 2934  # what most tracings of 7 s have, between two runs of zeros
COLUMNS = [
    "exam_id",
    "age",
    "is_male",
    "nn_predicted_age",
    "1dAVb",
    "RBBB",
    "LBBB",
    "SB",
    "ST",
    "AF",
    "patient_id",
    "death",
    "timey",
    "normal_ecg",
    "trace_file",
]


def tracing(seed: int, samples: int = SAMPLES) -> NDArray[np.float32]:
    """Twelve leads that obey Einthoven's and Goldberger's equations, (samples, 12) millivolts, with no zero in them."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 400
    beats = np.exp(-(((time + rng.random()) % 0.8 - 0.4) ** 2) / (2 * 0.02**2))
    i = 0.7 * beats + 0.02 * rng.standard_normal(samples) + 0.001
    ii = 1.2 * np.roll(beats, 4) + 0.02 * rng.standard_normal(samples) + 0.001
    limb = with_derived(np.stack((i, ii)), ("I", "II"))[0]
    chest = np.linspace(-0.8, 1.5, 6)[:, None] * beats + 0.02 * rng.standard_normal((6, samples)) + 0.001
    return np.concatenate((limb, chest.astype(np.float32))).T.copy()


def padded(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same between zeros that fill it up to 4096 samples, as many before it as after it."""
    before = (SAMPLES - len(signal)) // 2
    return np.pad(signal, ((before, SAMPLES - len(signal) - before), (0, 0)))


def exam(exam_id: int, **cells: object) -> dict[str, object]:
    """A row of ``exams.csv``: a healthy man of 50, but for what ``cells`` says."""
    labels = dict.fromkeys(("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"), False)
    who = {"exam_id": exam_id, "age": 50, "is_male": True, "nn_predicted_age": 51.3, "patient_id": 1000 + exam_id}
    row = who | labels | {"death": "", "timey": "", "normal_ecg": True, "trace_file": "exams_part0.hdf5"}
    return row | cells


def write_exams(folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "exams.csv", index=False)


def write_part(path: Path, tracings: Mapping[int, NDArray[np.float32]], *, filler: bool = True) -> None:
    """Write a part; ``filler`` ends it with the row of zeros of exam 0 that ends the published ones."""
    stored = dict(tracings) | ({0: np.zeros((SAMPLES, 12), np.float32)} if filler else {})
    with h5py.File(path, "w") as file:
        file["exam_id"] = np.asarray(list(stored), dtype=np.int64)
        file["tracings"] = np.stack(list(stored.values()))


def make_source(folder: Path) -> Path:
    """Two parts of three exams each, the second of each being short, and the table in another order than the parts."""
    folder.mkdir()
    for part, exams in enumerate(((11, 12, 13), (21, 22, 23))):
        signals = {number: tracing(number, SHORT if number % 10 == 2 else SAMPLES) for number in exams}
        write_part(folder / f"exams_part{part}.hdf5", {number: padded(signal) for number, signal in signals.items()})
    parts = {number: {"trace_file": f"exams_part{number // 10 - 1}.hdf5"} for number in (22, 11, 13, 21, 12, 23)}
    special: dict[int, dict[str, object]] = {
        22: {"AF": True, "RBBB": True, "normal_ecg": False, "is_male": False, "age": 81},
        13: {"patient_id": 1011},
    }
    write_exams(folder, [exam(number, **where, **special.get(number, {})) for number, where in parts.items()])
    return folder
