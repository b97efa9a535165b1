"""What one evaluation found, as rows: the same rows become a tidy table, scalars to log, and a printed table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import pandas as pd
from torch import nan

from ecgfair.metrics.long_tail import BANDS
from ecgfair.metrics.statistics import AUROC, ECE_DEBIASED, FPR, TPR

OVERALL: Final = "overall"
"""The attribute of the rows about all records."""
ALL: Final = "all"
"""The one group of ``OVERALL``."""
MACRO: Final = "macro"
"""The label of the rows about the mean over labels."""
SUMMARIES: Final = (MACRO, *BANDS)
"""Values of ``Row.label`` that are no label, hence no name a label may have."""

VALUE: Final = "value"
GAP: Final = "gap"
SHARED: Final = "shared"
SPREAD: Final = "spread"
WORST: Final = "worst"
DIFFERENCE: Final = "difference"
RATIO: Final = "ratio"
GROUP_MIN: Final = "group_min"
GROUP_MAX: Final = "group_max"
COMMON_RARE_GAP: Final = "common_rare_gap"
BOUNDED: Final = "bounded"

LOGGED_GAPS: Final = {AUROC: "auroc_gap", TPR: "tpr_gap", FPR: "fpr_gap", ECE_DEBIASED: "ece_gap"}
"""Statistics whose ``spread`` is logged for every attribute, and as what."""
WORST_AUROC: Final = "worst_auroc"
BOUNDED_MACRO: Final = "bounded_macro"

_DTYPES: Final = {
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "positives": "Int64",  # the one with missing values: a mean over labels has no single support
    "negatives": "Int64",
    "records": "int64",
    "labels": "int64",
}


class Row(NamedTuple):
    """One value with all that it rests on.

    Args:
        attribute: ``"overall"``, or what the groups are of: ``"sex"``, ``"sex_x_age"``.
        group: ``"all"`` overall, else the group; empty where the value is of no single group. Of ``spread`` and
            ``worst`` the worst group; of ``difference`` and ``ratio`` the lowest.
        label: A label's name, or ``"macro"``, ``"head"``, ``"medium"``, ``"tail"`` for a mean over labels.
        statistic: One of ``statistics.STATISTICS``, ``equalized_odds`` or ``equal_opportunity``.
        aggregate: What of it. ``value`` in the group; ``gap``, its signed difference to the reference group, of a mean
            over the labels defined in both; ``shared``, the group's mean over these labels; ``spread`` and ``worst``
            as ``fairness.evaluate`` defines them; ``difference``, ``ratio``, ``group_min``, ``group_max`` over the
            known groups with support, as fairlearn's MetricFrame has them; ``common_rare_gap``; ``bounded``, see
            ``worst_group_bound``.
        value: NaN where undefined.
        low: Lower end of the 95 % interval; NaN where there is none, as for extremes over groups.
        high: Upper end.
        positives: Positive records; ``None`` for a mean over labels.
        negatives: Likewise.
        records: Records of the group.
        labels: How many labels the value is a mean over.
        reference: The group compared with, for differences.
        reason: Why the value is undefined, or what it leaves out.
    """

    attribute: str
    group: str
    label: str
    statistic: str
    aggregate: str
    value: float
    low: float = nan
    high: float = nan
    positives: int | None = None
    negatives: int | None = None
    records: int = 0
    labels: int = 0
    reference: str = ""
    reason: str = ""


COLUMNS: Final = Row._fields
"""Columns of a report's table, in order."""


@dataclass(frozen=True)
class FairnessReport:
    """The result of ``fairness.evaluate``.

    Args:
        rows: Overall first, then one attribute after the other, its groups in their configured order.
    """

    rows: tuple[Row, ...]

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes whose groups are compared, in order."""
        return tuple(dict.fromkeys(row.attribute for row in self.rows if row.attribute != OVERALL))

    def select(
        self,
        attribute: str,
        statistic: str,
        aggregate: str = VALUE,
        *,
        label: str | None = MACRO,
        group: str | None = None,
    ) -> Iterator[Row]:
        """Yield the rows of a statistic; ``None`` takes every label, or every group."""
        for row in self.rows:
            fits = row.attribute == attribute and row.statistic == statistic and row.aggregate == aggregate
            if fits and label in (None, row.label) and group in (None, row.group):
                yield row

    def scalars(self, stage: str) -> dict[str, float]:
        """Return what is logged; undefined is NaN.

        The keys depend on nothing but the stage, the attributes, and whether a bound on the worst group was set.

        Args:
            stage: First part of each key: ``"val"`` or ``"test"``.
        """
        values = {f"{stage}/{AUROC}/{summary}": self._value(OVERALL, AUROC, VALUE, summary) for summary in SUMMARIES}
        values[f"{stage}/{AUROC}/{COMMON_RARE_GAP}"] = self._value(OVERALL, AUROC, COMMON_RARE_GAP)
        for attribute in self.attributes:
            start = f"{stage}/fair/{attribute}"
            for statistic, name in LOGGED_GAPS.items():
                values[f"{start}/{name}"] = self._value(attribute, statistic, SPREAD)
            values[f"{start}/{WORST_AUROC}"] = self._value(attribute, AUROC, WORST)
        for row in self.select(OVERALL, AUROC, BOUNDED):
            values[f"{stage}/fair/{BOUNDED_MACRO}"] = row.value
        return values

    def _value(self, attribute: str, statistic: str, aggregate: str, label: str = MACRO) -> float:
        """The value of the one such row; NaN where the statistic was not asked for."""
        return next((row.value for row in self.select(attribute, statistic, aggregate, label=label)), nan)

    def frame(self) -> pd.DataFrame:
        """Return the tidy table, one line a row, with the columns ``COLUMNS``."""
        return pd.DataFrame(self.rows, columns=list(COLUMNS)).astype(_DTYPES)

    def excluded(self) -> pd.DataFrame:
        """Return every label, group and mean that is undefined, with its reason."""
        frame = self.frame()
        return frame[frame["value"].isna() & (frame["aggregate"] == VALUE)].drop(columns=["value", "low", "high"])

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> FairnessReport:
        """Read a report back from what ``frame`` gave; other columns are ignored."""
        values = {name: frame[name].tolist() for name in COLUMNS}
        for support in ("positives", "negatives"):
            values[support] = [None if pd.isna(count) else int(count) for count in frame[support]]
        return cls(tuple(Row(*line) for line in zip(*values.values(), strict=True)))
