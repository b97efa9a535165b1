"""What is found without looking at the ECG: by age and sex alone, and by the measured attributes alone.

    python -m experiments.ptbxl.baselines age-sex --run runs/results/age-sex-0

Each label has a model of its own. Both write the table of predictions that ``test`` writes, with thresholds of the
validation folds. The validation folds choose one setting for all labels, by the macro AUROC there; the test folds are
read once. A label with too few positive training records for its model has its training prevalence as the probability
of everybody, hence an AUROC of one half; ``fallbacks.json`` in the run folder names these.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from data_modules.streaming.datamodules import EcgDataModule
from ecgfair.ecg import ATTRIBUTES, UNKNOWN_SEX
from ecgfair.metrics.kernels.operating_points import choose
from ecgfair.report.prediction_table import Metadata, write_predictions

Floats = NDArray[np.float64]
RHYTHM_AND_AXIS: Final = ("rr_variability", "axis")
"""Further measurements that a store has; no network is given them."""


def logistic(strength: float) -> Any:
    """Return a logistic regression on age, sex, their squares and product, missing ones told by an indicator.

    Args:
        strength: ``C`` of scikit-learn: the larger, the less the coefficients are shrunk.
    """
    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True),
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        LogisticRegression(C=strength, max_iter=1000),
    )


def boosted(iterations: int) -> Any:
    """Return gradient-boosted trees, which take missing values as they are.

    Args:
        iterations: Number of trees.
    """
    return HistGradientBoostingClassifier(
        max_iter=iterations,
        learning_rate=0.05,
        max_leaf_nodes=8,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    )


MODELS: Final[Mapping[str, tuple[Callable[[Any], Any], Sequence[float], tuple[str, ...], int]]] = {
    "age-sex": (logistic, (0.1, 1.0, 10.0), ("age", "sex"), 2),
    "attributes": (boosted, (30, 100, 300), (*ATTRIBUTES, *RHYTHM_AND_AXIS), 10),
}
"""Name -> how a model is made, the settings to choose from, its columns, and the positives that it needs."""


def features(data: EcgDataModule, columns: Sequence[str]) -> Floats:
    """Return (N, columns) of all records of a store, NaN where missing; columns that a store lacks are left out."""
    names = [name for name in columns if name in data.store.column_names]
    table = data.store.columns(names).to_pandas()
    if "sex" in names:
        table["sex"] = table["sex"].where(table["sex"] != UNKNOWN_SEX)
    return np.asarray(table[names].to_numpy(dtype=np.float64, na_value=np.nan))


def macro_auroc(probabilities: Floats, targets: NDArray[np.uint8]) -> float:
    """Return the mean over the labels that have both classes."""
    columns = [column for column in range(targets.shape[1]) if len(set(targets[:, column].tolist())) == 2]
    return float(np.mean([roc_auc_score(targets[:, column], probabilities[:, column]) for column in columns]))


def predict_all(
    make: Callable[[Any], Any], setting: float, needed: int, known: Floats, targets: NDArray[np.uint8], train: Any
) -> tuple[Floats, list[int]]:
    """Fit a model a label, and predict every record.

    Args:
        make: Makes an unfitted model.
        setting: Of it.
        needed: Positive and negative training records without which the prevalence is predicted.
        known: (N, F).
        targets: (N, C).
        train: Positions of the training records.

    Returns:
        (N, C) probabilities, and the labels predicted by their prevalence.
    """
    found, fallbacks = np.zeros(targets.shape), []
    for column in range(targets.shape[1]):
        own = targets[train, column]
        if min(own.sum(), len(own) - own.sum()) < needed:
            fallbacks.append(column)
            found[:, column] = own.mean()
        else:
            found[:, column] = make(setting).fit(known[train], own).predict_proba(known)[:, 1]
    return found, fallbacks


def run(name: str, data: EcgDataModule, targets: NDArray[np.uint8], folder: Path) -> dict[str, Any]:
    """Fit, choose, and write the table of the test records.

    Args:
        name: One of ``MODELS``.
        data: The records and their split.
        targets: (N, C) labels of all records of the store.
        folder: The run folder.

    Returns:
        What ``fallbacks.json`` holds: the setting chosen, and the labels predicted by their prevalence.
    """
    make, settings, columns, needed = MODELS[name]
    known, (train, validation, test) = (
        features(data, columns),
        (data.split[part] for part in ("train", "validation", "test")),
    )
    tried = {setting: predict_all(make, setting, needed, known, targets, train) for setting in settings}
    setting = max(tried, key=lambda one: macro_auroc(tried[one][0][validation], targets[validation]))
    probabilities, fallbacks = torch.from_numpy(tried[setting][0]), tried[setting][1]
    truth = torch.from_numpy(targets.astype(np.float32))
    folds = data.folds["validation"]
    points = choose(
        probabilities[validation],
        truth[validation],
        label_names=data.label_names,
        chosen_on=f"fold {', '.join(map(str, folds))}",
        folds=folds,
    )
    told = {"setting": setting, "needed": needed, "labels": [data.label_names[column] for column in fallbacks]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fallbacks.json").write_text(json.dumps(told), encoding="utf-8")
    write_predictions(
        folder / "test" / "predictions.parquet",
        data.records(test),
        probabilities[test],
        truth[test],
        data.label_names,
        Metadata(dict(zip(data.label_names, data.label_prevalence, strict=True)), points),
    )
    return told


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--store", default="stores/ptbxl")
    parser.add_argument("--labels", default="all")
    for part in ("train", "validation", "test"):
        parser.add_argument(f"--{part}_folds", type=json.loads, help="as a list: [1, 2]")
    given = parser.parse_args()
    folds = {f"{part}_folds": getattr(given, f"{part}_folds") for part in ("train", "validation", "test")}
    data = EcgDataModule(given.store, given.labels, **folds)
    targets = data.store.labels(given.labels, 0.0)[1]
    told = run(given.name, data, targets, given.run)
    Console(markup=False, highlight=False).print(
        f"{given.run}: setting {told['setting']:g}; {len(told['labels'])} of {len(data.label_names)} labels have fewer "
        f"than {told['needed']} positive training records and are predicted by their prevalence"
    )


if __name__ == "__main__":
    main()
