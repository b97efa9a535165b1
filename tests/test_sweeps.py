"""Every sweep that is shipped: expanded as the agent of Weights & Biases does, and one trial of it run for real."""

import json
import os
import queue
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ecgfair.cli.sweep_file import read_sweep
from ecgfair.cli.sweep_parameters import Choice, Range
from ecgfair.cli.trial import sweep_folder

SWEEPS = sorted(Path("experiments/sweeps").glob("*.yaml"))
ROOT = Path(__file__).parents[1]
TINY = [
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=2",
    "--trainer.accelerator=cpu",
    "--data.init_args.batch_size=8",
]
ENCODER = {
    "name": "TwoScaleEncoder",
    "arguments": {
        "widths": [8, 16],
        "trend_widths": [4, 8],
        "shape_widths": [8, 8],
        "rhythm_width": 4,
        "beat_widths": [8, 8],
        "beat_embedding": 8,
    },
}
FAST = {
    "trainer": {
        "callbacks": [
            {
                "class_path": "Fairness",
                "init_args": {"min_support": 1, "resamples": 0, "permutations": 0, "bound": 0.85},
            }
        ]
    }
}


def agents_command(path, values, run_id, monkeypatch, folder):
    """What the agent starts, by its own code, and the environment it starts it in; nothing is started."""
    wandb_agent = pytest.importorskip("wandb.wandb_agent")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "of another trial, which the agent has to replace")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    asked = []

    class Noted:
        def __init__(self, command=None, env=None, **_):
            asked.append((command, env))

    monkeypatch.setattr(wandb_agent, "AgentProcess", Noted)
    agent = wandb_agent.Agent(None, queue.Queue())
    agent._sweep_command = yaml.safe_load(path.read_text())["command"]
    arguments = {name: {"value": value} for name, value in values.items()}
    agent._command_run({"type": "run", "run_id": run_id, "program": None, "args": arguments})
    ((command, environment),) = asked
    return command, environment


def lowest(sweep):
    """The first of every parameter's values."""
    return {
        name: next(iter(one.values)) if isinstance(one, Choice) else one.low for name, one in sweep.parameters.items()
    }


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_embedded_sweep_starts_the_command_that_the_agent_starts(path, tmp_path, monkeypatch):
    sweep = read_sweep(path)
    values = lowest(sweep) | {"a.flag": False, "a.list": [8, 16], "a.text": "with space"}
    theirs, environment = agents_command(path, values, "trial1", monkeypatch, tmp_path)
    ours = sweep.words(values)
    # Theirs is the first python of the path, ours the one that runs the sweep.
    assert [sys.executable if word == "python" else word for word in theirs] == ours
    assert environment["WANDB_RUN_ID"] == "trial1"
    assert sweep_folder(ours) == Path("runs/sweeps") / path.stem


def trial(path, tmp_path, store, monkeypatch, *more):
    """Run one trial as the agent does, on a tiny model and store; returns its run folder."""
    sweep = read_sweep(path)
    command, environment = agents_command(path, lowest(sweep), "trial1", monkeypatch, tmp_path)
    (tmp_path / "fast.yaml").write_text(yaml.safe_dump(FAST if path.stem != "pretrain" else {}))
    first_args = next(n for n, word in enumerate(command) if word.startswith("--trainer.logger"))
    config = ["--config", str(tmp_path / "fast.yaml")] if path.stem != "pretrain" else []
    command = [
        *command[:first_args],
        *config,
        *command[first_args:],
        *TINY,
        f"--model.init_args.encoder={json.dumps(ENCODER)}",
    ]
    command += [f"--data.init_args.store={store}", f"--run={tmp_path}/runs/$WANDB_RUN_ID", *more]
    environment |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    settings = {"capture_output": True, "text": True, "check": False, "timeout": 280, "env": environment}
    done = subprocess.run(command, cwd=ROOT, **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return tmp_path / "runs" / "trial1"


@pytest.mark.parametrize(
    "path",
    # The sweep under a bound is one of stage 2 as well.
    [pytest.param(path, id=path.stem, marks=(pytest.mark.slow,) * (path.stem == "finetune")) for path in SWEEPS],
)
def test_one_trial_runs_as_the_agent_starts_it_and_logs_what_is_searched_for(
    path, tmp_path, synthetic_store, monkeypatch
):
    run = trial(path, tmp_path, synthetic_store, monkeypatch)
    told = yaml.safe_load(path.read_text())
    assert told["metric"]["name"] in pd.read_csv(run / "metrics.csv")
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key, value in lowest(read_sweep(path)).items():
        found = config
        for part in key.split("."):
            found = found[part]
        if key != "data.init_args.batch_size":  # which the test itself makes small
            assert type(found) is type(value) or not isinstance(found, str), "a number came as a text"
            assert found == pytest.approx(value) if isinstance(value, float) else found == value
    (record,) = run.glob("wandb/offline-run-*/run-trial1.wandb")
    assert record.stat().st_size > 0


@pytest.mark.slow
def test_a_trial_on_two_processes_writes_one_run_folder_and_begins_one_run(tmp_path, synthetic_store, monkeypatch):
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    run = trial(Path("experiments/sweeps/fair.yaml"), tmp_path, synthetic_store, monkeypatch, *two)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["trial1"]
    assert len(list(run.glob("wandb/offline-run-*"))) == 1
    assert pd.read_csv(run / "metrics.csv")["epoch"].max() == 1


def test_parameters_of_shipped_sweeps_are_of_the_kinds_that_both_ways_know():
    kinds = {type(one) for path in SWEEPS for one in read_sweep(path).parameters.values()}
    assert kinds == {Choice, Range}
