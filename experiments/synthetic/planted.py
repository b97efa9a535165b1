"""Plants disparities, trains the project's small network, and compares its table by sex with what was planted.

    python experiments/synthetic/planted.py [OUT]

It makes the same patients twice, with what planted.yaml plants and without, and trains stage 2 on each from random
weights: folds 1 to 4 train, 5 chooses, 6 to 10 test, so that the intervals are narrow. The network that learnt without
anything planted is tested on the planted records too: what it misses there is what can't be seen. Gaps are women minus
men, of AUROC as the fairness table has them, with 95 % intervals by drawing patients again.

``true`` is the gap of who reads every sign without a fault and knows nothing else. The oracle's is smaller, since it
knows age and sex, which tell something of those who show nothing; a network is between the two or behind both.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.people.oracle import expected_auroc
from data_modules.synthetic.people.population import Disparity, Population
from data_modules.synthetic.writing.truth_tables import read_oracle
from ecgfair.__main__ import main as ecgfair
from ecgfair.ecg import FEMALE, MALE
from ecgfair.metrics.kernels.auroc import auroc

HERE = Path(__file__).parent
PLANTED = HERE / "planted.yaml"
SMALL = HERE.with_name("smoke") / "finetune.yaml"
ENCODER = {"name": "ResidualEncoder", "arguments": {"widths": [16, 32, 48, 64], "trend_widths": [8, 16, 24, 32]}}
FOLDS = {"train_folds": [1, 2, 3, 4], "validation_folds": [5], "test_folds": [6, 7, 8, 9, 10]}
HEAD = ("NORM", "SR", "AMI", "IMI")


def make(out: Path, name: str, records: int, seed: int) -> None:
    """Write the store ``OUT/name``: with what is planted, or the same patients without."""
    plain = ["--population.disparities", "[]"] if name == "plain" else []
    flags = ["--records", str(records), "--seed", str(seed), "--format", "store", "--config", str(PLANTED), *plain]
    run("synthesize", str(out / name), *flags)


def train(out: Path, name: str, epochs: int) -> None:
    """Train on a store, into ``OUT/name-network``."""
    run("fit", *settings(out / f"{name}-network", out / name), "--trainer.max_epochs", str(epochs))


def test(out: Path, network: str, store: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test a network on a store; return the table of predictions and the fairness table."""
    checkpoint = out / f"{network}-network" / "checkpoints" / "best.ckpt"
    folder = out / f"{network}-network-on-{store}"
    run("test", *settings(folder, out / store), "--ckpt_path", str(checkpoint))
    folder /= "test"
    return pd.read_parquet(folder / "predictions.parquet"), pd.read_parquet(folder / "fairness.parquet")


def settings(folder: Path, store: Path) -> list[str]:
    """Return the flags that make of the demo's stage 2 the one that is run here."""
    folds = [part for name, folds in FOLDS.items() for part in (f"--data.init_args.{name}", json.dumps(folds))]
    places = ["--run", str(folder), "--data.init_args.store", str(store)]
    encoder = ["--model.init_args.encoder", json.dumps(ENCODER)]
    return ["--config", str(SMALL), *places, *encoder, *folds]


def run(*arguments: str) -> None:
    """Run a command of the project, and say how long it took."""
    begun = time.monotonic()
    if ecgfair(list(arguments)):
        raise SystemExit(f"{' '.join(arguments)} failed.")
    Console().print(f"{arguments[0]}: {(time.monotonic() - begun) / 60:.1f} minutes", highlight=False)


def gaps(table: pd.DataFrame, labels: list[str], draws: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """Return (1 + draws, C) gaps of women to men: as found, and with the patients drawn with replacement."""
    patients, whose = np.unique(table["patient_id"], return_inverse=True)
    times = np.random.default_rng(seed).multinomial(len(patients), np.full(len(patients), 1 / len(patients)), draws)
    weights = np.concatenate([np.ones((1, len(table))), times[:, whose]])
    scores, stated = (torch.from_numpy(table[columns(kind, labels)].to_numpy()) for kind in ("probability", "target"))
    women, men = (
        auroc(scores, stated, torch.from_numpy(weights * (table["sex"] == sex).to_numpy())).auroc.numpy()
        for sex in (FEMALE, MALE)
    )
    return np.asarray(women - men)


def true_gap(asked: Population, label: str) -> float:
    """Return the gap of who reads every sign without a fault; NaN of what is stated where nothing else is."""
    if label not in CONDITIONS:
        return float("nan")
    return expected_auroc(asked, label, "female") - expected_auroc(asked, label, "male")


def columns(kind: str, labels: list[str]) -> list[str]:
    """Return the names of a table's columns."""
    return [f"{kind}/{label}" for label in labels]


def compare(title: str, model: pd.DataFrame, fairness: pd.DataFrame, oracle: pd.DataFrame, asked: Population) -> Table:
    """Return the table of a network on a store.

    Args:
        title: What stands above it.
        model: Predictions of the test folds.
        fairness: The fairness table of the same records.
        oracle: The oracle's table of the same records, in the same order.
        asked: What the records were drawn from.
    """
    overall, by_sex = (
        fairness.query(f"attribute == '{attribute}' and statistic == 'auroc' and aggregate == 'value'")
        for attribute in ("overall", "sex")
    )
    area = overall.set_index("label")["value"]
    groups = by_sex.pivot_table(index="label", columns="group", values="value", aggfunc="first")
    in_table = groups["female"] - groups["male"]
    labels = [label for label in dict.fromkeys((*HEAD, *CONDITIONS)) if not np.isnan(in_table.get(label, np.nan))]
    found, best = gaps(model, labels), gaps(oracle, labels, draws=1)[0]
    if not np.allclose(found[0], in_table[labels]):
        raise AssertionError("The gaps of the fairness table are not those of the predictions it was made from.")
    scores, stated = (torch.from_numpy(oracle[columns(kind, labels)].to_numpy()) for kind in ("probability", "target"))
    of_oracle = auroc(scores, stated).auroc[0].tolist()
    true = [true_gap(asked, label) for label in labels]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("label", "records", "oracle AUROC", "AUROC", "true gap", "oracle's gap", "gap", "95 % interval", ""):
        table.add_column(name, justify="left" if name in ("label", "") else "right", no_wrap=True)
    low, high = np.nanpercentile(found[1:], [2.5, 97.5], axis=0)
    for place, label in enumerate(labels):
        missed = "" if np.isnan(true[place]) or low[place] <= true[place] <= high[place] else "true gap outside"
        table.add_row(
            *(label, str(int(model[f"target/{label}"].sum())), f"{of_oracle[place]:.3f}", f"{area[label]:.3f}"),
            *("-" if np.isnan(true[place]) else signed(true[place]), signed(best[place])),
            *(signed(found[0, place]), f"{signed(low[place])} to {signed(high[place])}", missed),
        )
    means = np.nanmean(found, axis=1)
    low_mean, high_mean = np.percentile(means[1:], [2.5, 97.5])
    table.add_row(
        *(f"mean of {len(labels)}", "", f"{np.mean(of_oracle):.3f}", f"{area[labels].mean():.3f}"),
        *("-", signed(best.mean()), signed(means[0]), f"{signed(low_mean)} to {signed(high_mean)}", ""),
    )
    return table


def signed(value: float) -> str:
    """Return a gap as it is printed; nothing is -0.000."""
    return f"{round(value, 3) + 0:+.3f}"


def population(planted: bool) -> Population:
    """Return what planted.yaml asks for, with or without its disparities."""
    asked = yaml.safe_load(PLANTED.read_text(encoding="utf-8"))["population"]
    disparities = tuple(Disparity(**one) for one in asked.pop("disparities"))
    return Population(**asked, disparities=disparities if planted else ())


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/synthetic/planted"))
    parser.add_argument("--records", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in ("plain", "planted"):
        make(given.out, name, given.records, given.seed)
        train(given.out, name, given.epochs)
    tables = []
    for network, store in (("plain", "plain"), ("planted", "planted"), ("plain", "planted")):
        model, fairness = test(given.out, network, store)
        oracle = read_oracle(given.out / store).to_pandas().set_index("record_id").loc[model["record_id"]]
        title = f"\nTrained on {network} records, tested on {store} records"
        tables.append(compare(title, model, fairness, oracle, population(store == "planted")))
    Console(width=140).print(*tables, highlight=False)


if __name__ == "__main__":
    main()
