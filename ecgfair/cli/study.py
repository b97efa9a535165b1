"""What an embedded sweep knows of its trials: a study of Optuna in an SQLite file, which outlives every process."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import optuna
import pandas as pd
from filelock import FileLock, Timeout
from optuna.trial import TrialState

from ecgfair.cli.sweep_file import Sweep
from ecgfair.cli.sweep_parameters import Choice
from ecgfair.cli.trial import Trial, end_orphan, sweep_folder
from ecgfair.errors import ConfigurationError

LOCK_TIMEOUT: Final = 60.0
"""Seconds that SQLite waits for another process's transaction, which takes milliseconds."""


class Study:
    """The trials of a sweep, for all processes that work on it.

    A process that works on it holds a lock file of its own for as long as it lives: a trial that says it is running,
    of a process whose lock is free, was killed, and is tried again under its old name, so that it goes on.

    Args:
        sweep: What is searched.
        path: The SQLite file; made if need be.
        trials: How many trials there are to be; all of a grid if ``None``.

    Raises:
        ConfigurationError: The file is of another sweep, or it is not known how many trials there are to be.
    """

    def __init__(self, sweep: Sweep, path: Path, trials: int | None) -> None:
        self.sweep = sweep
        self.path = path
        self.folder = sweep_folder(sweep.command)
        self.folder.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._threads, self._lock = threading.Lock(), FileLock(f"{path}.lock")
        self._own = uuid.uuid4().hex
        self._alive = FileLock(self._sign(self._own))
        self._alive.acquire()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._alone():
            self._study = self._open()
            self._recover()
            grid = self._enqueue_grid() if sweep.method == "grid" else None
        known = [number for number in (trials, sweep.run_cap, grid) if number is not None]
        if not known:
            raise ConfigurationError(f"It is not known how many trials {sweep.name} is to have: --trials, or run_cap.")
        # `--trials` is asked for now, so it counts for more than what the file says.
        self.total = trials if trials is not None and grid is None else min(known)

    def close(self) -> None:
        """Give up this process's claim on the trials it left running."""
        self._alive.release()
        Path(self._alive.lock_file).unlink(missing_ok=True)

    def next(self) -> tuple[optuna.Trial, Trial] | None:
        """Begin a trial; ``None`` if all are done or begun."""
        with self._alone():
            trials = self._study.get_trials(deepcopy=False)
            waiting = [one for one in trials if one.state == TrialState.WAITING]
            if len(self._counted()) - len(waiting) >= self.total or (self.sweep.method == "grid" and not waiting):
                return None
            asked = self._study.ask()
            values = {name: one.suggest(asked, name) for name, one in self.sweep.parameters.items()}
            run_id = asked.user_attrs.get("run_id") or f"{asked.number:04d}-{uuid.uuid4().hex[:6]}"
            trial = Trial(run_id, tuple(self.sweep.words(values)))
            told = {"run_id": run_id, "sweep": self._own, "begun": time.time(), "command": trial.shown}
            for name, value in told.items():
                asked.set_user_attr(name, value)
            return asked, trial

    def finish(self, asked: optuna.Trial, value: float | None, error: str = "", *, pruned: bool = False) -> None:
        """Write down how a trial ended: its best value, or why there is none."""
        with self._alone():
            asked.set_user_attr("ended", time.time())
            if value is not None and not error:
                asked.set_user_attr("best", value)
            if error:
                asked.set_user_attr("error", error)
                self._study.tell(asked, state=TrialState.FAIL)
            elif pruned:
                self._study.tell(asked, state=TrialState.PRUNED)
            else:
                self._study.tell(asked, value)
            self._write()

    def table(self) -> pd.DataFrame:
        """Return all trials, a row each; one that was killed and tried again is there once."""
        rows = []
        for one in self._counted():
            known = one.user_attrs
            minutes = (known["ended"] - known["begun"]) / 60 if {"begun", "ended"} <= known.keys() else float("nan")
            row = {"trial": one.number, "state": one.state.name.lower(), self.sweep.metric: known.get("best")}
            row |= {"run": known.get("run_id"), "minutes": minutes, "error": known.get("error", "")}
            kinds = self.sweep.parameters
            row |= {
                name: json.loads(value) if isinstance(kinds.get(name), Choice) else value
                for name, value in one.params.items()
            }
            rows.append(row | {"command": known.get("command", "")})
        return pd.DataFrame(rows)

    def _write(self) -> None:
        """Write ``trials.csv`` as a whole or not at all."""
        draft = self.folder / "trials.csv.tmp"
        self.table().to_csv(draft, index=False)
        draft.replace(self.folder / "trials.csv")

    def _open(self) -> optuna.Study:
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{self.path.resolve()}", engine_kwargs={"connect_args": {"timeout": LOCK_TIMEOUT}}
        )
        halving = self.sweep.halving
        study = optuna.create_study(
            storage=storage,
            study_name=self.sweep.name,
            direction="minimize" if self.sweep.goal == "minimize" else "maximize",
            load_if_exists=True,
            pruner=optuna.pruners.NopPruner()
            if halving is None
            else optuna.pruners.SuccessiveHalvingPruner(min_resource=halving.first, reduction_factor=halving.factor),
        )
        # A sampler with the same seed would begin again with the same trials when a sweep goes on.
        seed = len(study.get_trials(deepcopy=False))
        study.sampler = (
            optuna.samplers.TPESampler(seed=seed)
            if self.sweep.method == "bayes"
            else optuna.samplers.RandomSampler(seed=seed)
        )
        asked = json.dumps(asdict(self.sweep) | {"run_cap": None}, sort_keys=True)
        if study.user_attrs.get("sweep", asked) != asked:
            raise ConfigurationError(
                f"{self.path} holds another sweep of the name {self.sweep.name!r}: its file was changed since. Choose "
                "another --study, or move that one away."
            )
        study.set_user_attr("sweep", asked)
        return study

    def _recover(self) -> None:
        """Put the trials of processes that are dead back in the queue."""
        trials = self._study.get_trials(deepcopy=False)
        retried = {one.user_attrs.get("retry_of") for one in trials}
        for one in trials:
            if one.state != TrialState.RUNNING or self._lives(one.user_attrs.get("sweep")):
                continue
            run_id = one.user_attrs.get("run_id")
            if run_id and "group" in one.user_attrs and one.user_attrs.get("host") == os.uname().nodename:
                end_orphan(Trial(run_id, self.sweep.command), one.user_attrs["group"])
            if one.number not in retried:
                attributes = {"retry_of": one.number} | ({"run_id": run_id, "goes_on": True} if run_id else {})
                self._study.enqueue_trial(one.params, user_attrs=attributes)
            self._study.tell(one.number, state=TrialState.FAIL)

    def _enqueue_grid(self) -> int:
        kept = {name: one.kept for name, one in self.sweep.parameters.items() if isinstance(one, Choice)}
        combinations = [dict(zip(kept, values, strict=True)) for values in itertools.product(*kept.values())]
        if not self._study.user_attrs.get("grid"):
            for combination in combinations:
                self._study.enqueue_trial(combination, skip_if_exists=True)
            self._study.set_user_attr("grid", value=True)
        return len(combinations)

    def _counted(self) -> list[optuna.trial.FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        retried = {one.user_attrs.get("retry_of") for one in trials}
        return [one for one in trials if one.number not in retried]

    def _sign(self, own: str) -> str:
        return f"{self.path}.{own}.alive"

    def _lives(self, own: str | None) -> bool:
        if own is None or not Path(self._sign(own)).exists():
            return False
        try:
            with FileLock(self._sign(own), timeout=0):
                Path(self._sign(own)).unlink()
                return False
        except Timeout:
            return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and processes from the study meanwhile."""
        with self._threads, self._lock:
            yield
