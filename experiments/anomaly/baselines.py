"""What simple scores make of normal and abnormal ECGs: what any network has to be better than.

    OMP_NUM_THREADS=1 python experiments/anomaly/baselines.py [--store STORE] [--out PARQUET] [--folds 9 10]

The corrected protocol: every score but the supervised ones is fitted on the normals of folds 1 to 8 and sees no label
but that they are normal. Where there is something to choose, the AUROC within strata of age on fold 9 chooses it, so
what is shown of fold 9 is too good; ``--folds 9`` shows nothing of fold 10. Not only numbers of components were chosen
there: which scores are combined, and how ``beat_features.shape`` stretches and compresses, too, among several hundred
forms. The 95 % intervals are of the patients and know nothing of that search; what remains of it, fold 10 tells.
The age-stratified AUROC compares abnormal with normal records of the same stratum of about ten years only. Age alone
does not quite come down to one half there, since it still differs within a stratum.

The table of predictions has a column a score, higher is stranger, and the record's fold, age, sex and kind: scores on
the same records can be paired and combined. A score that a record can't have (no beat was found) is NaN there; in the
table on the console such records count as the strangest of all, and their number is printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from beat_features import PUBLISHED_WINDOW, Flags, Floats, Records, read_records, shape, waves, window
from rich.console import Console
from rich.table import Table
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from data_modules.stores.store import RecordStore
from ecgfair.anomaly.protocols import CORRECTED, KINDS, Selection, select
from ecgfair.ecg import MISSING_SAMPLE
from ecgfair.groups import age_strata
from ecgfair.metrics.chance.intervals import confidence_interval
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.kernels.stratified import stratified_auroc
from ecgfair.models.encoder import EncoderSpec

COMPONENTS = (1, 2, 3, 5, 8, 12, 20, 40)
FACTORS = (1, 2, 3, 5, 8)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SEEDS = (0, 1, 2)
BATCH = 128
COMBINED = ("shape", "measured_distance", "geometry_distance", "voltages_distance")
"""Found on fold 9: about a thousand sets of two to five out of eleven such scores were compared there."""

Score = Floats
"""(N,) higher is stranger."""


@dataclass(frozen=True, eq=False)
class Task:
    """The records and what they are for.

    Args:
        records: Everything that is measured.
        selection: What the protocol makes of them.
        age: (N,) years, NaN where missing.
        sex: (N,) codes.
        patients: (N,) a number a patient.
    """

    records: Records
    selection: Selection
    age: Floats
    sex: Floats
    patients: torch.Tensor

    @property
    def train(self) -> Flags:
        """(N,) the normals to fit on."""
        return np.asarray(self.selection.train.numpy())

    def measure(
        self, scores: list[Score], fold: int, resamples: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return AUROC and age-stratified AUROC of some scores: (2, scores) values, lower and upper ends."""
        rows = (~self.selection.neither & (self.selection.folds == fold)).numpy()
        values = torch.from_numpy(np.nan_to_num(np.stack(scores, 1)[rows], nan=np.inf))
        truth = self.selection.abnormal[rows]
        targets, patients = truth[:, None].expand(values.shape), self.patients[rows]
        weights, none = patient_weights(patients, resamples, seed=0), torch.zeros(len(values), dtype=torch.int64)
        found = [
            stratified_auroc(values, targets, none, 1, strata, weights).auroc[:, 0]
            for strata in (none, age_strata(torch.from_numpy(self.age[rows])))
        ]
        both = torch.stack(found, 1)
        support = torch.tensor(float(min(len(set(patients[one].tolist())) for one in (truth, ~truth))))
        ends = confidence_interval(both, support, bounded=True) if resamples else (both[0], both[0])
        return both[0], *ends

    def choose(self, candidates: Iterable[tuple[object, Score]]) -> tuple[str, Score]:
        """Return the name and score of the best candidate on the fold that chooses."""
        named = list(candidates)
        (fold,) = self.selection.protocol.choose_folds
        best = int(self.measure([score for _, score in named], fold, 0)[0][1].argmax())
        return str(named[best][0]), named[best][1]


def read_task(folder: Path) -> tuple[RecordStore, Task, pd.DataFrame]:
    """Read a store; also what its table says of each record."""
    store = RecordStore(folder)
    table = store.columns(["record_id", "patient_id", "fold", "age", "sex"]).to_pandas()
    names, labels = store.labels("superdiagnostic")
    records = read_records(store)
    folds = torch.from_numpy(table["fold"].to_numpy(dtype=np.int64))
    selection = select(CORRECTED, torch.from_numpy(labels), names, folds, torch.from_numpy(records.has_beat))
    table["kind"] = [KINDS[code] for code in selection.kind.tolist()]
    age, sex = (table[name].to_numpy(dtype=np.float64) for name in ("age", "sex"))
    patients = torch.from_numpy(pd.factorize(table["patient_id"])[0].astype(np.int64))
    return store, Task(records, selection, age, sex, patients), table


def filled(values: Floats, train: Flags) -> Floats:
    """Return (N, ...) as (N, F), what is missing replaced by the median of the training normals: it is then normal."""
    flat = values.reshape(len(values), -1)
    return np.where(np.isnan(flat), np.nanmedian(flat[train], axis=0), flat)


def residuals(values: Floats, task: Task) -> Floats:
    """Return what age, sex and heart rate do not explain linearly in normals, in standard deviations of these."""
    age = (filled(task.age, task.train)[:, 0] - 50) / 15
    rate = np.log(filled(task.records.measured[:, :1], task.train)[:, 0] / 65)
    woman = np.where(task.sex == 1, 1.0, 0.0)
    known = np.stack([np.ones_like(age), age, age**2, woman, age * woman, rate, rate**2, woman * rate], 1)
    values = filled(values, task.train)
    effects = np.linalg.lstsq(known[task.train], values[task.train], rcond=None)[0]
    rest = values - known @ effects
    return np.asarray(rest / np.maximum(rest[task.train].std(0), 1e-9))


def mahalanobis(values: Floats, train: Flags) -> Score:
    """Return the squared distance to the training normals, with Ledoit and Wolf's covariance (2004)."""
    return np.asarray(LedoitWolf().fit(values[train]).mahalanobis(values))


def reconstruction_error(values: Floats, components: int, train: Flags, *, relative: bool = False) -> Score:
    """Return the squared error of a reconstruction from the principal components of the training normals."""
    model = PCA(components, random_state=0).fit(values[train])
    error = ((values - model.inverse_transform(model.transform(values))) ** 2).sum(1)
    return np.asarray(error / np.maximum((values**2).sum(1), 1e-12) if relative else error)


def untrained(store: RecordStore, seed: int, train: Flags) -> Score:
    """Return the distance in what an encoder with random weights sees, its mean and maximum over time."""
    torch.manual_seed(seed)
    encoder = EncoderSpec().build(len(store.preprocessing.leads)).eval()
    seen = []
    with torch.inference_mode():
        for rows in np.split(np.arange(len(store)), range(BATCH, len(store), BATCH)):
            stored = store.gather(rows)
            signal = np.where(stored == MISSING_SAMPLE, 0, stored).astype(np.float32) * store.preprocessing.scale
            features = encoder(torch.from_numpy(signal.astype(np.float32))).features()
            seen.append(torch.cat([features.mean(2), features.amax(2)], 1).double().numpy())
    values = np.concatenate(seen)
    # Channels of random weights differ in scale by chance, which is no reason to weigh them differently.
    values = (values - values[train].mean(0)) / np.maximum(values[train].std(0), 1e-9)
    return mahalanobis(values, train)


def supervised(values: Floats, task: Task) -> tuple[str, Score]:
    """Return what logistic regression makes of it, taught on all normals and abnormals of the training folds."""
    taught = (~task.selection.neither & task.selection.in_folds_of("train")).numpy()
    truth = task.selection.abnormal.numpy()
    values = (values - values[taught].mean(0)) / np.maximum(values[taught].std(0), 1e-9)

    def candidate(penalty: float) -> Score:
        model = LogisticRegression(C=penalty, max_iter=2000).fit(values[taught], truth[taught])
        return np.asarray(model.decision_function(values))

    return task.choose((f"C {penalty:g}", candidate(penalty)) for penalty in PENALTIES)


def strangeness(score: Score, train: Flags) -> Score:
    """Return minus the logarithm of the share of training normals that are at least as strange (Fisher's method)."""
    normals = np.sort(score[train & ~np.isnan(score)])
    below = np.searchsorted(normals, score)
    return np.where(np.isnan(score), np.nan, -np.log((len(normals) - below + 1) / (len(normals) + 1)))


def forest(values: Floats, train: Flags) -> Score:
    """Return how easily a random forest isolates a record among the training normals (Liu et al. 2008)."""
    model = IsolationForest(n_estimators=500, random_state=0).fit(values[train])
    return np.asarray(-model.score_samples(values))


def nearest(values: Floats, train: Flags) -> Score:
    """Return the mean distance to the ten nearest training normals, other than the record itself."""
    found = NearestNeighbors(n_neighbors=11).fit(values[train]).kneighbors(values)[0]
    return np.asarray(np.where(train, found[:, 1:].mean(1), found[:, :10].mean(1)))


def beat_scores(task: Task) -> dict[str, tuple[str, Score]]:
    """Return what a score is called in the table of predictions, what is to be read of it, and the score."""
    train = task.train
    beat = np.nan_to_num(window(task.records.beats, PUBLISHED_WINDOW)).reshape(len(train), -1)  # a lead left out is 0
    form = filled(shape(task.records), train)
    attributes = filled(np.concatenate([task.records.measured[:, :6], task.records.spread], 1), train)

    def best(name: str, settings: Iterable[int], of: Callable[[int], Score]) -> tuple[str, Score]:
        chosen, score = task.choose((setting, of(setting)) for setting in settings)
        return f"{name}, {chosen} chosen on fold 9", score

    def unlikely(model: type[PCA | FactorAnalysis], components: int) -> Score:
        return -np.asarray(model(components, random_state=0).fit(beat[train]).score_samples(beat))

    penalty, regression = supervised(beat, task)
    return {
        "age": ("age alone", filled(task.age, train)[:, 0]),
        "pca": ("PCA of the median beat, 5, relative", reconstruction_error(beat, 5, train, relative=True)),
        "ppca": best("probabilistic PCA of the median beat", COMPONENTS, lambda size: unlikely(PCA, size)),
        "factors": best("factor analysis of the median beat", FACTORS, lambda size: unlikely(FactorAnalysis, size)),
        "forest": ("isolation forest of the attributes", forest(attributes, train)),
        "shape": best("PCA of its shape", COMPONENTS, lambda size: reconstruction_error(form, size, train)),
        "regression": (f"logistic regression on the median beat (supervised), {penalty}", regression),
    }


def feature_scores(task: Task) -> dict[str, tuple[str, Score]]:
    """Return the same of scores on measured features; all are given age, sex and heart rate of the normals."""
    of_waves = {name: residuals(values, task) for name, values in waves(task.records).items()}
    measured, rhythm = residuals(task.records.measured, task), residuals(task.records.rhythm, task)
    everything = np.concatenate([*of_waves.values(), measured], 1)
    penalty, regression = supervised(everything, task)
    return {
        "measured_distance": ("intervals and axis, Mahalanobis", mahalanobis(measured, task.train)),
        "geometry_distance": ("QRS-T angle, T/QRS, P/QRS, Mahalanobis", mahalanobis(of_waves["geometry"], task.train)),
        "voltages_distance": ("voltages of QRS and T, sum of squares", (of_waves["voltages"] ** 2).sum(1)),
        "rhythm_distance": ("RR intervals, Mahalanobis", mahalanobis(rhythm, task.train)),
        "features_distance": ("all these but RR, Mahalanobis", mahalanobis(everything, task.train)),
        "features_squares": ("all these but RR, sum of squares", (everything**2).sum(1)),
        "features_forest": ("all these but RR, isolation forest", forest(everything, task.train)),
        "features_nearest": ("all these but RR, ten nearest normals", nearest(everything, task.train)),
        "features_regression": (f"all these but RR, logistic regression (supervised), {penalty}", regression),
    }


def report(task: Task, scores: dict[str, tuple[str, Score]], folds: list[int], resamples: int) -> Table:
    """Return the table for the console."""
    table = Table("score (column)", title=f"\n{CORRECTED.title}", title_justify="left", box=None, pad_edge=False)
    cells: list[list[str]] = [[f"{title} ({name})"] for name, (title, _) in scores.items()]
    for fold in folds:
        values, lows, highs = task.measure([score for _, score in scores.values()], fold, resamples)
        for place, name in enumerate(("AUROC", "age-stratified")):
            table.add_column(f"fold {fold}: {name}", justify="right")
            for row, value, low, high in zip(cells, values[place], lows[place], highs[place], strict=True):
                row.append(f"{value:.3f} ({low:.3f}-{high:.3f})")
    for row in cells:
        table.add_row(*row)
    return table


def main() -> None:
    """Score everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("stores/ptbxl"))
    parser.add_argument("--out", type=Path, default=Path("runs/anomaly/baselines.parquet"))
    parser.add_argument("--folds", type=int, nargs="+", default=[9, 10], help="to report")
    parser.add_argument("--resamples", type=int, default=1000)
    given = parser.parse_args()
    begun, console = time.monotonic(), Console(width=180, markup=False, highlight=False)
    store, task, table = read_task(given.store)
    for line in task.selection.lines():
        console.print(line)
    scores = beat_scores(task) | feature_scores(task)
    for name, (_, score) in scores.items():
        if name != "age":
            score[~task.records.has_beat] = np.nan
    parts = [strangeness(scores[name][1], task.train) for name in COMBINED]
    scores["combined"] = f"{', '.join(COMBINED)} together", np.sum(parts, 0)
    for seed in SEEDS:
        scores[f"untrained_{seed}"] = f"untrained encoder, seed {seed}, Mahalanobis", untrained(store, seed, task.train)
    if lacking := int((~task.records.has_beat).sum()):
        console.print(f"{lacking} of {len(store)} records have no median beat: NaN, counted as strangest.")
    console.print(report(task, scores, given.folds, given.resamples))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    table.assign(**{name: score for name, (_, score) in scores.items()}).to_parquet(given.out, index=False)
    console.print(f"{given.out}: {len(table)} records; {(time.monotonic() - begun) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
