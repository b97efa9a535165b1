"""How long the measurement takes, beside scikit-learn called in a loop; and how much memory a large table needs.

    python experiments/fairness/speed.py [--threads 2] [--resamples 1000] [--part epoch --part resamples ...]

Predictions are drawn by chance: 71 labels whose share of positive records falls from one in six to one in five hundred,
2.6 positive labels a record, four attributes (overall, sex, age bands, sex x age) with 18 groups. scikit-learn is timed
on a fraction of the resamples and scaled; both its statistics and ours are compared on that fraction. The large table
is measured by a process of its own, whose memory is the most it ever had (VmHWM), Python and torch included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from ecgfair.ecg import FEMALE, MALE, UNKNOWN_SEX
from ecgfair.groups import Grouping, age_strata, cross, group_by_age, group_by_sex
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.gap_tests import gap_tests
from ecgfair.metrics.kernels.auroc import RankedScores, Ranking
from ecgfair.metrics.kernels.operating_points import choose
from ecgfair.metrics.kernels.stratified import stratified_auroc
from ecgfair.metrics.predictions import Predictions

LABELS = 71
RECORDS = 2200
LARGE = 100_000
CONSOLE = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Predictions by chance.

    Args:
        scores: (N, 71) float32 in [0, 1].
        targets: (N, 71) bool.
        patients: (N,) int64; seven records to six patients.
        age: (N,) years, NaN for 2 %.
        attributes: The four.
    """

    scores: Tensor
    targets: Tensor
    patients: Tensor
    age: Tensor
    attributes: tuple[Grouping, ...]

    @property
    def groupings(self) -> list[tuple[Tensor, int]]:
        """Codes and number of groups of each attribute."""
        return [(attribute.codes, len(attribute.names)) for attribute in self.attributes]


def drawn(records: int, seed: int = 0) -> Drawn:
    """Draw a table."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(records, LABELS, generator=generator) < torch.logspace(-2.7, -0.8, LABELS)
    scores = (torch.randn(records, LABELS, generator=generator) + 1.5 * targets - 2).sigmoid()
    age = 18 + 75 * torch.rand(records, generator=generator)
    age[torch.rand(records, generator=generator) < 0.02] = torch.nan
    sexes = torch.tensor([FEMALE] * 49 + [MALE] * 49 + [UNKNOWN_SEX] * 2)
    sex = group_by_sex(sexes[torch.randint(0, 100, (records,), generator=generator)])
    bands = group_by_age(age)
    overall = Grouping("overall", ("all",), torch.zeros(records, dtype=torch.int64))
    patients = torch.arange(records) * 6 // 7
    return Drawn(scores, targets, patients, age, (overall, sex, bands, cross([sex, bands])))


def best_of(times: int, work: Callable[[], object]) -> tuple[float, float]:
    """Return the least and the median seconds of some runs, after one that does not count."""
    work()
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds), median(seconds)


def measured(table: Drawn, weights: Tensor) -> list[Ranking]:
    """AUROC, average precision and supports of every label, group and row of weights, attribute by attribute."""
    return [ranked.measure(weights) for ranked in RankedScores.of_each(table.scores, table.targets, table.groupings)]


def described(table: Drawn) -> Predictions:
    """Describe a table as a validation epoch does: all statistics, thresholds, strata of age."""
    names = [f"label{position}" for position in range(LABELS)]
    return Predictions(
        table.scores,
        table.targets,
        names,
        table.attributes[1:],  # overall is always measured
        patients=table.patients,
        label_prevalence=table.targets.double().mean(0).tolist(),
        operating_points=choose(table.scores, table.targets, label_names=names, chosen_on="the same records"),
        strata=age_strata(table.age),
    )


def report(table: Predictions, config: FairnessConfig) -> int:
    """Evaluate as a validation epoch does, with what is logged and the table; return its rows."""
    found = evaluate(table, config)
    found.scalars("val")
    return len(found.frame())


def time_epoch(resamples: int) -> None:
    """Time the point estimates of a validation epoch."""
    del resamples
    table = drawn(RECORDS)
    whole = described(table)
    least, middle = best_of(20, lambda: report(whole, FairnessConfig()))
    CONSOLE.print(
        f"epoch: {RECORDS} records x {LABELS} labels x 18 groups, all ten statistics, values to log and the table: "
        f"{middle:.3f} s, median of 20 ({least:.3f} s at best)"
    )
    ones = torch.ones(1, RECORDS, dtype=torch.float64)
    least, middle = best_of(20, lambda: measured(table, ones))
    CONSOLE.print(f"  of these AUROC and average precision alone: {middle:.3f} s, median of 20 ({least:.3f} s at best)")


def time_resamples(resamples: int) -> None:
    """Time resamples of the patients, and scikit-learn on some of them."""
    table = drawn(RECORDS)
    begin = time.perf_counter()
    weights = patient_weights(table.patients, resamples, seed=0)
    drawing = time.perf_counter() - begin
    found = measured(table, weights[:3])
    least, middle = best_of(3, lambda: measured(table, weights))
    CONSOLE.print(
        f"resamples: {RECORDS} records x {LABELS} labels x 18 groups x {resamples} resamples and the point estimate, "
        f"AUROC and average precision: {middle:.2f} s, median of 3 ({least:.2f} s at best); weights {drawing:.2f} s"
    )
    theirs, furthest = time_scikit_learn(table, weights[:3], found)
    scaled = theirs * len(weights) / 3
    CONSOLE.print(
        f"scikit-learn in a loop: {theirs:.1f} s for 3 of {len(weights)} weightings, {scaled:.0f} s for all: "
        f"{scaled / (middle + drawing):.0f} times as long; no value differs by more than {furthest:.0e}"
    )
    whole = described(table)
    begin = time.perf_counter()
    rows = report(whole, FairnessConfig(details=True, resamples=resamples))
    CONSOLE.print(
        f"frame: all ten statistics, label by label, means, gaps and extremes, {rows} rows with intervals: "
        f"{time.perf_counter() - begin:.1f} s"
    )
    begin = time.perf_counter()
    gap_tests(whole, FairnessConfig(), resamples)
    CONSOLE.print(
        f"tests: the largest gaps in AUROC, TPR and FPR, {resamples} permutations: {time.perf_counter() - begin:.1f} s"
    )
    begin = time.perf_counter()
    strata = table.age.nan_to_num(-1).long()
    for codes, groups in table.groupings:
        stratified_auroc(table.scores, table.targets, codes, groups, strata, weights)
    CONSOLE.print(f"AUROC within years of age, the same groups and resamples: {time.perf_counter() - begin:.2f} s")


def time_scikit_learn(table: Drawn, weights: Tensor, ours: list[Ranking]) -> tuple[float, float]:
    """Return the seconds that scikit-learn takes, and the largest difference to our values."""
    scores, targets, rows = table.scores.double().numpy(), table.targets.numpy(), weights.numpy()
    seconds, furthest = 0.0, 0.0
    for (codes, groups), ranking in zip(table.groupings, ours, strict=True):
        auroc, precision = ranking.auroc.numpy(), ranking.average_precision.numpy()
        for group, label in product(range(groups), range(LABELS)):
            begin = time.perf_counter()
            members = (codes == group).numpy()
            truth, score = targets[members, label], scores[members, label]
            if truth.all() or not truth.any():
                continue
            theirs = [
                (
                    roc_auc_score(truth, score, sample_weight=row),
                    average_precision_score(truth, score, sample_weight=row),
                )
                for row in rows[:, members]
            ]
            seconds += time.perf_counter() - begin
            values = np.stack([auroc[:, group, label], precision[:, group, label]], axis=1)
            furthest = max(furthest, float(np.abs(values - np.array(theirs)).max()))
    return seconds, furthest


def time_large(resamples: int) -> None:
    """Time the point estimates of a large table, in a process of its own."""
    del resamples
    command = [sys.executable, __file__, "--threads", str(torch.get_num_threads()), "--part", "large-here"]
    subprocess.run(command, check=True)  # noqa: S603 - this very script


def time_large_here(resamples: int) -> None:
    """Time the point estimates of a large table, in this process."""
    del resamples
    table = drawn(LARGE)
    before = most_memory()
    begin = time.perf_counter()
    report(described(table), FairnessConfig())
    CONSOLE.print(
        f"large: {LARGE} records x {LABELS} labels x 18 groups, thresholds, all ten statistics, point estimates: "
        f"{time.perf_counter() - begin:.1f} s; {most_memory()} MiB at most, {before} MiB before it began"
    )


def most_memory() -> int:
    """Return the most resident memory this process ever had, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1024


PARTS: dict[str, Callable[[int], None]] = {
    "epoch": time_epoch,
    "resamples": time_resamples,
    "large": time_large,
    "large-here": time_large_here,
}


def main() -> None:
    """Time what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--part", choices=PARTS, action="append", help="all but large-here by default")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for part in given.part or ("epoch", "resamples", "large"):
        PARTS[part](given.resamples)


if __name__ == "__main__":
    main()
