"""The tables of the results as Markdown, and their place in a file of which everything else is left as it is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.fairness_report import COMMON_RARE_GAP, MACRO
from ecgfair.metrics.long_tail import BANDS, HEAD, TAIL
from ecgfair.metrics.paired import GAP_REDUCTION
from experiments.ptbxl.measured import GAP_OF_SEX, SPREAD_OF_AGE, SUPPORT, SUPPORTED, WORST_AGE, Value
from experiments.ptbxl.rows import REFERENCE, ResultRow

BEGIN: Final = "<!-- results: begin -->"
END: Final = "<!-- results: end -->"
NOTHING: Final = "-"
AGES: Final = ("<40", "40-64", "65-79", "80+")


@dataclass(frozen=True)
class Line:
    """What is known of a row.

    Args:
        row: Which.
        parts: Seeds, or folds, that are there.
        lacking: Why it, or a part of it, is not there; empty if nothing is.
        values: Its values by name; empty if it was not run.
        ahead: What it has more than the reference row; empty for that row itself.
        against_scratch: What it has more than the same from scratch, with the gap reduction; empty where nothing is.
        cost: What ``cost.py`` wrote.
        minutes: What its runs took, see ``running.read_minutes``.
        note: What else has to be known, such as labels that a baseline could not be fitted for.
    """

    row: ResultRow
    parts: tuple[str, ...] = ()
    lacking: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)
    ahead: Mapping[str, Value] = field(default_factory=dict)
    against_scratch: Mapping[str, Value] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    minutes: Sequence[Mapping[str, Any]] = ()
    note: str = ""

    @property
    def told(self) -> str:
        """Seeds that are there, and what is not."""
        there = ", ".join(self.parts)
        return f"{there} ({self.lacking})" if self.lacking else there


def whole(lines: Sequence[Line], rotation: Sequence[Line], about: Sequence[str]) -> str:
    """Return all tables, with what has to be known of them before.

    Args:
        lines: Rows on folds 1-8, 9 and 10. One of which nothing was run stands in no table; it is named behind them.
        rotation: Rows on all folds in turn; empty if none was asked for.
        about: Paragraphs: commands, store, records.
    """
    done = [line for line in lines if line.parts]
    measured = [line for line in done if line.row.kind != "pretrain"]
    parts = [
        "\n\n".join(about),
        "### Common and rare statements\n\n" + headline([line for line in measured if line.row.section == "headline"]),
        "### Every row\n\n" + overall(measured),
        "### By sex and age band\n\n" + groups(measured),
        "### What a row costs\n\n" + costs(done),
    ]
    if waiting := [_waiting(line.row) for line in lines if not line.parts]:
        parts.append("\n".join(["### Rows that were not run", "", *waiting]))
    if rotation:
        parts.append("### Every fold tested once\n\n" + ROTATED + "\n\n" + overall(rotation))
    if notes := [f"- {line.row.title}: {line.note}" for line in lines if line.note]:
        parts.append("\n".join(["### Notes on rows", "", *notes]))
    return "\n\n".join(parts)


def _waiting(row: ResultRow) -> str:
    why = f": {', '.join(row.lacking)} is not there" if row.lacking else ""
    return f"- `{row.name}`, {row.title}{why}"


ROTATED: Final = (
    "A network a test fold, trained on eight others and chosen on the ninth; encoders that networks start from are "
    "pretrained anew on the same eight. Networks do not share a scale of probabilities, so the AUROC of a label is "
    "over the pairs of records of the same fold (`metrics/kernels/stratified.py`), weighted by their number."
)


def headline(lines: Sequence[Line]) -> str:
    """The gap between common and rare statements, and what pretraining takes from it."""
    heads = (
        "row",
        "seeds",
        "head",
        "tail",
        "common-rare gap",
        "tail, ahead of scratch",
        "gap, more than scratch",
        "gap reduction",
    )
    return _table(
        heads,
        (
            [
                line.row.title,
                line.told,
                *(cell(line.values.get(name)) for name in (HEAD, TAIL)),
                cell(line.values.get(COMMON_RARE_GAP), signed=True),
                *(cell(line.against_scratch.get(name), signed=True) for name in (TAIL, COMMON_RARE_GAP)),
                cell(line.against_scratch.get(GAP_REDUCTION), signed=True, reasons=True),
            ]
            for line in lines
        ),
    )


def overall(lines: Sequence[Line]) -> str:
    """Means over labels, and paired differences to the reference row."""
    names = (MACRO, SUPPORTED, *BANDS)
    compared = (MACRO, SUPPORTED, TAIL, COMMON_RARE_GAP)
    heads = ["row", "seeds", "macro, all defined", f"macro, {SUPPORT} of each or more", *BANDS, "common-rare gap"]
    heads += [f"{name} - {REFERENCE}" for name in ("macro", f"macro, {SUPPORT} or more", "tail", "gap")]
    return _table(
        heads,
        (
            [
                line.row.title,
                line.told,
                *(cell(line.values.get(name), labels=True) for name in names),
                cell(line.values.get(COMMON_RARE_GAP), signed=True),
                *(cell(line.ahead.get(name), signed=True) for name in compared),
            ]
            for line in lines
        ),
    )


def groups(lines: Sequence[Line]) -> str:
    """Means over the labels that each group supports, and the gaps over labels that the groups share."""
    names = ("female", "male", *AGES)
    heads = ["row", *names[:2], GAP_OF_SEX, f"{GAP_OF_SEX}, more than {REFERENCE}", *AGES, WORST_AGE, SPREAD_OF_AGE]
    return _table(
        heads,
        (
            [
                line.row.title,
                *(cell(line.values.get(name), labels=True) for name in names[:2]),
                cell(line.values.get(GAP_OF_SEX), signed=True),
                cell(line.ahead.get(GAP_OF_SEX), signed=True),
                *(cell(line.values.get(name), labels=True) for name in AGES),
                cell(line.values.get(WORST_AGE), notes=True),
                cell(line.values.get(SPREAD_OF_AGE), signed=True),
            ]
            for line in lines
        ),
    )


def costs(lines: Sequence[Line]) -> str:
    """Parameters, operations, speed and training time."""
    heads = ("row", "parameters", "GFLOP a record", "records/s, one thread", "minutes to train", "trained on")
    return _table(heads, (_cost(line) for line in lines))


def _cost(line: Line) -> list[str]:
    cost = line.cost
    cells = [NOTHING] * 3
    if cost:
        rate = f"{cost['records_a_second']:.0f} ({cost['slowest']:.0f}-{cost['fastest']:.0f})"
        cells = [f"{cost['parameters']:,}", f"{cost['gflop_a_record']:.3f}", rate]
    took = [one for one in line.minutes if one.get("finished")]
    minutes, where = NOTHING, NOTHING
    if took:
        at_least = "" if all(one["exact"] for one in took) else "more than "
        minutes = at_least + ", ".join(f"{one['minutes']:.1f}" for one in took)
        where = "; ".join(dict.fromkeys(_machine(one["machine"]) for one in took))
    return [line.row.title, *cells, minutes, where]


def _machine(told: Mapping[str, Any]) -> str:
    cpu = f"{told['cpu']}, {told['threads']} of {told['cores']} cores"
    return f"{told['gpu']} ({cpu})" if told.get("gpu") else cpu


def cell(
    value: Value | None, *, signed: bool = False, labels: bool = False, notes: bool = False, reasons: bool = False
) -> str:
    """Write a value with its interval.

    Args:
        value: ``None`` where the row has none.
        signed: With its sign: a difference.
        labels: Also say over how many labels it is a mean.
        notes: Also say of which group it is.
        reasons: Where undefined, say why.
    """
    if value is None or math.isnan(value.value):
        return f"{NOTHING}: {value.note}" if value is not None and reasons and value.note else NOTHING
    form = "+.3f" if signed else ".3f"
    told = f"{value.value:{form}}"
    if not math.isnan(value.low):
        told += f" ({value.low:{form}} to {value.high:{form}})" if signed else f" ({value.low:.3f}-{value.high:.3f})"
    if labels:
        told += f" [{value.labels}]"
    return f"{value.note}: {told}" if notes and value.note else told


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows)])


def rewrite(path: Path, text: str) -> None:
    """Replace what stands between the markers of a file; put both at its end if it has none.

    Raises:
        ConfigurationError: It has one marker only, one of them twice, or the end before the beginning.
    """
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    begins, ends = before.count(BEGIN), before.count(END)
    if begins == ends == 0:
        before = f"{before.rstrip()}\n\n{BEGIN}\n{END}\n".lstrip()
    elif begins != 1 or ends != 1 or before.index(END) < before.index(BEGIN):
        raise ConfigurationError(
            f"{path} has {begins} lines {BEGIN} and {ends} lines {END}: expected one of each, in this order, or none."
        )
    head, rest = before.split(BEGIN)
    _, tail = rest.split(END)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(f"{head}{BEGIN}\n\n{text.strip()}\n\n{END}{tail}", encoding="utf-8")
    partial.replace(path)
