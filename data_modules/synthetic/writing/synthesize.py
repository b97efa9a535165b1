"""The verb ``synthesize``: a synthetic population on disk, whole or not at all, with what is true of it beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy

from data_modules.preparing.prepare import CHUNK, prepare
from data_modules.preparing.workers import end_with, workers
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.population import Population
from data_modules.synthetic.people.truth import Truth
from data_modules.synthetic.signals.recording import SECONDS, Recording, record
from data_modules.synthetic.writing import ptbxl_layout
from data_modules.synthetic.writing.best_scores import print_population
from data_modules.synthetic.writing.reader import SyntheticReader, check, describe
from data_modules.synthetic.writing.truth_tables import TRUTH_SCHEMA, truth_table, write_truth
from ecgfair import __version__
from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError, StoreError, WorkerError

_RECORDS_A_TASK: Final = 2000
"""Some seconds of work, since starting a process takes as long."""


@dataclass(frozen=True)
class _Plan:
    """What is made; see ``synthesize``."""

    records: int
    seed: int
    population: Population
    sampling_rate: int
    jobs: int


def synthesize(
    out: str,
    records: int = 1000,
    seed: int = 0,
    format: Literal["ptbxl", "store"] = "ptbxl",  # noqa: A002  # what the flag is called
    sampling_rate: int = 100,
    population: Population = Population(),  # noqa: B008  # frozen, and jsonargparse shows its fields as defaults
    jobs: int = 0,
) -> None:
    """Write a synthetic population whose truth is known, to try every command and to test what measures disparities.

    A record depends on the seed, its number and the population alone, not on how many are made. OUT/truth holds what is
    true of each record: its diseases and where their signs are, and the best score that there can be.

    Args:
        out: Folder to write.
        records: How many are drawn; a planted disparity may leave some of them out.
        seed: Another seed makes other patients.
        format: The folder that PTB-XL is published as, or a RecordStore, measured as by prepare.
        sampling_rate: 100 or 500 Hz.
        population: Who the patients are, and which disparities are planted; experiments/synthetic/population.yaml is an
            example.
        jobs: Tasks at a time; 0 takes every core.
    """
    check(records, seed, sampling_rate)
    if format not in ("ptbxl", "store"):
        raise ConfigurationError(f"format is {format!r}: expected ptbxl or store.")
    if jobs < 0:
        raise ConfigurationError(f"jobs is {jobs}: expected 0 for every core, or a number of processes.")
    if "://" in out:
        raise StoreError(f"{out} is a URI: write into a folder of this machine; `publish` copies a store.")
    truth(1, seed, population)  # what can't be drawn is refused before anything is written
    target = Path(out).absolute()
    if os.path.lexists(target):
        raise StoreError(f"{target} is there already: remove it or choose another folder.")
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    parents = [parent for parent in target.parents if not os.path.lexists(parent)]  # the innermost first
    plan = _Plan(records, seed, population, sampling_rate, jobs)
    try:
        partial.mkdir(parents=True)
        made = partial / "made"
        table = _write_ptbxl(made, plan) if format == "ptbxl" else _write_store(made, partial / "tables", plan)
        left_out = records - table.num_rows
        write_truth(made, table, _description(plan, left_out))
        made.rename(target)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was written") from None
    except OSError as error:
        raise _not_written(target, error) from error
    except StoreError as error:
        # A full disk in `prepare`, which says that the same command goes on where it stopped: here nothing stays.
        if isinstance(error.__cause__, OSError):
            raise _not_written(target, error.__cause__) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):  # of what was made, or what somebody else put something into
            for parent in parents:
                parent.rmdir()
    print_population(target, table, population, left_out)


def _write_ptbxl(folder: Path, plan: _Plan) -> pa.Table:
    """Write the layout of PTB-XL, and return what is true of its records."""
    folder.mkdir()
    tables = [TRUTH_SCHEMA.empty_table()]
    rows: list[dict[str, Any]] = []
    for table, some in _chunks(folder, plan):
        tables.append(table)
        rows += some
    if not rows:
        raise _all_left_out(plan)
    ptbxl_layout.write_tables(folder, rows)
    return pa.concat_tables(tables)


def _chunks(folder: Path, plan: _Plan) -> Iterator[tuple[pa.Table, list[dict[str, Any]]]]:
    """Write all signals, some a task, and yield the tables of each task in order."""
    numbers = range(1, plan.records + 1)
    parts = [numbers[start : start + _RECORDS_A_TASK] for start in range(0, plan.records, _RECORDS_A_TASK)]
    with workers("processes", _jobs(plan, len(parts))):
        parallel: Any = joblib.Parallel(return_as="generator")  # its result is typed as a list
        tasks = (joblib.delayed(_write_chunk)(folder, part, plan, os.getpid()) for part in parts)
        try:
            with closing(parallel(tasks)) as chunks:
                yield from chunks
        except BrokenProcessPool as error:
            raise WorkerError(
                "A worker process ended unexpectedly, most often for want of memory: try again with fewer --jobs."
            ) from error


def _write_chunk(folder: Path, numbers: range, plan: _Plan, main_process: int) -> tuple[pa.Table, list[dict[str, Any]]]:
    end_with(main_process)
    rows: list[dict[str, Any]] = []

    def written() -> Iterator[tuple[Truth, Recording]]:
        """Yield one record at a time, so that no more than one signal is kept."""
        for number in numbers:
            drawn = truth(number, plan.seed, plan.population)
            if drawn.left_out:
                continue
            recording = record(drawn, plan.sampling_rate)
            ptbxl_layout.write_signal(folder, number, recording.signal, plan.sampling_rate)
            rows.append(ptbxl_layout.database_row(drawn, recording, plan.sampling_rate))
            yield drawn, recording

    return truth_table(written()), rows


def _write_store(folder: Path, tables: Path, plan: _Plan) -> pa.Table:
    """Write a RecordStore, and return what is true of its records."""
    tables.mkdir()
    reader = SyntheticReader(plan.records, plan.seed, plan.population, plan.sampling_rate, tables)
    if not len(reader):
        raise _all_left_out(plan)
    preprocessing = Preprocessing(sampling_rate=plan.sampling_rate, length=SECONDS * plan.sampling_rate)
    jobs = _jobs(plan, -(-len(reader) // CHUNK))
    summary = prepare(reader, folder, preprocessing, jobs=jobs)
    if summary.rejected:
        raise StoreError(f"Synthetic records were rejected ({summary.rejected}): this is a fault of the generator.")
    return pa.concat_tables([pq.read_table(path, schema=TRUTH_SCHEMA) for path in sorted(tables.iterdir())])


def _jobs(plan: _Plan, tasks: int) -> int:
    """Return how many processes to start: none for nothing, since starting one takes longer than many records."""
    return min(plan.jobs or joblib.cpu_count(), tasks)


def _not_written(target: Path, error: OSError) -> StoreError:
    return StoreError(f"{target} can't be written ({error}): make room, or choose another folder.")


def _all_left_out(plan: _Plan) -> ConfigurationError:
    return ConfigurationError(
        f"population.disparities leave out all of the {plan.records} records: expected some to be kept. Make more "
        "records, or lower the strength of training_records."
    )


def _description(plan: _Plan, left_out: int) -> dict[str, Any]:
    versions = {"ecgfair": __version__, "numpy": np.__version__, "scipy": scipy.__version__}
    made_from = describe(plan.records, plan.seed, plan.population, plan.sampling_rate)
    return made_from | {"left_out": left_out, "versions": versions}
