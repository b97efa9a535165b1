"""The table of anomaly scores: what is in the prediction tables of some runs, under a protocol, as Markdown.

    python experiments/anomaly/table.py default=runs/anomaly/default-0,runs/anomaly/default-1 shape=runs/anomaly/baselines.parquet:pca_of_shape

Each row is a name and files: runs (their `test/predictions.parquet`), or a table and a column of it. Several files are
seeds: values are means over them, and the interval is that of the first. Rare against common takes the diagnostic
statements, by their prevalence in folds 1 to 8. The protocol says who is normal and who is left out; what a score was
trained and chosen on is not changed by it.
"""  # noqa: E501  # a command is one line

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from data_modules.stores.store import RecordStore
from ecgfair.anomaly.evaluation.evaluate import evaluate_anomaly
from ecgfair.anomaly.evaluation.report import AnomalyReport
from ecgfair.anomaly.protocols import CORRECTED, PROTOCOLS, Protocol, select
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.kernels.stratified import stratified_auroc

STATISTICS = ("auroc", "stratified_auroc", "average_precision", "best_f1", "sensitivity_at_specificity")
HEADINGS = ("AUROC", "within age strata", "AUPRC", "best F1", "sensitivity at 90 % specificity")


def scores(source: str) -> pd.Series[float]:
    """Return the scores of a run or of a column of a table, by record id."""
    path, _, column = source.partition(":")
    file = Path(path) if path.endswith(".parquet") else Path(path) / "test" / "predictions.parquet"
    table = pd.read_parquet(file)
    return table.set_index("record_id")[column or "anomaly_score"]


def report(
    store: RecordStore, score: pd.Series[float], fold: int, resamples: int, protocol: Protocol = CORRECTED
) -> AnomalyReport:
    """Evaluate the scores of a fold under a protocol."""
    columns = store.columns(["record_id", "patient_id", "age", "sex", "fold", "beats"])
    table = columns.drop_columns("beats").to_pandas()
    has_beat = torch.tensor([bool(beats) for beats in columns["beats"].to_pylist()])
    superclasses, names = store.labels("superdiagnostic", 0.0)[1], store.labels("superdiagnostic", 0.0)[0]
    folds = torch.tensor(table["fold"].to_numpy(dtype=np.int64))
    chosen = select(protocol, torch.from_numpy(superclasses.astype(np.float32)), names, folds, has_beat)
    own = score.reindex(table["record_id"]).to_numpy(dtype=np.float64, copy=True)
    rows = torch.from_numpy(np.flatnonzero((table["fold"] == fold) & ~chosen.neither.numpy() & np.isfinite(own)))
    statements, found = store.labels("diagnostic", 0.0)
    others = [position for position, name in enumerate(statements) if name != "NORM"]
    labels = found[:, others]
    prevalence = labels[table["fold"].to_numpy() <= 8].mean(axis=0)
    codes, _ = pd.factorize(table["patient_id"], sort=True)
    return evaluate_anomaly(
        torch.from_numpy(own)[rows],
        chosen.abnormal[rows],
        patients=torch.from_numpy(codes.astype(np.int64))[rows],
        age=torch.tensor(table["age"].to_numpy(dtype=np.float64, na_value=np.nan))[rows],
        sex=torch.tensor(table["sex"].to_numpy(dtype=np.int64))[rows],
        labels=torch.from_numpy(labels.astype(np.float32))[rows],
        label_names=[statements[position] for position in others],
        prevalence=[float(share) for share in prevalence],
        threshold=None,
        resamples=resamples,
    )


def differences(
    store: RecordStore, rows: dict[str, list[pd.Series[float]]], against: str, fold: int, resamples: int
) -> list[str]:
    """Return what each row's AUROC, the mean over its seeds, is ahead of another's, paired by patients."""
    table = store.columns(["record_id", "patient_id", "fold"]).to_pandas()
    names, labels = store.labels("superdiagnostic", 0.0)
    folds = torch.tensor(table["fold"].to_numpy(dtype=np.int64))
    chosen = select(CORRECTED, torch.from_numpy(labels.astype(np.float32)), names, folds)
    of_all = {
        name: torch.tensor(np.stack([one.reindex(table["record_id"]) for one in own])) for name, own in rows.items()
    }
    known = torch.stack([score.isfinite().all(dim=0) for score in of_all.values()]).all(dim=0)
    taken = (folds == fold) & ~chosen.neither & known
    codes, _ = pd.factorize(table["patient_id"], sort=True)
    weights = patient_weights(torch.from_numpy(codes.astype(np.int64))[taken], resamples, seed=0)
    none = torch.zeros(int(taken.sum()), dtype=torch.int64)

    def area(score: torch.Tensor) -> torch.Tensor:
        values = score[:, taken].T.contiguous()
        truth = chosen.abnormal[taken][:, None].expand(values.shape)
        return stratified_auroc(values, truth, none, 1, none, weights).auroc[:, 0].mean(dim=-1)

    found = []
    for name, score in of_all.items():
        if name != against:
            ahead = area(score) - area(of_all[against])
            low, high = ahead[1:].quantile(torch.tensor([0.025, 0.975], dtype=ahead.dtype)).tolist()
            found.append(f"{name} - {against}: {ahead[0]:+.3f} ({low:+.3f} to {high:+.3f})")
    return found


def cell(reports: Sequence[AnomalyReport], statistic: str) -> str:
    """Return the mean over seeds, and the interval of the first."""
    rows = [one.overall(statistic) for one in reports]
    mean = float(np.mean([row.value for row in rows]))
    return f"{mean:.3f} ({rows[0].low:.3f}-{rows[0].high:.3f})"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", help="name=run,run or name=table.parquet:column")
    parser.add_argument("--store", default="stores/ptbxl")
    parser.add_argument("--fold", type=int, default=10)
    parser.add_argument("--protocol", choices=PROTOCOLS, default=CORRECTED.name)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--against", help="A row: also print how far each other row is ahead of it, paired.")
    asked = parser.parse_args()
    store, console = RecordStore(asked.store), Console(soft_wrap=True, highlight=False)
    reports = {}
    for row in asked.rows:
        name, _, sources = row.partition("=")
        reports[name] = [
            report(store, scores(one), asked.fold, asked.resamples, PROTOCOLS[asked.protocol])
            for one in sources.split(",")
        ]
    console.print(f"Normals and abnormals of the {asked.protocol} protocol, fold {asked.fold}\n")
    console.print("| score | seeds |" + "".join(f" {heading} |" for heading in HEADINGS))
    console.print("|---" * (len(HEADINGS) + 2) + "|")
    for name, found in reports.items():
        console.print(f"| {name} | {len(found)} |" + "".join(f" {cell(found, stat)} |" for stat in STATISTICS))
    if asked.against:
        of_rows = {
            row.partition("=")[0]: [scores(one) for one in row.partition("=")[2].split(",")] for row in asked.rows
        }
        for ahead in differences(store, of_rows, asked.against, asked.fold, asked.resamples):
            console.print(ahead)
    console.print("\n| score | group or diagnoses | AUROC | normals | abnormals |\n|---|---|---|---|---|")
    for name, found in reports.items():
        for line in found[0].rows:
            is_group = line.attribute in ("sex", "age") and line.aggregate == "value"
            is_mean = line.attribute == "diagnosis" and line.label in ("macro", "head", "medium", "tail")
            if line.statistic == "auroc" and (is_group or is_mean):
                what = (
                    f"{line.attribute} {line.group if is_group else line.label} {line.aggregate.replace('value', '')}"
                )
                value = f"{line.value:.3f} ({line.low:.3f}-{line.high:.3f})"
                console.print(f"| {name} | {what.strip()} | {value} | {line.normals} | {line.abnormals} |")


if __name__ == "__main__":
    main()
