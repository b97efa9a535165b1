"""What an evaluation of anomaly scores found, as rows: the same rows become a tidy table and a printed one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import pandas as pd
from torch import nan

from ecgfair.metrics.fairness_report import ALL, OVERALL, VALUE

ABNORMAL: Final = "abnormal"
"""The label of the rows about all abnormal records together."""
DIAGNOSIS: Final = "diagnosis"
"""The attribute of the rows about the positives of one label against the normal records."""

F1: Final = "f1"
BEST_F1: Final = "best_f1"
SENSITIVITY: Final = "sensitivity_at_specificity"
AGE_ALONE: Final = "age_alone_auroc"
AGE_ALONE_STRATIFIED: Final = "age_alone_stratified_auroc"


class AnomalyRow(NamedTuple):
    """One value with all that it rests on.

    Args:
        attribute: ``"overall"``, ``"diagnosis"``, or what the groups are of: ``"sex"``, ``"sex_x_age"``.
        group: ``"all"`` for all records and diagnoses, else the group; of ``spread`` and ``worst`` the worst one.
        label: ``"abnormal"``; of a diagnosis its name, or ``macro``, ``head``, ``medium``, ``tail`` for a mean.
        statistic: One of ``metrics.statistics``: ``auroc``, ``stratified_auroc`` (pairs within age strata alone),
            ``average_precision``; ``tpr``, ``fpr``, ``fnr`` and ``ppv`` at the threshold carried over that was chosen
            for specificity. ``f1`` at the threshold carried over that was chosen for F1. ``best_f1`` at the best
            threshold of these very records. ``sensitivity_at_specificity``, its threshold from the normals of these
            records. ``age_alone_auroc`` and ``age_alone_stratified_auroc``: age as the score.
        aggregate: ``value``, ``gap``, ``spread``, ``worst`` or ``common_rare_gap``; see ``metrics.fairness``.
        value: NaN where undefined.
        low: Lower end of the 95 % interval over patients; NaN where there is none.
        high: Upper end.
        normals: Normal records; ``None`` for a mean over labels.
        abnormals: Likewise the abnormal ones, of a diagnosis those that have it.
        labels: How many labels the value is a mean over.
        reference: The group compared with, for differences.
        reason: Why the value is undefined, or what is to be known of it.
    """

    attribute: str
    group: str
    label: str
    statistic: str
    aggregate: str
    value: float
    low: float = nan
    high: float = nan
    normals: int | None = None
    abnormals: int | None = None
    labels: int = 1
    reference: str = ""
    reason: str = ""


COLUMNS: Final = AnomalyRow._fields
"""Columns of a report's table, in order."""

_DTYPES: Final = {
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "normals": "Int64",  # the one with missing values: a mean over labels has no single support
    "abnormals": "Int64",
    "labels": "int64",
}


@dataclass(frozen=True)
class AnomalyReport:
    """The result of ``evaluation.evaluate_anomaly``.

    Args:
        rows: All records first, then diagnoses, then one attribute after the other.
        normals: Normal records.
        abnormals: Abnormal records.
        patients: Patients of both; a record of an unknown patient counts as one.
        level: The specificity of ``sensitivity_at_specificity``.
        chosen_on: The records that chose the thresholds carried over, in words; empty if there are none.
        notes: What else is to be known, in sentences.
    """

    rows: tuple[AnomalyRow, ...]
    normals: int
    abnormals: int
    patients: int
    level: float
    chosen_on: str = ""
    notes: tuple[str, ...] = ()

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes whose groups are compared, in order."""
        return tuple(dict.fromkeys(row.attribute for row in self.rows if row.attribute not in (OVERALL, DIAGNOSIS)))

    def select(
        self,
        attribute: str,
        statistic: str,
        aggregate: str = VALUE,
        *,
        label: str | None = None,
        group: str | None = None,
    ) -> Iterator[AnomalyRow]:
        """Yield the rows of a statistic; ``None`` takes every label, or every group."""
        for row in self.rows:
            fits = row.attribute == attribute and row.statistic == statistic and row.aggregate == aggregate
            if fits and label in (None, row.label) and group in (None, row.group):
                yield row

    def overall(self, statistic: str) -> AnomalyRow:
        """Return the row of a statistic of all records, such as ``overall("auroc").value``.

        Raises:
            KeyError: There is no such statistic of all records.
        """
        for row in self.select(OVERALL, statistic, group=ALL):
            return row
        known = dict.fromkeys(row.statistic for row in self.rows if row.attribute == OVERALL)
        raise KeyError(f"There is no statistic {statistic!r} of all records: expected one of {', '.join(known)}.")

    def frame(self) -> pd.DataFrame:
        """Return the tidy table, one line a row, with the columns ``COLUMNS``."""
        return pd.DataFrame(self.rows, columns=list(COLUMNS)).astype(_DTYPES)
