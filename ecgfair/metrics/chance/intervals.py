"""95 % intervals from resamples of patients, made for the few patients that subgroups and rare labels have.

Percentiles of the resamples are too narrow there: with 20 positive patients they hold the true AUROC in 87 to 94 % of
data sets, not in 95 %, and a group without an error has an interval of no width. Here the resamples give the standard
error alone. The interval is then the score interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953) for
the number of patients that would give this standard error, as is done for shares in clustered surveys (Dean and Pagano
2015, doi:10.1093/jssam/smv024), with these corrections for few patients:

- n patients resampled with exponential weights have a variance smaller by (n - 1) / (n + 1) than the unbiased one;
- Student's t with n - 1 degrees of freedom takes the place of the normal quantile;
- the variance is averaged with the largest that a number in [0, 1] of this mean can have, p (1 - p), which counts half
  a degree of freedom: so an accidentally small standard error, as of an AUROC near 1, is not wholly believed;
- without any spread (nobody misjudged) the number of patients is n itself: [n / (n + t^2), 1].

``experiments/fairness/coverage.py`` measures how often the intervals hold the truth.

There is no interval for the difference between the best and the worst group. That difference is above zero even
where the groups are alike, and no resample of it covers zero: use signed gaps to a reference group, and the permutation
test of the largest gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from scipy.special import stdtrit
from torch import Tensor

CONFIDENCE: Final = 0.95

_NO_SPREAD: Final = 1e-12
"""A smaller standard error is rounding, and the data show no variation."""
_OUTSIDE: Final = 1e-9
_CAUTION: Final = 0.5
"""Degrees of freedom of the largest variance. Without it, intervals of an AUROC of 0.95 hold the truth too rarely with
20 positive patients; with twice as much, most intervals there hold it in more than 97 % of data sets."""
_ENDLESS: Final = 1e15


@dataclass(frozen=True, eq=False)
class Support:
    """How many patients a statistic rests on.

    Args:
        patients: (...) those on whom it depends. For AUROC and average precision the smaller one of the number of
            patients with a positive and of those with a negative record; for TPR and FNR the patients with a positive
            record, for FPR those with a negative one, for PPV those with a record called positive; for Brier and
            calibration error all patients of the group.
        labels: (...) over how many labels the statistic is a mean; more labels make a standard error surer, though
            none of them is better supported.
    """

    patients: Tensor
    labels: Tensor | float = 1.0

    @classmethod
    def of_mean(cls, patients: Tensor, dim: int = -1) -> Support:
        """Return the support of a mean over labels, from the patients of each of them.

        The variance of a label's statistic is taken to fall as 1 / patients, so that the rare labels count most, and
        the degrees of freedom are pooled (Satterthwaite 1946, doi:10.2307/3002019). Labels with n patients
        each have n again, and the number of labels; one rare label among common ones is nearly as if it were alone.

        Args:
            patients: (..., C), on each label; 0 for a label that is left out.
            dim: That of the labels.
        """
        counts = patients.double()
        share = torch.where(counts > 0, 1 / counts.clamp(min=1), 0)
        one, two, three = (share.pow(power).sum(dim) for power in (1, 2, 3))
        support = one / two  # NaN where all labels are left out
        return cls(support.nan_to_num(0), (one.square() / three / support).nan_to_num(1))


def confidence_interval(values: Tensor, support: Tensor | Support | None, *, bounded: bool) -> tuple[Tensor, Tensor]:
    """Return the 95 % interval of a statistic, or of a difference.

    Args:
        values: (1 + R, ...), the point estimate and its resamples (``resampling.patient_weights``), R at least 2.
        support: (...) patients, to be broadcast, or a ``Support``. None: so many that no correction is needed.
        bounded: The statistic lies in [0, 1] (AUROC, rates, Brier, means of them). Else it is a difference of two such,
            in [-1, 1], and the interval is symmetric; where both parts are at hand, ``gap_interval`` is better.

    Returns:
        Lower and upper ends, (...) float64 each. NaN where the point estimate or a resample is NaN. All of [0, 1] or
        [-1, 1] where nothing can be said: fewer than two patients, or no spread among endless patients.

    Raises:
        ValueError: There are fewer than 2 resamples, or a point estimate is outside its range.
    """
    smallest = 0.0 if bounded else -1.0
    values = _checked(values, smallest)
    point, spread = values[0], values[1:].var(0)
    sample = _Sample.of(support, point)
    make = _score if bounded else _symmetric
    low, high = make(point, spread * sample.inflation, sample)
    nothing = (sample.patients <= 1) | (sample.endless & (spread <= _NO_SPREAD**2))
    undefined = point.isnan() | spread.isnan()
    low = torch.where(nothing, smallest, low.clamp(min=smallest))
    high = torch.where(nothing, 1.0, high.clamp(max=1))
    return low.masked_fill(undefined, torch.nan), high.masked_fill(undefined, torch.nan)


def gap_interval(
    first: Tensor, second: Tensor, first_support: Tensor | Support | None, second_support: Tensor | Support | None
) -> tuple[Tensor, Tensor]:
    """Return the 95 % interval of ``first`` minus ``second``, two statistics in [0, 1].

    It is put together from the interval of each (Zou and Donner 2008, doi:10.1002/sim.3095), so it is as lopsided as
    they are, and a group without an error adds its own uncertainty. Their correlation is that of the resamples:
    near 0 for groups of different patients, near 1 for two models on the same records. Other than there, what two
    positively correlated statistics share moves both in the same direction: the interval between a model and itself
    has no width.

    Args:
        first: (1 + R, ...), such as the AUROC of a group.
        second: (1 + R, ...), such as that of the reference group, or of another model, under the same weights.
        first_support: See ``confidence_interval``.
        second_support: Likewise.

    Returns:
        Lower and upper ends, (...) float64 each, within [-1, 1]; NaN where either statistic is undefined.

    Raises:
        ValueError: The shapes differ; or see ``confidence_interval``.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"first has the shape {tuple(first.shape)} and second {tuple(second.shape)}: expected the same resamples "
            "of both."
        )
    first_low, first_high = confidence_interval(first, first_support, bounded=True)
    second_low, second_high = confidence_interval(second, second_support, bounded=True)
    one, other = first[0].double(), second[0].double()
    below, above = (one - first_low, other - second_low), (first_high - one, second_high - other)
    correlation = _correlation(first[1:].double(), second[1:].double())
    shared = ((below[0] - below[1]).square() + (above[0] - above[1]).square()) / 2
    low = one - other - _distance(below[0], above[1], shared, correlation)
    high = one - other + _distance(above[0], below[1], shared, correlation)
    return low.clamp(min=-1), high.clamp(max=1)


def _checked(values: Tensor, smallest: float) -> Tensor:
    """Return the values as float64, or say what is wrong with them."""
    if len(values) < 3:
        raise ValueError(
            f"values has {len(values)} rows: expected the point estimate and at least 2 resamples; 1000 suit an "
            "interval."
        )
    values = values.detach().double()
    outside = (values[0] < smallest - _OUTSIDE) | (values[0] > 1 + _OUTSIDE)
    if bool(outside.any()):
        found = values[0][outside][0].item()
        raise ValueError(
            f"{int(outside.sum())} point estimates are outside [{smallest:g}, 1], such as {found:g}: expected a "
            "statistic in [0, 1], or with bounded=False a difference of two of them."
        )
    return values


@dataclass(frozen=True, eq=False)
class _Sample:
    """A support ready for formulas, each of the shape of the point estimate.

    Args:
        patients: Finite.
        labels: See ``Support``.
        endless: Where no correction is wanted.
        quantile: Of Student's t.
    """

    patients: Tensor
    labels: Tensor
    endless: Tensor
    quantile: Tensor

    @classmethod
    def of(cls, support: Tensor | Support | None, point: Tensor) -> _Sample:
        if support is None:
            support = Support(torch.full_like(point, torch.inf))
        elif isinstance(support, Tensor):
            support = Support(support)
        patients = support.patients.to(point).expand_as(point).nan_to_num(0, posinf=_ENDLESS)
        labels = torch.as_tensor(support.labels).to(point).expand_as(point)
        freedom = ((patients - 1) * labels).clamp(min=1)  # too few patients get no interval, whatever this one
        quantile = torch.as_tensor(stdtrit(freedom.cpu().numpy(), (1 + CONFIDENCE) / 2)).to(point)
        return cls(patients, labels, patients >= _ENDLESS, quantile)

    @property
    def freedom(self) -> Tensor:
        """Degrees of freedom of the standard error."""
        return ((self.patients - 1) * self.labels).clamp(min=1)

    @property
    def inflation(self) -> Tensor:
        """What makes a variance over exponential weights unbiased."""
        return (self.patients + 1) / (self.patients - 1).clamp(min=1)


def _score(point: Tensor, variance: Tensor, sample: _Sample) -> tuple[Tensor, Tensor]:
    """The score interval for as many patients as give this variance."""
    largest = (point * (1 - point)).clamp(min=0)
    of_mean = largest / (sample.patients * sample.labels)
    averaged = (sample.freedom * variance + _CAUTION * of_mean) / (sample.freedom + _CAUTION)
    spread = (largest > _NO_SPREAD) & (averaged > _NO_SPREAD**2)
    effective = torch.where(spread, largest / averaged, sample.patients)
    share = sample.quantile.square() / effective
    middle = (point + share / 2) / (1 + share)
    half = (share * largest + share.square() / 4).sqrt() / (1 + share)
    # Without an error one end is the point estimate, which rounding would move.
    low = torch.where(point <= _NO_SPREAD, 0, middle - half)
    high = torch.where(point >= 1 - _NO_SPREAD, 1, middle + half)
    return low, high


def _symmetric(point: Tensor, variance: Tensor, sample: _Sample) -> tuple[Tensor, Tensor]:
    """Student's interval; without any spread, as wide as that of a group without an error."""
    square = sample.quantile.square()
    without_spread = square / (sample.patients + square)
    half = torch.where(variance > _NO_SPREAD**2, sample.quantile * variance.sqrt(), without_spread)
    return point - half, point + half


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Of two statistics over the resamples, (R, ...) each; 0 where one of them does not vary."""
    first, second = first - first.mean(0), second - second.mean(0)
    scale = (first.square().mean(0) * second.square().mean(0)).sqrt()
    return torch.where(scale > _NO_SPREAD**2, (first * second).mean(0) / scale, 0).clamp(-1, 1)


def _distance(first: Tensor, second: Tensor, shared: Tensor, correlation: Tensor) -> Tensor:
    """From a gap to its end: ``first`` and ``second`` lie so far from their own; ``shared`` is a square."""
    apart = first.square() + second.square()
    square = torch.where(
        correlation > 0,
        (1 - correlation) * apart + correlation * shared,
        apart - 2 * correlation * first * second,
    )
    return square.sqrt()
