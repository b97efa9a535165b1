"""What is measured on ECGs against the statements of PTB-XL, beside neurokit2's delineation of the same records.

    python experiments/benchmarks/measurement.py PTBXL_FOLDER [--mitbih MITBIH_FOLDER]

PTBXL_FOLDER is the official one; its records at 100 Hz are read. Every record with one of the statements of
``STATEMENTS`` is measured, and every one stated NORM and none of these; ``--normals`` takes some by chance of folds 1
to 9. neurokit2 finds and delineates the beats of
lead II; its intervals are medians over beats. AUROC is how often a record with the statement measures higher than
one stated NORM. Records without a value have no part in it; their share stands beside it.
"""

from __future__ import annotations

import argparse
import ast
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import neurokit2 as nk
import numpy as np
import pandas as pd
import wfdb
from joblib import Parallel, delayed
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import mannwhitneyu

from data_modules.measuring.measurement import Measurement, measure, measure_batch
from ecgfair.ecg import LEADS

RATE = 100
CHUNK = 32  # records, as `prepare` measures them
STATEMENTS = {
    "CLBBB": "qrs",
    "CRBBB": "qrs",
    "1AVB": "pr",
    "LNGQT": "qtc",
    "STACH": "heart_rate",
    "AFIB": "rr_variability",
}
RANGES = {"pr": (110, 220), "qrs": (60, 120), "qt": (320, 460)}
"""Milliseconds within which the records stated NORM are expected."""

MEASURED = tuple(dict.fromkeys([*STATEMENTS.values(), *RANGES]))
BEAT_SYMBOLS = "NLRBAaJSVrFejnE/fQ?"
"""Annotations of MIT-BIH that mark beats."""


def chosen_records(folder: Path, normals: int | None, seed: int) -> pd.DataFrame:
    """Return the rows of the records to measure; ``normal`` tells those stated NORM and none of ``STATEMENTS``."""
    table = pd.read_csv(folder / "ptbxl_database.csv").sort_values("ecg_id", ignore_index=True)
    table["codes"] = table.scp_codes.map(lambda text: set(ast.literal_eval(text)))
    stated = table.codes.map(lambda codes: bool(codes & STATEMENTS.keys()))
    table["normal"] = table.codes.map(lambda codes: "NORM" in codes) & ~stated
    tuned = table[table.normal & (table.strat_fold < 10)]
    some = tuned.sample(len(tuned) if normals is None else min(normals, len(tuned)), random_state=seed).index
    kept = stated | (table.normal & (table.strat_fold == 10)) | table.index.isin(some)
    return table[kept].reset_index(drop=True)


def by_ecgfair(signals: NDArray[np.float32]) -> pd.DataFrame:
    """Measure (records, leads, time) millivolts."""
    return pd.DataFrame([vars(found) for found in measure_batch(signals, LEADS, RATE)])[list(MEASURED)].astype(float)


def beside(peaks: NDArray[np.integer], places: Iterable[float], reach: float) -> NDArray[np.float64]:
    """Return the nearest of some places before or after each R peak, within ``reach`` seconds; NaN without one."""
    distance = np.subtract.outer(np.asarray(list(places), dtype=float), peaks) * np.sign(reach)
    distance[~((distance >= 0) & (distance <= abs(reach) * RATE))] = np.inf
    nearest = distance.min(axis=0, initial=np.inf)
    return np.where(np.isfinite(nearest), peaks + np.sign(reach) * nearest, np.nan)


def milliseconds(samples: NDArray[np.float64]) -> float:
    """Return the median of the values there are; NaN without any."""
    return float(np.median(samples[np.isfinite(samples)])) * 1000 / RATE if np.isfinite(samples).any() else np.nan


def by_neurokit(lead: NDArray[np.float32], method: str) -> dict[str, float]:
    """Measure (time,) millivolts of lead II by a method of ``neurokit2.ecg_delineate``; NaN what it does not tell."""
    told = dict.fromkeys(MEASURED, np.nan)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            clean = nk.ecg_clean(lead, sampling_rate=RATE)
            peaks = nk.ecg_peaks(clean, sampling_rate=RATE)[1]["ECG_R_Peaks"]
            rr = float(np.median(np.diff(peaks))) / RATE
            told["heart_rate"] = 60 / rr
            told["rr_variability"] = float(nk.hrv_time(peaks, sampling_rate=RATE)["HRV_CVSD"].iloc[0])
            waves = nk.ecg_delineate(clean, peaks, sampling_rate=RATE, method=method)[1]
        except (ValueError, IndexError, ZeroDivisionError, KeyError, TypeError):  # what it raises where it finds none
            return told
    # Lists that leave out beats differ in length, so that waves are matched to the R peaks by their places.
    onset, offset = beside(peaks, waves["ECG_R_Onsets"], -0.25), beside(peaks, waves["ECG_R_Offsets"], 0.25)
    told["pr"] = milliseconds(onset - beside(peaks, waves["ECG_P_Onsets"], -0.6))
    told["qrs"] = milliseconds(offset - onset)
    told["qt"] = milliseconds(beside(peaks, waves["ECG_T_Offsets"], 0.8) - onset)
    told["qtc"] = told["qt"] / rr ** (1 / 3)
    return told


def measure_part(folder: Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Read some records and measure them in each way."""
    records = [wfdb.rdrecord(str(folder / name)) for name in names]
    order = [[name.upper() for name in records[0].sig_name].index(lead.upper()) for lead in LEADS]
    signals = np.stack([record.p_signal.T[order] for record in records]).astype(np.float32)
    start = time.process_time()
    ours = by_ecgfair(signals)
    ours["seconds"] = (time.process_time() - start) / len(signals)
    lead_ii = signals[:, LEADS.index("II")]
    others = {
        f"neurokit2 {method}": pd.DataFrame([by_neurokit(lead, method) for lead in lead_ii])
        for method in ("dwt", "prominence")
    }
    return {"ecgfair": ours, **others}


def auroc(values: pd.Series, positive: pd.Series, normal: pd.Series) -> str:
    """Return the AUROC and the share of records without a value, of the positive ones and those stated NORM."""
    diseased, healthy = values[positive], values[normal]
    missing = f"{100 * diseased.isna().mean():.0f}/{100 * healthy.isna().mean():.0f}"
    diseased, healthy = diseased.dropna(), healthy.dropna()
    if not diseased.size or not healthy.size:
        return f"-  {missing}"
    area = mannwhitneyu(diseased, healthy).statistic / (diseased.size * healthy.size)
    return f"{area:.3f}  {missing}"


def diagnoses(table: pd.DataFrame, ways: dict[str, pd.DataFrame]) -> Table:
    """Return the table of AUROCs."""
    shown = Table(title="AUROC against NORM; % without a value: with the statement / NORM")
    for column in ("statement", "measured", "folds", "n", "n NORM", *ways):
        shown.add_column(column, justify="left" if column in ("statement", "measured") else "right")
    for code, name in STATEMENTS.items():
        for folds, among in {"1-9": table.strat_fold < 10, "10": table.strat_fold == 10}.items():
            positive = among & table.codes.map(lambda codes, code=code: code in codes)
            normal = among & table.normal
            cells = [auroc(values[name], positive, normal) for values in ways.values()]
            shown.add_row(code, name, folds, str(positive.sum()), str(normal.sum()), *cells)
    return shown


def in_range(table: pd.DataFrame, ways: dict[str, pd.DataFrame]) -> Table:
    """Return the table of how many records stated NORM measure as they should."""
    normal = table.normal
    shown = Table(title=f"% of {normal.sum()} records stated NORM within the range; % without a value")
    for column in ("measured", "range in ms", *ways):
        shown.add_column(column, justify="right")
    for name, (low, high) in RANGES.items():
        cells = []
        for values in ways.values():
            told = values.loc[normal, name].dropna()
            missing = 1 - len(told) / normal.sum()
            cells.append(f"{100 * told.between(low, high).mean():.1f}  {100 * missing:.1f}")
        shown.add_row(name, f"{low}-{high}", *cells)
    return shown


def matched(found: NDArray[np.integer], beats: NDArray[np.integer], reach: int) -> int:
    """Return how many R peaks and annotated beats are each other's nearest and at most ``reach`` samples apart."""
    distance = np.abs(np.subtract.outer(beats, found))
    nearest = distance.argmin(axis=1)
    mutual = distance.argmin(axis=0)[nearest] == np.arange(beats.size)
    return int((mutual & (distance.min(axis=1) <= reach)).sum())


def mit_bih(folder: Path) -> Table:
    """Return the table of R peaks of MIT-BIH record 100 against its annotations."""
    record, notes = wfdb.rdrecord(str(folder / "100")), wfdb.rdann(str(folder / "100"), "atr")
    beats = notes.sample[[symbol in BEAT_SYMBOLS for symbol in notes.symbol]]
    found: Measurement = measure(record.p_signal.T.astype(np.float32), record.sig_name, record.fs)
    clean = nk.ecg_clean(record.p_signal[:, 0], sampling_rate=record.fs)
    theirs = nk.ecg_peaks(clean, sampling_rate=record.fs)[1]["ECG_R_Peaks"]
    shown = Table(title=f"R peaks of MIT-BIH record 100, {beats.size} beats, within 75 ms")
    for column in ("way", "sensitivity", "positive predictivity"):
        shown.add_column(column, justify="left" if column == "way" else "right")
    for way, peaks in {"ecgfair": found.beats, "neurokit2, one lead": np.asarray(theirs)}.items():
        hits = matched(peaks, beats, round(0.075 * record.fs))
        shown.add_row(way, f"{hits / beats.size:.4f}", f"{hits / peaks.size:.4f}")
    return shown


def main() -> None:
    """Measure and print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("ptbxl", type=Path, help="The official folder of PTB-XL.")
    arguments.add_argument("--mitbih", type=Path, help="Folder of MIT-BIH record 100; by default mitbih beside PTB-XL.")
    arguments.add_argument("--normals", type=int, help="Records stated NORM of folds 1 to 9; all by default.")
    arguments.add_argument("--seed", type=int, default=0, help="It chooses them.")
    arguments.add_argument("--jobs", type=int, default=2, help="Processes.")
    given = arguments.parse_args()

    table = chosen_records(given.ptbxl, given.normals, given.seed)
    starts = range(0, len(table), CHUNK)
    parts = Parallel(n_jobs=given.jobs)(
        delayed(measure_part)(given.ptbxl, table.filename_lr[start : start + CHUNK].tolist()) for start in starts
    )
    ways = {way: pd.concat([part[way] for part in parts], ignore_index=True) for way in parts[0]}
    console = Console()
    console.print(f"{len(table)} records, {table.normal.sum()} of them stated NORM; seed {given.seed}.")
    console.print(diagnoses(table, ways), in_range(table, ways))
    mitbih = given.mitbih or given.ptbxl.parent / "mitbih"
    if (mitbih / "100.atr").is_file():
        console.print(mit_bih(mitbih))
    else:
        console.print(f"MIT-BIH record 100 is not in {mitbih}: name its folder by --mitbih.")
    speed = 1 / ways["ecgfair"]["seconds"].mean()
    console.print(
        f"measure_batch: {speed:.0f} records per second of one core, {CHUNK} at once, 12 leads, 10 s at {RATE} Hz."
    )


if __name__ == "__main__":
    main()
