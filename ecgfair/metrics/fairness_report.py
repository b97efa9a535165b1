"""What one evaluation found, as rows: the same rows become a tidy table, scalars to log, and a printed table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

import pandas as pd

from ecgfair.metrics.long_tail import BANDS

OVERALL: Final = "overall"
"""The attribute of the rows about all records."""
ALL: Final = "all"
"""The one group of ``OVERALL``."""
MACRO: Final = "macro"
"""The label of the rows about the mean over labels."""
SUMMARIES: Final = (MACRO, *BANDS)
"""Values of ``Row.label`` that are no label, hence no name a label may have."""

AUROC: Final = "auroc"
SHARED_AUROC: Final = "shared_auroc"
GAP: Final = "gap"
COMMON_RARE_GAP: Final = "common_rare_gap"
AUROC_GAP: Final = "auroc_gap"
WORST_AUROC: Final = "worst_auroc"

_DTYPES: Final = {
    "value": "float64",
    "positives": "Int64",  # the one with missing values: a mean over labels has no single support
    "negatives": "Int64",
    "records": "int64",
    "labels": "int64",
}


@dataclass(frozen=True)
class Row:
    """One value with all that it rests on.

    Args:
        attribute: ``"overall"``, ``"sex"`` or ``"age"``.
        group: ``"all"`` overall, else the group. For ``auroc_gap`` and ``worst_auroc`` the worst group, empty if there
            is none.
        label: A label's name, or ``"macro"``, ``"head"``, ``"medium"``, ``"tail"`` for a mean over labels.
        statistic: ``auroc``; ``gap``, the signed difference to the reference group over the labels defined in both;
            ``shared_auroc``, the group's mean over these labels; ``common_rare_gap``; ``auroc_gap`` and ``worst_auroc``
            as ``fairness.evaluate`` defines them.
        value: NaN where undefined.
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
    value: float
    positives: int | None
    negatives: int | None
    records: int
    labels: int
    reference: str = ""
    reason: str = ""


COLUMNS: Final = tuple(field.name for field in fields(Row))
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
        """The demographic attributes, in order."""
        return tuple(dict.fromkeys(row.attribute for row in self.rows if row.attribute != OVERALL))

    def select(
        self, attribute: str, statistic: str, *, label: str | None = MACRO, group: str | None = None
    ) -> Iterator[Row]:
        """Yield the rows of a statistic; ``None`` takes every label, or every group."""
        for row in self.rows:
            fits = row.attribute == attribute and row.statistic == statistic
            if fits and label in (None, row.label) and group in (None, row.group):
                yield row

    def scalars(self, stage: str) -> dict[str, float]:
        """Return what is logged. The keys depend on nothing but the stage; undefined values are NaN.

        Args:
            stage: First part of each key: ``"val"`` or ``"test"``.
        """
        values = {
            f"{stage}/{AUROC}/{summary}": next(self.select(OVERALL, AUROC, label=summary)).value
            for summary in SUMMARIES
        }
        values[f"{stage}/{AUROC}/{COMMON_RARE_GAP}"] = next(self.select(OVERALL, COMMON_RARE_GAP)).value
        for attribute in self.attributes:
            for statistic in (AUROC_GAP, WORST_AUROC):
                values[f"{stage}/fair/{attribute}/{statistic}"] = next(self.select(attribute, statistic)).value
        return values

    def frame(self) -> pd.DataFrame:
        """Return the tidy table, one line a row, with the columns ``COLUMNS``."""
        return pd.DataFrame([vars(row) for row in self.rows], columns=list(COLUMNS)).astype(_DTYPES)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> FairnessReport:
        """Read a report back from what ``frame`` gave; other columns are ignored."""
        values = {name: frame[name].tolist() for name in COLUMNS}
        for support in ("positives", "negatives"):
            values[support] = [None if pd.isna(count) else int(count) for count in frame[support]]
        return cls(tuple(Row(*line) for line in zip(*values.values(), strict=True)))
