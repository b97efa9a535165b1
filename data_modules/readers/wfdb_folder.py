"""A folder of WFDB records with age, sex and diagnoses in the headers' comments: the PhysioNet challenges."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

from data_modules.readers import fields
from data_modules.readers.label_table import read_label_table
from data_modules.readers.wfdb_signal import read_signal
from data_modules.records import LabelSets, Record, Rejected
from ecgfair.errors import RecordError, SourceError

_SUFFIX: Final = ".hea"
_DIAGNOSES: Final = "dx"
_BOOLEAN_LABEL: Final = " label"
_TRUTH: Final = {"true": True, "false": False}


class WfdbFolderReader:
    """Reads every record below a folder, whatever its subfolders.

    A record's id is its path in the folder, without ``.hea``. Comments are understood whatever their case and blanks
    (``#Age: 57``, ``# Age: 57``): ``Age``, ``Sex``, ``Patient ID``, ``Dx`` with codes or words separated by commas, and
    ``<Name> label`` with True or False, where True is the code ``<Name>``. Records without a ``Patient ID`` are taken
    to be of as many patients: then nothing can keep two records of one patient in one fold.

    Nothing is lost in silence: what can't be read is ``Rejected``, and so is a link to another folder, which is not
    followed. Codes that the table of labels does not have stay with their record and are noted.

    Args:
        source: The folder.
        labels: Table of labels, see ``read_label_table``; None for the one shipped, of the challenges' SNOMED CT codes.

    Raises:
        SourceError: The folder is missing, can't be listed or has no ``.hea`` below it, or the table can't be read.
    """

    source_name = "WFDB folder"

    def __init__(self, source: str | Path, labels: str | Path | None = None) -> None:
        self.source = Path(source)
        self.labels = None if labels is None else Path(labels)
        if not self.source.is_dir():
            raise SourceError(f"No folder {self.source}: expected one with WFDB records, each a .hea with its signal.")
        self.label_sets: LabelSets = read_label_table(self.labels)
        self._known = {code for labels in self.label_sets.values() for codes in labels.values() for code in codes}
        self._root = self.source.resolve()
        self._found = _list(self.source)
        if not self._found:
            raise SourceError(f"{self.source} has no .hea below it: expected a folder of WFDB records.")

    def __reduce__(self) -> tuple[Callable[..., WfdbFolderReader], tuple[Any, ...]]:
        return _reopen, (self.source, self.labels, self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the label sets and over name, size and time of change of each header, as listed at the start."""
        digest = hashlib.sha256(json.dumps(self.label_sets).encode())
        for name in self._found:
            path = self.source / name
            try:
                entry = path.stat(follow_symlinks=False)
                digest.update(f"{name!r} {entry.st_size} {entry.st_mtime_ns}\n".encode())
            except OSError:
                digest.update(f"{name!r} gone\n".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        """Return how many headers there are, and links to folders that are not followed."""
        return len(self._found)

    def read(self, positions: Sequence[int]) -> Iterator[Record | Rejected]:
        """Yield one ``Record`` or ``Rejected`` for each header, counted from 0 in the order of their paths."""
        for position in positions:
            found = self._found[position]
            record_id = found.encode("utf-8", "surrogateescape").decode("utf-8", "replace").removesuffix(_SUFFIX)
            try:
                self._check_found(found)
                yield self._record(record_id)
            except RecordError as error:
                yield Rejected(record_id, str(error))

    def _check_found(self, found: str) -> None:
        if found.endswith("/"):
            raise RecordError(
                f"link not followed: {found} is a link to a folder; read that folder itself, or put it here."
            )
        if not found.isprintable():  # a name in no UTF-8, or with control characters
            raise RecordError(f"file name not allowed: {found!r}; expected printable UTF-8.")
        if not Path(os.path.realpath(self.source / found)).is_relative_to(self._root):  # resolve raises on a link loop
            raise RecordError(f"link not followed: {found} leads out of the folder; put the file itself there.")

    def _record(self, record_id: str) -> Record:
        recorded = read_signal(self.source, record_id)
        notes = list(recorded.notes)
        stated = _stated(recorded.comments)
        if recorded.other_leads:
            notes.append(f"other signals: {', '.join(recorded.other_leads)} are no standard leads; left out.")
        if all(fields.is_missing(value) for value in _values(stated, "patient id")):
            notes.append("patient unknown: the header names none; taken as a patient of its own.")
        codes = _codes(stated, notes)
        notes += [
            f"unknown code: {code} is not in the table of labels, it is in no label set."
            for code in codes
            if code not in self._known
        ]
        return Record(
            record_id=record_id,
            patient_id=_patient(stated, record_id),
            signal=recorded.signal,
            leads=recorded.leads,
            sampling_rate=recorded.sampling_rate,
            age=fields.age(_only(stated, "age", notes), notes),
            sex=fields.sex(_only(stated, "sex", notes), notes),
            codes=codes,
            recorded_at=recorded.recorded_at,
            notes=tuple(notes),
        )


@lru_cache(maxsize=2)
def _reopen(source: Path, labels: Path | None, fingerprint: str) -> WfdbFolderReader:
    """List the folder in another process; positions would mean other records if it had changed in between."""
    reader = WfdbFolderReader(source, labels)
    if reader.fingerprint != fingerprint:
        raise SourceError(f"{source} changed while it was read: leave it as it is and start again.")
    return reader


def _list(source: Path) -> list[str]:
    """Return the path of each header in the folder, and of each link to a folder, with a ``/`` at its end; sorted."""

    def fail(error: OSError) -> None:
        raise SourceError(f"{error.filename} can't be listed ({error.strerror}), so records would be missing.")

    found: list[str] = []
    for folder, folders, names in os.walk(source, onerror=fail):
        inside = Path(folder).relative_to(source)
        found += [(inside / name).as_posix() for name in names if name.endswith(_SUFFIX)]
        found += [f"{(inside / name).as_posix()}/" for name in folders if Path(folder, name).is_symlink()]
    return sorted(found)


def _stated(comments: Sequence[str]) -> Mapping[str, list[str]]:
    """Return what the comments of the form ``name: value`` state, by name as written."""
    stated: dict[str, list[str]] = defaultdict(list)
    for comment in comments:
        name, colon, value = comment.partition(":")
        if colon:
            stated[" ".join(name.split())].append(value.strip())
    return stated


def _values(stated: Mapping[str, list[str]], name: str) -> list[str]:
    return [value for written, values in stated.items() if written.lower() == name for value in values]


def _only(stated: Mapping[str, list[str]], name: str, notes: list[str]) -> str:
    """Return the one value that is stated, or an empty text."""
    values = list(dict.fromkeys(_values(stated, name)))
    if len(values) > 1:
        notes.append(f"comments contradict each other: {name} is {' and '.join(values)}; taken as missing.")
        return ""
    return values[0] if values else ""


def _patient(stated: Mapping[str, list[str]], record_id: str) -> str:
    patients = sorted({value for value in _values(stated, "patient id") if not fields.is_missing(value)})
    if len(patients) > 1:
        raise RecordError(f"patient unclear: {record_id}{_SUFFIX} names the patients {', '.join(patients)}.")
    return patients[0] if patients else record_id


def _codes(stated: Mapping[str, list[str]], notes: list[str]) -> dict[str, float]:
    """Return the codes of ``Dx``, and the names of the labels that are true; none is stated with a likelihood."""
    codes = [code.strip() for value in _values(stated, _DIAGNOSES) for code in value.split(",")]
    for written in stated:
        if not written.lower().endswith(_BOOLEAN_LABEL):
            continue
        value = _only(stated, written.lower(), notes)
        if _TRUTH.get(value.lower()):
            codes.append(written[: -len(_BOOLEAN_LABEL)])
        elif value.lower() not in _TRUTH and not fields.is_missing(value):
            notes.append(f"label unreadable: {written} is {value}, expected True or False; taken as not stated.")
    return {code: 0.0 for code in codes if not fields.is_missing(code)}
