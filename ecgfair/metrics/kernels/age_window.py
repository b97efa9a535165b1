"""AUROC along age, without bands: in a window that slides from young to old.

Bands of age hide what happens within them, and where they are cut is a choice. Neighbouring windows share records,
hence their values go together, and a wiggle narrower than a window means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels.auroc import RankedScores
from ecgfair.metrics.kernels.checks import check_groups, check_scores


@dataclass(frozen=True, eq=False)
class AurocByAge:
    """AUROC of each label in each window of age.

    Args:
        auroc: (R, K, C) float64 in [0, 1]; NaN where a class has no weight in the window.
        positives: (K, C) int64, positive records in the window.
        negatives: (K, C) int64, negative records in the window.
    """

    auroc: Tensor
    positives: Tensor
    negatives: Tensor


def age_windows(low: float, high: float, width: float = 20.0, step: float = 5.0) -> Tensor:
    """Return the (K,) float64 centres, in years, of all windows within an interval of age.

    Args:
        low: Where the first window begins, years.
        high: What no window goes beyond, years.
        width: Of a window, years.
        step: From one centre to the next, years.

    Raises:
        ConfigurationError: There is no window, as the interval is narrower than one, or a value is impossible.
    """
    values = {"low": low, "high": high, "width": width, "step": step}
    for name, value in values.items():
        if not (0 <= value < float("inf")) or (value == 0 and name != "low"):
            raise ConfigurationError(f"{name} of the age windows is {value}: expected years, above 0.")
    if high - low < width:
        raise ConfigurationError(
            f"The age windows are {width:g} years wide and go from {low:g} to {high:g}: none fits. Choose a narrower "
            "width or a wider interval."
        )
    count = int((high - low - width) / step + 1e-9) + 1  # a step of 0.1 must not lose the last window to rounding
    return low + width / 2 + step * torch.arange(count, dtype=torch.float64)


def auroc_by_age(
    scores: Tensor, targets: Tensor, age: Tensor, centres: Tensor, width: float, weights: Tensor
) -> AurocByAge:
    """Compute the AUROC of each label among the records of each window of age.

    A window begins half a width before its centre (included) and ends half a width after it (not included), so that
    whole years in windows of whole years are counted once a window.

    Args:
        scores: (N, C), any real numbers, higher meaning positive; only their order counts.
        targets: (N, C), 0 or 1, of any type.
        age: (N,) years; NaN where missing, which is in no window.
        centres: (K,) years, such as of ``age_windows``.
        width: Of a window, years.
        weights: (R, N), not negative.

    Raises:
        ConfigurationError: The width is not above 0.
        ValueError: Shapes do not fit, a score is NaN, a target is neither 0 nor 1, an age is negative or infinite, a
            weight is negative or infinite.
    """
    if not 0 < width < float("inf"):
        raise ConfigurationError(f"width of the age windows is {width}: expected years, above 0.")
    if centres.ndim != 1 or not len(centres) or not bool(centres.isfinite().all()):
        raise ValueError(f"centres of the age windows are {centres.tolist()}: expected one or more ages in years.")
    check_scores(scores, targets)
    in_one = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    check_groups(len(scores), in_one, 1, weights)
    _check_age(age, len(scores))

    years = age.double()
    areas, positives, negatives = [], [], []
    for centre in centres.tolist():
        (members,) = ((years >= centre - width / 2) & (years < centre + width / 2)).nonzero(as_tuple=True)
        truth = targets[members] == 1
        ranked = RankedScores.of(scores[members], truth, in_one[members], 1)
        areas.append(ranked.auroc(weights[:, members])[:, 0])
        positives.append(truth.sum(0))
        negatives.append((~truth).sum(0))
    return AurocByAge(torch.stack(areas, 1), torch.stack(positives), torch.stack(negatives))


def _check_age(age: Tensor, records: int) -> None:
    """Refuse ages that are not years of each record."""
    if age.shape != (records,):
        raise ValueError(f"age has the shape {tuple(age.shape)}: expected ({records},), one a record.")
    if count := int(((age < 0) | age.isinf()).sum()):
        raise ValueError(
            f"age is negative or infinite for {count} of {records} records: expected years from 0, NaN where missing."
        )
