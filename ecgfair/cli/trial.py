"""One trial of a sweep: a process with a run folder of its own, and what it measured."""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import pandas as pd

from ecgfair.cli.run_path import VARIABLE, run_path
from ecgfair.errors import ConfigurationError

RUN_ID: Final = "WANDB_RUN_ID"
"""The variable that an agent tells the trial's name in."""
GRACE: Final = 30.0
"""Seconds that a process has to end by itself when it is asked to."""
POLL: Final = 0.2


@dataclass(frozen=True)
class Trial:
    """A command and where it writes.

    Args:
        run_id: Its name, unique in the sweep.
        command: With variables in ``--run``.
    """

    run_id: str
    command: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(run_path(_last_run(self.command), self._variables))

    @property
    def log(self) -> Path:
        """What its processes print, beside the run folder."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def lock(self) -> Path:
        """A file that is locked for as long as one of its processes lives."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    @property
    def shown(self) -> str:
        """The command for a shell, without variables."""
        known = self._variables
        return shlex.join(run_path(word, known) if VARIABLE.search(word) else word for word in self.command)

    @property
    def _variables(self) -> dict[str, str]:
        return {**os.environ, RUN_ID: self.run_id}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes: no server unless WANDB_MODE says so, and no agent's sweep."""
        own = {"WANDB_MODE": "disabled", **self._variables}
        return {name: value for name, value in own.items() if name not in ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")}

    def go_on(self) -> tuple[str, ...]:
        """Return the flags by which a killed trial goes on from its last checkpoint, or begins anew."""
        last = self.folder / "checkpoints" / "last.ckpt"
        return ("--ckpt_path", str(last)) if last.is_file() else ("--overwrite", "true")

    def values(self, metric: str) -> list[float]:
        """Return all values of a metric so far, in the order they were logged; undefined ones are NaN.

        Raises:
            ConfigurationError: Other metrics were logged, but never this one.
        """
        found, logged = [], set()
        for path in sorted(self.folder.glob("metrics*.csv"), key=lambda path: path.stat().st_mtime):
            try:
                # An undefined value is written as the text nan, a row without the metric as nothing.
                table = pd.read_csv(path, dtype=str, keep_default_na=False)
            except (OSError, ValueError):  # it is being written
                continue
            logged |= set(table.columns)
            if metric in table:
                found += [float(text) for text in table[metric] if text]
        if not found and "val/loss" in logged:
            names = ", ".join(sorted(name for name in logged if name.startswith("val/")))
            raise ConfigurationError(f"{metric!r} was not logged. Logged: {names}.")
        return found


def best(values: Sequence[float], goal: str) -> float | None:
    """Return the best of a trial's values, ``None`` if none is defined.

    Args:
        values: One a measurement.
        goal: ``minimize`` or ``maximize``.
    """
    defined = [value for value in values if not math.isnan(value)]
    return (min if goal == "minimize" else max)(defined, default=None)


def sweep_folder(command: Sequence[str]) -> Path:
    """Return the folder that the run folders of all trials lie in.

    Raises:
        ConfigurationError: The command does not give each trial a run folder of its own in one folder.
    """
    named = Path(_last_run(command))
    if RUN_ID not in {found[1] or found[2] for found in VARIABLE.finditer(named.name)}:
        raise ConfigurationError(
            f"The run folder of the sweep's command is {str(named)!r}: expected --run runs/sweeps/NAME/${RUN_ID}, so "
            "that each trial has a folder of its own."
        )
    return Path(run_path(str(named.parent)))


def last_line(log: Path) -> str:
    """Return the last line that is not empty, which says what went wrong."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it printed nothing")


class TrialProcess:
    """The processes of a trial, in a group of their own, so that Ctrl-C reaches them once and all of them.

    Args:
        trial: Which.
        more: Words behind its command.
    """

    def __init__(self, trial: Trial, more: Sequence[str] = ()) -> None:
        self.trial = trial
        import fcntl  # of Unix alone; other verbs run elsewhere too

        trial.folder.parent.mkdir(parents=True, exist_ok=True)
        command = [*trial.command, *more]
        with trial.lock.open("wb") as lock, trial.log.open("ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            log.write(f"$ {shlex.join(command)}\n".encode())
            log.flush()
            self._process = subprocess.Popen(  # noqa: S603  # the command is that of the user's own sweep file
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=trial.environment,
                pass_fds=[lock.fileno()],  # the process holds the lock, also when this one is killed
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    @property
    def group(self) -> int:
        """Its process group."""
        return self._process.pid

    def status(self) -> int | None:
        """Return the exit status, ``None`` while it runs."""
        return self._process.poll()

    def wait(self) -> None:
        """Wait a moment, or until it ends."""
        try:
            self._process.wait(POLL)
        except subprocess.TimeoutExpired:
            return

    def end(self, by: signal.Signals) -> None:
        """Ask all its processes to end, and end them if they do not."""
        if self._process.poll() is None:
            _signal(self.group, by)
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                _signal(self.group, signal.SIGKILL)
                self._process.wait()


def end_orphan(trial: Trial, group: int) -> None:
    """End the processes of a trial whose sweep was killed, if they still run.

    Args:
        trial: Which.
        group: Its process group. It is theirs for sure while one of them holds the lock.
    """
    import fcntl  # of Unix alone

    if not trial.lock.exists():
        return
    with trial.lock.open("rb") as lock:
        for by in (None, signal.SIGTERM, signal.SIGKILL):
            if by is not None:
                _signal(group, by)
            until = time.monotonic() + (GRACE if by is not None else 0)
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= until:
                        break
                    time.sleep(POLL)
                else:
                    return


def _signal(group: int, by: signal.Signals) -> None:
    try:
        os.killpg(group, by)
    except ProcessLookupError:
        return


def _last_run(command: Sequence[str]) -> str:
    """Return what ``--run`` names; of several the last counts, as for jsonargparse."""
    last = ""
    for word, after in zip(command, [*command[1:], ""], strict=True):
        if word.startswith("--run="):
            last = word.removeprefix("--run=")
        elif word == "--run":
            last = after
    return last
