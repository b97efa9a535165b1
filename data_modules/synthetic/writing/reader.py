"""Reads a synthetic population as any other source, so that ``prepare`` writes its store with all that it measures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from data_modules.readers.ptbxl import label_sets_of
from data_modules.records import LabelSets, Record
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.population import Population
from data_modules.synthetic.people.truth import Truth
from data_modules.synthetic.signals.recording import Recording, record
from data_modules.synthetic.writing import published
from data_modules.synthetic.writing.truth_tables import truth_table
from ecgfair.ecg import LEADS
from ecgfair.errors import ConfigurationError

GENERATOR_VERSION: Final = 1
"""Raised whenever the same seed and population would make other records than before."""

SAMPLING_RATES: Final = (100, 500)
"""Hz; those of PTB-XL."""


class SyntheticReader:
    """Lists the records that a population keeps; those that a planted disparity leaves out are not listed at all.

    A record is drawn when it is read, and depends on its number, the seed and the population alone.

    Args:
        records: How many are drawn, those left out included.
        seed: Another seed makes other patients.
        population: Who they are.
        sampling_rate: 100 or 500 Hz.
        tables: Folder that gets what is true of the records, a table a call of ``read``, see ``truth_table``; its name
            is the position of the first record. None if nobody asks.

    Attributes:
        left_out: How many records are not listed.

    Raises:
        ConfigurationError: An argument can't be.
    """

    source_name = "synthetic"

    def __init__(
        self,
        records: int,
        seed: int = 0,
        population: Population = Population(),  # noqa: B008  # frozen
        sampling_rate: int = 100,
        tables: Path | None = None,
    ) -> None:
        check(records, seed, sampling_rate)
        self.records = records
        self.seed = seed
        self.population = population
        self.sampling_rate = sampling_rate
        self.tables = tables
        self.label_sets: LabelSets = label_sets_of(published.statements())
        all_kept = all(disparity.kind != "training_records" for disparity in population.disparities)
        kept = [number for number in range(1, records + 1) if all_kept or not truth(number, seed, population).left_out]
        # A worker is sent the reader with every task: numbers are shorter than lists, and drawing them takes time.
        self._numbers = np.array(kept, dtype=np.int32)
        self.left_out = records - len(kept)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides what the records are."""
        return hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()

    @property
    def description(self) -> dict[str, Any]:
        """What the records are made from; JSON values."""
        return describe(self.records, self.seed, self.population, self.sampling_rate)

    def __len__(self) -> int:
        """Return how many records are kept."""
        return len(self._numbers)

    def read(self, positions: Sequence[int]) -> Iterator[Record]:
        """Yield one ``Record`` for each position among those kept, counted from 0."""
        made: list[tuple[Truth, Recording]] = []
        for position in positions:
            drawn = truth(int(self._numbers[position]), self.seed, self.population)
            recording = record(drawn, self.sampling_rate)
            made.append((drawn, recording))
            yield _as_read(drawn, recording, self.sampling_rate)
        if self.tables is not None and made:
            pq.write_table(truth_table(made), self.tables / f"{positions[0]:09d}.parquet")


def check(records: int, seed: int, sampling_rate: int) -> None:
    """Refuse numbers that no population can have.

    Raises:
        ConfigurationError: One of them can't be; the message says which.
    """
    if records < 1:
        raise ConfigurationError(f"records is {records}: expected at least 1.")
    if seed < 0:
        raise ConfigurationError(f"seed is {seed}: expected 0 or more.")
    if sampling_rate not in SAMPLING_RATES:
        raise ConfigurationError(
            f"sampling_rate is {sampling_rate} Hz: synthetic records are made at 100 or at 500 Hz, as those of PTB-XL."
        )


def describe(records: int, seed: int, population: Population, sampling_rate: int) -> dict[str, Any]:
    """Return what the records are made from, as JSON values; equal for equal records."""
    return {
        "generator_version": GENERATOR_VERSION,
        "records": records,
        "seed": seed,
        "sampling_rate": sampling_rate,
        "population": asdict(population),
    }


def _as_read(drawn: Truth, recording: Recording, sampling_rate: int) -> Record:
    return Record(
        record_id=str(drawn.number),
        patient_id=str(drawn.patient),
        signal=recording.signal.astype(np.float32) / np.float32(1000),
        leads=LEADS,
        sampling_rate=sampling_rate,
        age=published.age(drawn),
        sex=published.sex(drawn),
        codes=published.likelihoods(drawn),
        fold=drawn.fold,
        recorded_at=drawn.recorded_at,
    )
