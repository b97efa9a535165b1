"""Two models on the same records: what the second gains, with an interval that knows the records are the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

import pandas as pd
import torch
from scipy.special import stdtrit
from torch import Tensor

from ecgfair.metrics.blocks import Block, Resampled
from ecgfair.metrics.chance.intervals import CONFIDENCE, gap_interval
from ecgfair.metrics.estimates import Estimates
from ecgfair.metrics.fairness import FairnessConfig, blocks_of, estimates_of
from ecgfair.metrics.fairness_report import COMMON_RARE_GAP, Row
from ecgfair.metrics.predictions import Predictions
from ecgfair.metrics.seeds import check_same_records

GAP_REDUCTION: Final = "gap_reduction"

COLUMNS: Final = (
    "attribute",
    "group",
    "label",
    "statistic",
    "aggregate",
    "first",
    "second",
    "value",
    "low",
    "high",
    "positives",
    "negatives",
    "records",
    "labels",
    "reference",
    "reason",
)
"""Columns of a comparison: those of a report, with ``value`` the second model's minus the first's."""


def compare(first: Predictions, second: Predictions, config: FairnessConfig) -> pd.DataFrame:
    """Compare two models on the same records of the same patients.

    Both are measured on the same resamples of the patients, so what makes a resample easy or hard cancels. Where one
    model has no value (its probabilities are NaN, it lacks a threshold, it calls no record positive), both go without,
    so that means are over the same labels. Head, medium and tail are those of the first model's training records.

    The last row is the **gap reduction**, 1 - common-rare gap of the second / that of the first. It is undefined unless
    the first one's gap is above 0, and with resamples above 0 beyond chance: the ratio to a gap that may be 0 can be
    any number. Its interval is Fieller's (1954, doi:10.1111/j.2517-6161.1954.tb00159.x).

    Args:
        first: The model to compare with.
        second: The same records in the same order, and the same labels and groups.
        config: With ``resamples``; they are what makes the intervals.

    Returns:
        One line for each row of a report but extremes over groups, with the columns ``COLUMNS``; the gap reduction,
        if ``config.statistics`` has AUROC.

    Raises:
        ConfigurationError: Records, labels or groups of the two differ.
        ValueError: See ``fairness.evaluate``.
    """
    check_same_records(first, second)
    return compare_estimates(estimates_of(first, config), estimates_of(second, config), first, second, config)


def compare_estimates(
    first: Iterable[Estimates],
    second: Iterable[Estimates],
    first_model: Predictions,
    second_model: Predictions,
    config: FairnessConfig,
) -> pd.DataFrame:
    """Compare two models of which all is measured, or the means of two trainings over their seeds.

    Args:
        first: What ``fairness.estimates_of`` or ``seeds.mean_over_seeds`` found of the one to compare with.
        second: The same of the other, on the same records and resamples.
        first_model: Labels, groups and prevalences of the first; its probabilities are not read.
        second_model: Likewise of the second.
        config: What both were measured with.

    Returns:
        See ``compare``.
    """
    lines, reductions = [], []
    for one, other in _pairs(first, second, (first_model, second_model), config):
        if one.found.support is not None:
            lines += _differences(one, other)
        if one.rows and one.rows[0].aggregate == COMMON_RARE_GAP:
            reductions.append(_reduction(one, other))
    return pd.DataFrame([*lines, *reductions], columns=list(COLUMNS)).astype(
        {"positives": "Int64", "negatives": "Int64"}
    )


def _pairs(
    first: Iterable[Estimates],
    second: Iterable[Estimates],
    models: tuple[Predictions, Predictions],
    config: FairnessConfig,
) -> Iterator[tuple[Block, Block]]:
    """Yield the blocks of both models, over the cells that both have."""
    prevalence = next((model.label_prevalence for model in models if model.label_prevalence is not None), None)
    both = tuple(replace(model, label_prevalence=prevalence) for model in models)
    for one, other in zip(first, second, strict=True):
        shared = one.shared_with(other, "second"), other.shared_with(one, "first")
        pairs = zip(shared, both, strict=True)
        yield from zip(*(blocks_of(estimates, model, config) for estimates, model in pairs), strict=True)


def _differences(one: Block, other: Block) -> list[dict[str, object]]:
    """The lines of a pair of blocks."""
    low, high = _interval(one, other)
    differences = (other.reported[0] - one.reported[0]).tolist()
    columns = (one.rows, other.rows, one.reported[0].tolist(), other.reported[0].tolist(), differences, low, high)
    return [
        _line(row, first, second, value, below, above, row.reason or again.reason)
        for row, again, first, second, value, below, above in zip(*columns, strict=True)
    ]


def _interval(one: Block, other: Block) -> tuple[list[float], list[float]]:
    if not one.has_intervals:
        nothing = [torch.nan] * len(one.rows)
        return nothing, nothing
    low, high = _of_difference(one.found, other.found)
    if one.minus is not None and other.minus is not None:
        gain, reference = other.found.minus(one.found), other.minus.minus(one.minus)
        low, high = _of_gaps(gain, reference, (low, high), _of_difference(one.minus, other.minus))
    return low.tolist(), high.tolist()


def _of_difference(one: Resampled, other: Resampled) -> tuple[Tensor, Tensor]:
    """The interval of the second model's value minus the first's."""
    return gap_interval(other.values, one.values, other.support, one.support)


def _of_gaps(
    gain: Tensor, reference: Tensor, here: tuple[Tensor, Tensor], there: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The interval of how much a gap changes: of what changes in the group minus what changes in its reference.

    It is put together from the intervals of both, as ``intervals.gap_interval`` does (Zou and Donner 2008), with their
    correlation in the resamples: the labels of head and tail belong to the same patients.

    Args:
        gain: (1 + R, n) how much more the second model has in the group.
        reference: (1 + R, n) and in the reference.
        here: Interval of ``gain``.
        there: Interval of ``reference``.
    """
    deviations = [change[1:] - change[1:].mean(0) for change in (gain, reference)]
    scale = deviations[0].square().sum(0).sqrt() * deviations[1].square().sum(0).sqrt()
    correlation = torch.where(scale > 0, (deviations[0] * deviations[1]).sum(0) / scale, 0).clamp(-1, 1)
    first, second = gain[0], reference[0]
    down = _length(first - here[0], there[1] - second, correlation)
    up = _length(here[1] - first, second - there[0], correlation)
    return (first - second - down).clamp(min=-2), (first - second + up).clamp(max=2)


def _length(one: Tensor, other: Tensor, correlation: Tensor) -> Tensor:
    """Of the difference of two deviations with a correlation; rounding may make its square negative."""
    return (one.square() + other.square() - 2 * correlation * one * other).clamp(min=0).sqrt()


def _line(
    row: Row, first: float, second: float, value: float, low: float, high: float, reason: str
) -> dict[str, object]:
    found = {"first": first, "second": second, "value": value, "low": low, "high": high, "reason": reason}
    return {name: {**row._asdict(), **found}[name] for name in COLUMNS}


def _reduction(one: Block, other: Block) -> dict[str, object]:
    """1 - gap / gap of the first."""
    row = one.rows[0]._replace(aggregate=GAP_REDUCTION)
    first, second = float(one.reported[0, 0]), float(other.reported[0, 0])
    low, high = (torch.nan, torch.nan)
    is_sure = first > 0
    if one.has_intervals and is_sure:
        low, high = _fieller(one, other)
        is_sure = low == low
    if not is_sure:
        why = row.reason or f"the gap of the first, {first:.3f}, is not above 0 beyond chance"
        return _line(row, first, second, torch.nan, torch.nan, torch.nan, why)
    return _line(row, first, second, 1 - second / first, low, high, row.reason)


def _fieller(one: Block, other: Block) -> tuple[float, float]:
    """The interval of 1 - second / first: all ratios at which second - ratio * first is not off 0 beyond chance.

    NaN where this holds of endlessly large ratios, which is where the first is not off 0 beyond chance.
    """
    before, after = one.reported[:, 0], other.reported[:, 0]
    square, inflation = _student(one)
    (of_first, common), (_, of_second) = (torch.cov(torch.stack([before[1:], after[1:]])) * inflation).tolist()
    first, second = float(before[0]), float(after[0])
    a, b, c = first**2 - square * of_first, first * second - square * common, second**2 - square * of_second
    if a <= 0:
        return torch.nan, torch.nan
    half = max(b**2 - a * c, 0.0) ** 0.5
    return 1 - (b + half) / a, 1 - (b - half) / a


def _student(block: Block) -> tuple[float, float]:
    """Square of Student's quantile, and what makes a variance unbiased, for the less supported side of a difference."""
    sides = [side.support for side in (block.found, block.minus) if side is not None and side.support is not None]
    scarcest = min(sides, key=lambda side: float(side.patients[0]))
    patients, labels = float(scarcest.patients[0]), float(torch.as_tensor(scarcest.labels).reshape(-1)[0])
    freedom = max((patients - 1) * labels, 1.0)
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) ** 2, (patients + 1) / max(patients - 1, 1.0)
