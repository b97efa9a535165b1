"""Runs what a row is made of: fit, test, and the minutes that took, so that a stopped run goes on where it stopped.

A run lies in ``FOLDER/NAME-SEED``. Beside it: ``NAME-SEED.log`` (what its processes print), ``NAME-SEED.minutes.json``
(how long it trained, and on which machine) and ``NAME-SEED.lock``, which is held as long as a process of it lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

from experiments.ptbxl.rows import BASELINE, PRETRAIN, ResultRow

FOLDS: Final = range(1, 11)
ROTATION: Final = "rotation"


class Runner(Protocol):
    """Starts a process and waits for it.

    Attributes:
        threads: Of each process.
    """

    threads: int

    def __call__(self, command: Sequence[str], log: Path, lock: int) -> int:
        """Return its exit status; the process inherits the open file ``lock``, and prints into ``log``."""


@dataclass(frozen=True)
class Run:
    """One training of a row.

    Args:
        row: The row.
        part: The seed, ``0``, or the fold that is tested, ``fold3``.
        folder: Its run folder.
        flags: Further arguments of ``fit``: the seed, the folds, the encoder.
    """

    row: ResultRow
    part: str
    folder: Path
    flags: tuple[str, ...] = ()

    def beside(self, suffix: str) -> Path:
        """Return the file of that kind beside the run folder."""
        return self.folder.with_name(f"{self.folder.name}.{suffix}")

    @property
    def predictions(self) -> Path:
        """The table that a tested run has."""
        return self.folder / "test" / "predictions.parquet"

    @property
    def last(self) -> Path:
        """The checkpoint that a stopped training goes on from."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def trained(self) -> bool:
        """Whether all epochs are done."""
        return bool(read_minutes(self).get("finished"))

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do. The table of predictions appears as a whole or not at all."""
        return self.trained if self.row.kind == PRETRAIN else self.predictions.is_file()


def seed_run(row: ResultRow, seed: int, runs: Path, store: str | None = None) -> Run:
    """Return the run of a row with a seed, on folds 1-8, 9 and 10; of the store that its files name if None."""
    folder = runs / f"{row.name}-{seed}"
    if row.kind == BASELINE:
        return Run(row, str(seed), folder, _of_data(row, store=store))
    start = () if row.start is None else ("--model.init_args.encoder", str(runs / f"{row.start}-{seed}" / "encoder"))
    return Run(row, str(seed), folder, ("--seed_everything", str(seed), *start, *_of_data(row, store=store)))


def fold_run(row: ResultRow, fold: int, runs: Path, store: str | None = None) -> Run:
    """Return the run that tests one fold, chooses on the one before it, and trains on the other eight.

    A pretraining that a row starts from has the same folds, so its encoder has not seen the tested one either.
    """
    before = (fold - 2) % len(FOLDS) + 1
    parts = {"train": [one for one in FOLDS if one not in (fold, before)], "validation": [before], "test": [fold]}
    folds = {f"{part}_folds": json.dumps(numbers) for part, numbers in parts.items()}
    flags = [*_of_data(row, store=store, **folds)]
    if row.start is not None:
        flags += ["--model.init_args.encoder", str(runs / ROTATION / f"{row.start}-fold{fold}" / "encoder")]
    if row.kind != BASELINE:
        flags += ["--seed_everything", "0"]
    return Run(row, f"fold{fold}", runs / ROTATION / f"{row.name}-fold{fold}", tuple(flags))


def _of_data(row: ResultRow, **settings: str | None) -> tuple[str, ...]:
    """Return settings of the data module as flags, without those that are None and those the row has no place for."""
    if row.several_stores:
        settings.pop("store", None)
    prefix = "" if row.kind == BASELINE else "data.init_args."
    given = {name: value for name, value in settings.items() if value is not None}
    return tuple(word for name, value in given.items() for word in (f"--{prefix}{name}", value))


def commands(run: Run, extra: Sequence[str] = ()) -> Iterator[tuple[bool, list[str]]]:
    """Yield what is left to run: whether it is the training, and the command.

    Args:
        run: Of which.
        extra: Arguments that go to every ``fit``.
    """
    if run.row.kind == BASELINE:
        module = [sys.executable, "-m", "experiments.ptbxl.baselines", run.row.name]
        yield True, [*module, "--run", str(run.folder), *run.flags]
        return
    ecgfair = [sys.executable, "-m", "ecgfair"]
    if not run.trained:
        configs = [word for path in run.row.files for word in ("--config", str(path))]
        go_on = ["--ckpt_path", str(run.last)] if run.last.is_file() else ["--overwrite", "true"]
        yield True, [*ecgfair, "fit", *configs, *run.row.flags, *run.flags, *extra, "--run", str(run.folder), *go_on]
    if run.row.kind != PRETRAIN:
        # config.yaml of a run that went on names last.ckpt.
        best = run.folder / "checkpoints" / "best.ckpt"
        yield False, [*ecgfair, "test", "--config", str(run.folder / "config.yaml"), "--ckpt_path", str(best)]


def perform(run: Run, runner: Runner, extra: Sequence[str] = ()) -> str:
    """Run what is left of a run.

    Returns:
        What went wrong, empty if nothing did.
    """
    if run.finished:
        return ""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(run.beside("lock")) as lock:
        if lock is None:
            return f"{run.folder} is being run by another process: wait for it, or stop it."
        for is_training, command in commands(run, extra):
            with _timed(run, runner.threads) if is_training else nullcontext(_Work()) as work:
                work.status = runner(command, run.beside("log"), lock)
            if work.status:
                return (
                    f"{' '.join(command)} ended with status {work.status}: its last lines are in {run.beside('log')}."
                )
    return "" if run.finished else f"{run.folder} ended well but is not complete: expected {run.predictions}."


def perform_all(runs: Sequence[Run], workers: int, runner: Runner, extra: Sequence[str] = ()) -> list[str]:
    """Run several side by side, those of stage 1 before those that may start from them.

    Returns:
        What went wrong, a line each; the others are run nevertheless.
    """
    wrong: list[str] = []
    for is_first in (True, False):
        chosen = [run for run in runs if (run.row.kind == PRETRAIN) == is_first]
        with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
            waiting = [pool.submit(perform, run, runner, extra) for run in chosen]
            try:
                wrong += [said for future in waiting if (said := future.result())]
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(runner, Processes):
                    runner.stop()
                raise
    return wrong


class Processes:
    """Runs commands as processes with a number of threads each.

    Args:
        threads: Of each process.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._lock, self._stopped = Lock(), False

    def __call__(self, command: Sequence[str], log: Path, lock: int) -> int:
        """Run a command; see ``Runner``."""
        with log.open("ab") as out:
            out.write(f"$ {' '.join(command)}\n".encode())
            out.flush()
            with self._lock:
                if self._stopped:
                    return signal.SIGINT
                process = subprocess.Popen(  # noqa: S603  # the commands are this file's own
                    command,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
                    pass_fds=[lock],
                    start_new_session=True,  # so that Ctrl-C reaches it once, by `stop`
                )
                self._alive.add(process)
            status = process.wait()
            self._alive.discard(process)
            return status

    def stop(self) -> None:
        """Ask all processes to end, and start no more; training then keeps its last epoch."""
        with self._lock:
            self._stopped = True
            for process in list(self._alive):
                process.send_signal(signal.SIGINT)


def machine(threads: int) -> dict[str, Any]:
    """Describe what a run was timed on."""
    import torch

    model = platform.processor() or platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.is_file():
        lines = cpus.read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model, "cores": os.cpu_count(), "gpu": gpu, "threads": threads}


def read_minutes(run: Run) -> dict[str, Any]:
    """Return what is known of how long a run trained: ``minutes``, ``finished``, ``exact``, ``machine``; or nothing."""
    path = run.beside("minutes.json")
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


@dataclass
class _Work:
    """What was timed.

    Args:
        status: Its exit status; 1 until it is known.
    """

    status: int = 1


@contextmanager
def _timed(run: Run, threads: int) -> Iterator[_Work]:
    """Add the minutes of a training to those before it was stopped; of a part that was killed they are not known."""
    before = read_minutes(run) if run.last.is_file() else {}  # else it begins again
    told: dict[str, Any] = {
        "minutes": float(before.get("minutes", 0.0)),
        "exact": bool(before.get("exact", True)) and not before.get("running", False),
        "machine": machine(threads),
    }
    _write(run, {**told, "finished": False, "running": True})
    begun, work = time.monotonic(), _Work()
    try:
        yield work
    finally:
        told["minutes"] += (time.monotonic() - begun) / 60
        _write(run, {**told, "finished": work.status == 0, "running": False})


def _write(run: Run, values: dict[str, Any]) -> None:
    path = run.beside("minutes.json")
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(values, indent=1), encoding="utf-8")
    partial.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """Give the open lock file, ``None`` if somebody else holds it. Its processes hold it too, as they inherit it."""
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()
