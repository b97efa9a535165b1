"""``run.json``: what became of a run, how often it was started, by which command and with what."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from ecgfair.errors import RunFolderError
from ecgfair.training.checkpoint_io import write_whole

RUN: Final = "run.json"
COMMAND: Final = "command.txt"
FINISHED: Final = "finished"

State = Literal["running", "finished", "interrupted", "preempted", "diverged", "failed"]
"""A run that was killed says ``running``: nothing had the time to say anything else."""


def command_line(words: Sequence[str]) -> str:
    """Return a command that a shell can be given.

    Args:
        words: What follows ``python -m ecgfair``.
    """
    return shlex.join(["python", "-m", "ecgfair", *words])


def read_run(folder: Path) -> dict[str, Any] | None:
    """Read ``run.json``, ``None`` where there is none.

    Raises:
        RunFolderError: It is damaged.
    """
    path = folder / RUN
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise RunFolderError(f"{path} can't be read: {error}. Choose another folder with --run.") from error
    if not isinstance(found, dict) or not isinstance(found.get("state"), str):
        raise RunFolderError(f"{path} does not say what became of the run: expected `state`. Choose another --run.")
    return found


def write_start(folder: Path, earlier: Mapping[str, Any] | None, start: Mapping[str, Any], reproduce: str) -> None:
    """Note that a run starts, or goes on.

    Args:
        folder: The run folder.
        earlier: What ``read_run`` said; ``None`` for a new run.
        start: Command, the step that it goes on from, the environment.
        reproduce: Command that makes the same run in another folder.
    """
    starts = [*(earlier or {}).get("starts", []), {"time": _now(), **start}]
    run = {"state": "running", "error": None, "ended": None, "reproduce": reproduce, "starts": starts}
    # First what makes the folder one of a run: this process may be killed at any moment.
    _write(folder, run)
    write_whole(folder / COMMAND, f"{reproduce}\n".encode())


def write_end(folder: Path, state: State, error: str | None = None) -> None:
    """Note what became of a run.

    Args:
        folder: The run folder.
        state: How it ended.
        error: The reason, in one line, if not as it should.
    """
    run = read_run(folder) or {}
    _write(folder, run | {"state": state, "error": error, "ended": _now()})


def _write(folder: Path, run: Mapping[str, Any]) -> None:
    write_whole(folder / RUN, f"{json.dumps(run, indent=2, ensure_ascii=False)}\n".encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
