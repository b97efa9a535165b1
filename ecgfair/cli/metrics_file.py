"""``metrics.csv``: one table a run, whose rows are on the disk when they are logged and outlive a resumption."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from ecgfair.errors import RunFolderError, WriteError
from ecgfair.training.checkpoint_io import write_whole

METRICS: Final = "metrics.csv"
STEP: Final = "step"

Row = dict[str, str]


class MetricsFile(Logger):
    """Logs every row to ``metrics.csv`` at once.

    Lightning's own CSV log deletes the file of a run that goes on. Here a run that goes on keeps the rows that its
    checkpoint knows of, so that the file of a run that was killed is that of one that was not, byte by byte.

    Args:
        folder: Where the file lies.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / METRICS
        self._columns: list[str] | None = None
        self._repeated: set[frozenset[str]] = set()
        self._last_step = -1

    @property
    @override
    def name(self) -> str:
        return ""

    @property
    @override
    def version(self) -> str:
        return ""

    @property
    @override
    def save_dir(self) -> str:
        return str(self.path.parent)

    @override
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``config.yaml`` lies beside the file."""

    @rank_zero_only
    def keep_before(self, step: int) -> None:
        """Keep the rows that were logged before a step, of a run that goes on from it; others are dropped.

        Args:
            step: Optimiser steps that were made; rows carry the number of the last one, one less.
        """
        rows = [row for row in self._read() if int(row[STEP]) < step]
        self._last_step = step - 1
        # What follows the checkpoint at the same step, such as the means of its epoch, may be logged once more.
        self._repeated = {frozenset(row) for row in rows if int(row[STEP]) == self._last_step}
        self._columns = sorted(set().union(*rows)) if rows else []
        if rows:
            self._write(rows)
        else:
            self.path.unlink(missing_ok=True)

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row.

        Args:
            metrics: Values by name.
            step: The last optimiser step that was made, from 0.

        Raises:
            WriteError: The disk is full or the folder can't be written.
        """
        row = {name: str(value) for name, value in metrics.items()} | {STEP: str(step or 0)}
        if self._columns is None:
            # A measurement by itself, not a training: its file is made anew.
            self.path.unlink(missing_ok=True)
            self._columns = []
        new = row.keys() - set(self._columns)
        if new or self._is_repeated(row):
            self._columns = sorted({*self._columns, *new})
            self._write([*(known for known in self._read() if not self._replaces(row, known)), row])
        else:
            self._append(row)

    def _is_repeated(self, row: Row) -> bool:
        return int(row[STEP]) == self._last_step and frozenset(row) in self._repeated

    def _replaces(self, row: Row, known: Row) -> bool:
        return self._is_repeated(row) and known[STEP] == row[STEP] and known.keys() == row.keys()

    def _read(self) -> list[Row]:
        """Read the rows that are there as a whole, each without the columns that it leaves empty."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]  # a machine that lost its power may have cut the last one
        rows = csv.DictReader(io.StringIO(whole, newline=""))
        read = [{name: value for name, value in row.items() if value} for row in rows]
        if any(not row.get(STEP, "").isdigit() for row in read):
            raise RunFolderError(f"{self.path} has a row without a step: expected what `fit` wrote. Move it away.")
        return read

    def _write(self, rows: list[Row]) -> None:
        write_whole(self.path, self._lines(rows, header=True).encode())

    def _append(self, row: Row) -> None:
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._lines([row], header=False))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise WriteError(
                f"{self.path} can't be written ({error.strerror or error}): the rows before are kept. Make room or "
                "mend the disk; the same command then goes on from the last checkpoint."
            ) from error

    def _lines(self, rows: list[Row], *, header: bool) -> str:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=self._columns or [], lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
