"""Tables to the loggers that take them, such as Weights & Biases."""

from __future__ import annotations

import warnings
from typing import Protocol, runtime_checkable

import pandas as pd
from lightning.pytorch import Trainer


@runtime_checkable
class TableLogger(Protocol):
    """A logger that keeps tables, as Lightning's WandbLogger and MLFlowLogger do."""

    def log_table(self, key: str, *, dataframe: pd.DataFrame, step: int | None = None) -> None:
        """Keep a table under a key."""
        ...


def log_table(trainer: Trainer, key: str, frame: pd.DataFrame) -> None:
    """Hand a table to every logger that keeps tables. None of them may end the run: its folder has the table, too.

    Args:
        trainer: Its loggers; call this on the first process alone.
        key: Name of the table.
        frame: The table.
    """
    # Weights & Biases writes tables as JSON, which has no place for the missing value of pandas.
    plain = frame.astype(object).where(frame.notna(), None)
    for logger in trainer.loggers:
        if not isinstance(logger, TableLogger):
            continue
        try:
            logger.log_table(key, dataframe=plain, step=trainer.global_step)
        except Exception as error:  # whatever a logger raises, of a network or a full disk
            name = type(logger).__name__
            warnings.warn(f"{name} did not take the table {key!r}: {error}. The run folder has it.", stacklevel=2)
