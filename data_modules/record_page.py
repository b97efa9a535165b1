"""One record of a store as its page shows it: what is drawn, and the lines above."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_modules.inspection import with_unit
from data_modules.preparing.conditioning import to_millivolts
from data_modules.stores.schema import LEAD_FLAGS, MEASUREMENTS
from data_modules.stores.store import RecordStore
from ecgfair.ecg import AGE_OVER_89, FEMALE, MALE, Preprocessing
from ecgfair.errors import ConfigurationError

_NAMES: Final = {
    "heart_rate": "Heart rate",
    "rr_variability": "RR variability",
    "pr": "PR",
    "qrs": "QRS",
    "qt": "QT",
    "qtc": "QTc",
    "axis": "Axis",
}
_DOUBTFUL: Final = 0.5  # a measurement of less quality is marked
_LOOKED_AT: Final = 2000  # ids compared with one that is not there: all of a million take minutes
_GAP: Final = "   "
_SHOWN: Final = (
    *("patient_id", "age", "sex", "recorded_at", "fold", "codes", "likelihoods", "seconds", "beats"),
    *(f"{name}{suffix}" for name in MEASUREMENTS for suffix in ("", "_quality")),
    *("signal_quality", "complete", "notes", *(f"{flag}_leads" for flag in LEAD_FLAGS)),
)


@dataclass(frozen=True)
class RecordPage:
    """What ``draw_page`` takes.

    Args:
        signal: (leads, time) float32 millivolts; NaN where nothing was recorded.
        leads: Names of its rows.
        sampling_rate: Hz.
        beats: (K,) sample index of each R peak.
        title: Whose page it is.
        lines: Demographics, measurements, codes, quality and notes.
    """

    signal: NDArray[np.float32]
    leads: tuple[str, ...]
    sampling_rate: int
    beats: NDArray[np.int64]
    title: str
    lines: list[str]


def record_page(store: RecordStore, record_id: str) -> RecordPage:
    """Gather what the page of one record shows.

    Raises:
        ConfigurationError: The store has no such record.
        StoreError: A file of the store can't be read.
    """
    position = find_record(store, record_id)
    prepared = store.preprocessing
    beats = store.columns(["beats"]).column("beats")[position].as_py()
    return RecordPage(
        signal=to_millivolts(store.gather(np.array([position]))[0], prepared.scale),
        leads=prepared.leads,
        sampling_rate=prepared.sampling_rate,
        beats=np.array(beats or [], dtype=np.int64),
        title=f"{store.source_name}: {record_id}",
        lines=header_lines(store, position),
    )


def find_record(store: RecordStore, record_id: str) -> int:
    """Return the position of a record in the store.

    Args:
        store: The store.
        record_id: As in ``records.parquet``; text, also where the source numbers its records.

    Raises:
        ConfigurationError: The store has no such record; the message names the nearest, or why it was rejected.
    """
    ids = store.columns(["record_id"]).column("record_id")
    position = int(pc.index(ids, record_id).as_py())
    if position >= 0:
        return position
    rejected = store.rejected.filter(pc.equal(store.rejected.column("record_id"), record_id))
    if rejected.num_rows:
        reason = rejected.column("reason")[0].as_py()
        raise ConfigurationError(f"{store.location} has no record {record_id!r}: it was rejected: {reason}")
    raise ConfigurationError(f"{store.location} has no record {record_id!r}.{_nearest(record_id, ids)}")


def header_lines(store: RecordStore, position: int) -> list[str]:
    """Return what stands above the page of a record; nothing that was measured or flagged is left out.

    Args:
        store: The store.
        position: Of the record.
    """
    row = store.columns(_SHOWN).slice(position, 1).to_pylist()[0]
    lines = (
        _person(row),
        _measured(row, ("heart_rate", "rr_variability", "axis")),
        _measured(row, ("pr", "qrs", "qt", "qtc")),
        _codes(row),
        _quality(row, store.preprocessing),
        "; ".join(row["notes"] or []),
    )
    return [line for line in lines if line]


def _nearest(record_id: str, ids: pa.ChunkedArray) -> str:
    """Return the ids that begin most like one that is not there."""
    for length in range(len(record_id), 0, -1):
        alike = ids.filter(pc.starts_with(ids, record_id[:length])).slice(0, _LOOKED_AT).to_pylist()
        if alike:
            nearest = difflib.get_close_matches(record_id, alike, n=3, cutoff=0.0)
            return f" Did you mean {' or '.join(map(repr, nearest))}?"
    return f" Its records have ids such as {', '.join(map(repr, ids.slice(0, 3).to_pylist()))}."


def _person(row: Mapping[str, Any]) -> str:
    age = row["age"]
    parts = {
        "Patient": row["patient_id"],
        "Age": "unknown" if age is None else "over 89 years" if age == AGE_OVER_89 else f"{age:.3g} years",
        "Sex": {MALE: "male", FEMALE: "female"}.get(row["sex"], "unknown"),
        "Recorded": (row["recorded_at"] or "").replace("T", " "),
        "Fold": row["fold"],
    }
    return _GAP.join(f"{name} {value}" for name, value in parts.items() if value not in (None, ""))


def _measured(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    parts = []
    for name in names:
        value, quality = row[name], row[f"{name}_quality"]
        if value is None:
            parts.append(f"{_NAMES[name]} not measured")
            continue
        doubt = f" (quality {quality:.2g})" if quality is not None and quality < _DOUBTFUL else ""
        parts.append(f"{_NAMES[name]} {with_unit(name, value)}{doubt}")
    return _GAP.join(parts)


def _codes(row: Mapping[str, Any]) -> str:
    stated = zip(row["codes"] or [], row["likelihoods"] or [], strict=True)
    codes = ", ".join(f"{code} {likelihood:g} %" if likelihood else code for code, likelihood in stated)
    return f"Codes {codes}" if codes else ""


def _quality(row: Mapping[str, Any], prepared: Preprocessing) -> str:
    kept = prepared.length / prepared.sampling_rate
    score, seconds = row["signal_quality"], row["seconds"]
    flags = [f"{flag} {', '.join(leads)}" for flag in LEAD_FLAGS if (leads := row[f"{flag}_leads"])]
    parts = [
        "" if score is None else f"Signal quality {score:.2g}",
        f"Leads {'; '.join(flags)}" if flags else "No lead flagged",
        "" if row["complete"] else "Samples missing",
        "" if row["beats"] else "No beat found",
        "" if seconds is None or round(seconds, 2) == kept else f"{seconds:.4g} s recorded, {kept:g} s stored",
    ]
    return _GAP.join(part for part in parts if part)
