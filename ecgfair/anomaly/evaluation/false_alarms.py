"""How many normal records of each group are called strange, and what calibration by group changes about that."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

from ecgfair.anomaly.calibration import NormalCalibration
from ecgfair.errors import ConfigurationError
from ecgfair.groups import UNKNOWN, Grouping
from ecgfair.metrics.chance.intervals import confidence_interval, gap_interval
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.fairness_report import ALL, OVERALL
from ecgfair.metrics.kernels.checks import refuse
from ecgfair.metrics.kernels.operating_points import rates
from ecgfair.metrics.kernels.weighted import patients_with

LEVEL: Final = 0.95
"""The percentile of normal from which a record is called strange."""


class FalsePositiveRate(NamedTuple):
    """Of the normals of a group, the share that is called strange."""

    attribute: str
    """``overall`` for the row about all records."""
    group: str
    level: float
    normals: int
    patients: int
    false_positives: int
    rate: float
    """NaN without a normal."""
    low: float
    """Lower end of the 95 % interval by patients; NaN without resamples."""
    high: float
    reason: str
    """Why the rate is NaN; empty if it is not."""


class CalibrationEffect(NamedTuple):
    """False positives of a group: calibrated on all normals (before), then on those of its own group (after)."""

    attribute: str
    """``overall`` for the row about all records."""
    group: str
    level: float
    normals: int
    patients: int
    calibrating_normals: int
    """Of the group, among the normals that the calibration was made on."""
    own: bool
    """Whether the group has percentiles of its own; else before and after are the same."""
    before: float
    before_low: float
    before_high: float
    after: float
    after_low: float
    after_high: float
    change: float
    """After minus before."""
    change_low: float
    change_high: float
    reason: str
    """Why there is no rate, or no calibration of the group's own; empty if both are there."""


def false_positive_rates(
    percentile: Tensor,
    groups: Grouping,
    level: float = LEVEL,
    *,
    patients: Tensor | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[FalsePositiveRate]:
    """Measure how many normals are called strange, those with a percentile of at least ``level``.

    The intervals say how sure the rates are, of people like these, with the calibration as it is. That it was made on
    few normals itself is not in them.

    Args:
        percentile: (N,) of normal records alone, other ones than those that were calibrated on.
        groups: Of the same N records.
        level: Above 0 and below 1.
        patients: (N,) int64, the same for the records of one patient, -1 where unknown; ``None`` if unknown
            throughout: each record is then a patient.
        resamples: Of the patients; 0 for no intervals.
        seed: Of the resamples.

    Returns:
        A row for all records, then one a group.

    Raises:
        ConfigurationError: The level is none.
        ValueError: A percentile is NaN or outside [0, 1], or shapes do not fit.
    """
    found = _Alarms.of(percentile, groups, level, patients, resamples, seed)
    rows = []
    for position, (attribute, group) in enumerate(found.groups):
        low, high = found.interval(position)
        counts = found.normals[position], found.patients[position], found.counts[position]
        reason = "" if found.normals[position] else "no normal record"
        rows.append(
            FalsePositiveRate(attribute, group, level, *counts, float(found.values[0, position]), low, high, reason)
        )
    return rows


def compare_calibrations(
    calibration: NormalCalibration,
    scores: Tensor,
    groups: Grouping,
    level: float = LEVEL,
    *,
    patients: Tensor | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[CalibrationEffect]:
    """Measure what calibration by group changes about the false positives of each group.

    Before and after are measured on the same records and resamples, so the interval of the change knows it.

    Args:
        calibration: By the attribute of ``groups``.
        scores: (N,) of normal records alone, other ones than those that were calibrated on.
        groups: Of the same N records.
        level: See ``false_positive_rates``.
        patients: Likewise.
        resamples: Likewise.
        seed: Likewise.

    Returns:
        A row for all records, then one a group.

    Raises:
        ConfigurationError: The level is none, or the groups are not those of the calibration.
        ValueError: A score is NaN, or shapes do not fit.
    """
    percentiles = calibration.ungrouped().percentile(scores), calibration.percentile(scores, groups)
    before, after = (_Alarms.of(each, groups, level, patients, resamples, seed) for each in percentiles)
    known = calibration.normals
    rows = []
    for position, (attribute, group) in enumerate(before.groups):
        is_all = attribute == OVERALL
        calibrating = len(calibration.scores) if is_all else known.get(group, 0)
        own = is_all or (group in known and group not in calibration.fallback)
        few = (
            "unknown group"
            if group == UNKNOWN
            else f"{calibrating} calibrating normals, {calibration.min_normals} needed"
        )
        first, second = before.values[:, position], after.values[:, position]
        rows.append(
            CalibrationEffect(
                *(attribute, group, level, before.normals[position], before.patients[position], calibrating, own),
                *(float(first[0]), *before.interval(position)),
                *(float(second[0]), *after.interval(position)),
                *(float(second[0] - first[0]), *_change(second, first, before.patients[position])),
                "no normal record" if not before.normals[position] else "" if own else few,
            )
        )
    return rows


class _Alarms(NamedTuple):
    """Rates of false positives, and what they rest on: of all records first, then of each group."""

    groups: list[tuple[str, str]]
    """Attribute and name."""
    values: Tensor
    """(1 + R, 1 + G)."""
    normals: list[int]
    patients: list[int]
    counts: list[int]
    """False positives."""

    @classmethod
    def of(
        cls, percentile: Tensor, groups: Grouping, level: float, patients: Tensor | None, resamples: int, seed: int
    ) -> _Alarms:
        if not 0 < level < 1:
            raise ConfigurationError(f"level is {level}: expected a percentile above 0 and below 1, such as {LEVEL}.")
        refuse(
            (percentile.isnan(), "percentiles are NaN", "numbers; leave records without a score out, and count them")
        )
        records = torch.arange(len(percentile), device=percentile.device)
        units = records if patients is None else patients.to(percentile.device)
        weights = patient_weights(units, resamples if resamples > 1 else 0, seed)
        units = torch.where(units < 0, -1 - records, units)
        codes = groups.codes.to(percentile.device)
        levels = torch.tensor([level], dtype=torch.float64, device=percentile.device)
        normal = torch.zeros(len(percentile), 1, dtype=torch.bool, device=percentile.device)
        values = [
            rates(percentile[:, None], normal, levels, part, count, weights)["fpr"][:, :, 0]
            for part, count in ((torch.zeros_like(codes), 1), (codes, len(groups.names)))
        ]
        members = [records, *((codes == code).nonzero()[:, 0] for code in range(len(groups.names)))]
        return cls(
            [(OVERALL, ALL), *((groups.attribute, name) for name in groups.names)],
            torch.cat(values, 1),
            [len(each) for each in members],
            [int(patients_with(~normal, units, each)[0]) for each in members],
            [int((percentile[each].double() >= level).sum()) for each in members],
        )

    def interval(self, position: int) -> tuple[float, float]:
        if len(self.values) == 1:
            return math.nan, math.nan
        support = torch.tensor(self.patients[position], device=self.values.device)
        low, high = confidence_interval(self.values[:, position], support, bounded=True)
        return float(low), float(high)


def _change(after: Tensor, before: Tensor, patients: int) -> tuple[float, float]:
    """The interval of a difference between rates of the same records; NaN without resamples."""
    if len(after) == 1:
        return math.nan, math.nan
    support = torch.tensor(patients, device=after.device)
    low, high = gap_interval(after, before, support, support)
    return float(low), float(high)
