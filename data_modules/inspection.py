"""What is inside a store, as the verb ``inspect`` shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_modules.stores.schema import MEASUREMENTS
from data_modules.stores.store import RecordStore
from data_modules.summary import Counts, count, facts, floats, kinds_of, listed, listed_labels, with_share
from ecgfair.ecg import Preprocessing

_UNITS: Final = {"heart_rate": " /min", "pr": " ms", "qrs": " ms", "qt": " ms", "qtc": " ms", "axis": "°"}
_LOW, _HIGH = 0.05, 0.95
_SHORT: Final = 12  # digits of a fingerprint, enough to tell stores apart


@dataclass(frozen=True)
class Spread:
    """How some values are distributed.

    Args:
        low: The value that 5 % are below; NaN if there is none, and so the others.
        median: Half of the values are below.
        high: The value that 95 % are below.
        missing: Records without a value.
    """

    low: float
    median: float
    high: float
    missing: int


@dataclass(frozen=True)
class Description(Counts):
    """What is inside a store; see ``Counts`` for what is counted.

    Args:
        store: Where it is.
        source: What the records are from.
        patients: Different patients.
        hours: Of all recordings, as recorded.
        durations: Of a recording as recorded, in seconds.
        preprocessing: What every record was brought to.
        bytes_on_disk: Of all files the manifest lists.
        shards: Files of signals.
        fingerprint: Of the content, see ``RecordStore.fingerprint``.
        label_sets: Label set -> number of labels.
        measurements: What was measured -> its values, in the units of ``ecgfair.ecg``.
        quality: The score of the signals, from 0 to 1.
        examples: Kind of reason -> the first record that was rejected for it, and why.
    """

    store: str
    source: str
    patients: int
    hours: float
    durations: Spread
    preprocessing: Preprocessing
    bytes_on_disk: int
    shards: int
    fingerprint: str
    label_sets: Mapping[str, int]
    measurements: Mapping[str, Spread]
    quality: Spread
    examples: Mapping[str, tuple[str, str]]


def describe(store: RecordStore, label_set: str | None = None) -> Description:
    """Describe a store from its manifest and the columns of its tables; no signal is read.

    Args:
        store: The store.
        label_set: The one whose labels are counted; the superdiagnostic one, or else the first, if None.

    Raises:
        ConfigurationError: The store has no such label set.
        StoreError: A table of the store can't be read.
    """
    counts = count(store, label_set)
    seconds = floats(store, "seconds")
    return Description(
        **vars(counts),
        store=store.location,
        source=store.source_name,
        patients=pc.count_distinct(store.columns(["patient_id"]).column("patient_id")).as_py(),
        hours=float(np.nansum(seconds)) / 3600,
        durations=_spread(seconds),
        preprocessing=store.preprocessing,
        bytes_on_disk=sum(entry["bytes"] for entry in store.manifest["files"].values()),
        shards=len(store.manifest["shards"]),
        fingerprint=store.fingerprint,
        label_sets={name: len(labels) for name, labels in store.label_sets.items()},
        measurements={name: _spread(floats(store, name)) for name in MEASUREMENTS},
        quality=_spread(floats(store, "signal_quality")),
        examples=_examples(store),
    )


def print_description(store: RecordStore, console: Console | None = None, label_set: str | None = None) -> None:
    """Print what is inside a store to stdout, or to the console given.

    Args:
        store: The store.
        console: Where to.
        label_set: See ``describe``.
    """
    console = console or Console()
    found = describe(store, label_set)
    console.print(f"Store: {found.store}", highlight=False, markup=False, soft_wrap=True)
    parts = [facts(_about(found)), facts(_counted(found)), _measurements(found)]
    if found.labels:
        parts.append(facts({f"labels ({found.label_set})": listed_labels(found.labels, found.read)}))
    if found.rejected:
        parts.append(_rejected(found))
    for part in parts:
        console.print()
        console.print(part, highlight=False)


def with_unit(name: str, value: float) -> str:
    """Return a measurement as it is printed, such as ``96 ms``."""
    return f"{value:.3g}{_UNITS.get(name, '')}"


def _about(found: Description) -> dict[str, str | list[str]]:
    """Return what the store is."""
    prepared = found.preprocessing
    fitted = {"cropped": prepared.crop, "padded": prepared.pad}
    return {
        "source": found.source,
        "records": f"{found.read} of {found.patients} patients; {sum(found.rejected.values())} rejected",
        "duration": f"{found.hours:.4g} h as recorded; {_distribution(found.durations, ' s')}",
        "signals": f"{len(prepared.leads)} leads at {prepared.sampling_rate} Hz, {prepared.length} samples each",
        "leads": " ".join(prepared.leads),
        "band": "as recorded" if prepared.band_pass is None else "{:g} to {:g} Hz".format(*prepared.band_pass),
        "other lengths": [
            f"{name} ({policy}) {with_share(found.fitted[name], found.read)}" for name, policy in fitted.items()
        ],
        "scale": f"{prepared.scale:g} mV a step of int16",
        "on disk": f"{_size(found.bytes_on_disk)}, signals in {found.shards} file{'s' * (found.shards != 1)}",
        "fingerprint": found.fingerprint[:_SHORT],
        "label sets": listed(found.label_sets),
    }


def _counted(found: Description) -> dict[str, str | list[str]]:
    """Return what was counted in it."""
    lacking = {"no beat": found.without_beats, "samples missing": found.incomplete}
    return {
        "sex": listed(found.by_sex, found.read),
        "age in years": listed(found.by_age, found.read),
        "folds": listed(found.folds, found.read),
        "records with a lead": listed(found.flags, found.read),
        "records with": listed(lacking, found.read),
        "signal quality": _distribution(found.quality),
        "taken as missing or in no label set": listed(found.notes),
    }


def _distribution(spread: Spread, unit: str = "") -> str:
    if np.isnan(spread.median):
        return "not known"
    missing = f", {spread.missing} records without" if spread.missing else ""
    return f"median {spread.median:.3g}{unit}, 5-95 % {spread.low:.3g} to {spread.high:.3g}{unit}{missing}"


def _measurements(found: Description) -> Table:
    table = Table("measured", "median", "5-95 %", "missing", box=None, pad_edge=False)
    for name, spread in found.measurements.items():
        known = not np.isnan(spread.median)
        table.add_row(
            name,
            with_unit(name, spread.median) if known else "-",
            f"{spread.low:.3g} to {with_unit(name, spread.high)}" if known else "-",
            with_share(spread.missing, found.read),
        )
    return table


def _rejected(found: Description) -> Table:
    table = Table("rejected", "records", "for example", box=None, pad_edge=False)
    for kind, number in found.rejected.items():
        record, reason = found.examples[kind]
        table.add_row(escape(kind), str(number), escape(f"{record}: {reason}"))
    return table


def _spread(values: NDArray[np.float64]) -> Spread:
    known = values[~np.isnan(values)]
    low, median, high = np.quantile(known, (_LOW, 0.5, _HIGH)).tolist() if known.size else (float("nan"),) * 3
    return Spread(low, median, high, int(values.size - known.size))


def _examples(store: RecordStore) -> dict[str, tuple[str, str]]:
    rejected = store.rejected
    kinds = kinds_of(rejected.column("reason"))
    firsts = {kind: pc.index(kinds, kind).as_py() for kind in pc.unique(kinds).to_pylist()}
    return {
        kind: (rejected.column("record_id")[first].as_py(), rejected.column("reason")[first].as_py())
        for kind, first in firsts.items()
    }


def _size(number: float) -> str:
    """Return bytes in a unit that leaves few digits."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
