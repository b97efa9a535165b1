"""Localise anomalies planted into real normal records: AUROC over samples and Dice, of the runs that are named.

    python experiments/anomaly/localisation.py --runs runs/anomaly/default-0 runs/anomaly/mcf_published-0

The threshold of the Dice that can be trusted is chosen on planted records of the validation fold; the other one is the
best on the test records themselves, as published. Samples that a planted anomaly changed without being one (the pause
after a premature beat) are left out. No network was trained on these anomalies.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_modules.streaming.base import StoresDataModule
from ecgfair.anomaly.localisation import evaluate_localisation
from ecgfair.anomaly.planting import PLANTED, plant
from ecgfair.training import PretrainModule
from trained import batches_of, load

VALIDATION, TEST = 9, 10


class Mapped(NamedTuple):
    """Maps of planted records, and the truth; N of them."""

    maps: Tensor
    truth: Tensor
    counted: Tensor
    index: Tensor


def mapped(module: PretrainModule, data: StoresDataModule, fold: int, kind: str, size: int) -> Mapped:
    """Plant one kind into the normal records of a fold, and map them; records that can't take it are left out."""
    labels = np.concatenate(data._labels)
    normal = (labels[:, data.label_names.index("NORM")] > 0) & (labels.sum(1) == 1)
    positions = np.flatnonzero(normal & (np.concatenate(data.record_folds) == fold))
    parts = []
    for number, batch in enumerate(batches_of(data, positions, size)):
        generator = torch.Generator().manual_seed(1000 * fold + number)
        spec = data.preprocessing
        recorded = batch["recorded"].expand(batch["signal"].shape)
        planted = plant(
            kind, batch["signal"], batch["beats"], spec.sampling_rate, spec.leads, generator, recorded=recorded
        )
        # A detector of beats sees the planted record: the beats are those that are in it.
        told = {**batch, "signal": planted.signal, "beats": planted.beats}
        shown = module.anomaly_scores(told, maps=True).map  # type: ignore[arg-type]  # of one type with the batch
        assert shown is not None  # noqa: S101  # it was asked for
        counted = recorded & ~(planted.changed & ~planted.truth)
        parts.append(Mapped(*(x[planted.has] for x in (shown, planted.truth, counted, batch["index"]))))
    return Mapped(*(torch.cat(column) for column in zip(*parts, strict=True)))


def joined(parts: list[Mapped]) -> Mapped:
    """Put maps of several kinds together."""
    return Mapped(*(torch.cat(column) for column in zip(*parts, strict=True)))


def row(name: str, test: Mapped, validation: Mapped, resamples: int) -> str:
    """Return a row of the table."""
    chosen = evaluate_localisation(validation.maps, validation.truth, None, validation.counted, resamples=0)
    found = evaluate_localisation(
        test.maps, test.truth, test.index, test.counted, threshold=chosen.threshold, resamples=resamples
    )
    by_record = f"{found.auroc_by_record:.3f} ({found.auroc_by_record_low:.3f}-{found.auroc_by_record_high:.3f})"
    return (
        f"| {name} | {chosen.auroc:.3f} | {found.auroc:.3f} ({found.auroc_low:.3f}-{found.auroc_high:.3f}) | "
        f"{by_record} | {found.dice_given:.3f} | {found.dice:.3f} | {found.records} |"
    )


def main() -> None:
    """Print a table a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="+", type=Path, required=True)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    asked = parser.parse_args()
    for run in asked.runs:
        started = time.monotonic()
        module, data = load(run)
        print(f"\n{run}\n")
        print("| planted | fold 9 | AUROC over samples, fold 10 | mean over records | Dice | best Dice | records |")
        print("|---|---|---|---|---|---|---|")
        parts = {
            kind: {fold: mapped(module, data, fold, kind, asked.batch) for fold in (VALIDATION, TEST)}
            for kind in PLANTED
        }
        for kind, of_fold in parts.items():
            print(row(kind, of_fold[TEST], of_fold[VALIDATION], 0))
        everything = [joined([of_fold[fold] for of_fold in parts.values()]) for fold in (TEST, VALIDATION)]
        print(row("all", everything[0], everything[1], asked.resamples))
        print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
