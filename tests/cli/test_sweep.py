"""`sweep FILE`: trials in parallel processes, stopped, killed and gone on with, on a training that takes no time."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ecgfair.__main__ import main

pytest.importorskip("optuna")
TRAINING = str(Path(__file__).with_name("fake_training.py"))
ROOT = Path(__file__).parents[2]
TIMEOUT = 120


@pytest.fixture(autouse=True)
def _without_an_agent(monkeypatch):
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # its process may end meanwhile, and its address come back after the test
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def sweep_file(folder, parameters, *, method="bayes", more=(), metric="val/loss", goal="minimize", **keys):
    """A sweep file whose trials lie in `runs`."""
    command = ["${env}", "${interpreter}", TRAINING, "--run", f"{folder}/runs/$WANDB_RUN_ID", *more, "${args}"]
    told = {"method": method, "metric": {"name": metric, "goal": goal}, "parameters": parameters, "command": command}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(told | keys))
    return str(path)


def trials(folder):
    return pd.read_csv(folder / "runs" / "trials.csv", keep_default_na=False, na_values=[""])


def started(file, trials=None, workers=1):
    """The verb as a process, without the imports of all other verbs."""
    code = f"from ecgfair.cli.sweep import sweep; sweep({file!r}, {trials}, {workers})"
    return begun([sys.executable, "-c", code])


def begun(command):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, preexec_fn=heed_ctrl_c, **pipes)


def heed_ctrl_c():
    """Tests that a script starts in the background ignore Ctrl-C, and so would what they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for(condition):
    until = time.monotonic() + TIMEOUT
    while not (found := condition()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)
    return found


def waiting_trials(folder):
    return sorted(path.parent.name for path in folder.glob("runs/*/waits"))


UNIFORM = {"x": {"min": 0.0, "max": 1.0}}


def test_two_workers_search_in_parallel_and_the_best_trial_and_its_command_are_told(tmp_path, capsys):
    assert main(["sweep", sweep_file(tmp_path, UNIFORM), "--trials", "6", "--workers", "2"]) == 0
    table = trials(tmp_path)
    assert len(table) == table["run"].nunique() == 6
    assert set(table["state"]) == {"complete"}
    for row in table.itertuples():
        assert row[table.columns.get_loc("val/loss") + 1] == pytest.approx((row.x - 0.3) ** 2), "best over its epochs"
    best = table.loc[table["val/loss"].idxmin()]
    told = capsys.readouterr()
    assert f"best: trial {best['trial']}" in told.err
    (command,) = told.out.strip().splitlines()
    assert f"--x={best['x']}" in command
    assert f"--run {tmp_path}/runs/{best['run']}" in command, "without variables, so that a shell runs it as it is"


def test_both_workers_work_at_the_same_time(tmp_path):
    process = started(sweep_file(tmp_path, UNIFORM, more=["--slow"]), 2, 2)
    wait_for(lambda: len(waiting_trials(tmp_path)) == 2)
    (tmp_path / "runs" / "go").touch()
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0


def test_two_commands_share_a_study_and_run_no_trial_twice(tmp_path):
    file = sweep_file(tmp_path, {"x": {"values": [0.1, 0.2, 0.3, 0.4]}}, method="grid")
    processes = [started(file) for _ in range(2)]
    told = [process.communicate(timeout=TIMEOUT)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert sorted(trials(tmp_path)["x"]) == [0.1, 0.2, 0.3, 0.4]
    assert len(list((tmp_path / "runs").glob("*/starts"))) == 4


def test_a_grid_has_every_combination_once_and_a_second_start_has_nothing_left_to_do(tmp_path):
    grid = {"x": {"values": [0.1, 0.3]}, "y": {"values": [0, 1]}, "fail": {"value": -1.0}}
    file = sweep_file(tmp_path, grid, method="grid")
    assert main(["sweep", file]) == 0
    assert main(["sweep", file]) == 0
    table = trials(tmp_path)
    assert sorted(zip(table["x"], table["y"], strict=True)) == [(0.1, 0), (0.1, 1), (0.3, 0), (0.3, 1)]


def test_a_second_start_with_more_trials_adds_those_that_are_missing(tmp_path):
    file = sweep_file(tmp_path, UNIFORM, method="random", run_cap=2)
    assert main(["sweep", file]) == 0
    assert main(["sweep", file, "--trials", "3"]) == 0
    table = trials(tmp_path)
    assert len(table) == table["x"].nunique() == 3


def test_a_trial_that_fails_is_noted_with_its_last_line_and_the_others_go_on(tmp_path):
    file = sweep_file(tmp_path, {"x": {"values": [0.1, 0.2, 0.3]}}, method="grid", more=["--fail", "0.2"])
    assert main(["sweep", file]) == 0
    table = trials(tmp_path).set_index("x")
    assert table["state"].to_dict() == {0.1: "complete", 0.2: "fail", 0.3: "complete"}
    assert table.loc[0.2, "error"] == "ecgfair: the loss is no number any more"


@pytest.mark.parametrize(
    ("metric", "said"), [("val/los", "'val/los' was not logged. Logged: val/loss, val/odd."), ("val/odd", "undefined")]
)
def test_a_metric_that_has_no_value_fails_every_trial_and_is_told(metric, said, tmp_path, capsys):
    assert main(["sweep", sweep_file(tmp_path, UNIFORM, metric=metric), "--trials", "1"]) == 2
    assert said in trials(tmp_path)["error"][0]
    assert "No trial of the sweep has a value" in capsys.readouterr().err


def test_a_sweep_that_is_killed_goes_on_by_the_same_command_where_its_trials_were(tmp_path):
    file = sweep_file(tmp_path, UNIFORM, more=["--slow"])
    command = (file, 3, 2)
    process = started(*command)
    killed = wait_for(lambda: len(found := waiting_trials(tmp_path)) == 2 and found)
    process.kill()
    process.communicate(timeout=TIMEOUT)
    # Its trials are still running: they have to be ended, or two processes would write into one folder.
    again = started(*command)
    wait_for(lambda: all(len((tmp_path / "runs" / run / "starts").read_text().splitlines()) == 2 for run in killed))
    (tmp_path / "runs" / "go").touch()
    told = again.communicate(timeout=TIMEOUT)[1]
    assert again.returncode == 0, told
    table = trials(tmp_path)
    assert set(table["state"]) == {"complete"}
    assert len(table) == 3
    assert set(killed) < set(table["run"])
    for run in killed:
        first, second = (tmp_path / "runs" / run / "starts").read_text().splitlines()
        assert (first, second) == ("None", f"{tmp_path}/runs/{run}/checkpoints/last.ckpt")
    assert not list((tmp_path / "runs").glob("*.alive"))


@pytest.mark.parametrize(
    "by", [pytest.param(signal.SIGINT, id="ctrl_c"), pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_ctrl_c_and_sigterm_end_the_trials_and_the_same_command_goes_on(by, tmp_path):
    file = sweep_file(tmp_path, UNIFORM, more=["--slow"])
    process = begun([sys.executable, "-m", "ecgfair", "sweep", file, "--trials", "1"])
    (run,) = wait_for(lambda: waiting_trials(tmp_path))
    with sqlite3.connect(tmp_path / "runs" / "study.db") as study:
        rows = study.execute("select value_json from trial_user_attributes where key = 'group'").fetchall()
    study.close()
    process.send_signal(by)
    told = process.communicate(timeout=TIMEOUT)[1]
    assert process.returncode == 130
    assert "the same command goes on" in told
    with pytest.raises(ProcessLookupError):
        os.killpg(int(rows[0][0]), 0)
    (tmp_path / "runs" / "go").touch()
    assert main(["sweep", file, "--trials", "1"]) == 0
    assert trials(tmp_path)["run"].tolist() == [run]


def test_hopeless_trials_are_ended_early_and_are_no_best(tmp_path):
    # The second is worse from the first measurement on, and would wait for ever.
    grid = {"x": {"values": [0.3, 0.9]}}
    halving = {"type": "hyperband", "min_iter": 1, "eta": 2}
    (tmp_path / "runs").mkdir()
    file = sweep_file(tmp_path, grid, method="grid", more=["--slow", "--epochs", "4"], early_terminate=halving)
    process = started(file)
    wait_for(lambda: waiting_trials(tmp_path))
    (tmp_path / "runs" / "go").touch()
    wait_for(lambda: len(list(tmp_path.glob("runs/*/starts"))) == 2)
    (tmp_path / "runs" / "go").unlink(missing_ok=True)
    told = process.communicate(timeout=TIMEOUT)[1]
    assert process.returncode == 0, told
    table = trials(tmp_path).set_index("x")
    assert table["state"].to_dict() == {0.3: "complete", 0.9: "pruned"}, told


def test_a_file_that_was_changed_is_refused_on_the_old_study(tmp_path, capsys):
    assert main(["sweep", sweep_file(tmp_path, UNIFORM), "--trials", "1"]) == 0
    capsys.readouterr()
    assert main(["sweep", sweep_file(tmp_path, {"x": {"min": 0.0, "max": 2.0}}), "--trials", "2"]) == 2
    assert "holds another sweep" in capsys.readouterr().err


def test_without_optuna_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "ecgfair.cli.study", raising=False)
    assert main(["sweep", sweep_file(tmp_path, UNIFORM), "--trials", "1"]) == 2
    (told,) = capsys.readouterr().err.strip().splitlines()
    assert "pip install 'ecgfair[sweep]'" in told


def test_without_a_number_of_trials_it_does_not_search_for_ever(tmp_path, capsys):
    assert main(["sweep", sweep_file(tmp_path, UNIFORM)]) == 2
    assert "--trials, or run_cap" in capsys.readouterr().err


def test_appended_words_go_to_every_trial(tmp_path):
    file = sweep_file(tmp_path, UNIFORM)
    assert main(["sweep", file, "--trials", "1", f"--append=[--run={tmp_path}/others/$WANDB_RUN_ID, --epochs=2]"]) == 0
    (metrics,) = (tmp_path / "others").glob("*/metrics.csv")
    assert len(metrics.read_text().splitlines()) == 1 + 2 * 2
    assert (tmp_path / "others" / "study.db").is_file()
