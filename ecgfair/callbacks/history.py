"""The evaluations of a run in one Parquet file, which is what survives an interruption."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import pandas as pd

from ecgfair.callbacks.run_folder import write_table
from ecgfair.errors import RunFolderError
from ecgfair.metrics.fairness_report import COLUMNS, MACRO, FairnessReport
from ecgfair.metrics.statistics import AUROC

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
        """Write the file, see ``run_folder.write_table``."""
        write_table(self.frame, path)

    def before(self, moment: Moment) -> History:
        """Return what was measured earlier in training; a resumed run measures again what came later."""
        epoch, step = self.frame["epoch"], self.frame["step"]
        earlier = (epoch < moment.epoch) | ((epoch == moment.epoch) & (step < moment.step))
        return History(self.frame[earlier])

    def with_report(self, moment: Moment, report: FairnessReport) -> History:
        """Return the history with a report at its end, or in place of an earlier one of the same moment."""
        new = report.frame()
        for position, name in enumerate(_AT):
            new.insert(position, name, getattr(moment, name))
        same = self._at(moment).to_numpy()
        start = int(same.argmax()) if same.any() else len(same)
        parts = [part for part in (self.frame[:start], new, self.frame[start:][~same[start:]]) if not part.empty]
        return History(pd.concat(parts, ignore_index=True) if len(parts) > 1 else new)

    def best(
        self, key: str = f"val/{AUROC}/{MACRO}", mode: str = "max", stage: Stage = "val"
    ) -> tuple[Moment, FairnessReport] | None:
        """Return the report with the best value of a logged metric, the first if several have it.

        Where it is undefined throughout, the last report is returned; where there is none, ``None``.

        Args:
            key: See ``FairnessReport.scalars``.
            mode: ``"max"`` or ``"min"``.
            stage: Of which evaluations.
        """
        frame = self.frame[self.frame["stage"] == stage]
        found = None
        for epoch, step in sorted(set(zip(frame["epoch"], frame["step"], strict=True))):
            moment = Moment(int(epoch), int(step), stage)
            report = FairnessReport.from_frame(self.frame[self._at(moment)])
            value = report.scalars(stage).get(key, math.nan) * (1 if mode == "max" else -1)
            if found is None or math.isnan(found[0]) or value > found[0]:
                found = value, moment, report
        return None if found is None else found[1:]

    def _at(self, moment: Moment) -> pd.Series[bool]:
        frame = self.frame
        same_time = (frame["epoch"] == moment.epoch) & (frame["step"] == moment.step)
        return same_time & (frame["stage"] == moment.stage)
