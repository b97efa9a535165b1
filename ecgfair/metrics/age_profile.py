"""How well labels are found along age, in windows that slide from young to old, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pandas as pd
import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.blocks import Resampled, means_over
from ecgfair.metrics.chance.intervals import Support, confidence_interval
from ecgfair.metrics.chance.permutation import compared_groups
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.estimates import support_reason
from ecgfair.metrics.fairness_report import MACRO
from ecgfair.metrics.kernels.age_window import age_windows, auroc_by_age
from ecgfair.metrics.kernels.weighted import patients_with
from ecgfair.metrics.predictions import Predictions

COLUMNS: Final = ("from_age", "to_age", "label", "value", "low", "high", "positives", "negatives", "labels", "reason")
"""One line a window and label: AUROC of the records from an age (included) to another (not included), in years."""


@dataclass(frozen=True)
class AgeWindows:
    """The windows.

    Args:
        low: Where the first one begins, years.
        high: What none goes beyond.
        width: Of each, years.
        step: From one to the next, years.

    Raises:
        ConfigurationError: There is no such window.
    """

    low: float = 20.0
    high: float = 95.0
    width: float = 20.0
    step: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what could only fail once the records are there."""
        age_windows(self.low, self.high, self.width, self.step)


def age_profile(
    predictions: Predictions,
    age: Tensor,
    windows: AgeWindows | None = None,
    *,
    min_support: int = 5,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure AUROC in windows of age, of each label and of their mean.

    The line of ``macro`` is the mean over the labels that have the support in every window it is given for: means over
    labels that change from window to window can't be compared. Which windows and labels these are follows from
    supports alone, see ``permutation.compared_groups``.

    Args:
        predictions: What is measured; its groupings are not looked at.
        age: (N,) years, NaN where missing.
        windows: ``None`` for 20 years wide ones every 5 years from 20 to 95.
        min_support: Positives and negatives a label needs in a window.
        resamples: Of the patients; 0 for no intervals.
        seed: Of the resamples.

    Returns:
        The columns ``COLUMNS``.

    Raises:
        ConfigurationError: A window or the support is impossible.
        ValueError: See ``auroc_by_age``.
    """
    if min_support < 1:
        raise ConfigurationError(f"min_support is {min_support}: expected at least 1 positive and 1 negative.")
    windows = windows or AgeWindows()
    centres = age_windows(windows.low, windows.high, windows.width, windows.step)
    failed = predictions.probabilities.isnan().any(0)
    scores = predictions.probabilities.nan_to_num(0.0)
    weights = patient_weights(predictions.units, resamples, seed)
    found = auroc_by_age(scores, predictions.targets, age, centres, windows.width, weights)
    enough = (torch.minimum(found.positives, found.negatives) >= min_support) & ~failed
    values = found.auroc.masked_fill(~enough, torch.nan)
    patients = _patients(predictions, age, centres, windows.width)

    ends = [(centre - windows.width / 2, centre + windows.width / 2) for centre in centres.tolist()]
    each = _with_intervals(Resampled(values.flatten(1), Support(patients.flatten())))
    reasons = [
        "the probability is NaN for some record" if bad else support_reason(int(more), int(less), min_support)
        for of_window in zip(found.positives.tolist(), found.negatives.tolist(), strict=True)
        for more, less, bad in zip(*of_window, failed.tolist(), strict=True)
    ]
    heads = [(*end, label) for end in ends for label in predictions.label_names]
    supports = found.positives.flatten().tolist(), found.negatives.flatten().tolist()
    lines = [
        (*head, *value, positives, negatives, int(not reason), reason)
        for head, value, positives, negatives, reason in zip(heads, each, *supports, reasons, strict=True)
    ]
    compared, shared = compared_groups(enough)
    among = compared[:, None] & shared
    means = _with_intervals(means_over(values, patients, among))
    for end, mean, is_compared in zip(ends, means, compared.tolist(), strict=True):
        reason = "" if is_compared else "too few labels have the support in this window"
        lines.append((*end, MACRO, *mean, None, None, int(shared.sum()) * is_compared, reason))
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype({"positives": "Int64", "negatives": "Int64"})


def _with_intervals(found: Resampled) -> list[tuple[float, float, float]]:
    """Value, lower and upper end of each."""
    values = found.values[0].tolist()  # noqa: PD011  # a tensor
    if len(found.values) == 1:
        return [(value, torch.nan, torch.nan) for value in values]
    low, high = confidence_interval(found.values, found.support, bounded=True)
    return list(zip(values, low.tolist(), high.tolist(), strict=True))


def _patients(predictions: Predictions, age: Tensor, centres: Tensor, width: float) -> Tensor:
    """(K, C) the lesser number of patients with a positive and with a negative record in a window."""
    flags = torch.cat([predictions.targets == 1, predictions.targets == 0], 1)
    counts = []
    for centre in centres.tolist():
        members = ((age >= centre - width / 2) & (age < centre + width / 2)).nonzero()[:, 0]
        positives, negatives = patients_with(flags, predictions.units, members).chunk(2)
        counts.append(torch.minimum(positives, negatives))
    return torch.stack(counts)
