"""The sources that the verb ``prepare`` knows: a function each, from what a user types to a RecordStore and a summary.

Options that all sources share are arguments of ``prepare_source`` alone; the command line finds them there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from data_modules.preparing.prepare import prepare
from data_modules.preparing.workers import Backend
from data_modules.readers.code15 import Code15Reader
from data_modules.readers.own_columns import Columns
from data_modules.readers.own_records import OwnRecordsReader
from data_modules.readers.ptbxl import PtbXlReader
from data_modules.readers.signal_files import PlainFiles
from data_modules.readers.wfdb_folder import WfdbFolderReader
from data_modules.records import Reader
from data_modules.summary import print_summary
from ecgfair.ecg import Preprocessing


def prepare_source(
    reader: Reader,
    store: str,
    sampling_rate: int = 100,
    seconds: float = 10.0,
    band_pass: tuple[float, float] | None = None,
    crop: Literal["start", "center", "reject"] = "start",
    pad: Literal["start", "center", "reject"] = "start",
    jobs: int = 0,
    backend: Backend = "processes",
    address: str | None = None,
    overwrite: bool = False,
) -> None:
    """Prepare what a reader reads, and print what was found.

    Args:
        reader: The source.
        store: Folder to write. Stopped, the same command goes on where it was.
        sampling_rate: Of the store, in Hz.
        seconds: Duration of every record in the store.
        band_pass: Lower and upper cut-off in Hz of a zero-phase filter, as in [0.5, 40]; none keeps the band as
            recorded.
        crop: What is kept of a longer recording: its start, its center, or nothing (reject).
        pad: Where a shorter recording stands, the rest being marked as missing: at the start, in the center, or
            nowhere (reject).
        jobs: Tasks at a time; 0 takes every core.
        backend: Processes or threads of this machine, or an existing dask or ray cluster.
        address: Of the dask scheduler (tcp://host:8786) or of the ray cluster.
        overwrite: Replace the store that is there, once the new one is whole.
    """
    preprocessing = Preprocessing(
        sampling_rate=sampling_rate, length=round(seconds * sampling_rate), band_pass=band_pass, crop=crop, pad=pad
    )
    print_summary(
        prepare(reader, store, preprocessing, jobs=jobs, backend=backend, address=address, overwrite=overwrite)
    )


def prepare_ptbxl(source: str, store: str, sampling_rate: int = 100, **options: Any) -> None:
    """Read the official folder of PTB-XL into a RecordStore and print what was found.

    Args:
        source: Folder with ptbxl_database.csv, scp_statements.csv and the folders of records.
        store: Folder to write. Stopped, the same command goes on where it was.
        sampling_rate: 100 or 500 Hz.
        **options: See ``prepare_source``.
    """
    prepare_source(PtbXlReader(source, sampling_rate), store, sampling_rate=sampling_rate, **options)


def prepare_code15(source: str, store: str, **options: Any) -> None:
    """Read CODE-15 % into a RecordStore and print what was found.

    Args:
        source: Folder with exams.csv and the parts exams_part0.hdf5 and so on.
        store: Folder to write. Stopped, the same command goes on where it was.
        **options: See ``prepare_source``.
    """
    prepare_source(Code15Reader(source), store, **options)


def prepare_wfdb(source: str, store: str, labels: str | None = None, **options: Any) -> None:
    """Read a folder of WFDB records, as the PhysioNet challenges ship them, into a RecordStore.

    Args:
        source: Folder with .hea files, and the .dat or .mat files they name, at any depth.
        store: Folder to write. Stopped, the same command goes on where it was.
        labels: Table of diagnosis codes in place of that of the PhysioNet/CinC Challenge 2021.
        **options: See ``prepare_source``.
    """
    prepare_source(WfdbFolderReader(source, labels), store, **options)


def prepare_records(
    table: str,
    store: str,
    columns: Columns = Columns(),  # noqa: B008  # frozen, and jsonargparse shows its fields as defaults
    labels: list[str] | None = None,
    label_sets: dict[str, dict[str, list[str]]] | None = None,
    sexes: dict[str, str] | None = None,
    signals: str | None = None,
    files: PlainFiles = PlainFiles(),  # noqa: B008  # likewise
    **options: Any,
) -> None:
    """Read records of one's own, a table that names a signal file a row, into a RecordStore.

    Args:
        table: CSV or Parquet; experiments/own_records/records.yaml shows how its columns are mapped.
        store: Folder to write. Stopped, the same command goes on where it was.
        columns: Which column holds what.
        labels: Columns with 1 or true where the label of that name applies.
        label_sets: Label set -> label -> codes that make it positive.
        sexes: How the table spells male and female.
        signals: Folder that the paths of signal files are relative to; by default the table's.
        files: What .npy and .csv files don't say of themselves: leads, sampling rate, unit.
        **options: See ``prepare_source``.
    """
    reader = OwnRecordsReader(table, columns, labels, label_sets, sexes, signals, files)
    prepare_source(reader, store, **options)


SOURCES: Final[Mapping[str, Callable[..., None]]] = {
    "ptbxl": prepare_ptbxl,
    "code15": prepare_code15,
    "wfdb": prepare_wfdb,
    "records": prepare_records,
}
"""Subcommands of the verb ``prepare``."""
