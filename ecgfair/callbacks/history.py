"""The evaluations of a run in one Parquet file, which is what survives an interruption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import pandas as pd

from ecgfair.errors import RunFolderError
from ecgfair.metrics.fairness_report import AUROC, COLUMNS, MACRO, OVERALL, FairnessReport

Stage = Literal["val", "test"]

_AT: Final = ("epoch", "step", "stage")


@dataclass(frozen=True)
class Moment:
    """When an evaluation was made.

    Args:
        epoch: Training epoch, from 0.
        step: Optimizer steps made before; tells apart several validations in one epoch.
        stage: ``"val"`` or ``"test"``.
    """

    epoch: int
    step: int
    stage: Stage


class History:
    """All reports of a run, and the moment of each.

    Args:
        frame: A report's table with the columns epoch, step and stage before it; ``None`` to begin.
    """

    def __init__(self, frame: pd.DataFrame | None = None) -> None:
        self.frame = pd.DataFrame(columns=[*_AT, *COLUMNS]) if frame is None else frame

    @classmethod
    def read(cls, path: Path) -> History:
        """Read what ``write`` left, nothing if there is no file.

        Raises:
            RunFolderError: The file is not such a table.
        """
        if not path.exists():
            return cls()
        advice = "Move it away to begin a new one."
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise RunFolderError(f"{path} can't be read: {error}. {advice}") from error
        if list(frame.columns) != [*_AT, *COLUMNS]:
            raise RunFolderError(f"{path} has the columns {list(frame.columns)}: expected {[*_AT, *COLUMNS]}. {advice}")
        return cls(frame)

    def write(self, path: Path) -> None:
        """Write the file as a whole or not at all, so that a reader or a crash never meets half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.tmp")
        self.frame.to_parquet(draft, index=False)
        draft.replace(path)

    def before(self, moment: Moment) -> History:
        """Return what was measured earlier in training; a resumed run measures again what came later."""
        epoch, step = self.frame["epoch"], self.frame["step"]
        earlier = (epoch < moment.epoch) | ((epoch == moment.epoch) & (step < moment.step))
        return History(self.frame[earlier])

    def with_report(self, moment: Moment, report: FairnessReport) -> History:
        """Return the history with a report at its end, in place of an earlier one of the same moment."""
        new = report.frame()
        for position, name in enumerate(_AT):
            new.insert(position, name, getattr(moment, name))
        kept = self.frame[~self._at(moment)]
        return History(new if kept.empty else pd.concat([kept, new], ignore_index=True))

    def best(self, stage: Stage = "val") -> tuple[Moment, FairnessReport] | None:
        """Return the report with the highest overall macro AUROC, the first if several have it.

        Where it is undefined throughout, the last report is returned; where there is none, ``None``.
        """
        of_macro = (self.frame["attribute"] == OVERALL) & (self.frame["label"] == MACRO)
        values = self.frame[(self.frame["stage"] == stage) & of_macro & (self.frame["statistic"] == AUROC)]
        if values.empty:
            return None
        known = values.dropna(subset="value")
        position = int(known["value"].argmax()) if len(known) else -1
        chosen = known if len(known) else values
        moment = Moment(int(chosen["epoch"].iloc[position]), int(chosen["step"].iloc[position]), stage)
        return moment, FairnessReport.from_frame(self.frame[self._at(moment)])

    def _at(self, moment: Moment) -> pd.Series[bool]:
        frame = self.frame
        same_time = (frame["epoch"] == moment.epoch) & (frame["step"] == moment.step)
        return same_time & (frame["stage"] == moment.stage)
