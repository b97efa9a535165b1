"""The command line in a process of its own, to which a test does harm at a place of its choice.

A process is a fork of the one that runs the tests, which has imported all it needs: it starts in milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ecgfair.__main__ import main
from ecgfair.callbacks import EpochLine

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    """What became of a process.

    Args:
        status: Its exit status; minus the signal that ended it.
        output: What it printed, on both streams.
    """

    status: int
    output: str

    @property
    def error(self) -> str:
        """The one line that says what is wrong."""
        lines = [line for line in self.output.splitlines() if line.startswith("ecgfair: ")]
        assert "Traceback" not in self.output, self.output
        return lines[-1]


def driven(arguments: list[str], folder: Path, harm: Callable[[], None] | None = None) -> Ended:
    """Run a command line in a process of its own.

    Args:
        arguments: What follows ``python -m ecgfair``.
        folder: Where its output is kept meanwhile.
        harm: Called in that process before the command line; it sets a trap, see below.
    """
    printed = folder / "output.txt"
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _run(arguments, printed, harm)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), printed.read_text(encoding="utf-8"))


def _run(arguments: list[str], printed: Path, harm: Callable[[], None] | None) -> None:
    status = 70
    try:
        file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(file, stream)
        # Those of pytest would keep what is printed from the file.
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        if harm is not None:
            harm()
        status = main(arguments)
    except BaseException:  # whatever it is, it must not go on as a second pytest
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def die() -> None:
    """End this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: int, act: Callable[..., None]) -> Callable[[], None]:
    """Act between the loss of an optimiser step, counted from 0, and its gradients."""

    def act_there(_callback, trainer, _module, _loss):
        if trainer.global_step == step:
            act()

    return lambda: setattr(EpochLine, "on_before_backward", act_there)


def at_batch(step: int, batch: int, act: Callable[..., None]) -> Callable[[], None]:
    """Act in a batch of an optimiser step that gathers gradients over several."""

    def act_there(_callback, trainer, _module, _loss):
        if (trainer.global_step, trainer.fit_loop.batch_idx) == (step, batch):
            act()

    return lambda: setattr(EpochLine, "on_before_backward", act_there)


def in_validation(epoch: int, act: Callable[..., None]) -> Callable[[], None]:
    """Act behind the first batch of the validation of an epoch."""

    def act_there(_callback, trainer, *_):
        if trainer.current_epoch == epoch:
            act()

    return lambda: setattr(EpochLine, "on_validation_batch_end", act_there)


def at_renaming(number: int, act: Callable[..., None], *, behind: bool) -> Callable[[], None]:
    """Act before or behind a file or folder takes its name, counted from 0: that is what makes a write a whole one."""
    count = iter(range(10**6))

    def around(name):
        call = getattr(Path, name)

        def renaming(self, target):
            is_there = next(count) == number
            if is_there and not behind:
                act()
            renamed = call(self, target)
            if is_there and behind:
                act()
            return renamed

        setattr(Path, name, renaming)

    def set_trap():
        around("replace")
        around("rename")

    return set_trap


def count_renamings(into: Path) -> Callable[[], None]:
    """Note how many files and folders take their names in a run."""

    def around(name):
        call = getattr(Path, name)

        def renaming(self, target):
            with into.open("a") as file:
                file.write(f"{target}\n")
            return call(self, target)

        setattr(Path, name, renaming)

    def set_trap():
        around("replace")
        around("rename")

    return set_trap
