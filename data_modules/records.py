"""Record: one ECG with its metadata, as every reader yields it to ``prepare``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Record:
    """One ECG as recorded, before any preprocessing.

    Args:
        record_id: Unique in its source.
        patient_id: The same for all records of a patient.
        signal: (leads, time) float32 millivolts; NaN where the source says that nothing was recorded.
        leads: Names of the rows of ``signal``, in the spelling of ``ecgfair.ecg.LEADS``, none twice. A lead that was
            not recorded is not among them: ``prepare`` derives it or marks it as missing.
        sampling_rate: Hz.
        age: Years, ``AGE_OVER_89`` for "over 89", or None if missing.
        sex: ``MALE``, ``FEMALE`` or None if missing.
        codes: Label codes of the source with their likelihood in percent (0 means stated without one).
        fold: The source's own fold, from 1, or None.
        recorded_at: ISO 8601 date and time, or None.
        notes: What the reader took as missing though the source states something, or could not place: one sentence
            each, ``"kind: details"``. ``prepare`` stores them and counts them by kind.
    """

    record_id: str
    patient_id: str
    signal: NDArray[np.float32]
    leads: tuple[str, ...]
    sampling_rate: float
    age: float | None = None
    sex: int | None = None
    codes: Mapping[str, float] = field(default_factory=dict)
    fold: int | None = None
    recorded_at: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """A record that could not be read, with the reason a person can act on: ``"kind: details"``, counted by kind."""

    record_id: str
    reason: str


LabelSets = Mapping[str, Mapping[str, Sequence[str]]]
"""Name of a label set -> label -> the codes that make it positive."""


class Reader(Protocol):
    """A data source. Listing is cheap, and entries are read independently of each other, so that work can be spread."""

    source_name: str
    label_sets: LabelSets

    @property
    def fingerprint(self) -> str:
        """Changes when what the source lists changes, so that a preparation begun before can't go on with it."""
        ...

    def __len__(self) -> int:
        """Return how many records the source's own table lists."""
        ...

    def read(self, positions: Sequence[int]) -> Iterator[Record | Rejected]:
        """Yield exactly one Record or Rejected for each position, in order; positions count from 0."""
        ...
