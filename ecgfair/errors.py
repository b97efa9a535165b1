"""The typed errors of both packages.

Every one of them is meant to be read by the person at the terminal: the command line prints its message on one line,
without a traceback. A message names the record or field, what was found, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class EcgFairError(Exception):
    """Base of every error a user can cause and mend.

    Attributes:
        exit_status: What the command line ends with.
    """

    exit_status: ClassVar[int] = 2


class SourceError(EcgFairError):
    """A data source is missing or is not laid out as its reader expects."""


class RecordError(EcgFairError):
    """One record can't be read or is not what its header says; ``prepare`` lists it in ``rejected.parquet``."""


class StoreError(EcgFairError):
    """A RecordStore is missing, incomplete or damaged, or a folder is in the way of a new one."""


class SplitError(EcgFairError):
    """The folds asked for can't be made: empty, overlapping, or with one patient in two of them."""


class CheckpointError(EcgFairError):
    """A checkpoint is missing, damaged, or not one of this project's."""


class WriteError(EcgFairError):
    """A file could not be written, because the disk is full, say; the one that was there is kept."""


class DivergedError(EcgFairError):
    """Training can't go on: a loss or a weight is no finite number any more."""


class PreemptedError(EcgFairError):
    """Training was asked to stop, has kept where it stands, and goes on by the same command."""

    exit_status: ClassVar[int] = 75
    """``EX_TEMPFAIL`` of sysexits.h: try again. A batch script requeues its job on it."""


class PreprocessingMismatchError(CheckpointError):
    """A checkpoint was trained on signals prepared in another way than those at hand."""


class ConfigurationError(EcgFairError):
    """A setting has a value that can't work, or contradicts another."""


class WorkerError(EcgFairError):
    """A process that worked for this one ended unexpectedly."""


class RunFolderError(EcgFairError):
    """The run folder already holds another run."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest valid name, or a list of the valid names if none is near."""
    names = list(valid)
    nearest = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else f" Valid: {', '.join(names)}."
