"""Anomaly scores turned into decisions: thresholds, and how many decisions are right.

A record is called abnormal where ``score >= threshold``. A threshold is always a score that was seen: nothing is
interpolated between two records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from ecgfair.metrics.kernels.checks import check_weights
from ecgfair.metrics.kernels.operating_points import SPECIFICITY, choose

LEVEL: Final = 0.9
"""The specificity at which sensitivity is reported."""

_CHUNK_ELEMENTS: Final = 2**21


class Thresholds(NamedTuple):
    """Thresholds to carry over to other records."""

    f1: float
    """The one with the best F1; NaN without both classes."""
    specificity: float
    """The lowest one with a specificity of at least the level; infinite where nothing may be called abnormal for it."""
    chosen_on: str
    """The records that chose them, in words: ``"fold 9"``."""


def choose_thresholds(score: Tensor, abnormal: Tensor, *, chosen_on: str, level: float = LEVEL) -> Thresholds:
    """Choose both thresholds, on records that nothing is reported of.

    Args:
        score: (N,) higher is stranger.
        abnormal: (N,) bool.
        chosen_on: The records in words.
        level: The specificity wanted, above 0 and below 1.

    Raises:
        ConfigurationError: The level is impossible.
        ValueError: See ``check_score``.
    """
    return Thresholds(best_f1_threshold(score, abnormal), specificity_threshold(score, abnormal, level), chosen_on)


def specificity_threshold(score: Tensor, abnormal: Tensor, level: float = LEVEL) -> float:
    """Return the lowest score with a specificity of at least ``level``, infinity if no score has it.

    Raises:
        ConfigurationError: The level is not above 0 and below 1.
        ValueError: See ``check_score``.
    """
    check_score(score, abnormal)
    values, position = torch.unique(score.detach().double(), return_inverse=True)
    order = (position.double() + 0.5)[:, None] / max(1, len(values))
    points = choose(order, abnormal[:, None], SPECIFICITY, level, label_names=("abnormal",), chosen_on="these records")
    (found,) = points.thresholds
    return values[int(found * len(values))].item() if math.isfinite(found) else found


def best_f1_threshold(score: Tensor, abnormal: Tensor) -> float:
    """Return the score with the best F1, the lowest of several equally good ones; NaN without both classes.

    On the records that chose it, F1 is better than it will be on others.

    Raises:
        ValueError: See ``check_score``.
    """
    check_score(score, abnormal)
    if not 0 < int(abnormal.sum()) < len(abnormal):
        return math.nan
    ranked, is_abnormal, last = _descending(score, abnormal)
    hits = is_abnormal.double().cumsum(0)
    called = torch.arange(1, 1 + len(ranked), device=ranked.device)
    # Equal fractions of whole numbers are rounded alike, so that equally good thresholds are found to be.
    f1 = (2 * hits / (hits[-1] + called)).masked_fill(~last, -1)
    return ranked[(f1 == f1.max()).nonzero()[-1, 0]].item()


def f1_at(score: Tensor, abnormal: Tensor, threshold: float, weights: Tensor) -> Tensor:
    """Compute F1 of the decisions at a threshold: twice the hits over the abnormal and those called abnormal.

    Args:
        score: (N,) higher is stranger.
        abnormal: (N,) bool.
        threshold: NaN gives NaN.
        weights: (R, N), not negative.

    Returns:
        (R,) float64 in [0, 1]; 0 if nothing abnormal is found, NaN without an abnormal record.

    Raises:
        ValueError: See ``check_score``; or weights do not fit.
    """
    check_score(score, abnormal)
    check_weights(len(score), weights)
    called = score.double() >= threshold
    flags = torch.stack([abnormal & called, abnormal, called], 1).double()
    hits, all_abnormal, all_called = (weights.double() @ flags).unbind(1)
    f1 = 2 * hits / (all_abnormal + all_called)
    return f1.masked_fill((all_abnormal == 0) | math.isnan(threshold), torch.nan).clamp(max=1)


def sensitivity_at_specificity(score: Tensor, abnormal: Tensor, level: float, weights: Tensor) -> Tensor:
    """Compute the largest sensitivity of a threshold with a specificity of at least ``level``.

    The threshold is chosen anew for each row of weights, as it would be on other normal records; so an interval over
    resamples holds what is not known of the threshold.

    Args:
        score: (N,) higher is stranger.
        abnormal: (N,) bool.
        level: The specificity.
        weights: (R, N), not negative.

    Returns:
        (R,) float64 in [0, 1]; 0 where nothing may be called abnormal, NaN where a class has no weight.

    Raises:
        ValueError: See ``check_score``; or weights do not fit.
    """
    check_score(score, abnormal)
    check_weights(len(score), weights)
    if not len(score):
        return weights.new_full((len(weights),), torch.nan, dtype=torch.float64)
    order = score.detach().double().argsort(descending=True, stable=True)
    _, is_abnormal, last = _descending(score, abnormal)
    found = []
    for rows in torch.split(weights, max(1, _CHUNK_ELEMENTS // len(score))):
        mass = rows.double()[:, order]
        hits = mass.where(is_abnormal, 0.0).cumsum(1)
        alarms = mass.where(~is_abnormal, 0.0).cumsum(1)
        specific = last & ((alarms[:, -1:] - alarms) / alarms[:, -1:] >= level)
        best = hits.where(specific, 0.0).amax(1) / hits[:, -1]
        found.append(best.masked_fill(alarms[:, -1] == 0, torch.nan))
    return torch.cat(found) if found else weights.new_zeros(0, dtype=torch.float64)


def as_probabilities(score: Tensor, thresholds: Sequence[float]) -> tuple[Tensor, tuple[float, ...]]:
    """Squeeze scores into (0, 1) in the same order, and thresholds with them, for statistics that want probabilities.

    Args:
        score: (N,) finite.
        thresholds: To be moved likewise; infinity and NaN stay what they are, minus infinity becomes 0.

    Returns:
        (N,) float64, ties where there were ties; and the thresholds, which the same records reach as before.
    """
    finite = torch.tensor([value for value in thresholds if math.isfinite(value)], dtype=torch.float64)
    known = torch.cat([score.detach().double(), finite.to(score.device)])
    values, position = torch.unique(known, return_inverse=True)
    squeezed = (position.double() + 0.5) / max(1, len(values))
    moved = iter(squeezed[len(score) :].tolist())
    places = tuple(next(moved) if math.isfinite(value) else max(value, 0.0) for value in thresholds)
    return squeezed[: len(score)], places


def check_score(score: Tensor, abnormal: Tensor) -> None:
    """Refuse anything but a number and a truth value for each record.

    Args:
        score: (N,).
        abnormal: (N,) bool.

    Raises:
        ValueError: Shapes or types do not fit, or a score is NaN or infinite; the message says how many.
    """
    if score.ndim != 1 or abnormal.shape != score.shape or abnormal.dtype != torch.bool:
        raise ValueError(
            f"score has the shape {tuple(score.shape)}, and abnormal is {abnormal.dtype} of the shape "
            f"{tuple(abnormal.shape)}: expected one number and one truth value a record."
        )
    missing, endless = int(score.isnan().sum()), int(score.isinf().sum())
    if missing or endless:
        found = " and ".join(
            f"{word} for {count}" for word, count in (("NaN", missing), ("infinite", endless)) if count
        )
        raise ValueError(
            f"The anomaly score is {found} of {len(score)} records: expected a number for each. Look for what the "
            "model fails on; dropping these records would report the others alone."
        )


def _descending(score: Tensor, abnormal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores from high to low, whether these are abnormal, and where a run of equal scores ends."""
    ranked, order = score.detach().double().sort(descending=True, stable=True)
    last = torch.ones_like(abnormal)
    last[:-1] = ranked[:-1] != ranked[1:]
    return ranked, abnormal[order], last
