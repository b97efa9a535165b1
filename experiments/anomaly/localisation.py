"""Localise anomalies planted into real normal records: AUROC over samples and Dice, of the runs that are named.

    python experiments/anomaly/localisation.py --runs runs/anomaly/default-0 runs/anomaly/mcf_published-0

The threshold of the Dice that can be trusted is chosen on planted records of the validation fold; the other one is the
best on the test records themselves, as published. A third of the beats is planted into, unless ``--beats_share`` says
otherwise: with 1 there is no usual beat left to compare with. Samples that a planted anomaly changed without being one
(the pause after a premature beat) are left out. No network was trained on these anomalies.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple, cast

import torch
from rich.console import Console
from torch import Tensor
from trained import load, normal_records

from data_modules.streaming.base import StoresDataModule
from ecgfair.anomaly.evaluation.localisation import evaluate_localisation
from ecgfair.anomaly.planting.plant import PLANTED, plant
from ecgfair.anomaly.planting.subject import Planting
from ecgfair.callbacks import BEST
from ecgfair.ecg import EcgBatch
from ecgfair.training import PretrainModule


class Mapped(NamedTuple):
    """Maps of planted records, and the truth; N of them."""

    maps: Tensor
    truth: Tensor
    counted: Tensor
    record: Tensor


def mapped(
    module: PretrainModule, data: StoresDataModule, part: str, kind: str, most: int, planting: Planting
) -> Mapped:
    """Plant one kind into the first normal records of a part, and map them; those that can't take it are left out."""
    spec = data.preprocessing
    parts: list[Mapped] = []
    for number, batch in enumerate(normal_records(data, part)):
        if sum(len(done.record) for done in parts) >= most:
            break
        generator = torch.Generator().manual_seed(1000 * (part == "test") + number)
        recorded = batch["recorded"].expand(batch["signal"].shape)
        signal, beats = batch["signal"], batch["beats"]
        planted = plant(
            kind, signal, beats, spec.sampling_rate, spec.leads, generator, recorded=recorded, planting=planting
        )
        # A detector of beats sees the planted record: the beats are those that are in it.
        told = cast("EcgBatch", {**batch, "signal": planted.signal, "beats": planted.beats})
        shown = module.anomaly_scores(told, maps=True).map
        assert shown is not None  # noqa: S101  # it was asked for
        counted = recorded & ~(planted.changed & ~planted.truth)
        parts.append(Mapped(*(x[planted.has] for x in (shown, planted.truth, counted, batch["index"]))))
    return joined(parts)


def joined(parts: list[Mapped]) -> Mapped:
    """Put maps of several kinds together."""
    return Mapped(*(torch.cat(column) for column in zip(*parts, strict=True)))


def row(name: str, test: Mapped, validation: Mapped, resamples: int) -> str:
    """Return a row of the table."""
    chosen = evaluate_localisation(validation.maps, validation.truth, None, validation.counted, resamples=0)
    found = evaluate_localisation(
        test.maps, test.truth, test.record, test.counted, threshold=chosen.threshold, resamples=resamples
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
    parser.add_argument("--checkpoint", default=BEST, help="Of each run; checkpoints/last.ckpt for the last epoch.")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", choices=PLANTED, default=PLANTED)
    parser.add_argument("--most", type=int, default=10_000, help="Test records, to the end of a batch.")
    parser.add_argument("--most_validation", type=int, default=10_000, help="Validation records, likewise.")
    parser.add_argument("--beats_share", type=float, default=Planting().beats_share)
    asked = parser.parse_args()
    planting = Planting(beats_share=asked.beats_share)
    console = Console(soft_wrap=True, highlight=False)
    for run in asked.runs:
        started = time.monotonic()
        module, data = load(run, asked.checkpoint)
        console.print(f"\n{run}\n")
        console.print(
            "| planted | AUROC over samples, fold 9 | fold 10 | mean over records | Dice | best Dice | records |"
        )
        console.print("|---|---|---|---|---|---|---|")
        tests, validations = [], []
        for kind in asked.kinds:
            tests.append(mapped(module, data, "test", kind, asked.most, planting))
            validations.append(mapped(module, data, "validation", kind, asked.most_validation, planting))
            console.print(row(kind, tests[-1], validations[-1], 0))
        console.print(row("all", joined(tests), joined(validations), asked.resamples))
        console.print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
