"""Starts a test file as a program on two processes that talk over gloo."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TIMEOUT = 120  # seconds


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_two_processes(file, folder):
    """Run ``python file folder`` as rank 0 and 1, and wait for both; nothing is left running.

    A process finds its rank in ``RANK`` and ``LOCAL_RANK``.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "TORCHELASTIC_"))}
    shared = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = str(Path(__file__).parents[1])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    for _ in range(3):
        own = inherited | shared | {"MASTER_PORT": str(free_port())}
        command = [sys.executable, file, str(folder)]
        ranks = [
            subprocess.Popen(command, env=own | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, **pipes)
            for rank in range(2)
        ]
        try:
            output = "\n".join(process.communicate(timeout=TIMEOUT)[0] for process in ranks)
        finally:
            for process in ranks:
                process.kill()
        if "ddress already in use" not in output:
            break  # otherwise somebody took the free port in between
    assert [process.returncode for process in ranks] == [0, 0], output
