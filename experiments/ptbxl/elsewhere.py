"""Tests a finished run of PTB-XL on another store through the label map, and says how much worse it is there.

    python -m experiments.ptbxl.elsewhere runs/results/scratch-bce-0 stores/cinc2021
    python -m experiments.ptbxl.elsewhere RUN STORE --labels AFIB SBRAD STACH --support 10

The run has been tested at home: fold 10, ``RUN/test/predictions.parquet``. It is tested on all ten folds of the other
store, into ``RUN/elsewhere-NAME``, and a Markdown table is printed: for every label with enough positive and negative
records in both the AUROC at home and elsewhere, and the drop. Patients at home and elsewhere are others, so the two are
independent. Records of which the map knows no code are left out, since nobody said that they are healthy.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from rich.console import Console

from data_modules.labels.label_map import LABEL_MAPS, read_label_map
from data_modules.stores.store import RecordStore
from data_modules.streaming.base import ONE_DATABASE
from data_modules.streaming.datamodules import EcgDataModule
from ecgfair.errors import ConfigurationError, EcgFairError, did_you_mean
from ecgfair.report.prediction_table import PredictionTable
from ecgfair.report.read_predictions import read_predictions
from experiments.ptbxl.drop import Drops, Records, drops, markdown
from experiments.ptbxl.measured import RESAMPLES, SUPPORT

KEPT: Final = ("labels", "min_likelihood", "batch_size", "num_workers", "max_beats")
"""Settings of the run's data that hold elsewhere, too; those of training and of its folds do not."""
OF_PTBXL: Final = re.compile(r"(^|/)HR\d+$")
"""Ids that the PhysioNet challenges gave to the records of PTB-XL."""
PREDICTIONS: Final = Path("test", "predictions.parquet")


def run_process(words: Sequence[str]) -> int:
    """Run ``python -m ecgfair`` with these arguments; return its exit status."""
    return subprocess.run([sys.executable, "-m", "ecgfair", *words], check=False).returncode  # noqa: S603


def folder_of(run: Path, store: str) -> Path:
    """Return where the test of a run on a store lies."""
    return run / f"elsewhere-{store.rstrip('/').rsplit('/', 1)[-1]}"


def perform_test(run: Path, store: str, label_map: str, run_test: Callable[[Sequence[str]], int]) -> None:
    """Test the best weights of a run on all ten folds of another store.

    Args:
        run: Folder of the run.
        store: Folder or URI of the other store.
        label_map: One of ``LABEL_MAPS``.
        run_test: Runs ``python -m ecgfair`` with arguments.

    Raises:
        ConfigurationError: The run is no finished one of stage 2, or its test elsewhere failed.
    """
    config = _config(run)
    home = dict(config["data"]["init_args"])
    folds: dict[str, list[int]] = {"train_folds": [], "validation_folds": [], "test_folds": list(range(1, 11))}
    settings = {name: home[name] for name in KEPT if home.get(name) is not None}
    settings |= {"store": store, "label_map": label_map, **folds}
    folder = folder_of(run, store)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PREDICTIONS).unlink(missing_ok=True)  # what an earlier test left must not pass for this one's
    own = folder / "tested.yaml"
    own.write_text(yaml.safe_dump(config | {"data": {"class_path": "EcgDataModule", "init_args": settings}}))
    weights = _weights(run, home.get("store"), folder)
    try:
        status = run_test(["test", "--config", str(own), "--run", str(folder), "--ckpt_path", str(weights)])
    finally:
        if weights.parent == folder:
            weights.unlink()
    if status or not (folder / PREDICTIONS).is_file():
        raise ConfigurationError(
            f"The test of {run} on {store} ended with status {status}: expected {folder / PREDICTIONS}. What it "
            "printed says why."
        )


def _config(run: Path) -> dict[str, Any]:
    path, best = run / "config.yaml", run / "checkpoints" / "best.ckpt"
    for needed in (path, best, run / PREDICTIONS):
        if not needed.is_file():
            raise ConfigurationError(
                f"{needed} is not there: expected a run of stage 2 that was trained, and tested at home by "
                f"`python -m ecgfair test --config {path} --ckpt_path {best}`."
            )
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def _weights(run: Path, store: str | None, folder: Path) -> Path:
    """Return the best checkpoint; a copy whose thresholds know their data, where an earlier version kept folds alone.

    Without, fold 9 of the other store would be taken for the fold 9 that chose the thresholds.
    """
    best = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(best, map_location="cpu", weights_only=True)
    states = [state["operating_points"] for state in checkpoint["callbacks"].values() if "operating_points" in state]
    if store is None or all(points.get("data") for points in states):
        return best
    identity = list(EcgDataModule(store).data_identity)
    for points in states:
        points["data"] = identity
    torch.save(checkpoint, folder / "tested.ckpt")
    return folder / "tested.ckpt"


def told_records(table: PredictionTable, store: RecordStore, label_map: str, label_set: str) -> Records:
    """Return which records of a test elsewhere can be judged by the map, and why others can't.

    Args:
        table: Predictions of all records of the store.
        store: The store.
        label_map: One of ``LABEL_MAPS``.
        label_set: Label set of the map that the model was trained on.
    """
    known = read_label_map(label_map)
    stated = store.columns(["record_id", "codes"])
    codes = dict(zip(stated["record_id"].to_pylist(), map(set, stated["codes"].to_pylist()), strict=True))
    undecided = known.undecided(label_set, sorted(set().union(*codes.values())))
    kept, why = [], Counter[str]()
    if rejected := len(store.rejected):
        why["could not be read when the store was prepared"] = rejected
    for row, name in enumerate(table.record_ids):
        if OF_PTBXL.search(name):
            why["are PTB-XL's own"] += 1
        elif not codes[name]:
            why["have no code at all"] += 1
        elif not codes[name] & known.codes:
            why["have no code that the map knows"] += 1
        else:
            kept.append(row)
    columns = {label: column for column, label in enumerate(table.label_names)}
    may_hold = Counter(
        label
        for row in kept
        for label in {label for code in codes[table.record_ids[row]] for label in undecided.get(code, ())}
        if label in columns and not table.targets[row, columns[label]]
    )
    return Records(table.take(kept), dict(why), dict(may_hold))


def compared(given: argparse.Namespace) -> Drops:
    """Compare both tests of a run.

    Raises:
        ConfigurationError: They are not of the same weights, or a label asked for is not one of the model's.
    """
    tables = [read_predictions(folder / PREDICTIONS) for folder in (given.run, folder_of(given.run, given.store))]
    home, elsewhere = tables
    if home.metadata.model_fingerprint != elsewhere.metadata.model_fingerprint:
        raise ConfigurationError(
            f"{home.source} and {elsewhere.source} are of other weights: expected those of the best checkpoint in "
            "both. Test the run at home again."
        )
    if unknown := [name for name in given.labels or () if name not in home.label_names]:
        raise ConfigurationError(f"--labels names {unknown[0]!r}.{did_you_mean(unknown[0], home.label_names)}")
    label_set = _config(given.run)["data"]["init_args"].get("labels") or EcgDataModule.usual_labels
    records = told_records(elsewhere, RecordStore(given.store), given.label_map, label_set)
    return drops(home, records, labels=given.labels, support=given.support, resamples=given.resamples)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of stage 2 that was tested at home")
    parser.add_argument("store", help="the other store, prepared in the same way")
    parser.add_argument("--labels", nargs="+", help="compare these alone")
    parser.add_argument("--label_map", default=LABEL_MAPS[0], help="how codes of the store are told as labels")
    parser.add_argument("--support", type=int, default=SUPPORT, help="positives and negatives needed in both")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of the patients, for the intervals")
    parser.add_argument("--measure", action="store_true", help="compare what an earlier call has tested")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, run_test: Callable[[Sequence[str]], int] = run_process) -> int:
    """Test and compare.

    Args:
        argv: The command line; that of the process if None.
        run_test: Runs ``python -m ecgfair`` with arguments.

    Returns:
        The exit status: 2 for what was asked wrongly, or can't be tested.
    """
    given = arguments(sys.argv[1:] if argv is None else argv)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    try:
        if (source := RecordStore(given.store).source_name) in ONE_DATABASE[:1]:
            raise ConfigurationError(f"{given.store} holds records of {source}: expected those of another source.")
        if not given.measure:
            perform_test(given.run, given.store, given.label_map, run_test)
        console.print(markdown(compared(given), f"`{given.run}` on `{given.store}`"))
    except EcgFairError as error:
        console.print(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
