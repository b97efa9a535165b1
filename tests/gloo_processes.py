"""Calls a function in several processes that talk over gloo.

On Linux they are forks of the one that runs the tests, which has imported all they need: starting the interpreter anew
takes each of them longer than most of what they are to do.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only

TIMEOUT = 120  # seconds
GRACE = 10  # seconds for the others to fail where one has
FOREIGN = ("SLURM_", "TORCHELASTIC_")  # what would tell Lightning that somebody else starts its processes
_CONTEXT = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_processes(act: Callable[..., None], folder: Path, *others: object, world: int = 2) -> str:
    """Call ``act(folder, *others)`` as every rank, and wait for all; nothing is left running.

    A process finds its rank in ``RANK`` and ``LOCAL_RANK``.

    Returns:
        What they printed, rank by rank.
    """
    for _ in range(3):
        port = free_port()
        printed = [folder / f"printed-{rank}.txt" for rank in range(world)]
        processes = [
            _CONTEXT.Process(target=_as_rank, args=(act, rank, world, port, printed[rank], folder, *others))
            for rank in range(world)
        ]
        try:
            for process in processes:
                with warnings.catch_warnings():
                    # From Python 3.12 on: the threads that torch keeps take no lock that a rank needs.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    process.start()
            end = time.monotonic() + TIMEOUT
            while any(process.is_alive() for process in processes) and time.monotonic() < end:
                if any(process.exitcode for process in processes):
                    end = min(end, time.monotonic() + GRACE)
                time.sleep(0.02)
        finally:
            for process in processes:
                process.kill()
                process.join()
        output = "\n".join(path.read_text(encoding="utf-8") for path in printed)
        if "ddress already in use" not in output:
            break  # otherwise somebody took the free port in between
    for path in printed:
        path.unlink()
    assert [process.exitcode for process in processes] == [0] * world, output
    return output


def _as_rank(act: Callable[..., None], rank: int, world: int, port: int, printed: Path, *arguments: object) -> None:
    file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    # Those of pytest would keep what is printed from the file.
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "NODE_RANK": "0"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    rank_zero_only.rank = rank  # Lightning reads it when it is imported, which it was before
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("default")  # what is an error in the tests' own process would end one rank and hang the other
    act(*arguments)
