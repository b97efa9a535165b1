"""``sweep FILE``: a sweep of Weights & Biases without any server: Optuna on SQLite, and trials as processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecgfair.cli.sweep_file import read_sweep
from ecgfair.cli.trial import Trial, TrialProcess, best, last_line, sweep_folder
from ecgfair.errors import ConfigurationError

if TYPE_CHECKING:
    import optuna

    from ecgfair.cli.study import Study

PREEMPTED: Final = 75
"""Exit status of a run that saved its state because it was asked to end."""


def sweep(
    file: str, trials: int | None = None, workers: int = 1, study: str | None = None, append: list[str] | None = None
) -> None:
    """Run a sweep file of Weights & Biases without any server.

    Each trial is a process of the file's own command, with its own run folder; what it is worth is the best value of
    the metric in its metrics.csv. The same command goes on with a sweep that was stopped, also one that was killed:
    trials that were running go on from their last checkpoint. A trial that fails is noted with the last line it
    printed, and the others go on. All trials are in trials.csv, beside their run folders.

    Args:
        file: The sweep file, for example experiments/sweeps/finetune.yaml.
        trials: Trials in all, those of earlier starts included; that of the file (run_cap) or the whole grid if left
            out.
        workers: Trials at a time. Several of these commands may also work on one study.
        study: SQLite file of the study; study.db beside the run folders if left out.
        append: Words that go behind every trial's command, for example '[--trainer.devices=2, --trainer.strategy=ddp]'.
    """
    if workers < 1 or (trials is not None and trials < 1):
        raise ConfigurationError(f"workers is {workers} and trials is {trials}: expected 1 or more.")
    if os.name != "posix":
        raise ConfigurationError(
            "The verb sweep needs file locks and process groups of Unix: run it on Linux or macOS."
        )
    asked = read_sweep(Path(file), append or ())
    try:
        from ecgfair.cli.study import Study
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The verb sweep needs {error.name}, which is not installed: pip install 'ecgfair[sweep]'."
        ) from error
    opened = Study(asked, Path(study) if study else sweep_folder(asked.command) / "study.db", trials)
    try:
        with _terminated_like_interrupted():
            Workers(opened, workers).run()
    finally:
        opened.close()
    _print_result(opened)


class Workers:
    """Threads that each start one trial after the other and wait for it.

    Args:
        study: Where trials come from.
        count: How many.
    """

    def __init__(self, study: Study, count: int) -> None:
        self.study = study
        self.count = count
        self._stopping = threading.Event()

    def run(self) -> None:
        """Run what is left of the study.

        Raises:
            KeyboardInterrupt: The user stops it; all processes have ended then.
        """
        with ThreadPoolExecutor(self.count) as pool:
            waiting = [pool.submit(self._work) for _ in range(self.count)]
            try:
                for future in waiting:
                    future.result()
            except KeyboardInterrupt:
                raise KeyboardInterrupt("the same command goes on with the sweep") from None
            finally:
                self._stopping.set()

    def _work(self) -> None:
        while not self._stopping.is_set() and (begun := self.study.next()) is not None:
            self._perform(*begun)

    def _perform(self, asked: optuna.Trial, trial: Trial) -> None:
        more = trial.go_on() if asked.user_attrs.get("goes_on") else ()
        _say(f"trial {asked.number} begins in {trial.folder}")
        try:
            started = TrialProcess(trial, more)
        except OSError as error:
            self.study.finish(asked, None, f"the command does not start: {error}")
            return
        with started as process:
            asked.set_user_attr("host", os.uname().nodename)
            asked.set_user_attr("group", process.group)
            pruned = False
            while process.status() is None and not pruned:
                if self._stopping.is_set():
                    process.end(signal.SIGINT)
                    return
                process.wait()
                pruned = self._is_hopeless(asked, trial)
        self._tell(asked, trial, process.status(), pruned=pruned)

    def _is_hopeless(self, asked: optuna.Trial, trial: Trial) -> bool:
        """Whether a trial is to be ended early, by what it has measured so far."""
        if self.study.sweep.halving is None:
            return False
        with suppress(ConfigurationError):
            values = trial.values(self.study.sweep.metric)
            for step, value in enumerate(values, start=1):
                if step > asked.user_attrs.get("measured", 0) and value == value:
                    asked.report(value, step)
                    asked.set_user_attr("measured", step)
                    if asked.should_prune():
                        return True
        return False

    def _tell(self, asked: optuna.Trial, trial: Trial, status: int | None, *, pruned: bool) -> None:
        sweep = self.study.sweep
        if status == PREEMPTED and not pruned:
            _say(f"trial {asked.number} was asked to end: the same command goes on with it")
            return
        value, error = None, ""
        if status and not pruned:
            error = last_line(trial.log)
        else:
            try:
                value = best(trial.values(sweep.metric), sweep.goal)
            except ConfigurationError as wrong:
                error = str(wrong)
            if value is None and not error:
                error = f"{sweep.metric} is undefined throughout, or was never logged"
        self.study.finish(asked, value, error, pruned=pruned)
        said = f"failed: {error}" if error else f"{sweep.metric} {value:.6g}{', ended early' * pruned}"
        _say(f"trial {asked.number} {said}")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let a cluster's SIGTERM end the trials as Ctrl-C does, instead of leaving them behind."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_result(study: Study) -> None:
    table, metric = study.table(), study.sweep.metric
    rows = table[table[metric].notna() & (table["state"] == "complete")].to_dict("records")
    counts = ", ".join(f"{count} {state}" for state, count in table["state"].value_counts().items())
    _say(f"{len(table)} trials ({counts}): {study.folder / 'trials.csv'}")
    if not rows:
        raise ConfigurationError(f"No trial of the sweep has a value: {study.folder / 'trials.csv'} says why.")
    row = (min if study.sweep.goal == "minimize" else max)(rows, key=lambda one: float(one[metric]))
    _say(f"best: trial {row['trial']}, {metric} {row[metric]:.6g}, in {study.folder / row['run']}")
    print(row["command"])  # noqa: T201  # to be run again


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)  # noqa: T201  # a line a trial, for a log on a cluster
