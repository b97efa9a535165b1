"""A table of predictions as a model writes it, small and made up."""

from pathlib import Path

import numpy as np
import pandas as pd

LABELS = ("AFIB", "LBBB", "MI")


def rows(records=300, seed=0, labels=LABELS, prefix="r") -> pd.DataFrame:
    """Two records a patient; women are found worse; a few ages, sexes and sites are missing."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "record_id": [f"{prefix}{number}" for number in range(records)],
            "patient_id": [f"p{number // 2}" for number in range(records)],
            "fold": np.full(records, 10),
            "age": random.uniform(20, 90, records).round(1),
            "sex": np.arange(records) // 2 % 2,
            "site": random.choice(["north", "south"], records),
        }
    )
    for label in labels:
        target = (random.random(records) < 0.4).astype(float)
        noise = random.normal(size=records) * (1 + table["sex"])
        table[f"probability/{label}"] = 1 / (1 + np.exp(-(2 * target - 1 + noise)))
        table[f"target/{label}"] = target
    table.loc[[3, 8], "age"] = np.nan
    table["sex"] = table["sex"].astype("Int64")
    table.loc[[5], "sex"] = pd.NA
    table.loc[[7], "site"] = None
    return table


def written(table: pd.DataFrame, path: Path) -> str:
    """Write it as the suffix says."""
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return str(path)


def renamed(table: pd.DataFrame) -> pd.DataFrame:
    """The same table as somebody else names and spells it."""
    columns = {"record_id": "ecg_id", "patient_id": "pid", "fold": "strat_fold", "age": "years", "sex": "gender"}
    for label in LABELS:
        columns |= {f"probability/{label}": f"prob_{label}", f"target/{label}": f"y_{label}"}
    other = table.rename(columns=columns)
    other["gender"] = [None if pd.isna(sex) else {0: "Male", 1: "F"}[sex] for sex in table["sex"]]
    for label in LABELS:
        other[f"y_{label}"] = other[f"y_{label}"] == 1
    return other
