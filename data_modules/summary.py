"""What a preparation found, kept and left out, as a person reads it at the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_modules.store import RecordStore
from ecgfair.ecg import ATTRIBUTES, FEMALE, MALE

_AGE_BANDS: Final = (("<40", 0, 40), ("40-64", 40, 65), ("65-79", 65, 80), ("80+", 80, np.inf))
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Summary:
    """Counts of one preparation; ``read + rejected == found``.

    Args:
        store: Where the store is.
        found: Records the source lists.
        read: Records in the store.
        rejected: Kind of reason -> records left out.
        notes: Kind of note -> how often a value was taken as missing, or a code is in no label set.
        by_sex: ``male``, ``female``, ``unknown`` -> records.
        by_age: Age band in years -> records.
        missing: Attribute -> records without it.
        label_set: The label set counted in ``labels``.
        labels: Label -> positive records.
        folds: Fold of the source -> records; ``unknown`` if it has none.
        seconds: Time taken.
    """

    store: Path
    found: int
    read: int
    rejected: Mapping[str, int]
    notes: Mapping[str, int]
    by_sex: Mapping[str, int]
    by_age: Mapping[str, int]
    missing: Mapping[str, int]
    label_set: str
    labels: Mapping[str, int]
    folds: Mapping[str, int]
    seconds: float


def kinds(sentences: Iterable[str]) -> dict[str, int]:
    """Count sentences by what stands before their first colon, the commonest first."""
    return dict(Counter(sentence.split(":")[0] for sentence in sentences).most_common())


def summarize(store: RecordStore, found: int, seconds: float) -> Summary:
    """Count what a finished store holds.

    Args:
        store: The store.
        found: Records the source lists.
        seconds: Time its preparation took.
    """
    columns = {name: _floats(store, name) for name in (*ATTRIBUTES, "fold")}
    sex, age, fold = columns["sex"], columns["age"], columns["fold"]
    label_set = "superdiagnostic" if "superdiagnostic" in store.label_sets else next(iter(store.label_sets), "")
    names, labels = store.labels(label_set) if label_set else ([], np.zeros((len(store), 0), dtype=np.float32))
    folds = {str(int(value)): int((fold == value).sum()) for value in np.unique(fold[~np.isnan(fold)])}
    return Summary(
        store=store.path,
        found=found,
        read=len(store),
        rejected=kinds(store.rejected.column("reason").to_pylist()),
        notes=kinds(note for notes in store.records.column("notes").to_pylist() for note in notes),
        by_sex=_without_none(
            {"male": (sex == MALE).sum(), "female": (sex == FEMALE).sum(), _UNKNOWN: np.isnan(sex).sum()}
        ),
        by_age=_without_none(
            {name: ((age >= low) & (age < high)).sum() for name, low, high in _AGE_BANDS}
            | {_UNKNOWN: np.isnan(age).sum()}
        ),
        missing={name: int(np.isnan(columns[name]).sum()) for name in ATTRIBUTES},
        label_set=label_set,
        labels=dict(zip(names, labels.sum(axis=0).astype(int).tolist(), strict=True)),
        folds=_without_none(folds | {_UNKNOWN: np.isnan(fold).sum()}),
        seconds=seconds,
    )


def print_summary(summary: Summary, console: Console | None = None) -> None:
    """Print a summary to stdout, or to the console given."""
    console = console or Console()
    rejected = sum(summary.rejected.values())
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for title, counts in (
        ("rejected", summary.rejected),
        ("taken as missing or in no label set", summary.notes),
        ("sex", summary.by_sex),
        ("age in years", summary.by_age),
        ("without", {name: count for name, count in summary.missing.items() if count}),
        (f"labels ({summary.label_set})", summary.labels),
        ("folds", summary.folds),
    ):
        if counts:
            table.add_row(title, escape("   ".join(f"{name} {count}" for name, count in counts.items())))
    console.print(
        f"{summary.read} of {summary.found} records read, {rejected} rejected, in {summary.seconds:.1f} s.",
        highlight=False,
    )
    console.print(table, highlight=False)
    console.print(f"Store: {summary.store}", highlight=False, markup=False, soft_wrap=True)


def _floats(store: RecordStore, name: str) -> NDArray[np.float64]:
    """Return a column with NaN where it is null."""
    column = store.records.column(name).cast("float64").fill_null(float("nan"))
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _without_none(counts: Mapping[str, Any]) -> dict[str, int]:
    """Drop an empty ``unknown``; the other groups are shown even if empty."""
    return {name: int(count) for name, count in counts.items() if count or name != _UNKNOWN}
