"""How age and sex act on normal ECGs of PTB-XL, as this project measures them, beside what the synthetic patients have.

    python experiments/synthetic/demographics.py STORE

STORE was prepared from PTB-XL. Of folds 1 to 8 it takes the records of adults in sinus rhythm that are stated NORM and
no other diagnosis. Each quantity is regressed on sex and, in men and women apart, on age: ordinary least squares, 95 %
intervals by drawing patients again. Voltage is the height of the QRS complex from its lowest to its highest point, mean
of the leads I, II and V1 to V6, relative to the expectation in a man of 60.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from data_modules.stores.store import RecordStore
from data_modules.synthetic.people.constitution import EFFECTS, YOUNGEST, respiratory_arrhythmia
from ecgfair.ecg import FEMALE, MALE

INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The leads from which the other four follow."""

COEFFICIENTS = {"man_of_60": "man of 60", "women": "woman - man", "men_per_decade": "men", "women_per_decade": "women"}
BREATH = 4.5
"""Beats a breath, about 15 breaths a minute: a sine then changes from beat to beat by 4 / pi * sin(pi / 4.5) of its
amplitude."""


def normal_records(store: RecordStore) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the table of the records taken, and their positions in the store."""
    table = store.records.to_pandas()
    diagnoses = {code for codes in store.label_sets["diagnostic"].values() for code in codes} - {"NORM"}
    stated = table.codes.map(lambda codes: {"NORM", "SR"} <= set(codes) and not diagnoses & set(codes))
    # A sex that is not known is -1 or missing, and a missing age compares false.
    taken = stated & (table.fold <= 8) & (table.age >= YOUNGEST) & table.sex.isin([MALE, FEMALE])
    return table[taken].reset_index(drop=True), np.flatnonzero(taken.to_numpy())


def qrs_height(signal: NDArray[np.floating], beats: NDArray[np.integer], rate: float) -> float:
    """Return millivolts from the lowest to the highest point within 60 ms of the R peaks, mean of the leads given.

    Args:
        signal: (leads, time) millivolts.
        beats: (K,) sample index of each R peak; the median beat of those not at an edge is measured.
        rate: Hz.
    """
    reach = round(0.06 * rate)
    inside = beats[(beats >= reach) & (beats < signal.shape[1] - reach)]
    if not inside.size:
        return np.nan
    beat = np.median(signal[:, inside[:, None] + np.arange(-reach, reach + 1)], axis=1)
    return float(np.ptp(beat, axis=1).mean())


def regress(values: NDArray[np.float64], decades: NDArray[np.float64], women: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (4,) of ``COEFFICIENTS``, by least squares."""
    design = np.stack([np.ones_like(decades), women, decades * ~women, decades * women], axis=1)
    return np.linalg.lstsq(design, values, rcond=None)[0]


def with_intervals(table: pd.DataFrame, name: str, draws: int, seed: int) -> tuple[NDArray[np.float64], float, int]:
    """Return (3, 4) coefficients and the ends of their intervals, the standard deviation left, and how many records."""
    known = table[table[name].notna()]
    values = known[name].to_numpy(float)
    decades, women = (known.age.to_numpy(float) - 60) / 10, known.sex.to_numpy() == FEMALE
    if name == "voltage":
        values = values / regress(values, decades, women)[0]
    found = regress(values, decades, women)
    expected = found[0] + found[1] * women + np.where(women, found[3], found[2]) * decades
    patients = [np.array(rows) for rows in known.reset_index(drop=True).groupby("patient_id").indices.values()]
    generator = np.random.default_rng(seed)
    drawn = [
        np.concatenate([patients[i] for i in generator.integers(len(patients), size=len(patients))])
        for _ in range(draws)
    ]
    again = np.array([regress(values[rows], decades[rows], women[rows]) for rows in drawn])
    ends = np.quantile(again, [0.025, 0.975], axis=0)
    return np.vstack([found, ends]), float(np.std(values - expected, ddof=4)), len(known)


def effects(table: pd.DataFrame, draws: int, seed: int) -> Table:
    """Return the table of effects."""
    shown = Table(title="real [95 % interval] | synthetic; slopes a decade of age")
    for column in ("", "records", *COEFFICIENTS.values(), "spread"):
        shown.add_column(column, justify="left" if not column else "right")
    for name, effect in EFFECTS.items():
        found, spread, count = with_intervals(table, name, draws, seed)
        cells = [
            f"{value:.{places}f} [{low:.{places}f}, {high:.{places}f}] | {getattr(effect, field):.{places}f}"
            for field, (value, low, high) in zip(COEFFICIENTS, found.T, strict=True)
            for places in [3 if name == "voltage" else 1]
        ]
        shown.add_row(name, str(count), *cells, f"{spread:.3g} | {effect.spread:g}")
    return shown


def arrhythmia(table: pd.DataFrame) -> Table:
    """Return the table of the respiratory arrhythmia that the measured change from beat to beat amounts to."""
    shown = Table(title="respiratory arrhythmia, % of RR: median | synthetic")
    shown.add_column("age")
    shown.add_column("records", justify="right")
    shown.add_column("", justify="right")
    for youngest in range(20, 90, 10):
        group = table[table.age.between(youngest, youngest + 10, inclusive="left") & table.rr_variability.notna()]
        real = 100 * group.rr_variability.median() / (4 / np.pi * np.sin(np.pi / BREATH))
        made = 100 * np.median([respiratory_arrhythmia(age) for age in group.age])
        shown.add_row(f"{youngest}-{youngest + 9}", str(len(group)), f"{real:.1f} | {made:.1f}")
    return shown


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="prepared from PTB-XL")
    parser.add_argument("--draws", type=int, default=1000, help="of patients, for the intervals")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    store = RecordStore(arguments.store)
    table, positions = normal_records(store)
    preprocessing = store.preprocessing
    leads = [preprocessing.leads.index(lead) for lead in INDEPENDENT]
    signals = store.gather(positions)[:, leads] * preprocessing.scale
    table["voltage"] = [
        qrs_height(signal, np.asarray(beats), preprocessing.sampling_rate)
        for signal, beats in zip(signals, table.beats, strict=True)
    ]
    console = Console(width=200)
    console.print(
        f"{len(table)} records of {table.patient_id.nunique()} patients, {(table.sex == FEMALE).sum()} of women"
    )
    console.print(effects(table, arguments.draws, arguments.seed), arrhythmia(table))


if __name__ == "__main__":
    main()
