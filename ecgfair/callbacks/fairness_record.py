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
from torch import Tensor

from ecgfair.callbacks import kept_records
from ecgfair.callbacks.history import History, Moment
from ecgfair.callbacks.kept_records import KeptRecords
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
        records: What they were made of.
    """

    moment: Moment
    report: FairnessReport
    predictions: Predictions
    records: dict[str, Tensor]


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

    def begin(self, folder: Path) -> None:
        """Start the history of a training."""
        self.folder, self._history = folder, History()
        self.forget()
        kept_records.remove(folder)

    def go_on(self, trainer: Trainer, folder: Path, best: Evaluation | None) -> None:
        """Go on with the history in the folder.

        Args:
            trainer: Of the training that goes on.
            folder: Of the run.
            best: The best evaluation before, as it was kept.
        """
        self.folder, self._history = folder, History.read(folder / FILE_NAME)
        self.forget()
        if best is not None:
            self._best = _value(trainer, best), best

    def forget(self) -> None:
        """Let go of the evaluations that the table at the end is made of."""
        self._latest = self._best = None

    def add(self, trainer: Trainer, folder: Path, evaluation: Evaluation) -> None:
        """Keep an evaluation."""
        self.folder, self._latest = folder, evaluation
        moment = evaluation.moment
        if trainer.state.fn == TrainerFn.FITTING:
            self._history = self._history.before(moment)
            value = _value(trainer, evaluation)
            if self._best is None or math.isnan(self._best[0]) or value > self._best[0]:
                self._best = value, evaluation
                if leaves_files(trainer):
                    kept = KeptRecords(moment, evaluation.records, evaluation.predictions.operating_points)
                    kept_records.keep(folder, kept)
        elif leaves_files(trainer):
            self._history = History.read(folder / FILE_NAME)
        self._write(trainer, moment, evaluation.report)
        frame = evaluation.report.frame()
        log_table(trainer, f"{moment.stage}/fairness", frame[frame["label"].isin(SUMMARIES)])

    def finish(self, trainer: Trainer) -> None:
        """Print the table of the epoch that counts, with intervals; write these, too."""
        is_training = trainer.state.fn == TrainerFn.FITTING
        counts, choice = self._best[1] if is_training and self._best is not None else self._latest, ""
        if counts is None:
            return
        moment, report = counts.moment, counts.report
        if is_training:
            key, mode = _choice(trainer)
            choice = f", the best of this run by {key}"
            # The best epoch may lie before a resumption, in a run folder without its records.
            moment, report = self._history.best(key, mode) or (counts.moment, counts.report)
        tests: pd.DataFrame | None = None
        # One who has pressed Ctrl-C does not wait for intervals.
        if moment == counts.moment and trainer.state.status != TrainerStatus.INTERRUPTED:
            report = evaluate(counts.predictions, self.config)
            self._write(trainer, moment, report)
            log_table(trainer, f"{moment.stage}/fairness_by_label", report.frame())
            tests = self._test(trainer, counts.predictions)
            if is_training:
                kept_records.remove(self.folder)
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


def _value(trainer: Trainer, evaluation: Evaluation) -> float:
    """Return what the choice of the best epoch goes by: the greatest is the best, NaN the worst."""
    key, mode = _choice(trainer)
    return evaluation.report.scalars(evaluation.moment.stage).get(key, math.nan) * (1 if mode == "max" else -1)


def _choice(trainer: Trainer) -> tuple[str, str]:
    """What chooses the epoch that counts: the metric of the checkpoint where it is one of these, else macro AUROC."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set in the trainer's constructor
        if isinstance(callback, ModelCheckpoint) and (callback.monitor or "").startswith(("val/auroc/", "val/fair/")):
            return str(callback.monitor), callback.mode
    return DEFAULT_CHOICE
