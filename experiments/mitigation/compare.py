"""Compares what stage 2 can do against serving women worse, where it is known how well they could be served.

    OMP_NUM_THREADS=1 python experiments/mitigation/compare.py [OUT]

It makes the records of population.yaml once and trains stage 2 on them from random weights for each seed: plain, and
with each file of this folder on top. Folds 1 to 5 train, 9 chooses epochs and thresholds, 10 tests and chooses nothing.
Every run of a seed begins with the same weights. Nothing was tuned: all files are as they stand.

The oracle reads every sign without a fault and sees no disturbance; nothing has a higher AUROC. Its thresholds are
chosen on fold 9 as well. It knows who is a woman and how rare a disease is then.

The macro AUROC is the mean over the labels with 10 positives in fold 10, gaps by sex over those with 5 in both sexes.
The largest FPR gap is that of one label, whichever it is, and above 0 for a fair model, too.

Differences to plain are of the same seed and the same records. Their interval is of the mean over the seeds: the
middle 95 % of 1,000 reweightings of fold 10's patients. It says nothing of other seeds, which the range tells of, nor
does it know that several are looked at.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from data_modules.synthetic.writing.truth_tables import FOLDER, ORACLE
from ecgfair.__main__ import main as ecgfair
from ecgfair.metrics.fairness import FairnessConfig, evaluation_blocks
from ecgfair.metrics.kernels.operating_points import OperatingPoints, choose
from ecgfair.metrics.predictions import Predictions
from ecgfair.report.prediction_table import PredictionTable, groupings
from ecgfair.report.read_predictions import read_predictions

HERE = Path(__file__).parent
SMALL = HERE.with_name("smoke") / "finetune.yaml"
METHODS = ("plain", "balanced_sampling", "group_dro", "reweighting", "adversary", "worst_group")
ENCODER = {"name": "ResidualEncoder", "arguments": {"widths": [16, 32, 48, 64], "trend_widths": [8, 16, 24, 32]}}
CHOOSE, TEST = 9, 10
FOLDS = {"train_folds": [1, 2, 3, 4, 5], "validation_folds": [CHOOSE], "test_folds": [TEST]}
RATES = ("auroc", "tpr", "fpr")
CONFIG = FairnessConfig(5, 10, reference={"sex": "male"}, statistics=RATES, details=True, resamples=1000)
"""Of a label with one positive, resamples of the patients would tell nothing."""
ROWS = {
    "macro AUROC": ("overall", "all", "auroc", "value"),
    "worst sex": ("sex", None, "auroc", "worst"),
    "women - men": ("sex", "female", "auroc", "gap"),
    "TPR gap": ("sex", "female", "tpr", "gap"),
    "FPR gap": ("sex", "female", "fpr", "gap"),
}
"""Column -> which mean over labels it is: attribute, group, statistic, aggregate."""
BEHIND, LARGEST = "behind the oracle's", "largest FPR gap"
COLUMNS = ("macro AUROC", "worst sex", "women - men", BEHIND, "TPR gap", "FPR gap", LARGEST)

Values = dict[str, Tensor]
"""Column -> (1 + R,) on the records and on the resamples, or (1,) of an extreme, which has none."""


def run(*arguments: str) -> None:
    """Run a command of the project."""
    if ecgfair(list(arguments)):
        raise SystemExit(f"{' '.join(arguments)} failed.")


def make(store: Path, records: int, seed: int) -> None:
    """Write the records as a prepared store, unless they are there."""
    if store.exists():
        Console().print(f"{store} is there and is taken as it is.", highlight=False)
        return
    flags = ["--records", str(records), "--seed", str(seed), "--format", "store"]
    run("synthesize", str(store), *flags, "--config", str(HERE / "population.yaml"))


def train_and_test(out: Path, method: str, seed: int, epochs: int) -> Path:
    """Return the folder of a run, trained and tested unless it was."""
    folder = out / f"{method}-{seed}"
    if (folder / "test" / "predictions.parquet").exists():
        return folder
    on_top = [] if method == "plain" else ["--config", str(HERE / f"{method}.yaml")]
    folds = [part for name, folds in FOLDS.items() for part in (f"--data.init_args.{name}", json.dumps(folds))]
    settings = [
        *("--config", str(SMALL), *on_top, "--run", str(folder), "--seed_everything", str(seed)),
        *("--data.init_args.store", str(out / "store"), "--model.init_args.encoder", json.dumps(ENCODER), *folds),
    ]
    run("fit", *settings, "--trainer.max_epochs", str(epochs))
    run("test", *settings, "--ckpt_path", str(folder / "checkpoints" / "best.ckpt"))
    return folder


def measure(table: PredictionTable, points: OperatingPoints | None) -> Values:
    """Measure a model on the test fold."""
    if points is None:
        raise SystemExit(f"{table.source} carries no thresholds: expected those chosen on fold {CHOOSE}.")
    of_records = table.probabilities, table.targets, table.label_names, groupings(table, ["sex"])
    predictions = Predictions(*of_records, patients=table.patients, operating_points=points)
    found: Values = {}
    for block in evaluation_blocks(predictions, CONFIG):
        for place, row in enumerate(block.rows):
            for name, (attribute, group, *rest) in ROWS.items():
                is_meant = (row.attribute, row.statistic, row.aggregate) == (attribute, *rest)
                if is_meant and row.label == "macro" and group in (None, row.group):
                    found[name] = block.reported[:, place]
            if (row.attribute, row.statistic, row.aggregate) == ("sex", "fpr", "difference") and not row.reason:
                found[LARGEST] = torch.maximum(found.get(LARGEST, torch.zeros(1)), block.reported[:1, place])
    return found


def of_oracle(store: Path, like: PredictionTable) -> Values:
    """Measure the oracle on the records and labels of a table, with thresholds from the fold that chooses."""
    scores = read_predictions(store / FOLDER / ORACLE)
    places = {name: place for place, name in enumerate(scores.record_ids)}
    test = scores.take([places[name] for name in like.record_ids], like.label_names)
    if not torch.equal(test.targets, like.targets):
        raise AssertionError("The oracle's labels are not those that the models were tested on.")
    before = scores.of_folds([CHOOSE])
    before = before.take(range(len(before)), like.label_names)
    points = choose(
        before.probabilities, before.targets, label_names=like.label_names, chosen_on="validation", folds=[CHOOSE]
    )
    found = measure(test, points)
    return {**found, BEHIND: torch.zeros(1)}


def against(of_each: Mapping[str, Sequence[Values]]) -> Table:
    """Return the table of differences to plain."""
    names = [name for name in COLUMNS if name != BEHIND]  # whose differences are those of the gap itself
    table = sheet("Difference to plain: mean over the seeds [lowest, highest] (95 % interval by patients)", names)
    for method, seeds in of_each.items():
        cells = []
        for name in names:
            pairs = zip(seeds, of_each["plain"], strict=True)
            change = torch.stack([one[name] - plain[name] for one, plain in pairs])
            middle = change.mean(0)[1:]
            interval = ""
            if len(middle):
                interval = f"\n({middle.quantile(0.025):+.3f} to {middle.quantile(0.975):+.3f})"
            cells.append(spread(change[:, 0], "+.3f") + interval)
        if method != "plain":
            table.add_row(method, *cells, end_section=True)
    return table


def spread(values: Tensor, form: str) -> str:
    """Write the mean of some seeds, and their range."""
    return f"{values.mean():{form}} [{values.min():{form}}, {values.max():{form}}]"


def form_of(name: str) -> str:
    """How a column's values are written: differences with their sign."""
    return ".3f" if name in ("macro AUROC", "worst sex", LARGEST) else "+.3f"


def sheet(title: str, names: Sequence[str]) -> Table:
    """Return an empty table."""
    table = Table("", title=Text(f"\n{title}"), title_justify="left", box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right")
    return table


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/mitigation/planted"))
    parser.add_argument("--records", type=int, default=4000, help="drawn; many women are left out of training")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    begun = time.monotonic()
    make(given.out / "store", given.records, seed=0)
    of_each: dict[str, list[Values]] = {method: [] for method in METHODS}
    oracle: Values = {}
    # Seed by seed, so that what else the machine does falls on all methods alike.
    for seed in given.seeds:
        for method in METHODS:
            folder = train_and_test(given.out, method, seed, given.epochs)
            table = read_predictions(folder / "test" / "predictions.parquet")
            oracle = oracle or of_oracle(given.out / "store", table)
            found = measure(table, table.metadata.operating_points)
            of_each[method].append({**found, BEHIND: found["women - men"] - oracle["women - men"]})
    values = sheet(f"Fold {TEST}: mean over seeds {given.seeds} [lowest, highest]; gaps are women minus men", COLUMNS)
    values.add_row("oracle", *(f"{oracle[name][0]:{form_of(name)}}" for name in COLUMNS))
    for method, seeds in of_each.items():
        of_columns = {name: torch.stack([one[name][0] for one in seeds]) for name in COLUMNS}
        values.add_row(method, *(spread(of_seeds, form_of(name)) for name, of_seeds in of_columns.items()))
    Console(width=220, markup=False).print(values, against(of_each), highlight=False)
    Console().print(f"{(time.monotonic() - begun) / 60:.1f} minutes", highlight=False)


if __name__ == "__main__":
    main()
