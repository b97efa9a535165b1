"""Gaps in the project's fairness table, and how far chance moves them: the patients are drawn again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from data_modules.synthetic.people.truth import Truth
from data_modules.synthetic.writing import published
from ecgfair.ecg import UNKNOWN_SEX
from ecgfair.groups import group_by_demographics
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.kernels.auroc import auroc
from ecgfair.metrics.predictions import Predictions

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scored:
    """Records as the fairness table gets them: what is published of them, and a score for each label.

    Args:
        labels: C codes.
        patients: (N,) patients.
        ages: (N,) years, NaN where not published.
        sexes: (N,) codes, ``UNKNOWN_SEX`` where not published.
        stated: (N, C) whether each label is stated.
        scores: (N, C) in [0, 1].
    """

    labels: tuple[str, ...]
    patients: NDArray[np.int64]
    ages: Floats
    sexes: NDArray[np.int64]
    stated: NDArray[np.bool_]
    scores: Floats

    @classmethod
    def of(cls, truths: Sequence[Truth], labels: Sequence[str], scores: Floats) -> Scored:
        """Take from the truths what is published of them."""
        sexes = [published.sex(one) for one in truths]
        ages = [published.age(one) for one in truths]
        return cls(
            tuple(labels),
            np.array([one.patient for one in truths]),
            np.array([np.nan if age is None else age for age in ages], dtype=float),
            np.array([UNKNOWN_SEX if sex is None else sex for sex in sexes]),
            np.array([[label in one.stated for label in labels] for one in truths]),
            scores,
        )

    def part(self, chosen: NDArray[np.integer | np.bool_] | slice) -> Scored:
        """Return some of the records."""
        rows = (self.patients, self.ages, self.sexes, self.stated, self.scores)
        return Scored(self.labels, *(values[chosen] for values in rows))


@dataclass(frozen=True, eq=False)
class Gaps:
    """AUROC of a group minus that of the reference.

    Args:
        found: Label, or ``macro`` -> the gap in the fairness table.
        error: Likewise, its standard error.
    """

    found: dict[str, float]
    error: dict[str, float]

    def interval(self, label: str, level: float = 0.95) -> tuple[float, float]:
        """Return the interval that covers the true gap with this probability."""
        reach = float(ndtri((1 + level) / 2)) * self.error[label]
        return self.found[label] - reach, self.found[label] + reach

    def covers(self, label: str, true: float, level: float = 0.95) -> bool:
        """Tell whether the interval holds the true gap."""
        low, high = self.interval(label, level)
        return low <= true <= high


def gaps(table: Scored, attribute: str, group: str, reference: str, draws: int = 200, seed: int = 0) -> Gaps:
    """Measure gaps with the project's fairness table, and their standard error by drawing patients with replacement.

    Args:
        table: What is measured.
        attribute: ``sex`` or ``age``.
        group: As the table calls it.
        reference: Likewise.
        draws: How often patients are drawn.
        seed: Of the draws.
    """
    scores, stated = torch.from_numpy(table.scores), torch.from_numpy(table.stated)
    ages, sexes = torch.from_numpy(table.ages), torch.from_numpy(table.sexes)
    shares = table.stated.mean(axis=0).tolist()
    grouping = group_by_demographics(attribute, ages, sexes)
    measured = Predictions(scores, stated, table.labels, [grouping], label_prevalence=shares)
    report = evaluate(measured, FairnessConfig(reference={attribute: reference}, statistics=("auroc",)))
    areas = {
        side: np.array([next(report.select(attribute, "auroc", label=one, group=side)).value for one in table.labels])
        for side in (group, reference)
    }
    found = dict(zip(table.labels, (areas[group] - areas[reference]).tolist(), strict=True))
    found["macro"] = next(report.select(attribute, "auroc", "gap", group=group)).value

    members = grouping.membership()[[grouping.names.index(side) for side in (group, reference)]]
    patients, whose = np.unique(table.patients, return_inverse=True)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=draws)
    weights = torch.from_numpy(times[:, whose])[:, None, :] * members
    drawn = auroc(scores, stated, weights.reshape(2 * draws, -1)).auroc.reshape(draws, 2, -1)
    differences = (drawn[:, 0] - drawn[:, 1]).numpy()
    error = dict(zip(table.labels, np.nanstd(differences, axis=0).tolist(), strict=True))
    supported = ~np.isnan(areas[group] - areas[reference])
    error["macro"] = float(np.nanstd(np.nanmean(differences[:, supported], axis=1)))
    return Gaps(found, error)
