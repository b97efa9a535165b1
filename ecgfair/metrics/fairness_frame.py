"""A report in the vocabulary of fairlearn's MetricFrame: overall, by_group, difference, ratio, group_min, group_max."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ecgfair.metrics.fairness_report import (
    DIFFERENCE,
    GAP,
    GROUP_MAX,
    GROUP_MIN,
    OVERALL,
    RATIO,
    SUMMARIES,
    VALUE,
    FairnessReport,
)


@dataclass(frozen=True)
class FairnessFrame:
    """Views of a report, label by label, for those who think in fairlearn's terms.

    Unlike there, what is undefined is NaN, a group needs support, and unknown groups take no part in ``difference``,
    ``ratio``, ``group_min`` and ``group_max``.

    Args:
        report: Evaluated with ``details``.
    """

    report: FairnessReport

    @property
    def overall(self) -> pd.DataFrame:
        """Values of all records: a line a label, a column a statistic."""
        return self._view(VALUE, overall=True).droplevel(["attribute", "group"])

    @property
    def by_group(self) -> pd.DataFrame:
        """Values of each group: a line for attribute, group and label, a column a statistic."""
        return self._view(VALUE)

    @property
    def gap(self) -> pd.DataFrame:
        """Signed differences to the reference group, likewise."""
        return self._view(GAP)

    def difference(self) -> pd.DataFrame:
        """Highest minus lowest group: a line for attribute and label."""
        return self._view(DIFFERENCE).droplevel("group")

    def ratio(self) -> pd.DataFrame:
        """Lowest over highest group, likewise."""
        return self._view(RATIO).droplevel("group")

    def group_min(self) -> pd.DataFrame:
        """The lowest group, likewise."""
        return self._view(GROUP_MIN).droplevel("group")

    def group_max(self) -> pd.DataFrame:
        """The highest group, likewise."""
        return self._view(GROUP_MAX).droplevel("group")

    def _view(self, aggregate: str, *, overall: bool = False) -> pd.DataFrame:
        frame = self.report.frame()
        is_asked = (frame["aggregate"] == aggregate) & ((frame["attribute"] == OVERALL) == overall)
        rows = frame[is_asked & ~frame["label"].isin(SUMMARIES)]
        if aggregate not in (VALUE, GAP):
            rows = rows.assign(group="")  # which group is the lowest differs between statistics
        keys = ["attribute", "group", "label"]
        order = rows[keys].drop_duplicates()
        wide = rows.pivot_table("value", keys, "statistic", sort=False, dropna=False)
        wide = wide[list(dict.fromkeys(rows["statistic"]))]
        return wide.reindex(pd.MultiIndex.from_frame(order))
