"""What a store knows of each record: the columns of its tables, and the row that a writer is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

RECORDS: Final = "records.parquet"
REJECTED: Final = "rejected.parquet"

MEASUREMENTS: Final = ("heart_rate", "rr_variability", "pr", "qrs", "qt", "qtc", "axis")
"""What is measured on every record, see ``measurement.Measurement``; each has a ``…_quality`` from 0 to 1 beside it."""

LEAD_FLAGS: Final = ("derived", "missing", "flat", "saturated", "interrupted", "invalid")
"""Each is a column ``…_leads`` that names the leads it is true of, see ``quality.Quality``."""

RECORDS_SCHEMA: Final = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        ("age", pa.float32()),
        ("sex", pa.int8()),
        ("fold", pa.int8()),
        ("recorded_at", pa.string()),
        ("codes", pa.list_(pa.string())),
        ("likelihoods", pa.list_(pa.float32())),
        ("seconds", pa.float32()),
        ("beats", pa.list_(pa.int32())),
        *((name, pa.float32()) for name in MEASUREMENTS),
        *((f"{name}_quality", pa.float32()) for name in MEASUREMENTS),
        ("signal_quality", pa.float32()),
        ("complete", pa.bool_()),
        *((f"{flag}_leads", pa.list_(pa.string())) for flag in LEAD_FLAGS),
        ("notes", pa.list_(pa.string())),
    ]
)
"""Columns of ``records.parquet``; units as in ``ecgfair.ecg``, beats in samples, likelihoods in percent (0 unknown).

``seconds`` is the duration as recorded, before crop or pad; ``complete`` is false if any stored sample is missing.
"""

REJECTED_SCHEMA: Final = pa.schema(
    [pa.field("record_id", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)]
)


@dataclass(frozen=True)
class StoreRow:
    """One row of ``records.parquet``; its fields are the columns of ``RECORDS_SCHEMA``."""

    record_id: str
    patient_id: str
    age: float | None = None
    sex: int | None = None
    fold: int | None = None
    recorded_at: str | None = None
    codes: Sequence[str] = ()
    likelihoods: Sequence[float] = ()
    seconds: float | None = None
    beats: Sequence[int] = ()
    heart_rate: float | None = None
    rr_variability: float | None = None
    pr: float | None = None
    qrs: float | None = None
    qt: float | None = None
    qtc: float | None = None
    axis: float | None = None
    heart_rate_quality: float | None = None
    rr_variability_quality: float | None = None
    pr_quality: float | None = None
    qrs_quality: float | None = None
    qt_quality: float | None = None
    qtc_quality: float | None = None
    axis_quality: float | None = None
    signal_quality: float | None = None
    complete: bool = True
    derived_leads: Sequence[str] = ()
    missing_leads: Sequence[str] = ()
    flat_leads: Sequence[str] = ()
    saturated_leads: Sequence[str] = ()
    interrupted_leads: Sequence[str] = ()
    invalid_leads: Sequence[str] = ()
    notes: Sequence[str] = ()
