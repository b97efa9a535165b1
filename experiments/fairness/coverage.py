"""How often the 95 % intervals hold the truth, in data sets drawn from a population whose truth is known.

    OMP_NUM_THREADS=1 python experiments/fairness/coverage.py [--sets 1000] [--resamples 300] [--seed 0]
                                                              [--support 20 50 200] [--ratio 1 5]

A patient has 1 to 3 records, whose scores are alike: half of their variance is the patient's, half of that shared by
all labels. Scores are normal with variance 1 in both classes, so the AUROC is Phi(shift / sqrt 2). A data set has a
group and a reference of the same size, ten labels with `support` positive patients each, and a large reference group
with 200 positive and 200 negative patients. Beside the intervals of this package stand the percentiles of the same
resamples, and for gaps Student's interval of the difference alone (bounded=False).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import norm
from torch import Tensor

from ecgfair.metrics.chance.intervals import Support, confidence_interval, gap_interval
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.kernels.auroc import RankedScores
from ecgfair.metrics.kernels.weighted import group_sums

GROUP: Final = (0.75, 0.85, 0.95, 0.75, 0.80, 0.85, 0.90, 0.95, 0.70, 0.80)
"""The true AUROC of each label in the group; single labels are reported for the first three."""
REFERENCE: Final = (0.80, 0.85, 0.95, *GROUP[3:])
LARGE: Final = (0.75, 0.90, 0.95)
OTHER_MODEL: Final = {1: 0.80, 2: 0.93}
"""True AUROC of a second model for two of the labels; its scores correlate by 0.9 with those of the first."""
SENSITIVITY: Final = 0.8
LARGE_SUPPORT: Final = 200
SHIFTS: Final = {
    share: math.sqrt(2) * float(norm.ppf(share)) for share in {*GROUP, *REFERENCE, *LARGE, *OTHER_MODEL.values()}
}


@dataclass(frozen=True, eq=False)
class Sample:
    """Records of one group of patients.

    Args:
        patients: (N,) codes.
        targets: (N, C) bool.
        scores: (N, C).
        noise: (N, C) what the scores have beside the shift.
    """

    patients: Tensor
    targets: Tensor
    scores: Tensor
    noise: Tensor


def draw(aurocs: tuple[float, ...], positives: int, negatives: int, generator: torch.Generator, first: int) -> Sample:
    """Draw a group whose patients are numbered from ``first``; each label has just so many positive patients."""
    count, labels = positives + negatives, len(aurocs)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    patient = torch.arange(count).repeat_interleave(torch.randint(1, 4, (count,), generator=generator))
    positive = torch.rand(count, labels, generator=generator).argsort(0) < positives
    of_patient = 0.5 * normal(count, 1) + 0.5 * normal(count, labels)
    noise = of_patient[patient] + math.sqrt(0.5) * normal(len(patient), labels)
    shifts = torch.tensor([SHIFTS[share] for share in aurocs], dtype=torch.float64)
    return Sample(first + patient, positive[patient], noise + shifts * positive[patient], noise)


def measure(support: int, negatives: int, resamples: int, seed: int) -> dict[str, Tensor]:
    """Return the values (1 + R,) of every statistic on one data set."""
    generator = torch.Generator().manual_seed(seed)
    group = draw(GROUP, support, negatives, generator, 0)
    reference = draw(REFERENCE, support, negatives, generator, 10_000)
    large = draw(LARGE, LARGE_SUPPORT, LARGE_SUPPORT, generator, 20_000)
    labels = list(OTHER_MODEL)
    own = torch.randn(len(group.noise), len(labels), generator=generator, dtype=torch.float64)
    shifts = torch.tensor([SHIFTS[share] for share in OTHER_MODEL.values()], dtype=torch.float64)
    other = 0.9 * group.noise[:, labels] + math.sqrt(1 - 0.9**2) * own + shifts * group.targets[:, labels]

    values: dict[str, Tensor] = {}
    for name, sample in (("group", group), ("reference", reference), ("large", large)):
        codes = torch.zeros(len(sample.patients), dtype=torch.int64)
        weights = patient_weights(sample.patients, resamples, seed)
        scores, targets = sample.scores, sample.targets
        if name == "group":
            scores, targets = torch.cat([scores, other], 1), torch.cat([targets, targets[:, labels]], 1)
        auroc = RankedScores.of(scores, targets, codes, 1).auroc(weights)[:, 0]
        for label in range(3):
            values[f"{name} auroc {label}"] = auroc[:, label]
        if name == "large":
            continue
        values[f"{name} macro"] = auroc[:, : len(GROUP)].mean(1)
        if name == "group":
            values.update({f"other model {label}": auroc[:, len(GROUP) + at] for at, label in enumerate(labels)})
        hits = sample.targets[:, [1]].double() * (sample.scores[:, [1]] >= threshold())
        sums = group_sums(torch.cat([hits, sample.targets[:, [1]].double()], 1), codes, 1, weights)[:, 0]
        values[f"{name} tpr"] = sums[:, 0] / sums[:, 1]
        errors = (probability(sample.scores[:, [1]]) - sample.targets[:, [1]].double()).square()
        values[f"{name} brier"] = group_sums(errors, codes, 1, weights)[:, 0, 0] / weights.sum(1)
    return values


def threshold() -> float:
    """The threshold at which label 1 has the sensitivity of this file."""
    return SHIFTS[GROUP[1]] - float(norm.ppf(SENSITIVITY))


def probability(scores: Tensor) -> Tensor:
    """What a model that is calibrated for equal classes says of label 1."""
    shift = SHIFTS[GROUP[1]]
    return torch.sigmoid(shift * scores - shift**2 / 2)


def true_brier(share: float) -> float:
    """The expected Brier score of ``probability`` where so many of the records are positive."""
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    density = torch.exp(-grid.square() / 2)
    density /= density.sum()
    positive = (1 - probability(grid + SHIFTS[GROUP[1]])).square() @ density
    return float(share * positive + (1 - share) * probability(grid).square() @ density)


@dataclass(frozen=True)
class Quantity:
    """A number whose interval is judged.

    Args:
        name: For the table.
        truth: In the population.
        first: A key of ``measure``.
        second: Likewise, of what is subtracted.
    """

    name: str
    truth: float
    first: str
    second: str | None = None


def quantities(share: float) -> list[Quantity]:
    """List what is judged, where ``share`` of the patients are positive."""
    macro = sum(GROUP) / len(GROUP)
    table = []
    for label in range(3):
        own = GROUP[label]
        table += [
            Quantity(f"AUROC {own}", own, f"group auroc {label}"),
            Quantity(
                f"gap {own} - {REFERENCE[label]}",
                own - REFERENCE[label],
                f"group auroc {label}",
                f"reference auroc {label}",
            ),
            Quantity(
                f"gap {own} - {LARGE[label]}, large reference",
                own - LARGE[label],
                f"group auroc {label}",
                f"large auroc {label}",
            ),
        ]
    return [
        *table,
        *(
            Quantity(
                f"two models, {GROUP[label]} - {other}",
                GROUP[label] - other,
                f"group auroc {label}",
                f"other model {label}",
            )
            for label, other in OTHER_MODEL.items()
        ),
        Quantity("macro of 10", macro, "group macro"),
        Quantity("gap of macros", macro - sum(REFERENCE) / len(REFERENCE), "group macro", "reference macro"),
        Quantity(f"TPR {SENSITIVITY}", SENSITIVITY, "group tpr"),
        Quantity("gap of TPR", 0.0, "group tpr", "reference tpr"),
        Quantity("Brier", true_brier(share), "group brier"),
        Quantity("gap of Brier", 0.0, "group brier", "reference brier"),
    ]


def support_of(name: str, support: int, ratio: int) -> Support:
    """Return what a caller would pass for this statistic."""
    if "macro" in name:
        return Support.of_mean(torch.full((len(GROUP),), support))
    if "brier" in name:
        return Support(torch.tensor(support * (1 + ratio)))
    return Support(torch.tensor(LARGE_SUPPORT if name.startswith("large") else support))


def intervals_of(
    quantity: Quantity, values: dict[str, Tensor], support: int, ratio: int
) -> list[tuple[Tensor, Tensor] | None]:
    """Return the ends of the interval by each method: that of the package, percentiles, the symmetric one."""
    first, of_first = values[quantity.first], support_of(quantity.first, support, ratio)
    levels = torch.tensor([0.025, 0.975], dtype=torch.float64)
    if quantity.second is None:
        low, high = torch.quantile(first[1:], levels, dim=0)
        return [confidence_interval(first, of_first, bounded=True), (low, high), None]
    second, of_second = values[quantity.second], support_of(quantity.second, support, ratio)
    gap = first - second
    low, high = torch.quantile(gap[1:], levels, dim=0)
    return [
        gap_interval(first, second, of_first, of_second),
        (low, high),
        confidence_interval(gap, of_first, bounded=False),
    ]


def judged(truth: float) -> Callable[[tuple[Tensor, Tensor] | None], list[str]]:
    """Return what writes the percentages of data sets whose interval holds the truth, lies above it, lies below it."""

    def row(ends: tuple[Tensor, Tensor] | None) -> list[str]:
        if ends is None:
            return ["-", "-", "-", "-"]
        low, high = ends
        shares = [((low <= truth) & (truth <= high)), low > truth, high < truth]
        return [*(f"{100 * share.double().mean():.1f}" for share in shares), f"{(high - low).mean():.3f}"]

    return row


def main() -> None:
    """Print a table for each size of the groups, in per cent of the data sets, and what is outside 93 to 97."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="data sets for each size")
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--support", type=int, nargs="+", default=[20, 50, 200], help="positive patients")
    parser.add_argument("--ratio", type=int, nargs="+", default=[1, 5], help="negative patients for a positive one")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    console = Console(width=140)
    outside = []
    for support in arguments.support:
        for ratio in arguments.ratio:
            drawn = [
                measure(support, ratio * support, arguments.resamples, arguments.seed + 1_000_003 * number)
                for number in range(arguments.sets)
            ]
            values = {name: torch.stack([one[name] for one in drawn], 1) for name in drawn[0]}
            title = f"{support} positive and {ratio * support} negative patients"
            table = Table("quantity", title=title)
            for name in ("holds", "above", "below", "width", "percentiles hold", "symmetric holds"):
                table.add_column(name, justify="right")
            for quantity in quantities(1 / (1 + ratio)):
                own, percentiles, symmetric = map(
                    judged(quantity.truth), intervals_of(quantity, values, support, ratio)
                )
                table.add_row(quantity.name, *own, percentiles[0], symmetric[0])
                if not 93 <= float(own[0]) <= 97:
                    outside.append(f"{support}/{ratio * support} {quantity.name}: {own[0]}")
            console.print(table)
    console.print(f"outside 93 to 97: {'; '.join(outside) or 'none'}")
    console.print(f"{arguments}, {(time.perf_counter() - begin) / 60:.1f} min")


if __name__ == "__main__":
    main()
