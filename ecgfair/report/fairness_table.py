"""A fairness report, and the tests of its largest gaps, for the terminal."""

from __future__ import annotations

import math

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ecgfair.metrics.fairness_report import (
    COMMON_RARE_GAP,
    GAP,
    LOGGED_GAPS,
    MACRO,
    OVERALL,
    SPREAD,
    WORST,
    WORST_AUROC,
    FairnessReport,
    Row,
)
from ecgfair.metrics.long_tail import BANDS
from ecgfair.metrics.overall import NO_PREVALENCE
from ecgfair.metrics.statistics import AUROC

PLAIN_WIDTH = 110
"""Columns of a table that goes to a file or a pipe."""

SIGNIFICANT = 0.05


def console() -> Console:
    """Return a console of the terminal's width, or plain text of ``PLAIN_WIDTH`` columns where there is no terminal."""
    terminal = Console()
    return terminal if terminal.is_terminal or terminal.is_jupyter else Console(width=PLAIN_WIDTH)


def render(report: FairnessReport, title: str = "") -> Table:
    """Draw a report: all records, head, medium, tail and their gap, then the groups of each attribute.

    Args:
        report: What to draw; intervals are shown where it has any.
        title: What it is a report of.
    """
    has_intervals = any(not math.isnan(row.low) for row in report.rows)
    table = _table(title)
    table.add_column("Group", no_wrap=True)
    headings = ("Records", "Labels", "AUROC [95 %]" if has_intervals else "AUROC")
    for name in (*headings, "Gap [95 %] (labels)" if has_intervals else "Gap (labels)"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("Note", overflow="fold")
    _add_overall(table, report)
    for attribute in report.attributes:
        table.add_section()
        _add_attribute(table, report, attribute)
    return table


def render_tests(tests: pd.DataFrame) -> Table:
    """Draw what ``gap_tests`` found of the means over labels, and count the labels whose own gap is no chance.

    Beside each gap stand its mean and its 95 % quantile if there were no disparity.

    Args:
        tests: Its table.
    """
    table = _table("Largest gaps between groups, and what chance alone makes of them")
    for name in ("Attribute", "Statistic"):
        table.add_column(name, no_wrap=True)
    for name in ("Gap", "Chance", "95 %", "p", "Groups"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("Lowest < highest", "Labels beyond chance"):
        table.add_column(name, min_width=18)
    for (attribute, statistic), rows in tests.groupby(["attribute", "statistic"], sort=False):
        macro = rows[rows["label"] == MACRO].iloc[0]
        labels = rows[(rows["label"] != MACRO) & rows["p"].notna()]
        beyond = labels.loc[labels["p_holm"] <= SIGNIFICANT, "label"].tolist()
        values = [_number(macro[name]) for name in ("gap", "expected", "upper", "p")]
        named = f" ({', '.join(beyond[:3])}{', …' * (len(beyond) > 3)})" if beyond else ""
        ends = " < ".join(filter(None, (macro["lowest"], macro["highest"])))
        counted = f"{len(beyond)} of {len(labels)}{named}"
        head = Text(f"{attribute}"), Text(f"{statistic}")
        table.add_row(*head, *values, f"{macro['groups']}", Text(ends or macro["reason"]), Text(counted))
    return table


def _table(title: str) -> Table:
    return Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _add_overall(table: Table, report: FairnessReport) -> None:
    everyone = next(report.select(OVERALL, AUROC))
    table.add_row("all records", *_level(everyone), "", Text(everyone.reason))
    gap = next(report.select(OVERALL, AUROC, COMMON_RARE_GAP))
    if gap.reason == NO_PREVALENCE:  # there is no long tail to show
        return
    for band in BANDS:
        row = next(report.select(OVERALL, AUROC, label=band))
        _, labels, value = _level(row)
        table.add_row(f"  {band}", "", labels, value, "", Text(row.reason))
    table.add_row("  common-rare gap", "", "", "", Text(_signed(gap)), Text(gap.reason or "head minus tail"))


def _add_attribute(table: Table, report: FairnessReport, attribute: str) -> None:
    spread = next(report.select(attribute, AUROC, SPREAD))
    worst = next(report.select(attribute, AUROC, WORST))
    counted = f"{worst.labels} label{'s' * (worst.labels != 1)}"
    logged = f"{LOGGED_GAPS[AUROC]} {_signed(spread)}, {WORST_AUROC} {_value(worst)} ({counted})"
    note = spread.reason if math.isnan(spread.value) else "; ".join(filter(None, (logged, spread.reason)))
    table.add_row(Text(attribute, style="bold"), "", "", "", "", Text(note))
    for row in report.select(attribute, AUROC):
        gap = next(report.select(attribute, AUROC, GAP, group=row.group))
        is_reference, is_worst = gap.reference == row.group, spread.group == row.group and spread.value < 0
        marks = ["reference"] * is_reference + ["worst"] * is_worst
        alone = is_reference or math.isnan(gap.value)
        difference = "" if alone else f"{_signed(gap)} ({gap.labels})"
        note = "; ".join(filter(None, [*marks, row.reason or gap.reason]))
        style = "bold red" if is_worst else ""
        table.add_row(Text(f"  {row.group}"), *_level(row), Text(difference), Text(note), style=style)


def _level(row: Row) -> tuple[str, str, Text]:
    """Records, labels and value of a mean AUROC."""
    return f"{row.records:,}", f"{row.labels}", Text(_value(row))


def _value(row: Row) -> str:
    return _number(row.value) + ("" if math.isnan(row.low) else f" [{row.low:.2f}, {row.high:.2f}]")


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _signed(row: Row) -> str:
    if math.isnan(row.value):
        return "n/a"
    return f"{row.value:+.3f}" + ("" if math.isnan(row.low) else f" [{row.low:+.2f}, {row.high:+.2f}]")
