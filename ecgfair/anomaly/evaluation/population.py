"""The statistics of anomaly scores, as rows: of all records, of age alone, of diagnoses and of groups.

"Abnormal" is a label like others, and a score that only has an order can be squeezed into (0, 1). So what
``metrics.fairness`` knows of labels, groups and patients is used as it is; decisions and diagnoses are added.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from ecgfair.anomaly.evaluation.decisions import (
    Thresholds,
    as_probabilities,
    best_f1_threshold,
    f1_at,
    sensitivity_at_specificity,
)
from ecgfair.anomaly.evaluation.report import (
    ABNORMAL,
    AGE_ALONE,
    AGE_ALONE_STRATIFIED,
    BEST_F1,
    DIAGNOSIS,
    F1,
    SENSITIVITY,
    AnomalyRow,
)
from ecgfair.groups import age_strata, group_by_demographics
from ecgfair.metrics.blocks import Block, Resampled
from ecgfair.metrics.chance.intervals import Support
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.estimates import Cells, Estimates, support_reason
from ecgfair.metrics.fairness import FairnessConfig, estimates_of, evaluate
from ecgfair.metrics.fairness_report import ALL, GAP, MACRO, OVERALL, SPREAD, VALUE, WORST, Row
from ecgfair.metrics.kernels.operating_points import SPECIFICITY, OperatingPoints
from ecgfair.metrics.kernels.stratified import stratified_auroc
from ecgfair.metrics.kernels.weighted import patients_with
from ecgfair.metrics.overall import overall_blocks
from ecgfair.metrics.predictions import Predictions
from ecgfair.metrics.statistics import AUROC, AVERAGE_PRECISION, FPR, STRATIFIED_AUROC, TPR

STATISTICS: Final = (AUROC, STRATIFIED_AUROC, AVERAGE_PRECISION, TPR, FPR)
"""Those of ``metrics.statistics`` that all records and groups are given."""
_OF_DIAGNOSES: Final = (AUROC, STRATIFIED_AUROC, TPR)
_OF_AGE: Final = {AUROC: AGE_ALONE, STRATIFIED_AUROC: AGE_ALONE_STRATIFIED}


@dataclass(frozen=True, eq=False)
class Population:
    """Records that are normal or abnormal, their scores, and what is asked of them.

    Args:
        score: (N,) float64.
        abnormal: (N,) bool.
        units: (N,) int64, what is resampled.
        age: (N,) years.
        sex: (N,) codes.
        thresholds: Carried over.
        config: How labels and groups are measured.
        level: A specificity.
    """

    score: Tensor
    abnormal: Tensor
    units: Tensor
    age: Tensor
    sex: Tensor
    thresholds: Thresholds | None
    config: FairnessConfig
    level: float

    def check(self) -> None:
        """Refuse columns that are not one value a record."""
        for name, column in {"age": self.age, "sex": self.sex}.items():
            if column.shape != self.score.shape:
                raise ValueError(
                    f"{name} has the shape {tuple(column.shape)}: expected one value for each of {len(self.score)} "
                    "records."
                )

    @cached_property
    def strata(self) -> Tensor:
        """(N,) int64."""
        return age_strata(self.age)

    @cached_property
    def predictions(self) -> Predictions:
        """Abnormal as a label, without groups."""
        asked = () if self.thresholds is None else (self.thresholds.specificity,)
        squeezed, places = as_probabilities(self.score, asked)
        return self._as_label(squeezed, self.abnormal, ABNORMAL, places[0] if places else None)

    def overall_rows(self) -> Iterator[AnomalyRow]:
        """Yield the statistics of all records."""
        notes = {STRATIFIED_AUROC: self._left_out_of_strata()}
        for row in evaluate(self.predictions, self.config).rows:
            if row.label == ABNORMAL and row.aggregate == VALUE:
                note = "" if math.isnan(row.value) else notes.get(row.statistic, "")
                yield _row(row._replace(reason=row.reason or note))
        yield from self._decision_rows()

    def _decision_rows(self) -> Iterator[AnomalyRow]:
        """Yield F1 at two thresholds, and sensitivity at a specificity."""
        weights = patient_weights(self.units, self.config.resamples, self.config.seed)
        own = best_f1_threshold(self.score, self.abnormal)
        carried = math.nan if self.thresholds is None else self.thresholds.f1
        for name, threshold, reason in (
            (F1, carried, self._no_threshold(carried)),
            (BEST_F1, own, "the threshold was chosen on these very records: too good"),
        ):
            values = f1_at(self.score, self.abnormal, threshold, weights)
            yield self._decision(name, values, self.abnormal | (self.score >= threshold), reason)
        values = sensitivity_at_specificity(self.score, self.abnormal, self.level, weights)
        reason = f"at a specificity of {self.level:g} or more among these normal records"
        yield self._decision(SENSITIVITY, values, None, reason)

    def _decision(self, statistic: str, values: Tensor, rests_on: Tensor | None, reason: str) -> AnomalyRow:
        """Make a row of (1 + R,) values that rest on the patients with a record of ``rests_on``, ``None`` for AUROC's.

        F1 is a function of the share of right decisions among the records that are abnormal or called so: it rests on
        them. Sensitivity at a specificity rests on both classes, as AUROC does.
        """
        normals, abnormals = int((~self.abnormal).sum()), int(self.abnormal.sum())
        lacking = support_reason(abnormals, normals, 1)
        flags = [self.abnormal, ~self.abnormal] if rests_on is None else [rests_on]
        patients = patients_with(torch.stack(flags, 1), self.units, torch.arange(len(self.units))).min()
        row = Row(
            OVERALL,
            ALL,
            ABNORMAL,
            statistic,
            VALUE,
            math.nan,
            positives=abnormals,
            negatives=normals,
            labels=int(not lacking),
            reason=lacking or reason,
        )
        values = values.masked_fill(torch.tensor(bool(lacking)), torch.nan)[:, None]
        (finished,) = Block([row], Resampled(values, Support(patients[None]))).finished()
        return _row(finished)

    def age_rows(self) -> Iterator[AnomalyRow]:
        """Yield what age alone reaches, among the records whose age is known."""
        known = ~self.age.isnan()
        squeezed, _ = as_probabilities(self.age.double().nan_to_num(0.0), ())
        of_age = self._as_label(squeezed, self.abnormal, ABNORMAL, None, known)
        missing = int((~known).sum())
        note = f"without {missing} records of unknown age" if missing else ""
        for row in evaluate(of_age, replace(self.config, statistics=tuple(_OF_AGE))).rows:
            if row.label == ABNORMAL and row.aggregate == VALUE:
                reason = "; ".join(filter(None, (row.reason, note)))
                yield _row(row._replace(statistic=_OF_AGE[row.statistic], reason=reason))

    def diagnosis_rows(
        self, positive: Tensor, names: Sequence[str], prevalence: Sequence[float] | None
    ) -> Iterator[AnomalyRow]:
        """Yield each label's positives against the normal records, and means over labels.

        Args:
            positive: (N, C) bool.
            names: C names.
            prevalence: C shares.
        """
        if not names:
            return
        config = replace(self.config, statistics=_OF_DIAGNOSES)
        threshold = (
            None if self.predictions.operating_points is None else self.predictions.operating_points.thresholds[0]
        )
        squeezed, parts = self.predictions.probabilities[:, 0], []
        for column, name in enumerate(names):
            has_it = positive[:, column] & self.abnormal
            of_label = self._as_label(squeezed, has_it, name, threshold, has_it | ~self.abnormal)
            parts += list(estimates_of(of_label, config))
        joined = _joined(parts)
        for block in overall_blocks(joined, names, prevalence, config.long_tail, details=True):
            for row in block.finished():
                yield _row(row._replace(attribute=DIAGNOSIS))

    def group_rows(self, attributes: Sequence[str], age_edges: Sequence[int]) -> Iterator[AnomalyRow]:
        """Yield a group's abnormal records against its own normal ones, and how groups differ."""
        groupings = [group_by_demographics(name, self.age, self.sex, age_edges) for name in attributes]
        found = evaluate(replace(self.predictions, groupings=groupings), self.config)
        for row in found.rows:
            of_groups = row.label == ABNORMAL and row.aggregate in (VALUE, GAP)
            of_attribute = row.label == MACRO and row.aggregate in (SPREAD, WORST)
            if row.attribute != OVERALL and (of_groups or of_attribute):
                yield _row(row._replace(label=ABNORMAL))

    def _as_label(
        self, squeezed: Tensor, positive: Tensor, name: str, threshold: float | None, among: Tensor | None = None
    ) -> Predictions:
        """Describe one label of some records for ``evaluate``; the threshold is one of the squeezed scores."""
        some = slice(None) if among is None else among
        return Predictions(
            squeezed[some, None],
            positive[some, None].long(),
            (name,),
            patients=self.units[some],
            operating_points=None if threshold is None else self._points(name, threshold),
            strata=self.strata[some],
        )

    def _points(self, name: str, threshold: float) -> OperatingPoints:
        chosen_on = "" if self.thresholds is None else self.thresholds.chosen_on
        reason = "" if math.isfinite(threshold) else f"none was found on {chosen_on}"
        return OperatingPoints(SPECIFICITY, self.level, (name,), (threshold,), (reason,), chosen_on)

    def _no_threshold(self, threshold: float) -> str:
        if self.thresholds is None:
            return "no thresholds, which validation records choose"
        return "no threshold: its validation records lacked a class" if math.isnan(threshold) else ""

    def _left_out_of_strata(self) -> str:
        """Count the records that are compared with none within their stratum."""
        ones, codes = torch.ones(1, len(self.score)), torch.zeros(len(self.score), dtype=torch.int64)
        target = self.abnormal[:, None].long()
        table = stratified_auroc(self.score[:, None], target, codes, 1, self.strata, ones)
        abnormals, normals = int(table.positives_left_out.sum()), int(table.negatives_left_out.sum())
        if not abnormals + normals:
            return ""
        return f"{abnormals} abnormal and {normals} normal records are compared with none of their age"


def _joined(parts: Sequence[Estimates]) -> Estimates:
    """Put estimates of one label each, on records of its own, side by side."""
    first = parts[0]
    cells = {
        name: Cells(
            name,
            torch.cat([part.cells[name].values for part in parts], 2),
            (tuple(part.cells[name].reasons[0][0] for part in parts),),
        )
        for name in first.cells
    }
    return replace(
        first,
        positives=torch.cat([part.positives for part in parts], 1),
        negatives=torch.cat([part.negatives for part in parts], 1),
        patients={kind: torch.cat([part.patients[kind] for part in parts], 1) for kind in first.patients},
        cells=cells,
    )


def _row(row: Row) -> AnomalyRow:
    """Put a row of ``metrics`` into the words of normal and abnormal."""
    reason = row.reason
    if row.label == ABNORMAL:
        reason = re.sub(r"\bnegatives?\b", "normal", re.sub(r"\bpositives?\b", "abnormal", reason))
        reason = reason.replace("too few labels with support", "too few normal or abnormal records")
    return AnomalyRow(
        row.attribute,
        row.group,
        row.label,
        row.statistic,
        row.aggregate,
        row.value,
        row.low,
        row.high,
        row.negatives,
        row.positives,
        row.labels,
        row.reference,
        reason,
    )
