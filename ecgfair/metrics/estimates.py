"""Every statistic of every label in every group of an attribute, on the records and on resamples of their patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from ecgfair.groups import Grouping
from ecgfair.metrics.kernels.auroc import RankedScores
from ecgfair.metrics.kernels.calibration import brier_scores, calibration_errors
from ecgfair.metrics.kernels.operating_points import rates
from ecgfair.metrics.kernels.stratified import stratified_of_each
from ecgfair.metrics.kernels.weighted import group_sums, patients_with
from ecgfair.metrics.predictions import Predictions
from ecgfair.metrics.statistics import (
    AUROC,
    AVERAGE_PRECISION,
    BRIER,
    ECE,
    ECE_DEBIASED,
    FNR,
    FPR,
    PPV,
    RATES,
    STRATIFIED_AUROC,
    TPR,
)


@dataclass(frozen=True, eq=False)
class Cells:
    """One statistic of an attribute: a value for each of G groups and C labels.

    Args:
        statistic: Its name.
        values: (1 + R, G, C) float64: on the records, then on R resamples; NaN where undefined.
        reasons: G times C, why a cell is undefined; empty where it is not.
    """

    statistic: str
    values: Tensor
    reasons: tuple[tuple[str, ...], ...]

    @property
    def defined(self) -> Tensor:
        """(G, C) bool."""
        return ~self.values[0].isnan()

    def shared_with(self, other: Cells, name: str) -> Cells:
        """Leave out what another model has not; see ``Estimates.shared_with``."""
        reasons = tuple(
            tuple(
                mine or (f"in the {name} model: {theirs}" if theirs else "") for mine, theirs in zip(*rows, strict=True)
            )
            for rows in zip(self.reasons, other.reasons, strict=True)
        )
        return Cells(self.statistic, self.values.masked_fill(~other.defined, torch.nan), reasons)


@dataclass(frozen=True, eq=False)
class Estimates:
    """All statistics of one attribute.

    Args:
        grouping: The attribute, its groups, and the group of each record.
        records: G, records a group.
        positives: (G, C) int64 positive records.
        negatives: (G, C) int64 negative records.
        patients: (G, C) float64 numbers of patients with ``any`` record, a ``positive`` one, a ``negative`` one, and
            one that is ``predicted`` positive; empty where patients are not resampled.
        cells: The statistics by name.
    """

    grouping: Grouping
    records: tuple[int, ...]
    positives: Tensor
    negatives: Tensor
    patients: dict[str, Tensor]
    cells: dict[str, Cells]

    def support(self, statistic: str) -> Tensor:
        """(G, C) patients that an interval of a statistic rests on, see ``intervals.Support``."""
        if not self.patients:
            return torch.zeros_like(self.positives).double()
        if statistic in (TPR, FNR):
            return self.patients["positive"]
        if statistic == FPR:
            return self.patients["negative"]
        if statistic == PPV:
            return self.patients["predicted"]
        if statistic == BRIER:
            return self.patients["any"]
        return torch.minimum(self.patients["positive"], self.patients["negative"])

    def shared_with(self, other: Estimates, name: str) -> Estimates:
        """Leave out the cells that are undefined in another model's estimates of the same records.

        Args:
            other: These estimates, of the same statistics.
            name: The other model's, for the reasons.
        """
        return replace(
            self, cells={key: cells.shared_with(other.cells[key], name) for key, cells in self.cells.items()}
        )


LACKING: Final = "needed"
"""How the reason ends where the support of a label is too small."""


def rank(
    predictions: Predictions, groupings: Sequence[Grouping], weights: Tensor, statistics: Sequence[str]
) -> list[dict[str, Tensor]]:
    """Measure what the order of the scores says in the groups of each attribute, all at once, for ``estimate``.

    Returns:
        For each attribute (1 + R, G, C) of AUROC, average precision and stratified AUROC, as far as they are asked for
        and can be had.

    Raises:
        ValueError: Targets or codes are not what they should be; see ``auroc``.
    """
    groups = [(grouping.codes, len(grouping.names)) for grouping in groupings]
    scores = predictions.probabilities.nan_to_num(0.0)
    found: list[dict[str, Tensor]] = [{} for _ in groupings]
    if {AUROC, AVERAGE_PRECISION} & set(statistics):
        ranked = RankedScores.of_each(scores, predictions.targets, groups)
        for of_attribute in found:
            ranking = ranked.pop(0).measure(weights)  # each is large, and done with
            of_attribute |= {AUROC: ranking.auroc, AVERAGE_PRECISION: ranking.average_precision}
    if STRATIFIED_AUROC in statistics and predictions.strata is not None:
        tables = stratified_of_each(scores, predictions.targets, groups, predictions.strata, weights)
        for of_attribute, table in zip(found, tables, strict=True):
            of_attribute[STRATIFIED_AUROC] = table.auroc
    return found


def estimate(
    predictions: Predictions,
    grouping: Grouping,
    weights: Tensor,
    statistics: Sequence[str],
    min_support: int,
    bins: int,
    ranked: Mapping[str, Tensor] | None = None,
) -> Estimates:
    """Measure the groups of one attribute.

    A cell is defined only with ``min_support`` positive and as many negative records, whatever the statistic, so that
    statistics can be read side by side.

    Args:
        predictions: What is measured.
        grouping: The attribute.
        weights: (1 + R, N), see ``resampling.patient_weights``.
        statistics: Which statistics.
        min_support: Positives and negatives that a label needs in a group.
        bins: Of the calibration errors.
        ranked: What ``rank`` found for this attribute, if it was asked for all attributes at once, which is faster.

    Raises:
        ValueError: Probabilities, targets or weights are not what they should be; see ``auroc``.
    """
    groups = len(grouping.names)
    positive = predictions.targets.double()
    ones = torch.ones(1, len(positive), dtype=torch.float64, device=positive.device)
    positives = group_sums(positive, grouping.codes, groups, ones)[0].long()
    negatives = group_sums(1 - positive, grouping.codes, groups, ones)[0].long()
    records = tuple(grouping.counts().values())

    faults = [
        f"the probability is NaN for {count} of {len(positive)} records" if count else ""
        for count in predictions.failures
    ]
    reasons = [
        [
            fault or (support_reason(int(more), int(less), min_support) if members else "no records")
            for fault, more, less in zip(faults, *counts_of_group, strict=True)
        ]
        for members, *counts_of_group in zip(records, positives.tolist(), negatives.tolist(), strict=True)
    ]
    if ranked is None:
        (ranked,) = rank(predictions, [grouping], weights, statistics)
    values = _values(predictions, grouping, weights, statistics, bins) | dict(ranked)
    return Estimates(
        grouping,
        records,
        positives,
        negatives,
        _patients(predictions, grouping) if len(weights) > 1 else {},
        {name: _cells(name, values[name], reasons, predictions) for name in statistics},
    )


def support_reason(positives: int, negatives: int, needed: int) -> str:
    """Say what is missing of a label's support, or nothing."""
    few = [
        f"{count} {kind}" + "s" * (count != 1)
        for count, kind in ((positives, "positive"), (negatives, "negative"))
        if count < needed
    ]
    return f"{' and '.join(few)}, {needed}{' of each' * (len(few) > 1)} {LACKING}" if few else ""


def _values(
    predictions: Predictions,
    grouping: Grouping,
    weights: Tensor,
    statistics: Sequence[str],
    bins: int,
) -> dict[str, Tensor]:
    """(1 + R, G, C) of each statistic, undefined for those that ``rank`` measures."""
    scores, targets = predictions.probabilities.nan_to_num(0.0), predictions.targets
    groups = grouping.codes, len(grouping.names)
    shape = (len(weights), len(grouping.names), scores.shape[1])
    nothing = torch.full((1, 1, 1), torch.nan, dtype=torch.float64, device=scores.device).expand(shape)
    found = dict.fromkeys(statistics, nothing)  # without strata or thresholds it stays at that
    if BRIER in statistics:
        found[BRIER] = brier_scores(scores, targets, *groups, weights)
    if {ECE, ECE_DEBIASED} & set(statistics):
        found[ECE], found[ECE_DEBIASED] = calibration_errors(scores, targets, *groups, weights, bins)
    if set(RATES) & set(statistics) and predictions.thresholds is not None:
        found |= rates(scores, targets, predictions.thresholds, *groups, weights)
    return {name: found[name] for name in statistics}


def _cells(name: str, values: Tensor, reasons: Sequence[Sequence[str]], predictions: Predictions) -> Cells:
    """Blank what has a reason, and say why of what is undefined besides."""
    thresholds = predictions.thresholds
    missing = [False] * values.shape[2] if thresholds is None else thresholds.isnan().tolist()
    told = [
        [reason or (_undefined(name, predictions, lacks) if undefined else "") for reason, undefined, lacks in cells]
        for cells in (
            zip(of_group, undefined, missing, strict=True)
            for of_group, undefined in zip(reasons, values[0].isnan().tolist(), strict=True)
        )
    ]
    blank = torch.tensor([[bool(reason) for reason in row] for row in told], device=values.device)
    shape = values.shape[1:]  # an empty list has lost its columns
    return Cells(name, values.masked_fill(blank.reshape(shape), torch.nan), tuple(map(tuple, told)))


def _undefined(statistic: str, predictions: Predictions, lacks_threshold: bool) -> str:
    if statistic in RATES and predictions.thresholds is None:
        return "no thresholds, which validation records choose"
    if statistic in RATES and lacks_threshold:
        return "no threshold: its validation records lacked a class"
    if statistic == PPV:
        return "no record is predicted positive"
    if statistic == STRATIFIED_AUROC:
        return "no strata to compare within" if predictions.strata is None else "no stratum has both classes"
    return "undefined"


def _patients(predictions: Predictions, grouping: Grouping) -> dict[str, Tensor]:
    """Count the patients of each group and label who have a record of a kind."""
    positive = predictions.targets == 1
    kinds = {"any": torch.ones_like(positive), "positive": positive, "negative": ~positive}
    thresholds = predictions.thresholds
    no_threshold = torch.zeros_like(positive)
    kinds["predicted"] = no_threshold if thresholds is None else predictions.probabilities >= thresholds
    flags, units = torch.cat(list(kinds.values()), 1), predictions.units
    counts = torch.stack(
        [patients_with(flags, units, (grouping.codes == group).nonzero()[:, 0]) for group in range(len(grouping.names))]
    )
    return dict(zip(kinds, counts.chunk(len(kinds), 1), strict=True))
