"""From a reader to a RecordStore: read, check, bring to one rate and length, measure, write; in parallel, in order."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.signal import butter, resample_poly, sosfiltfilt

from data_modules.measurement import measure
from data_modules.readers.ptbxl import PtbXlReader
from data_modules.records import Reader, Record, Rejected
from data_modules.store import RecordStore
from data_modules.store_writer import StoreRow, StoreWriter, to_int16
from data_modules.summary import Summary, kinds, print_summary, summarize
from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError, RecordError, SourceError

_CHUNK: Final = 32
"""Records a task: long enough to outweigh sending it, short enough to keep every worker busy to the end."""

_FILTER_ORDER: Final = 3
_MAX_RESAMPLING_FACTOR: Final = 1000

Prepared = tuple[StoreRow, NDArray[np.int16]]


def prepare_ptbxl(source: str, store: str, sampling_rate: int = 100, jobs: int = 0, overwrite: bool = False) -> None:
    """Read the official folder of PTB-XL into a RecordStore and print what was found.

    Args:
        source: Folder with ptbxl_database.csv, scp_statements.csv and the folders of records.
        store: Folder to write.
        sampling_rate: 100 or 500 Hz.
        jobs: Processes; 0 takes every core.
        overwrite: Replace the store that is there, once the new one is whole.
    """
    preprocessing = Preprocessing(sampling_rate=sampling_rate, length=10 * sampling_rate)
    print_summary(prepare(PtbXlReader(source, sampling_rate), store, preprocessing, jobs=jobs, overwrite=overwrite))


def prepare(
    reader: Reader,
    store: str | Path,
    preprocessing: Preprocessing,
    *,
    jobs: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Write a RecordStore from all records of a reader.

    The store's order is the reader's, and its bytes do not depend on ``jobs``. Another joblib backend, chosen with
    ``joblib.parallel_config``, takes the work to a cluster.

    Args:
        reader: The source. A record it yields twice is stored twice.
        store: Folder to write.
        preprocessing: What every record is brought to, see ``condition``.
        jobs: Processes; 0 takes every core, 1 works in this process.
        overwrite: Replace the store that is there, once the new one is whole.
        progress: Show a progress bar on stderr.

    Returns:
        What was found, read and rejected.

    Raises:
        ConfigurationError: ``jobs`` is negative.
        SourceError: The source lists no record, every record was rejected, or the reader did not account for each one.
        StoreError: The store can't be written.
    """
    if jobs < 0:
        raise ConfigurationError(f"jobs is {jobs}: expected 0 for every core, or a number of processes.")
    started = time.perf_counter()
    found = len(reader)
    with (
        StoreWriter(store, preprocessing, reader.label_sets, reader.source_name, overwrite=overwrite) as writer,
        closing(_outcomes(reader, preprocessing, jobs)) as outcomes,
    ):
        read, reasons = 0, []
        for outcome in track(
            outcomes, "Preparing", total=found, console=Console(stderr=True), transient=True, disable=not progress
        ):
            if isinstance(outcome, Rejected):
                writer.reject(outcome)
                reasons.append(outcome.reason)
            else:
                writer.append(*outcome)
                read += 1
        _account(found, read, reasons, reader.source_name)
    return summarize(RecordStore(store), found, time.perf_counter() - started)


def condition(record: Record, preprocessing: Preprocessing) -> NDArray[np.float64]:
    """Bring a recording to the leads, sampling rate, length and band of ``preprocessing``, in millivolts.

    Leads are taken by name. Another sampling rate is resampled with a polyphase filter, then the band is passed by a
    zero-phase Butterworth filter of order 3; both work along time only. A longer record keeps its first ``length``
    samples.

    Args:
        record: As read.
        preprocessing: What to bring it to.

    Returns:
        (leads, length) float64 millivolts.

    Raises:
        RecordError: A lead is missing or there twice, a sample is not a number, or there are fewer than ``length``.
    """
    signal = _select_leads(record, preprocessing.leads).astype(np.float64)
    ratio = Fraction(preprocessing.sampling_rate / record.sampling_rate).limit_denominator(_MAX_RESAMPLING_FACTOR)
    if ratio != 1:
        # The ends are padded along the line through them, or a lead off zero would ring there.
        signal = resample_poly(signal, ratio.numerator, ratio.denominator, axis=-1, padtype="line")
    if signal.shape[1] < preprocessing.length:
        raise RecordError(
            f"too short: {signal.shape[1]} samples at {preprocessing.sampling_rate} Hz, "
            f"expected {preprocessing.length}."
        )
    if preprocessing.band_pass is not None:
        sections = butter(
            _FILTER_ORDER, preprocessing.band_pass, btype="bandpass", fs=preprocessing.sampling_rate, output="sos"
        )
        signal = sosfiltfilt(sections, signal, axis=-1)
    return np.ascontiguousarray(signal[:, : preprocessing.length])


def _select_leads(record: Record, leads: Sequence[str]) -> NDArray[np.float32]:
    if record.signal.shape[0] != len(record.leads):
        raise RecordError(
            f"leads unclear: {record.signal.shape[0]} rows of signal, {len(record.leads)} names of leads."
        )
    if len(set(record.leads)) != len(record.leads):
        raise RecordError(f"lead there twice: found {', '.join(record.leads)}.")
    missing = [lead for lead in leads if lead not in record.leads]
    if missing:
        raise RecordError(f"lead missing: {', '.join(missing)}; found {', '.join(record.leads)}.")
    signal = record.signal[[record.leads.index(lead) for lead in leads]]
    broken = ~np.isfinite(signal)
    if broken.any():
        where = ", ".join(lead for lead, row in zip(leads, broken, strict=True) if row.any())
        raise RecordError(f"samples not a number: {int(broken.sum())} samples in {where}; expected voltages only.")
    return signal


def _prepare_record(record: Record, preprocessing: Preprocessing) -> Prepared:
    steps = to_int16(condition(record, preprocessing), preprocessing.scale)
    # Measured on what is stored, so that beats and intervals are those of the samples a model sees.
    stored = steps.astype(np.float32) * np.float32(preprocessing.scale)
    measured = measure(stored, preprocessing.leads, preprocessing.sampling_rate)
    row = StoreRow(
        record_id=record.record_id,
        patient_id=record.patient_id,
        age=record.age,
        sex=record.sex,
        fold=record.fold,
        recorded_at=record.recorded_at,
        codes=list(record.codes),
        likelihoods=list(record.codes.values()),
        beats=measured.beats.tolist(),
        heart_rate=measured.heart_rate,
        pr=measured.pr,
        qrs=measured.qrs,
        qt=measured.qt,
        qtc=measured.qtc,
        notes=list(record.notes),
    )
    return row, steps


def _prepare_chunk(reader: Reader, positions: range, preprocessing: Preprocessing) -> list[Prepared | Rejected]:
    prepared: list[Prepared | Rejected] = []
    for record in reader.read(positions):
        if isinstance(record, Rejected):
            prepared.append(record)
            continue
        try:
            prepared.append(_prepare_record(record, preprocessing))
        except RecordError as error:
            prepared.append(Rejected(record.record_id, str(error)))
    return prepared


def _outcomes(reader: Reader, preprocessing: Preprocessing, jobs: int) -> Generator[Prepared | Rejected, None, None]:
    """Yield the outcome of every record in the reader's order, whichever process comes first."""
    found = len(reader)
    # joblib shares the cores' threads out among its workers, so that BLAS does not start all of them in each.
    parallel = joblib.Parallel(n_jobs=jobs or joblib.cpu_count(), return_as="generator", prefer="processes")
    tasks = (
        joblib.delayed(_prepare_chunk)(reader, range(start, min(start + _CHUNK, found)), preprocessing)
        for start in range(0, found, _CHUNK)
    )
    chunks: Any = parallel(tasks)  # typed as a list, but return_as makes it a generator
    with closing(chunks):
        for chunk in chunks:
            yield from chunk


def _account(found: int, read: int, reasons: Sequence[str], source_name: str) -> None:
    """Make sure that every record the source lists is in the store or among the rejected."""
    if read + len(reasons) != found:
        raise SourceError(
            f"{source_name} lists {found} records, but its reader gave {read} and rejected {len(reasons)}: "
            "every record must be one or the other. This is a fault of the reader."
        )
    if not found:
        raise SourceError(f"{source_name} lists no record: nothing to prepare.")
    if not read:
        kind, count = next(iter(kinds(reasons).items()))
        example = next(reason for reason in reasons if reason.startswith(kind))
        raise SourceError(
            f"{source_name}: all {found} records were rejected, so nothing was written. "
            f"The commonest reason, {count} times: {example}"
        )
