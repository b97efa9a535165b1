"""What a store holds, counted, and what a preparation found, kept and left out, as it is read at the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_modules.stores.schema import LEAD_FLAGS, MEASUREMENTS
from data_modules.stores.store import RecordStore
from ecgfair.ecg import FEMALE, MALE
from ecgfair.errors import ConfigurationError, did_you_mean

_AGE_BANDS: Final = (("<40", 0, 40), ("40-64", 40, 65), ("65-79", 65, 80), ("80+", 80, np.inf))
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Counts:
    """What a store holds.

    Args:
        read: Records in the store.
        rejected: Kind of reason -> records left out.
        notes: Kind of note -> how often a value was taken as missing, or a code is in no label set.
        by_sex: ``male``, ``female``, ``unknown`` -> records.
        by_age: Age band in years -> records.
        missing: Age, sex or measurement -> records without it.
        label_set: The label set counted in ``labels``; empty if the store has none.
        labels: Label -> positive records.
        folds: Fold of the source -> records; ``unknown`` if it has none.
        fitted: ``cropped``, ``padded`` -> records that were longer or shorter than the store's length.
        flags: ``derived``, ``missing``, ``flat`` and so on (``LEAD_FLAGS``) -> records with such a lead.
        without_beats: Records in which no R peak was found.
        incomplete: Records with a sample that was not recorded, padding among them.
    """

    read: int
    rejected: Mapping[str, int]
    notes: Mapping[str, int]
    by_sex: Mapping[str, int]
    by_age: Mapping[str, int]
    missing: Mapping[str, int]
    label_set: str
    labels: Mapping[str, int]
    folds: Mapping[str, int]
    fitted: Mapping[str, int]
    flags: Mapping[str, int]
    without_beats: int
    incomplete: int


@dataclass(frozen=True)
class Summary(Counts):
    """Counts of one preparation; ``read + rejected == found``.

    Args:
        store: Where the store is.
        found: Records the source lists.
        seconds: Time taken.
    """

    store: Path
    found: int
    seconds: float


def count(store: RecordStore, label_set: str | None = None) -> Counts:
    """Count what a store holds, by whole columns, so that millions of records take seconds.

    Args:
        store: The store.
        label_set: The one whose labels are counted; the superdiagnostic one, or else the first, if None.

    Raises:
        ConfigurationError: The store has no such label set.
        StoreError: A table of the store can't be read.
    """
    chosen = _choose(store, label_set)
    sex, age, fold = (floats(store, name) for name in ("sex", "age", "fold"))
    folds = {str(int(value)): int((fold == value).sum()) for value in np.unique(fold[~np.isnan(fold)])}
    samples = np.rint(floats(store, "seconds") * store.preprocessing.sampling_rate)
    return Counts(
        read=len(store),
        rejected=count_kinds(store.rejected.column("reason")),
        notes=count_kinds(pc.list_flatten(_column(store, "notes"))),
        by_sex=_without_none(
            {"male": (sex == MALE).sum(), "female": (sex == FEMALE).sum(), _UNKNOWN: np.isnan(sex).sum()}
        ),
        by_age=_without_none(
            {name: ((age >= low) & (age < high)).sum() for name, low, high in _AGE_BANDS}
            | {_UNKNOWN: np.isnan(age).sum()}
        ),
        missing={name: int(np.isnan(floats(store, name)).sum()) for name in ("age", "sex", *MEASUREMENTS)},
        label_set=chosen,
        labels=_count_labels(_column(store, "codes"), store.label_sets[chosen]) if chosen else {},
        folds=_without_none(folds | {_UNKNOWN: np.isnan(fold).sum()}),
        fitted={
            "cropped": int((samples > store.preprocessing.length).sum()),
            "padded": int((samples < store.preprocessing.length).sum()),
        },
        flags={flag: int((_list_lengths(store, f"{flag}_leads") > 0).sum()) for flag in LEAD_FLAGS},
        without_beats=int((_list_lengths(store, "beats") == 0).sum()),
        incomplete=int(pc.sum(pc.invert(_column(store, "complete"))).as_py() or 0),
    )


def kinds(sentences: Iterable[str]) -> dict[str, int]:
    """Count sentences by what stands before their first colon, the commonest first."""
    return count_kinds(pa.array(list(sentences), pa.string()))


def count_kinds(sentences: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    """Count a column of sentences by their kinds, the commonest first."""
    counted = pc.value_counts(kinds_of(sentences)).to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counted, key=lambda entry: -entry["counts"])}


def kinds_of(sentences: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return what stands before the first colon of each sentence."""
    return pc.replace_substring_regex(sentences, pattern="(?s):.*", replacement="")


def floats(store: RecordStore, name: str) -> NDArray[np.float64]:
    """Return a column of numbers, NaN where it is null."""
    column = _column(store, name).cast("float64").fill_null(float("nan"))
    return np.asarray(column.to_numpy(), dtype=np.float64)


def summarize(store: RecordStore, found: int, seconds: float) -> Summary:
    """Count what a finished store holds.

    Args:
        store: The store.
        found: Records the source lists.
        seconds: Time its preparation took.
    """
    return Summary(**vars(count(store)), store=store.path, found=found, seconds=seconds)


def print_summary(summary: Summary, console: Console | None = None) -> None:
    """Print a summary to stdout, or to the console given."""
    console = console or Console()
    rejected = sum(summary.rejected.values())
    console.print(
        f"{summary.read} of {summary.found} records read, {rejected} rejected, in {summary.seconds:.1f} s.",
        highlight=False,
    )
    rows = {
        "rejected": summary.rejected,
        "taken as missing or in no label set": summary.notes,
        "length": _some(summary.fitted),
        "records with a lead": _some(summary.flags),
        "records with": _some({"no beat": summary.without_beats, "samples missing": summary.incomplete}),
        "sex": summary.by_sex,
        "age in years": summary.by_age,
        "without": _some(summary.missing),
        f"labels ({summary.label_set})": None,
        "folds": summary.folds,
    }
    texts = {
        title: listed_labels(summary.labels) if counts is None else listed(counts) for title, counts in rows.items()
    }
    console.print(facts(texts), highlight=False)
    if rejected:
        console.print(
            f"Each rejected record and why: {summary.store}/rejected.parquet; `inspect` shows an example of each kind.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    console.print(f"Store: {summary.store}", highlight=False, markup=False, soft_wrap=True)


def facts(rows: Mapping[str, str | Sequence[str]]) -> Table:
    """Return a table of a title and a text, or texts beside each other, a row; rows without a text are left out."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for title, texts in rows.items():
        if texts:
            texts = [texts] if isinstance(texts, str) else texts
            table.add_row(title, Columns([escape(text) for text in texts], padding=(0, 3)))
    return table


def listed(counts: Mapping[str, int], total: int = 0) -> list[str]:
    """Return each count beside its name, with its share of ``total`` if that is given."""
    return [f"{name} {with_share(number, total)}" for name, number in counts.items()]


def listed_labels(counts: Mapping[str, int], total: int = 0) -> list[str]:
    """Return the labels that any record has, as ``listed`` does, and how many others there are."""
    found = _some(counts)
    others = len(counts) - len(found)
    rest = [f"({others} {'label' if others == 1 else 'labels'} in no record)"] if others else []
    return listed(found, total) + rest


def with_share(number: int, total: int) -> str:
    """Return such as ``12 (3.4 %)``; a share of nothing is not told."""
    percent = 100 * number / total if total else 0.0
    return f"{number} ({percent:.1f} %)" if percent >= 1 else f"{number} ({percent:.2g} %)" if percent else f"{number}"


def _choose(store: RecordStore, label_set: str | None) -> str:
    sets: Sequence[str] = list(store.label_sets)
    if label_set is None:
        return "superdiagnostic" if "superdiagnostic" in sets else next(iter(sets), "")
    if label_set not in sets:
        raise ConfigurationError(f"{store.location} has no label set {label_set!r}.{did_you_mean(label_set, sets)}")
    return label_set


def _column(store: RecordStore, name: str) -> pa.Array:
    return store.columns([name]).column(name).combine_chunks()


def _list_lengths(store: RecordStore, name: str) -> NDArray[np.int64]:
    lengths = pc.list_value_length(_column(store, name)).fill_null(0)
    return np.asarray(lengths.to_numpy(), dtype=np.int64)


def _count_labels(codes: pa.ListArray, labels: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Count the records that state one of a label's codes, without ``RecordStore.labels``' table of all of them."""
    known = list(dict.fromkeys(code for members in labels.values() for code in members))
    column = pc.index_in(pc.list_flatten(codes), value_set=pa.array(known, pa.string())).fill_null(-1).to_numpy()
    row = pc.list_parent_indices(codes).to_numpy()
    counts = {}
    for label, members in labels.items():
        # The last place is that of -1, a code in no label.
        belongs = np.array([*(code in members for code in known), False])
        # Rows ascend, so that several codes of one record stand next to each other.
        counts[label] = int(np.count_nonzero(np.diff(row[belongs[column]], prepend=-1)))
    return counts


def _without_none(counts: Mapping[str, Any]) -> dict[str, int]:
    """Drop an empty ``unknown``; the other groups are shown even if empty."""
    return {name: int(number) for name, number in counts.items() if number or name != _UNKNOWN}


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: number for name, number in counts.items() if number}
