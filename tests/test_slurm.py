"""The batch scripts of ``experiments/slurm``, run by bash with stand-ins for Slurm's own commands."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "experiments" / "slurm"
BASH = shutil.which("bash") or "/bin/bash"
TRAIN = SCRIPTS / "train.sbatch"
STUDY = SCRIPTS / "study.sbatch"


@pytest.fixture
def slurm(tmp_path):
    """A cluster of two commands: both write down how they were called, and end as the environment says."""
    commands = tmp_path / "bin"
    commands.mkdir()
    srun = (
        'printf "%s\\n" "$@" > srun.txt; [[ -z "${HOLD:-}" ]] || while [[ ! -e go ]]; do sleep 0.05; done; exit "$ENDS"'
    )
    scontrol = 'echo "$*" >> scontrol.txt; echo "JobId=7 JobName=x QOS=normal JobState=${STATE:-RUNNING} Reason=None"'
    for name, script in {"srun": srun, "scontrol": scontrol}.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (commands / name).chmod(0o755)
    return {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "ECGFAIR_PYTHON": "/environment/bin/python",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_CPUS_PER_TASK": "8",
        "ENDS": "0",
    }


def run(script, slurm, tmp_path, *arguments, **environment):
    """Run a script as Slurm does, and return it ended, with what the stand-ins were asked for."""
    done = subprocess.run(
        [BASH, str(script), *arguments],
        cwd=tmp_path,
        env=slurm | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    asked = {name: tmp_path / f"{name}.txt" for name in ("srun", "scontrol")}
    return done, {name: file.read_text().splitlines() if file.exists() else [] for name, file in asked.items()}


def directives(script):
    return dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", script.read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sbatch")), ids=lambda script: script.name)
def test_scripts_are_bash_that_shellcheck_has_nothing_to_say_about(script):
    subprocess.run([BASH, "-n", str(script)], check=True)
    if shellcheck := shutil.which("shellcheck"):
        told = subprocess.run([shellcheck, str(script)], capture_output=True, text=True, check=False)
        assert told.stdout == ""


def test_training_is_one_task_a_device_with_the_command_line_as_given(slurm, tmp_path):
    done, asked = run(TRAIN, slurm, tmp_path, "fit", "--config", "a file.yaml", "--run", "runs/x")
    assert done.returncode == 0
    at = asked["srun"].index("/environment/bin/python")
    assert asked["srun"][at:] == [
        *["/environment/bin/python", "-m", "ecgfair", "fit", "--config", "a file.yaml", "--run", "runs/x"],
        *["--trainer.num_nodes", "2", "--trainer.devices", "4"],
    ]
    assert "--cpus-per-task=8" in asked["srun"][:at]
    assert asked["scontrol"] == []


def test_tasks_that_end_first_leave_the_others_time_to_save(slurm, tmp_path):
    _, asked = run(TRAIN, slurm, tmp_path, "fit")
    assert "--kill-on-bad-exit=0" in asked["srun"]
    (wait,) = (int(word.removeprefix("--wait=")) for word in asked["srun"] if word.startswith("--wait="))
    assert wait >= 120


def test_a_training_that_saved_itself_is_queued_again(slurm, tmp_path):
    done, asked = run(TRAIN, slurm, tmp_path, "fit", ENDS="75")
    assert done.returncode == 0
    assert asked["scontrol"][-1] == "requeue 7"
    assert "queued again" in done.stdout


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PREEMPTED", "PENDING"])
def test_a_cancelled_job_stays_cancelled_and_one_that_slurm_took_is_left_to_slurm(slurm, tmp_path, state):
    done, asked = run(TRAIN, slurm, tmp_path, "fit", ENDS="75", STATE=state)
    assert done.returncode == 75
    assert not any("requeue" in line for line in asked["scontrol"])


@pytest.mark.parametrize("ends", ["1", "2", "130", "137", "143"])
def test_a_training_that_failed_is_not_queued_again_and_its_status_is_the_jobs(slurm, tmp_path, ends):
    done, asked = run(TRAIN, slurm, tmp_path, "fit", ENDS=ends)
    assert done.returncode == int(ends)
    assert asked["scontrol"] == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_to_the_batch_shell_does_not_keep_it_from_queueing_the_job_again(slurm, tmp_path, number):
    with subprocess.Popen([BASH, str(TRAIN), "fit"], cwd=tmp_path, env=slurm | {"ENDS": "75", "HOLD": "1"}) as shell:
        for _ in range(600):
            if (tmp_path / "srun.txt").exists():
                break
            time.sleep(0.05)
        shell.send_signal(number)
        time.sleep(0.2)
        (tmp_path / "go").touch()
        assert shell.wait(60) == 0
    assert (tmp_path / "scontrol.txt").read_text().endswith("requeue 7\n")


def test_slurm_tells_the_tasks_before_the_time_is_over_and_may_start_the_job_again():
    told = directives(TRAIN)
    number, seconds = told["signal"].split("@")
    assert number == "USR1", "with `B:` before it the batch shell alone would get it"
    assert int(seconds) >= 60
    assert "requeue" in told
    assert told["open-mode"] == "append"
    assert int(told["nodes"]) > 1
    assert told["ntasks-per-node"] == told["gpus-per-node"]


def stand_in_for_python(tmp_path, script):
    file = tmp_path / "python"
    file.write_text(f"#!/usr/bin/env bash\n{script}\n")
    file.chmod(0o755)
    return {"ECGFAIR_PYTHON": str(file)}


SAY = 'echo "$* | gpu ${CUDA_VISIBLE_DEVICES-unset} | ${SLURM_JOB_NAME-}" >> "python.$BASHPID"'


def said(tmp_path):
    return sorted(file.read_text().strip() for file in tmp_path.glob("python.*"))


def test_a_task_of_a_sweep_is_one_trial_that_starts_its_own_processes(slurm, tmp_path):
    done, _ = run(SCRIPTS / "sweep.sbatch", slurm | stand_in_for_python(tmp_path, SAY), tmp_path, "lab/ecg/abc")
    assert done.returncode == 0, done.stderr
    assert said(tmp_path) == ["-m wandb agent --count 1 lab/ecg/abc | gpu unset | interactive"]
    assert "array" in directives(SCRIPTS / "sweep.sbatch")


def test_a_sweep_has_to_be_named(slurm, tmp_path):
    done, _ = run(SCRIPTS / "sweep.sbatch", slurm | stand_in_for_python(tmp_path, SAY), tmp_path)
    assert done.returncode != 0
    assert "names no sweep" in done.stderr
    assert said(tmp_path) == []


def test_a_study_has_a_worker_for_each_device_of_one_node(slurm, tmp_path):
    environment = slurm | stand_in_for_python(tmp_path, SAY) | {"CUDA_VISIBLE_DEVICES": "0,3"}
    done, asked = run(STUDY, environment, tmp_path, "a file.yaml", "--trials", "9")
    assert done.returncode == 0, done.stderr
    command = "-m ecgfair sweep a file.yaml --trials 9 --workers 1"
    assert said(tmp_path) == [f"{command} | gpu {gpu} | interactive" for gpu in ("0", "3")]
    assert asked["scontrol"] == []
    assert directives(STUDY)["nodes"] == "1"


def test_a_study_without_devices_has_one_worker(slurm, tmp_path):
    done, _ = run(STUDY, slurm | stand_in_for_python(tmp_path, SAY), tmp_path, "a.yaml")
    assert done.returncode == 0, done.stderr
    assert len(said(tmp_path)) == 1


def test_a_study_fails_if_a_worker_does(slurm, tmp_path):
    fails = stand_in_for_python(tmp_path, '[[ "$CUDA_VISIBLE_DEVICES" != 0 ]] || exit 2')
    done, asked = run(STUDY, slurm | fails | {"CUDA_VISIBLE_DEVICES": "0,1"}, tmp_path, "a.yaml")
    assert done.returncode == 2
    assert asked["scontrol"] == []


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_study_lets_its_workers_end_and_is_queued_again_when_its_time_is_over(slurm, tmp_path, number, requeued):
    waits = """
        trap 'sleep 0.3; touch "saved.$CUDA_VISIBLE_DEVICES"; exit 130' TERM
        touch "began.$CUDA_VISIBLE_DEVICES"
        while true; do sleep 0.05; done"""
    environment = slurm | stand_in_for_python(tmp_path, waits) | {"CUDA_VISIBLE_DEVICES": "0,1"}
    with subprocess.Popen([BASH, str(STUDY), "a.yaml"], cwd=tmp_path, env=environment) as shell:
        for _ in range(600):
            if len(list(tmp_path.glob("began.*"))) == 2:
                break
            time.sleep(0.05)
        shell.send_signal(number)
        assert shell.wait(60) == (0 if requeued else 130)
    assert sorted(file.name for file in tmp_path.glob("saved.*")) == ["saved.0", "saved.1"]
    assert (tmp_path / "scontrol.txt").exists() == requeued


def test_slurm_tells_the_shell_of_a_study_which_tells_its_workers():
    assert directives(STUDY)["signal"].startswith("B:USR1@")
    assert {"requeue", "open-mode"} <= directives(STUDY).keys()
