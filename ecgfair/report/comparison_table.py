"""The paired differences between two models, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from ecgfair.metrics.fairness_report import COMMON_RARE_GAP, GAP, OVERALL, SUMMARIES, VALUE
from ecgfair.metrics.overall import NO_PREVALENCE
from ecgfair.metrics.paired import GAP_REDUCTION
from ecgfair.metrics.statistics import AUROC


def render_comparison(comparison: pd.DataFrame, title: str = "") -> Table:
    """Draw the differences in mean AUROC: of all records, along the long tail, and of each group.

    Args:
        comparison: What ``paired.compare`` gave.
        title: What is compared with what.
    """
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Group", no_wrap=True)
    for name in ("Other", "This", "Difference [95 %]", "Difference of gaps [95 %]"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("Note", overflow="fold")
    shown = comparison[(comparison["statistic"] == AUROC) & comparison["label"].isin(SUMMARIES)]
    lines = [dict(zip(shown.columns, values, strict=True)) for values in shown.itertuples(index=False)]
    _add_overall(table, [line for line in lines if line["attribute"] == OVERALL])
    for attribute in dict.fromkeys(str(line["attribute"]) for line in lines if line["attribute"] != OVERALL):
        table.add_section()
        table.add_row(Text(attribute, style="bold"), "", "", "", "", "")
        _add_groups(table, [line for line in lines if line["attribute"] == attribute])
    return table


def _add_overall(table: Table, lines: list[dict[str, object]]) -> None:
    names = {COMMON_RARE_GAP: "  common-rare gap", GAP_REDUCTION: "  gap reduction"}
    for line in lines:
        if line["reason"] == NO_PREVALENCE:  # there is no long tail to show
            continue
        aggregate, label = str(line["aggregate"]), str(line["label"])
        name = names.get(aggregate, "all records" if label == SUMMARIES[0] else f"  {label}")
        sides = ["", ""] if aggregate == GAP_REDUCTION else [_number(line[side]) for side in ("first", "second")]
        columns = [_difference(line), ""] if aggregate == VALUE else ["", _difference(line)]
        table.add_row(*(Text(cell) for cell in (name, *sides, *columns, str(line["reason"]))))


def _add_groups(table: Table, lines: list[dict[str, object]]) -> None:
    gaps = {line["group"]: line for line in lines if line["aggregate"] == GAP}
    for line in (line for line in lines if line["aggregate"] == VALUE):
        gap = gaps[line["group"]]
        is_reference = gap["group"] == gap["reference"]
        sides = [_number(line[side]) for side in ("first", "second")]
        note = "reference" if is_reference else str(line["reason"] or gap["reason"])
        cells = (f"  {line['group']}", *sides, _difference(line), "" if is_reference else _difference(gap), note)
        table.add_row(*(Text(cell) for cell in cells))


def _number(value: object, sign: str = "") -> str:
    return "n/a" if not isinstance(value, float) or math.isnan(value) else f"{value:{sign}.3f}"


def _difference(line: Mapping[str, object]) -> str:
    low, high = (_number(line[end], "+") for end in ("low", "high"))
    return _number(line["value"], "+") + ("" if low == "n/a" else f" [{low}, {high}]")
