"""From a reader to a RecordStore: read, condition, judge, measure, write; in parallel, in order, and resumable."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_modules.measuring.measurement import Measurement, measure_batch
from data_modules.measuring.quality import assess
from data_modules.preparing.conditioning import Conditioned, condition, to_int16, to_millivolts
from data_modules.preparing.workers import Backend, Workers, end_with, workers
from data_modules.records import Reader, Record, Rejected
from data_modules.stores.schema import MEASUREMENTS, StoreRow
from data_modules.stores.store import RecordStore
from data_modules.stores.store_writer import Part, StoreWriter
from data_modules.summary import Summary, kinds, summarize
from ecgfair.ecg import Preprocessing
from ecgfair.errors import RecordError, SourceError, WorkerError

CHUNK: Final = 32
"""Records a task: long enough to outweigh sending it, short enough to keep every worker busy to the end."""

_PART_BYTES: Final = 128 << 20
_PART_RECORDS: Final = 256, 4096

Prepared = tuple[StoreRow, NDArray[np.int16]]


def prepare(
    reader: Reader,
    store: str | Path,
    preprocessing: Preprocessing,
    *,
    jobs: int = 0,
    backend: Backend = "processes",
    address: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    part_records: int | None = None,
) -> Summary:
    """Write a RecordStore from all records of a reader.

    The store's order is the reader's, and its bytes depend neither on the workers nor on whether it was stopped: killed
    at any instant and called again in the same way, it goes on after the last part that was done.

    Args:
        reader: The source.
        store: Folder to write.
        preprocessing: What every record is brought to, see ``condition``.
        jobs: Tasks at a time; 0 takes every core, 1 works in this process.
        backend: Where they run, see ``workers``.
        address: Of the cluster, if the backend is one.
        overwrite: Replace the store that is there, once the new one is whole.
        progress: Show a progress bar on stderr.
        part_records: Positions of the reader that make one file of signals; of about 128 MB if None.

    Returns:
        What was found, read and rejected.

    Raises:
        ConfigurationError: ``jobs``, the backend or its address can't work.
        SourceError: The source lists no record, every record was rejected, or the reader did not account for each one.
        StoreError: The store can't be written, or another process is preparing it.
        WorkerError: A worker process was killed.
    """
    started = time.perf_counter()
    found = len(reader)
    if not found:
        raise SourceError(f"{reader.source_name} lists no record: nothing to prepare.")
    size = part_records or _part_records(preprocessing)
    plan = {"source": reader.fingerprint, "found": found, "part_records": size}
    console = Console(stderr=True)
    with (
        workers(backend, jobs, address) as crew,
        StoreWriter(store, preprocessing, reader.label_sets, reader.source_name, plan, overwrite=overwrite) as writer,
    ):
        _tell(writer, size, found, console)
        if not writer.finished:
            start = writer.done * size
            try:
                with closing(_outcomes(reader, preprocessing, start, crew)) as outcomes:
                    _write(writer, outcomes, start, found, size, console if progress else None)
            except KeyboardInterrupt:
                kept = min(writer.done * size, found)
                told = f"the same command goes on after {kept} of {found} records" if kept else "no part was finished"
                raise KeyboardInterrupt(told) from None
            _check_not_empty(found, writer, reader.source_name)
    return summarize(RecordStore(store), found, time.perf_counter() - started)


def _part_records(preprocessing: Preprocessing) -> int:
    """Return how many records make a part: few files, and little to do again after a kill."""
    fitting = _PART_BYTES // (2 * len(preprocessing.leads) * preprocessing.length)
    return max(_PART_RECORDS[0], min(_PART_RECORDS[1], fitting)) // CHUNK * CHUNK


def _tell(writer: StoreWriter, size: int, found: int, console: Console) -> None:
    if writer.finished:
        console.print("The store had been finished; only its clean-up was left.")
    elif writer.done:
        console.print(f"Going on after {min(writer.done * size, found)} of {found} records.", highlight=False)
    elif writer.started_anew:
        console.print(
            "A stopped preparation was there, but it differs in "
            f"{', '.join(writer.started_anew).replace('_', ' ')}: started anew."
        )


def _write(
    writer: StoreWriter,
    outcomes: Generator[Prepared | Rejected, None, None],
    start: int,
    found: int,
    size: int,
    console: Console | None,
) -> None:
    """Gather outcomes into parts and write them."""
    bar = Progress(
        TextColumn("Preparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console or Console(file=sys.stderr),
        transient=True,
        disable=console is None or not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=found, completed=start)
        for first in range(start, found, size):
            rows: list[StoreRow] = []
            signals: list[NDArray[np.int16]] = []
            rejected: list[Rejected] = []
            for outcome in islice(outcomes, min(size, found - first)):
                if isinstance(outcome, Rejected):
                    rejected.append(outcome)
                else:
                    rows.append(outcome[0])
                    signals.append(outcome[1])
                bar.advance(task)
            writer.write(Part(rows, signals, rejected))


def _outcomes(
    reader: Reader, preprocessing: Preprocessing, start: int, crew: Workers
) -> Generator[Prepared | Rejected, None, None]:
    """Yield the outcome of every record from ``start`` on in the reader's order, whichever worker comes first."""
    found = len(reader)
    tasks = (
        joblib.delayed(_prepare_chunk)(reader, range(first, min(first + CHUNK, found)), preprocessing, os.getpid())
        for first in range(start, found, CHUNK)
    )
    try:
        yield from _results(tasks, crew)
    except BrokenProcessPool as error:
        raise WorkerError(
            "A worker process ended unexpectedly, most often for want of memory: start again with fewer --jobs, which "
            "goes on after the parts that were done."
        ) from error


def _results(tasks: Iterator[Any], crew: Workers) -> Generator[Prepared | Rejected, None, None]:
    if crew.streams:
        # joblib shares the cores' threads out among its workers, so that BLAS does not start all of them in each.
        parallel: Any = joblib.Parallel(return_as="generator")  # its result is typed as a list
        with closing(parallel(tasks)) as chunks:
            for chunk in chunks:
                yield from chunk
        return
    while batch := list(islice(tasks, 8 * crew.count)):
        for chunk in joblib.Parallel()(batch):
            yield from chunk


def _prepare_chunk(
    reader: Reader, positions: range, preprocessing: Preprocessing, main_process: int
) -> list[Prepared | Rejected]:
    """Prepare some records; what is measured is measured on all of them at once."""
    end_with(main_process)
    outcomes: list[tuple[Record, Conditioned, NDArray[np.int16]] | Rejected] = []
    for record in reader.read(positions):
        if isinstance(record, Rejected):
            outcomes.append(record)
            continue
        try:
            conditioned = condition(record, preprocessing)
            outcomes.append((record, conditioned, to_int16(conditioned.signal, preprocessing.scale)))
        except RecordError as error:
            outcomes.append(Rejected(record.record_id, str(error)))
    if len(outcomes) != len(positions):
        raise SourceError(
            f"The reader of {reader.source_name} gave {len(outcomes)} outcomes for the {len(positions)} records from "
            f"{positions[0]} on: each must be a Record or a Rejected. This is a fault of the reader."
        )
    kept = [steps for _, _, steps in (outcome for outcome in outcomes if not isinstance(outcome, Rejected))]
    measured = iter(_measured(kept, preprocessing))
    return [
        outcome
        if isinstance(outcome, Rejected)
        else (_row(outcome[0], outcome[1], next(measured), preprocessing), outcome[2])
        for outcome in outcomes
    ]


def _measured(kept: Sequence[NDArray[np.int16]], preprocessing: Preprocessing) -> list[Measurement]:
    if not kept:
        return []
    # Measured on what is stored, so that beats and intervals are those of the samples a model sees.
    stored = to_millivolts(np.stack(kept), preprocessing.scale)
    return measure_batch(stored, preprocessing.leads, preprocessing.sampling_rate)


def _row(record: Record, conditioned: Conditioned, measured: Measurement, preprocessing: Preprocessing) -> StoreRow:
    start, stop = conditioned.kept
    ratio = record.sampling_rate / preprocessing.sampling_rate
    # Judged as recorded: filters and resampling round off what a fault looks like.
    beats = np.rint((measured.beats - conditioned.offset) * ratio).astype(np.int64)
    quality = assess(
        record.signal[:, start:stop],
        record.leads,
        record.sampling_rate,
        beats[(beats >= 0) & (beats < stop - start)],
        conditioned.missing,
    )
    names = (*MEASUREMENTS, *(f"{name}_quality" for name in MEASUREMENTS))
    return StoreRow(
        record_id=record.record_id,
        patient_id=record.patient_id,
        age=record.age,
        sex=record.sex,
        fold=record.fold,
        recorded_at=record.recorded_at,
        codes=list(record.codes),
        likelihoods=list(record.codes.values()),
        seconds=record.signal.shape[1] / record.sampling_rate,
        beats=measured.beats.tolist(),
        **{name: getattr(measured, name) for name in names},
        signal_quality=quality.score,
        complete=not np.isnan(conditioned.signal).any(),
        derived_leads=conditioned.derived,
        missing_leads=conditioned.missing,
        flat_leads=quality.flat_leads,
        saturated_leads=quality.saturated_leads,
        interrupted_leads=quality.interrupted_leads,
        invalid_leads=quality.invalid_leads,
        notes=list(record.notes),
    )


def _check_not_empty(found: int, writer: StoreWriter, source_name: str) -> None:
    if writer.counts()[0]:
        return
    reasons = writer.reasons()
    kind, count = next(iter(kinds(reasons).items()))
    example = next(reason for reason in reasons if reason.startswith(kind))
    raise SourceError(
        f"{source_name}: all {found} records were rejected, so nothing was written. "
        f"The commonest reason, {count} times: {example}"
    )
