"""Runs that were asked to stop, and runs of two processes that were killed: the same command goes on.

One process that is killed anywhere is the subject of ``tests/faults``.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.cli.driving import TINY, again

EPOCHS = ["--trainer.max_epochs", "2"]
DDP = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
SLOW = """
import os, sys, time
from pathlib import Path
from ecgfair.__main__ import main
from ecgfair.training import FinetuneModule, PretrainModule

def announced(step):
    def announcing(module, batch, batch_idx):
        if module.trainer.global_step == int(os.environ["STOP_AT"]) and module.global_rank == 0:
            Path(os.environ["REACHED"]).touch()
            time.sleep(float(os.environ["SLEEP"]))
        return step(module, batch, batch_idx)
    return announcing

for stage in (PretrainModule, FinetuneModule):
    stage.training_step = announced(stage.training_step)
sys.exit(main())
"""
"""The command line, waiting in a step for whom it tells that it got there."""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that starts a command and returns its process once it is in a step."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", *sys.path]).strip(os.pathsep))
    (tmp_path / "slow.py").write_text(SLOW)

    def start(words, stop_at, sleep):
        reached = tmp_path / "reached"
        told = {"STOP_AT": str(stop_at), "REACHED": str(reached), "SLEEP": str(sleep)}
        command = [sys.executable, "-W", "ignore", str(tmp_path / "slow.py"), *words]
        process = subprocess.Popen(
            command, env=os.environ | told, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        deadline = time.monotonic() + 200
        while not reached.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert reached.exists(), process.communicate()[1][-2000:]
        return process

    return start


def weights(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def state(run):
    return json.loads((run / "run.json").read_text())["state"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, finetuned):
    """A run of two epochs that nothing happened to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert again("fit", finetuned, "--run", str(run), *EPOCHS) == 0
    return run


@pytest.mark.slow  # tests/faults stops runs in the fast suite
def test_a_run_that_was_asked_to_stop_ends_with_75_and_goes_on_by_the_same_command(
    program, tmp_path, finetuned, whole, capsys
):
    run = tmp_path / "run"
    words = ["fit", "--config", str(finetuned / "config.yaml"), "--run", str(run), *EPOCHS]
    process = program(words, stop_at=2, sleep=1)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 75, told
    assert told.strip().splitlines()[-1].startswith("ecgfair: Stopped after epoch 1, step 3, as asked by SIGTERM")
    assert state(run) == "preempted"
    assert again("fit", finetuned, "--run", str(run), *EPOCHS) == 0
    assert "step 3." in capsys.readouterr().err
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(run).items())
    assert state(run) == "finished"


@pytest.mark.slow
@pytest.mark.timeout(900)  # three launches of two processes
def test_two_processes_killed_go_on_together(program, tmp_path, finetuned):
    run, whole = tmp_path / "run", tmp_path / "whole"

    def words(folder):
        return ["fit", "--config", str(finetuned / "config.yaml"), "--run", str(folder), *TINY, *EPOCHS, *DDP]

    subprocess.run([sys.executable, "-m", "ecgfair", *words(whole)], check=True, capture_output=True)
    process = program(words(run), stop_at=3, sleep=100)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = subprocess.run(
        [sys.executable, "-m", "ecgfair", *words(run)], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = [line for line in done.stderr.splitlines() if line.startswith("ecgfair:")]
    last = run / "checkpoints" / "last.ckpt"
    assert told == [f"ecgfair: the run in {run} was killed: it goes on from {last}, step 2."], "one process says it"
    assert (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(run).items())
    assert state(run) == "finished"
    assert [start["step"] for start in json.loads((run / "run.json").read_text())["starts"]] == [0, 2]
