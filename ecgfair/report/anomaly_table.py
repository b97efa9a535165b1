"""How well anomaly scores do under a protocol, for the terminal and for a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ecgfair.anomaly.evaluation.report import (
    AGE_ALONE,
    AGE_ALONE_STRATIFIED,
    BEST_F1,
    DIAGNOSIS,
    F1,
    SENSITIVITY,
    AnomalyReport,
    AnomalyRow,
)
from ecgfair.anomaly.protocols import Protocol
from ecgfair.metrics.fairness_report import COMMON_RARE_GAP, OVERALL, SPREAD, SUMMARIES, VALUE
from ecgfair.metrics.overall import NO_PREVALENCE
from ecgfair.metrics.statistics import AUROC, AVERAGE_PRECISION, FPR, STRATIFIED_AUROC, TPR

MOST_LABELS: Final = 12
"""Diagnoses that are printed one by one; of more, those that are found worst. The frame has all."""


def render_anomaly(report: AnomalyReport, protocol: Protocol, title: str = "") -> Group:
    """Draw a report: the statistics of all records, then diagnoses and groups.

    These have AUROC, AUROC within strata of age ("in age"), and at the threshold carried over the shares of abnormal
    records that are found and of normal ones that are false alarms.

    Args:
        report: What to draw; intervals are shown where it has any.
        protocol: The one whose records were measured; it is named in the title.
        title: Whose scores they are.
    """
    patients = f"{report.patients:,} patient{'s' * (report.patients != 1)}"
    counted = f"{report.normals:,} normal and {report.abnormals:,} abnormal records of {patients}"
    heading = f"{title + ', ' if title else ''}{protocol.title}; {counted}"
    notes = [Text(f"- {note}") for note in (protocol.description, *report.notes)]
    return Group(_statistics(report, protocol, heading), _groups(report), *notes)


def anomaly_frame(report: AnomalyReport, protocol: Protocol, score: str = "") -> pd.DataFrame:
    """Return the tidy table of a report, with the protocol in every line, for Parquet.

    Args:
        report: What to write.
        protocol: The one whose records were measured.
        score: Whose scores they are; a column, so that the tables of several can be put together.
    """
    frame = report.frame()
    frame.insert(0, "protocol", protocol.name)
    frame.insert(1, "score", score)
    return frame


def _statistics(report: AnomalyReport, protocol: Protocol, heading: str) -> Table:
    """Draw the statistics of all records."""
    table = _table(heading)
    table.add_column("All records", no_wrap=True)
    table.add_column(Text("Value [95 %]" if _has_intervals(report) else "Value"), justify="right", no_wrap=True)
    table.add_column("Note", overflow="fold")
    carried = (
        f"the threshold was chosen on {report.chosen_on}" + ", which is tested on: too good" * protocol.chooses_on_test
    )
    names = {
        AUROC: "AUROC",
        AGE_ALONE: "  age alone",
        STRATIFIED_AUROC: "AUROC within age strata",
        AGE_ALONE_STRATIFIED: "  age alone",
        AVERAGE_PRECISION: "average precision",
        F1: "F1",
        BEST_F1: "F1, best threshold",
        SENSITIVITY: f"sensitivity at {100 * report.level:g} % specificity",
        TPR: "sensitivity, threshold carried over",
        FPR: "false alarms, threshold carried over",
    }
    for statistic, name in names.items():
        row = report.overall(statistic)
        note = row.reason or (carried if statistic in (F1, TPR, FPR) else "")
        table.add_row(Text(name), Text(_value(row)), Text(note))
    return table


def _groups(report: AnomalyReport) -> Table:
    """Draw diagnoses and groups."""
    intervals = " [95 %]" * _has_intervals(report)
    table = _table("")
    table.add_column("Group", no_wrap=True)
    for name in ("Normal", "Abnormal", f"AUROC{intervals}", "In age", "Found", "Alarms"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("Note", overflow="fold")
    _add_diagnoses(table, report)
    for attribute in report.attributes:
        table.add_section()
        spread = next(report.select(attribute, AUROC, SPREAD))
        gap = "" if math.isnan(spread.value) else f"{spread.value:+.3f}"
        note = "; ".join(filter(None, ("worst minus best" * bool(gap), spread.reason)))
        table.add_row(Text(attribute, style="bold"), "", "", gap, "", "", "", Text(note))
        for row in report.select(attribute, AUROC):
            _add(table, report, row, "worst" if spread.value < 0 and row.group == spread.group else "")
    return table


def _add_diagnoses(table: Table, report: AnomalyReport) -> None:
    """Add means over labels, their gap, and labels."""
    rows = list(report.select(DIAGNOSIS, AUROC))
    if not rows:
        return
    table.add_row(Text(DIAGNOSIS, style="bold"), *[""] * 6, "against all normal records")
    for row in rows:
        if row.label in SUMMARIES and row.reason != NO_PREVALENCE:
            counted = f"mean of {row.labels} label{'s' * (row.labels != 1)}" if row.labels else ""
            _add(table, report, row, counted)
    gap = next(report.select(DIAGNOSIS, AUROC, COMMON_RARE_GAP))
    if gap.reason != NO_PREVALENCE:
        signed = "n/a" if math.isnan(gap.value) else f"{gap.value:+.3f}" + _interval(gap)
        table.add_row("  common-rare gap", "", "", Text(signed), "", "", "", Text(gap.reason or "head minus tail"))
    labels = [row for row in rows if row.label not in SUMMARIES]
    for row in _hardest(labels):
        _add(table, report, row, "")
    if len(labels) > MOST_LABELS:
        table.add_row(f"  {len(labels) - MOST_LABELS} more", *[""] * 6, "found better, or undefined: see the frame")


def _hardest(rows: Sequence[AnomalyRow]) -> list[AnomalyRow]:
    """Return all rows if they are few, else those of the lowest AUROC."""
    if len(rows) <= MOST_LABELS:
        return list(rows)
    return sorted(rows, key=lambda row: math.inf if math.isnan(row.value) else row.value)[:MOST_LABELS]


def _add(table: Table, report: AnomalyReport, row: AnomalyRow, mark: str) -> None:
    """Add a diagnosis or a group, by its row of AUROC."""
    others = [
        next(report.select(row.attribute, statistic, VALUE, label=row.label, group=row.group), None)
        for statistic in (STRATIFIED_AUROC, TPR, FPR)
    ]
    supports = ["" if count is None else f"{count:,}" for count in (row.normals, row.abnormals)]
    columns = [
        _value(row),
        *("" if other is None else _number(other.value) for other in others),
    ]
    name = row.label if row.attribute == DIAGNOSIS else row.group
    note = "; ".join(filter(None, (mark, row.reason)))
    style = "bold red" if mark == "worst" else ""
    table.add_row(Text(f"  {name}"), *supports, *map(Text, columns), Text(note), style=style)


def _table(title: str) -> Table:
    heading = Text(title, style="bold") if title else None
    return Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _has_intervals(report: AnomalyReport) -> bool:
    return any(not math.isnan(row.low) for row in report.rows if row.attribute == OVERALL)


def _value(row: AnomalyRow) -> str:
    return _number(row.value) + _interval(row)


def _interval(row: AnomalyRow) -> str:
    return "" if math.isnan(row.low) else f" [{row.low:.2f}, {row.high:.2f}]"


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"
