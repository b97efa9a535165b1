"""Does the permutation test of the largest gap keep its level, and what does it find? Simulated data sets, a table.

    python experiments/fairness/permutation.py [--data-sets 1000] [--permutations 199] [--plain]

Every patient has a group and one record or more; scores of a patient's records, and of the labels of a record,
correlate. ``support`` is the expected number of positives in the smallest group; there are four times as many
negatives, or as the scenario has it. The scenarios:

- ``alike``: scores are distributed alike in all groups.
- ``unequal``: likewise, but positives differ up to twofold between the groups, and prevalences up to threefold.
- ``shift``: besides, scores of the first group are higher by one standard deviation, the ill and the healthy alike.
  (Scores of a group that spread twice as much are no case of their own: aligned, they are the same.)
- ``shape``: in the first group the positives' scores spread twice as much, at a distance that keeps the AUROC: its ROC
  curve is another one; positives and prevalences as in ``unequal``.
- ``gap``: the AUROC of the first group is 0.05 lower, and its TPR with it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import torch
from scipy.stats import norm
from torch import Tensor

from ecgfair.metrics.chance.permutation import PermutationTest, permutation_test

AUROC = 0.85
GAP = 0.05
LABELS = 3
NEGATIVES = 4
"""Per positive, where the prevalence is the common one."""
RECORDS_MORE = 0.4
"""Of a patient, besides the first: a Poisson mean."""
SAME_PATIENT = 0.5
"""Correlation of the scores of a patient's records, given the label."""
LEVEL = 0.05
SCENARIOS = ("alike", "unequal", "shift", "shape", "gap")


@dataclass(frozen=True)
class Case:
    """What a row of the table is about."""

    scenario: str
    groups: int
    support: int

    @property
    def unequal(self) -> bool:
        """Whether groups differ in size and prevalence."""
        return self.scenario in ("unequal", "shift", "shape")


@dataclass(frozen=True)
class DataSet:
    """(N, C) scores and targets; (N,) codes and patients."""

    scores: Tensor
    targets: Tensor
    codes: Tensor
    patients: Tensor


def draw(case: Case, random: torch.Generator) -> DataSet:
    """Draw a data set; a group without two records of a class is left to the test to refuse, and does not occur."""
    step = torch.linspace(0, 1, case.groups, dtype=torch.float64)
    prevalence = torch.full((case.groups,), 1 / (1 + NEGATIVES), dtype=torch.float64)
    positives = torch.full((case.groups,), float(case.support), dtype=torch.float64)
    if case.unequal:
        prevalence, positives = prevalence * (1.5 - step), positives * (1 + step)
    in_group = (positives / prevalence / (1 + RECORDS_MORE)).round().long()
    of_patient = torch.repeat_interleave(torch.arange(case.groups), in_group)
    more = torch.poisson(torch.full((len(of_patient),), RECORDS_MORE), generator=random).long()
    patients = torch.repeat_interleave(torch.arange(len(of_patient)), 1 + more)
    codes = of_patient[patients]
    # An ill patient's further records mostly show the illness, too.
    chance = prevalence[of_patient][:, None].expand(-1, LABELS)
    ill, at_times = _bernoulli(chance, random)[patients], _bernoulli(chance[patients], random)
    targets = torch.where(_bernoulli(torch.full_like(chance[patients], 0.8), random), ill, at_times)

    noise = _correlated(len(of_patient), random)[patients] * sqrt(SAME_PATIENT)
    noise = noise + _correlated(len(patients), random) * sqrt(1 - SAME_PATIENT)
    distance = torch.full_like(noise, sqrt(2) * norm.ppf(AUROC))
    first = (codes == 0)[:, None]
    spread = torch.ones_like(noise)
    if case.scenario == "gap":
        distance[first[:, 0]] = sqrt(2) * norm.ppf(AUROC - GAP)
    elif case.scenario == "shape":
        spread = torch.where(first & targets, 2.0, 1.0)
        distance[first[:, 0]] = sqrt(5) * norm.ppf(AUROC)
    scores = targets * distance + noise * spread
    if case.scenario == "shift":
        scores = scores + first
    return DataSet(scores, targets, codes, patients)


def _bernoulli(chance: Tensor, random: torch.Generator) -> Tensor:
    return torch.rand(chance.shape, generator=random, dtype=torch.float64) < chance


def _correlated(count: int, random: torch.Generator) -> Tensor:
    """Standard normal (count, LABELS); labels correlate by one half."""
    common = torch.randn(count, 1, generator=random, dtype=torch.float64)
    own = torch.randn(count, LABELS, generator=random, dtype=torch.float64)
    return (common + own) * sqrt(0.5)


def tested(case: Case, data_sets: int, permutations: int, align: bool) -> Iterator[PermutationTest]:
    """Test the data sets of a case; their seeds are 0, 1, ..."""
    eligible = torch.ones(case.groups, LABELS, dtype=torch.bool)
    for seed in range(data_sets):
        drawn = draw(case, torch.Generator().manual_seed(seed))
        yield permutation_test(
            drawn.scores,
            drawn.targets,
            drawn.codes,
            case.groups,
            drawn.patients,
            eligible=eligible,
            predictions=drawn.scores > 1,
            permutations=permutations,
            seed=seed,
            align=align,
        )


def line(case: Case, data_sets: int, permutations: int, align: bool) -> str:
    """Return a row of the table: shares of tests that reject, and gaps."""
    start = time.perf_counter()
    tests = list(tested(case, data_sets, permutations, align))
    cells = [case.scenario, str(case.groups), str(case.support)]
    for statistic in ("auroc", "tpr", "fpr"):
        # Shifted or reshaped scores do differ at a threshold: their rates are no true null.
        meaningful = statistic == "auroc" or case.scenario not in ("shift", "shape")
        for macro in (False, True):
            found = [(test.macro if macro else test.labels)[statistic] for test in tests]
            rejected = torch.cat([test.p <= LEVEL for test in found]).double().mean()
            cells.append(f"{100 * rejected:.1f} %" if meaningful else "")
    for macro in (False, True):
        found = [(test.macro if macro else test.labels)["auroc"] for test in tests]
        seen, expected = (torch.cat([getattr(test, name) for test in found]) for name in ("observed", "expected"))
        cells += [f"{seen.mean():.4f}", f"{expected.mean():.4f}"]
    cells.append(f"{time.perf_counter() - start:.0f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=1000)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--plain", action="store_true", help="do not align scores before dealing")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--supports", nargs="+", type=int, default=(20, 50, 200))
    arguments = parser.parse_args()
    titles = ["scenario", "groups", "support"]
    titles += [f"{name}{of}" for name in ("AUROC", "TPR", "FPR") for of in ("", ", mean")]
    titles += ["gap seen", "expected", "gap of means seen", "expected", "s"]
    head = "| " + " | ".join(titles) + " |\n|" + " --- |" * len(titles)
    print(head, flush=True)  # noqa: T201  # a table as output is what this script is for
    for scenario in arguments.scenarios:
        for groups in (2, 4):
            for support in arguments.supports:
                case = Case(scenario, groups, support)
                row = line(case, arguments.data_sets, arguments.permutations, not arguments.plain)
                print(row, flush=True)  # noqa: T201  # likewise


if __name__ == "__main__":
    main()
