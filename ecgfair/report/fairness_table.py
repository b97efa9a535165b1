"""A fairness report for the terminal."""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ecgfair.metrics.fairness_report import (
    AUROC,
    AUROC_GAP,
    COMMON_RARE_GAP,
    GAP,
    OVERALL,
    WORST_AUROC,
    FairnessReport,
    Row,
)
from ecgfair.metrics.long_tail import BANDS

PLAIN_WIDTH = 100
"""Columns of a table that goes to a file or a pipe."""


def console() -> Console:
    """Return a console of the terminal's width, or plain text of ``PLAIN_WIDTH`` columns where there is no terminal."""
    terminal = Console()
    return terminal if terminal.is_terminal or terminal.is_jupyter else Console(width=PLAIN_WIDTH)


def render(report: FairnessReport, title: str = "") -> Table:
    """Draw a report: all records, head, medium, tail and their gap, then the groups of each attribute.

    Args:
        report: What to draw.
        title: What it is a report of.
    """
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Group", no_wrap=True)
    for name in ("Records", "Labels", "AUROC"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Gap (labels)", justify="right", no_wrap=True)
    table.add_column("Note", overflow="fold")
    _add_overall(table, report)
    for attribute in report.attributes:
        table.add_section()
        _add_attribute(table, report, attribute)
    return table


def _add_overall(table: Table, report: FairnessReport) -> None:
    everyone = next(report.select(OVERALL, AUROC))
    table.add_row("all records", *_level(everyone), "", Text(everyone.reason))
    for band in BANDS:
        row = next(report.select(OVERALL, AUROC, label=band))
        _, *labels_and_value = _level(row)
        table.add_row(f"  {band}", "", *labels_and_value, "", Text(row.reason))
    gap = next(report.select(OVERALL, COMMON_RARE_GAP))
    table.add_row("  common-rare gap", "", "", "", _signed(gap.value), Text(gap.reason or "head minus tail"))


def _add_attribute(table: Table, report: FairnessReport, attribute: str) -> None:
    spread, worst = (next(report.select(attribute, statistic)) for statistic in (AUROC_GAP, WORST_AUROC))
    logged = f"auroc_gap {_signed(spread.value)}, worst_auroc {_value(worst)}"
    table.add_row(Text(attribute, style="bold"), "", "", "", "", Text(spread.reason or logged))
    for row in report.select(attribute, AUROC):
        gap = next(report.select(attribute, GAP, group=row.group))
        is_reference, is_worst = gap.reference == row.group, spread.group == row.group and spread.value < 0
        marks = ["reference"] * is_reference + ["worst"] * is_worst
        alone = is_reference or math.isnan(gap.value)
        difference = "" if alone else f"{_signed(gap.value)} ({gap.labels})"
        note = "; ".join(filter(None, [*marks, row.reason or gap.reason]))
        style = "bold red" if is_worst else ""
        table.add_row(Text(f"  {row.group}"), *_level(row), difference, Text(note), style=style)


def _level(row: Row) -> tuple[str, str, str]:
    """Records, labels and value of a mean AUROC."""
    return f"{row.records:,}", f"{row.labels}", _value(row)


def _value(row: Row) -> str:
    return "n/a" if math.isnan(row.value) else f"{row.value:.3f}"


def _signed(difference: float) -> str:
    return "n/a" if math.isnan(difference) else f"{difference:+.3f}"
