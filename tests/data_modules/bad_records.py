"""What can be wrong with one record of a source, and what ``prepare`` then has to say of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.signals.recording import to_signal
from ecgfair.ecg import LEADS
from tests.data_modules.made_sources import FIRST_PART, KINDS, Source, write_wfdb

BAD = 3
"""The record that is broken, where one is."""
DAY = 24 * 3600
WFDB = ("ptbxl", "wfdb", "records")
Damage = Callable[[Source, int], None]


def header(pattern: str, replacement: str) -> Damage:
    return lambda source, number: source.edit_header(number, pattern, replacement)


def states(field: str, text: str) -> Damage:
    return lambda source, number: source.state(number, field, text)


def rewritten(signal: NDArray[np.number], leads: tuple[str, ...] = LEADS) -> Damage:
    return lambda source, number: source.rewrite(number, signal, leads)


def npy(signal: NDArray[np.number]) -> Damage:
    return lambda source, number: source.save_npy(number, signal)


def truncated(source: Source, number: int) -> None:
    os.truncate(source.stem(number).with_suffix(".dat"), 1000)


def a_day_long(source: Source, number: int) -> None:
    source.edit_header(number, r"^(\S+ 12 100) 1000", rf"\1 {DAY * 100}")
    os.truncate(source.stem(number).with_suffix(".dat"), DAY * 100 * 12 * 2)  # sparse: no byte of it is on the disk


def a_day_long_npy(source: Source, number: int) -> None:
    np.lib.format.open_memmap(source.folder / f"{number}.npy", "w+", np.int16, (12, DAY * 100))
    source.state(number, "signal", f"{number}.npy")


def truncated_npy(source: Source, number: int) -> None:
    source.save_npy(number, to_signal(truth(number)))
    os.truncate(source.folder / f"{number}.npy", 1000)


def id_of_the_second(source: Source, number: int) -> None:
    source.state(number, "record_id", source.record_id(2))


def outside(source: Source) -> Path:
    """A whole record beside the source's folder, which a name that climbs would find."""
    stem = source.folder.parent / "outside"
    write_wfdb(stem, to_signal(truth(1)), [])
    np.save(stem.with_suffix(".npy"), to_signal(truth(1)))
    return stem


def climbing(source: Source, number: int) -> None:
    outside(source)
    source.state(number, "signal", "../outside")


def climbing_npy(source: Source, number: int) -> None:
    outside(source)
    source.state(number, "signal", "a/../../outside.npy")


def absolute(source: Source, number: int) -> None:
    source.state(number, "signal", str(outside(source)))


def climbing_header(source: Source, number: int) -> None:
    outside(source)
    source.edit_header(number, r"^\S+\.dat ", "../outside.dat ")


def linked_header(source: Source, number: int) -> None:
    path = source.stem(number).with_suffix(".hea")
    path.unlink()
    path.symlink_to(outside(source).with_suffix(".hea"))


def linked_npy(source: Source, number: int) -> None:
    (source.folder / f"{number}.npy").symlink_to(outside(source).with_suffix(".npy"))
    source.state(number, "signal", f"{number}.npy")


def tracing_of_no_number(source: Source, number: int) -> None:
    with h5py.File(source.second_part, "r+") as file:
        file["tracings"][number - len(FIRST_PART) - 1] = np.nan


ZERO = np.zeros((12, 1000), dtype=np.int64)
ONE = np.full((12, 1), 7)
ECG = to_signal(truth(BAD))


class Case(NamedTuple):
    name: str
    damage: Damage
    kinds: tuple[str, ...]
    said: str


REJECTED = [
    Case("truncated .dat", truncated, WFDB, "samples missing or left over"),
    Case("no .dat", lambda source, number: source.stem(number).with_suffix(".dat").unlink(), WFDB, "file missing"),
    Case("checksum", header(r"(1000.*) \S+ 0 II$", r"\1 12345 0 II"), WFDB, "signal damaged"),
    Case("NaN gain", header(r"1000(\.0)?\(0\)/mV", "nan(0)/mV"), WFDB, "gain unusable"),
    Case("zero gain", header(r"1000(\.0)?\(0\)/mV", "0(0)/mV"), WFDB, "gain unusable"),
    Case("more leads than announced", header(r"^(\S+) 12 ", r"\1 11 "), WFDB, "header contradicts itself"),
    Case("fewer leads than announced", header(r"^(\S+) 12 ", r"\1 13 "), WFDB, "header contradicts itself"),
    Case("a lead cut off", header(r"^(\S+) 12 ([^$]*)\n.* V6$", r"\1 11 \2"), WFDB, "samples missing or left over"),
    Case("eleven leads", rewritten(ECG[:11], LEADS[:11]), ("ptbxl",), "lead missing"),
    Case("eleven rows in .npy", npy(ECG[:11]), ("records",), "wrong shape"),
    Case("two leads of one name", header(r" V3$", " V2"), WFDB, "lead there twice"),
    Case("a lead under two names", header(r" V3$", " MV2"), WFDB, "lead there twice"),
    Case(
        "two columns of one name",
        lambda source, number: source.save_csv(number, "I,II,Lead II\n" + "1,2,3\n" * 1000),
        ("records",),
        "lead there twice",
    ),
    Case("1 sample", rewritten(ONE), ("ptbxl",), "length"),
    Case("1 sample", rewritten(ONE), ("wfdb", "records", "code15"), "too short"),
    Case("1 sample in .npy", npy(ONE), ("records",), "too short"),
    Case("no sample in .npy", npy(ONE[:, :0]), ("records",), "no signal"),
    Case("24 hours", a_day_long, WFDB, "too long"),
    Case("24 hours in .npy", a_day_long_npy, ("records",), "too long"),
    Case("all zero", rewritten(ZERO), KINDS, "no signal"),
    Case("all zero in .npy", npy(ZERO), ("records",), "no signal"),
    Case("no number", tracing_of_no_number, ("code15",), "no signal"),
    Case("no number in .npy", npy(np.full((12, 1000), np.nan)), ("records",), "no signal"),
    Case("truncated .npy", truncated_npy, ("records",), "signal unreadable"),
    Case("an exam that no part holds", states("record_id", "99"), ("code15",), "exam not found"),
    Case("record id there twice", id_of_the_second, ("ptbxl",), "ecg_id there twice"),
    Case("record id there twice", id_of_the_second, ("code15",), "exam_id there twice"),
    Case("record id there twice", id_of_the_second, ("records",), "record_id there twice"),
    Case("no record id", states("record_id", ""), ("ptbxl", "code15", "records"), "identity missing"),
    Case("no patient", states("patient_id", ""), ("ptbxl", "code15", "records"), "patient missing"),
    Case("a path that climbs", climbing, ("ptbxl",), "file name not allowed"),
    Case("a path that climbs", climbing, ("records",), "path not allowed"),
    Case("a path that climbs to .npy", climbing_npy, ("records",), "path not allowed"),
    Case("an absolute path", absolute, ("ptbxl",), "file name not allowed"),
    Case("an absolute path", absolute, ("records",), "path not allowed"),
    Case("a header that climbs", climbing_header, WFDB, "file name not allowed"),
    Case("a link out of the folder", linked_header, ("wfdb",), "link not followed"),
    Case("a link out of the folder", linked_header, ("records",), "path not allowed"),
    Case("a link to .npy out of the folder", linked_npy, ("records",), "path not allowed"),
]
"""What one record can be rejected for, and the kind of reason that is told."""

KEPT = [
    Case("negative age", states("age", "-5"), KINDS, "age implausible: -5"),
    Case("age NaN", states("age", "NaN"), KINDS, ""),
    Case("sex Unknown", states("sex", "Unknown"), KINDS, ""),
    Case("sex X", states("sex", "X"), KINDS, "sex unknown: X"),
]
"""What one record is kept in spite of, and the note that it then has, if any."""

RENAMED = {"record id there twice": 2, "an exam that no part holds": 99, "no record id": 0}
"""Cases in which a record has another id than its own: its number, 0 for none."""
