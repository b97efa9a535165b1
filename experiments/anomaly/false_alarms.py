"""What calibration by group changes about false alarms: normals of fold 9 calibrate, those of fold 10 are counted.

    python experiments/anomaly/false_alarms.py --runs runs/anomaly/default-0 runs/anomaly/default-1

A normal record is a false alarm if its score is above the given percentile of the calibrating normals: of all of them
(before), or of those of its own group (after). Counts and rates are means over the runs; intervals, by patients, are of
the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor
from trained import load, normal_records

from data_modules.streaming.base import StoresDataModule
from ecgfair.anomaly.calibration import NormalCalibration
from ecgfair.anomaly.evaluation.false_alarms import CalibrationEffect, compare_calibrations
from ecgfair.groups import Grouping, group_by_demographics
from ecgfair.training import PretrainModule

ATTRIBUTES = ("sex", "age", "sex_x_age")


class Normals(NamedTuple):
    """Scores of N normal records, and who they are of."""

    score: Tensor
    age: Tensor
    sex: Tensor
    record: Tensor


def scored(module: PretrainModule, data: StoresDataModule, part: str) -> Normals:
    """Score the normal records of a part."""
    found = [
        (module.anomaly_scores(batch).score, batch["age"], batch["sex"], batch["index"])
        for batch in normal_records(data, part)
    ]
    return Normals(*(torch.cat(column) for column in zip(*found, strict=True)))


def effects(
    calibrating: Normals, counted: Normals, by: str, edges: tuple[int, ...], level: float, resamples: int
) -> list[CalibrationEffect]:
    """Return a row for all records and one a group."""

    def groups(records: Normals) -> Grouping:
        return group_by_demographics(by, records.age, records.sex, edges)

    calibration = NormalCalibration.fit(calibrating.score, groups(calibrating), calibrated_on="fold 9", folds=(9,))
    return compare_calibrations(
        calibration, counted.score, groups(counted), level, patients=counted.record, resamples=resamples
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", type=Path, required=True)
    parser.add_argument("--age_edges", nargs="+", type=int, default=[40, 60])
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--resamples", type=int, default=1000)
    asked = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False)
    scores = []
    for run in asked.runs:
        module, data = load(run)
        scores.append((scored(module, data, "validation"), scored(module, data, "test")))
    console.print("| group | normals (fold 9) | before | after | change | |\n|---|---|---|---|---|---|")
    for by in ATTRIBUTES:
        seeds = [effects(*pair, by, tuple(asked.age_edges), asked.level, asked.resamples) for pair in scores]
        for rows in zip(*seeds, strict=True):
            first = rows[0]
            if not first.normals:
                continue
            before, after, change = (
                sum(getattr(row, name) for row in rows) / len(rows) for name in ("before", "after", "change")
            )
            console.print(
                f"| {by}: {first.group} | {first.normals} ({first.calibrating_normals}) | "
                f"{before:.3f} ({first.before_low:.3f}-{first.before_high:.3f}) | "
                f"{after:.3f} ({first.after_low:.3f}-{first.after_high:.3f}) | "
                f"{change:+.3f} ({first.change_low:+.3f}-{first.change_high:+.3f}) | {first.reason} |"
            )


if __name__ == "__main__":
    main()
