"""What a run keeps of its evaluations: every epoch's rows, and intervals and tests of the one that counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus

from ecgfair.callbacks.history import History, Moment
from ecgfair.callbacks.log_tables import log_table
from ecgfair.callbacks.run_folder import leaves_files, write_table
from ecgfair.errors import ConfigurationError
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.fairness_report import MACRO, SUMMARIES, FairnessReport
from ecgfair.metrics.gap_tests import gap_tests
from ecgfair.metrics.predictions import Predictions
from ecgfair.metrics.statistics import AUROC
from ecgfair.report.fairness_table import console, render, render_tests

FILE_NAME: Final = "fairness.parquet"
TESTS_NAME: Final = "fairness_tests.parquet"
LEAST_PERMUTATIONS: Final = 100
"""What ``gap_tests`` asks for; said before a training instead of after it."""
DEFAULT_CHOICE: Final = (f"val/{AUROC}/{MACRO}", "max")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation, with what it was made of.

    Args:
        moment: When.
        report: What came out.
        predictions: The records, with their patients.
    """

    moment: Moment
    report: FairnessReport
    predictions: Predictions


class FairnessRecord:
    """Files and table of one process, the first of a run.

    Args:
        config: Of the evaluation at the end, with intervals.
        permutations: Of the tests at the end; 0 for none.

    Raises:
        ConfigurationError: There are too few permutations.
    """

    def __init__(self, config: FairnessConfig, permutations: int) -> None:
        if permutations and permutations < LEAST_PERMUTATIONS:
            raise ConfigurationError(
                f"permutations is {permutations}: expected 0 for no tests, or at least {LEAST_PERMUTATIONS}."
            )
        self.config = config
        self.permutations = permutations
        self.folder = Path()
        self._history = History()
        self._latest: Evaluation | None = None
        self._best: tuple[float, Evaluation] | None = None

    def begin(self, folder: Path, *, resumed: bool) -> None:
        """Start the history of a training, or go on with the one in the folder."""
        self._history = History.read(folder / FILE_NAME) if resumed else History()
        self.forget()

    def forget(self) -> None:
        """Let go of the evaluations that the table at the end is made of."""
        self._latest = self._best = None

    def add(self, trainer: Trainer, folder: Path, evaluation: Evaluation) -> None:
        """Keep an evaluation."""
        self.folder, self._latest = folder, evaluation
        moment = evaluation.moment
        if trainer.state.fn == TrainerFn.FITTING:
            self._history = self._history.before(moment)
            key, mode = _choice(trainer)
            value = evaluation.report.scalars(moment.stage).get(key, math.nan) * (1 if mode == "max" else -1)
            if self._best is None or math.isnan(self._best[0]) or value > self._best[0]:
                self._best = value, evaluation
        elif leaves_files(trainer):
            self._history = History.read(folder / FILE_NAME)
        self._write(trainer, moment, evaluation.report)
        frame = evaluation.report.frame()
        log_table(trainer, f"{moment.stage}/fairness", frame[frame["label"].isin(SUMMARIES)])

    def finish(self, trainer: Trainer) -> None:
        """Print the table of the epoch that counts, with intervals; write these, too."""
        if self._latest is None:
            return
        counts, choice = self._latest, ""
        moment, report = counts.moment, counts.report
        if trainer.state.fn == TrainerFn.FITTING and self._best is not None:
            key, mode = _choice(trainer)
            counts, choice = self._best[1], f", the best of this run by {key}"
            # Of a resumed run the best epoch may lie before, and its records are gone.
            moment, report = self._history.best(key, mode) or (counts.moment, counts.report)
        tests: pd.DataFrame | None = None
        # One who has pressed Ctrl-C does not wait for intervals.
        if moment == counts.moment and trainer.state.status != TrainerStatus.INTERRUPTED:
            report = evaluate(counts.predictions, self.config)
            self._write(trainer, moment, report)
            log_table(trainer, f"{moment.stage}/fairness_by_label", report.frame())
            tests = self._test(trainer, counts.predictions)
        name = {"val": "Validation", "test": "Test"}[moment.stage]
        out = console()
        out.print(render(report, f"{name} at epoch {moment.epoch}, step {moment.step}{choice}"))
        if tests is not None:
            out.print(render_tests(tests))
        out.print(f"Run folder: {self.folder}", markup=False, highlight=False, soft_wrap=True)

    def _test(self, trainer: Trainer, predictions: Predictions) -> pd.DataFrame | None:
        if not self.permutations:
            return None
        tests = gap_tests(predictions, self.config, self.permutations)
        log_table(trainer, "fairness_tests", tests)
        if leaves_files(trainer):
            write_table(tests, self.folder / TESTS_NAME)
        return tests

    def _write(self, trainer: Trainer, moment: Moment, report: FairnessReport) -> None:
        self._history = self._history.with_report(moment, report)
        if leaves_files(trainer):
            self._history.write(self.folder / FILE_NAME)


def _choice(trainer: Trainer) -> tuple[str, str]:
    """What chooses the epoch that counts: the metric of the checkpoint where it is one of these, else macro AUROC."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set in the trainer's constructor
        if isinstance(callback, ModelCheckpoint) and (callback.monitor or "").startswith(("val/auroc/", "val/fair/")):
            return str(callback.monitor), callback.mode
    return DEFAULT_CHOICE
