"""A WFDB header, parsed as the format's manual has it (header(5) of the WFDB Applications Guide) and no stricter.

The ``wfdb`` package refuses headers that are perfectly clear, such as those of the PhysioNet challenges that name the
record ``E09141.mat``, and fills in what a header leaves out: 250 Hz, 200 steps a millivolt. Here what is left out is
missing, and what can't be understood is a ``RecordError``, whatever the bytes.
"""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Final

from ecgfair.errors import RecordError

MAX_HEADER_BYTES: Final = 1 << 20
"""A header is a few lines of text; this leaves room for hundreds of signals and long comments."""

_SAMPLING_RATES: Final = (1.0, 100_000.0)
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,15}")
_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_FORMAT: Final = re.compile(r"([0-9]+)(?:x([1-9][0-9]{0,2}))?(?::([0-9]{1,9}))?(?:\+([0-9]{1,12}))?")
_SIGNAL_FIELDS: Final = 9
"""File name, format, calibration, resolution, zero, initial value, checksum, block size, description."""


@dataclass(frozen=True)
class SignalLine:
    """What a header says of one signal.

    Args:
        file_name: Signal file, beside the header.
        format: How samples are stored, as the manual numbers it: ``16``, ``212``.
        samples_per_frame: Samples of this signal in each frame of the record, 1 unless signals differ in rate.
        skew: Frames by which this signal lags behind in the file.
        byte_offset: Bytes before the first sample.
        gain: Steps a unit, as written: an empty text, a 0 or ``nan`` are for the caller to judge.
        baseline: Step at zero volts.
        unit: As written; ``mV`` where the header names none, which is WFDB's default.
        checksum: Sum of all samples, 16 bits of it, or None.
        name: As written, or empty.
    """

    file_name: str
    format: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: str
    baseline: int
    unit: str
    checksum: int | None
    name: str


@dataclass(frozen=True)
class Header:
    """What a header says of a record of one segment.

    Args:
        where: The header's name, for messages.
        frame_rate: Frames a second; Hz of every signal that has one sample a frame.
        frames: Length of the record.
        signals: One line a signal, at least one.
        comments: Text of the lines that begin with ``#``, without it.
        recorded_at: ISO 8601 date and time of the first sample, or None.
        notes: What the header states and is taken as missing, see ``Record.notes``.
    """

    where: str
    frame_rate: float
    frames: int
    signals: tuple[SignalLine, ...]
    comments: tuple[str, ...]
    recorded_at: str | None
    notes: tuple[str, ...]


def parse_header(content: bytes, where: str) -> Header:
    """Parse a header's bytes.

    Args:
        content: The file, whole.
        where: Its name, for messages.

    Raises:
        RecordError: It is no header of a record of one segment, contradicts itself, or names a file that is not
            beside it.
    """
    if len(content) > MAX_HEADER_BYTES:
        raise RecordError(f"header unreadable: {where} is larger than {MAX_HEADER_BYTES} bytes, which is no header.")
    lines = [line.strip() for line in content.removeprefix(codecs.BOM_UTF8).splitlines()]
    # Comments are free text, some of it older than UTF-8; in fields a letter that can't be read must not be replaced.
    comments = tuple(line.lstrip(b"#").strip().decode(errors="replace") for line in lines if line.startswith(b"#"))
    try:
        text = [line.decode().strip() for line in lines if not line.startswith(b"#")]
    except UnicodeDecodeError as error:
        raise RecordError(f"header unreadable: {where} is not text ({error.reason}).") from error
    fields = [line for line in text if line]
    if not fields:
        raise RecordError(f"header unreadable: {where} is empty; expected a record line and a line a signal.")
    signals_announced, frame_rate, frames, stated = _record_line(fields[0], where)
    if signals_announced != len(fields) - 1:
        raise RecordError(
            f"header contradicts itself: {where} announces {signals_announced} leads and describes {len(fields) - 1}."
        )
    recorded_at, notes = _recorded_at(stated, where)
    signals = tuple(_signal_line(line, row, where) for row, line in enumerate(fields[1:], start=1))
    return Header(where, frame_rate, frames, signals, comments, recorded_at, notes)


def _record_line(line: str, where: str) -> tuple[int, float, int, list[str]]:
    """Return the number of signals, frames a second, the number of frames, and what stands where the date does."""
    fields = line.split()
    if "/" in fields[0]:
        raise RecordError(
            f"multi-segment: {where} joins segments and has no samples of its own; its segments are records themselves."
        )
    rate = fields[2].split("/")[0] if len(fields) > 2 else ""
    whole = [_whole(fields[place]) if len(fields) > place else None for place in (1, 3)]
    signals, frames = whole
    if signals is None or not _NUMBER.fullmatch(rate) or (len(fields) > 3 and frames is None):
        raise RecordError(
            f"header unreadable: {where} begins with {line[:80]!r}; expected the record's name, its number of signals, "
            "its sampling rate and its number of samples."
        )
    if signals < 1:
        raise RecordError(f"header unreadable: {where} describes no signal.")
    if frames is None or frames < 1:
        raise RecordError(f"header unreadable: {where} does not say how many samples there are.")
    low, high = _SAMPLING_RATES
    if not low <= float(rate) <= high:
        raise RecordError(f"sampling rate: {where} has {rate} Hz, expected {low:g} to {high:,.0f} Hz.")
    return signals, float(rate), frames, fields[4:]


def _recorded_at(stated: list[str], where: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the time of the first sample, if date and time are there in WFDB's form, and a note if something else is.

    The headers of the PhysioNet challenges of 2020 and 2021 have ``05-May-2020 09:49:17`` here. That is when the
    challenge's files were written: recordings of 1990 have it too.
    """
    if len(stated) < 2:
        return None, ()
    text = " ".join(stated[:2])
    for form in ("%H:%M:%S %d/%m/%Y", "%H:%M:%S.%f %d/%m/%Y"):
        try:
            return datetime.strptime(text, form).isoformat(), ()
        except ValueError:
            continue
    return None, (f"date unreadable: {text}, expected as in 09:17:34 09/11/1984 in {where}; taken as missing.",)


def _signal_line(line: str, row: int, where: str) -> SignalLine:
    fields = line.split(maxsplit=_SIGNAL_FIELDS - 1)
    file_name = fields[0]
    if PurePosixPath(file_name).name != file_name or file_name == ".." or re.search(r"[\\:\0]", file_name):
        raise RecordError(f"file name not allowed: {where} names {file_name!r}; expected a file beside it.")
    stored = _FORMAT.fullmatch(fields[1]) if len(fields) > 1 else None
    fields += [""] * (_SIGNAL_FIELDS - len(fields))
    calibration, _, unit = fields[2].partition("/")
    gain, _, baseline = calibration.partition("(")
    # WFDB's rule: without a baseline, zero volts are in the middle of the converter's range.
    whole = [_whole(text) if text else 0 for text in (baseline.removesuffix(")") or fields[4], fields[6])]
    if stored is None or None in whole:
        raise RecordError(f"header unreadable: {where} describes signal {row} as {line[:80]!r}.")
    return SignalLine(
        file_name=file_name,
        format=stored[1],
        samples_per_frame=int(stored[2] or 1),
        skew=int(stored[3] or 0),
        byte_offset=int(stored[4] or 0),
        gain=gain,
        baseline=whole[0] or 0,
        unit=unit or "mV",
        checksum=whole[1] if fields[6] else None,
        name=fields[8].strip(),
    )


def positive_number(text: str) -> float | None:
    """Return the finite number above 0 that a field holds, or None."""
    value = float(text) if _NUMBER.fullmatch(text) else 0.0
    return value if value > 0 and math.isfinite(value) else None


def _whole(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None
