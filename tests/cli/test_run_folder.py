"""One run in a folder, and what becomes of one that was not finished."""

import json
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock

import ecgfair
from ecgfair.training import FinetuneModule
from tests.cli.driving import again, error_line


def test_a_finished_run_is_not_overwritten_without_a_word(finetuned, capsys):
    before = (finetuned / "metrics.csv").read_bytes()
    assert again("fit", finetuned) == 2
    assert "holds a run already" in error_line(capsys)
    assert (finetuned / "metrics.csv").read_bytes() == before


def test_overwriting_replaces_a_run_once_the_new_one_can_start(tmp_path, pretrained, capsys):
    run = tmp_path / "run"
    shutil.copytree(pretrained, run)
    (run / "old").touch()
    assert again("fit", pretrained, "--run", str(run), "--overwrite", "true", "--data.init_args.batch_size", "0") == 2
    assert "batch_size is 0" in error_line(capsys)
    assert (run / "old").exists(), "a mistake in the new configuration does not cost the old run"
    assert again("fit", pretrained, "--run", str(run), "--overwrite", "true") == 0
    assert not (run / "old").exists()
    assert (run / "encoder").is_dir()


def test_a_folder_that_is_no_run_is_never_deleted(tmp_path, pretrained, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert again("fit", pretrained, "--run", str(tmp_path), "--overwrite", "true") == 2
    assert "holds no run of ecgfair" in error_line(capsys)
    assert (tmp_path / "thesis.txt").exists()


@pytest.fixture
def power_cut(monkeypatch):
    """A function that has the training end as by a power cut at a step."""
    step = FinetuneModule.training_step

    def at(number):
        def until_the_power_is_cut(module, batch, batch_idx):
            if module.trainer.global_step == number:
                raise RuntimeError("power cut")
            return step(module, batch, batch_idx)

        monkeypatch.setattr(FinetuneModule, "training_step", until_the_power_is_cut)

    yield at
    monkeypatch.undo()


def state(run):
    return json.loads((run / "run.json").read_text())


def test_the_same_command_goes_on_with_a_run_that_was_cut_off(tmp_path, finetuned, power_cut, monkeypatch, capsys):
    run, whole = tmp_path / "run", tmp_path / "whole"
    two_epochs = ["--trainer.max_epochs", "2"]
    assert again("fit", finetuned, "--run", str(whole), *two_epochs) == 0
    power_cut(3)
    with pytest.raises(RuntimeError, match="power cut"):
        again("fit", finetuned, "--run", str(run), *two_epochs)
    monkeypatch.undo()
    assert state(run)["state"] == "failed"
    assert state(run)["error"] == "RuntimeError: power cut"
    capsys.readouterr()

    assert again("fit", finetuned, "--run", str(run), *two_epochs) == 0
    last = run / "checkpoints" / "last.ckpt"
    assert error_line(capsys) == f"ecgfair: the run in {run} was not finished: it goes on from {last}, step 2."
    assert torch.load(last, weights_only=True)["global_step"] == 4
    assert (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert (run / "config.yaml").read_text() == (whole / "config.yaml").read_text().replace(str(whole), str(run))
    history = pd.read_parquet(run / "fairness.parquet")
    assert not history.duplicated(["epoch", "group", "attribute", "label", "statistic", "aggregate"]).any()
    assert sorted(history["epoch"].unique()) == [0, 1]
    assert state(run)["state"] == "finished"
    assert [start["step"] for start in state(run)["starts"]] == [0, 2]

    assert again("fit", finetuned, "--run", str(run), *two_epochs) == 2
    assert "holds a run already" in error_line(capsys)


def test_a_run_without_a_checkpoint_starts_anew_by_the_same_command(
    tmp_path, finetuned, power_cut, monkeypatch, capsys
):
    run = tmp_path / "run"
    power_cut(1)
    with pytest.raises(RuntimeError, match="power cut"):
        again("fit", finetuned, "--run", str(run))
    monkeypatch.undo()
    capsys.readouterr()
    assert again("fit", finetuned, "--run", str(run)) == 0
    told = f"ecgfair: the run in {run} was not finished and has no checkpoint yet: it starts anew."
    assert error_line(capsys) == told
    assert (run / "metrics.csv").read_bytes() == (finetuned / "metrics.csv").read_bytes()


def test_a_run_goes_on_with_the_flags_and_every_difference_is_told(tmp_path, finetuned, power_cut, monkeypatch, capsys):
    run = tmp_path / "run"
    flags = ["--run", str(run), "--trainer.max_epochs", "2"]
    power_cut(3)
    with pytest.raises(RuntimeError, match="power cut"):
        again("fit", finetuned, *flags)
    monkeypatch.undo()
    capsys.readouterr()
    other = ["--model.init_args.attribute_weight", "0.5", "--trainer.gradient_clip_val=1.5"]
    assert again("fit", finetuned, *flags, *other) == 0
    assert capsys.readouterr().err.splitlines()[1:] == [
        "ecgfair: goes on with another setting of trainer.gradient_clip_val: null → 1.5",
        "ecgfair: goes on with another setting of model.init_args.attribute_weight: 0.1 → 0.5",
    ]
    weights = [
        yaml.safe_load((run / name).read_text())["model"]["init_args"]["attribute_weight"]
        for name in ("config-1.yaml", "config.yaml")
    ]
    assert weights == [0.1, 0.5], "both are still there"


def test_what_a_named_checkpoint_was_trained_with_is_compared_and_the_flags_hold(tmp_path, finetuned, capsys):
    last = str(finetuned / "checkpoints" / "last.ckpt")
    longer = ["--run", str(tmp_path / "run"), "--trainer.max_epochs", "3"]
    assert again("fit", finetuned, *longer, "--ckpt_path", last) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "ecgfair: goes on with another setting of trainer.max_epochs: 1 → 3"
    assert "planned for 2 steps, this one is for 6" in told[-1]
    assert len(told) == 2


def test_a_second_process_is_kept_out_of_a_run_that_goes_on(tmp_path, finetuned, capsys):
    run = tmp_path / "run"
    shutil.copytree(finetuned, run)
    (run / "run.json").write_text((run / "run.json").read_text().replace('"finished"', '"running"'))
    held = FileLock(run / ".lock")
    with held:
        assert again("fit", finetuned, "--run", str(run)) == 2
        assert "another process trains into it at this moment" in error_line(capsys)
        assert again("fit", finetuned, "--run", str(run), "--overwrite", "true") == 2
        assert "another process trains into it at this moment" in error_line(capsys)
    assert (run / "metrics.csv").read_bytes() == (finetuned / "metrics.csv").read_bytes()


def test_the_run_says_how_and_with_what_it_was_made(finetuned):
    (start,) = state(finetuned)["starts"]
    words = shlex.split(start["command"])
    assert words[:4] == ["python", "-m", "ecgfair", "fit"]
    assert words[words.index("--run") + 1] == str(finetuned)
    made = start["environment"]
    assert made["ecgfair"]["version"] == ecgfair.__version__
    assert made["packages"]["torch"] == metadata.version("torch")
    assert made["hardware"]["cores"] >= 1
    assert made["hardware"]["memory_gib"] > 0
    if Path(".git").exists() and (git := shutil.which("git")):
        commit = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        assert made["ecgfair"]["commit"] == commit
        assert made["ecgfair"]["dirty"] in (True, False)


@pytest.mark.parametrize("stage", [pytest.param("pretrained", marks=pytest.mark.slow), "finetuned"])
def test_the_command_in_the_run_folder_makes_the_same_run_again(stage, request):
    run = request.getfixturevalue(stage)
    words = shlex.split((run / "command.txt").read_text())
    assert words[:3] == ["python", "-m", "ecgfair"]
    subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
    second = Path(words[words.index("--run") + 1])
    assert second != run
    assert (second / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    one, other = (torch.load(each / "checkpoints" / "last.ckpt", weights_only=True) for each in (run, second))
    assert all(torch.equal(weights, other["state_dict"][name]) for name, weights in one["state_dict"].items())


@pytest.mark.parametrize("damage", ["{", '["running"]'])
def test_a_damaged_run_json_is_named(tmp_path, finetuned, capsys, damage):
    run = tmp_path / "run"
    shutil.copytree(finetuned, run)
    (run / "run.json").write_text(damage)
    assert again("fit", finetuned, "--run", str(run)) == 2
    assert "run.json" in error_line(capsys)


def test_ctrl_c_ends_a_run_with_one_line_that_says_how_to_go_on(tmp_path, finetuned, monkeypatch, capsys):
    step = FinetuneModule.training_step

    def until_ctrl_c(module, batch, batch_idx):
        if module.trainer.global_step == 3:
            raise KeyboardInterrupt
        return step(module, batch, batch_idx)

    # Lightning ignores further interrupts while it shuts down; the test process has to be left as it was.
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(FinetuneModule, "training_step", until_ctrl_c)
    assert again("fit", finetuned, "--run", str(tmp_path / "run"), "--trainer.max_epochs", "2") == 130
    assert error_line(capsys) == "ecgfair: interrupted: the same command goes on from the last checkpoint"
    assert state(tmp_path / "run")["state"] == "interrupted"
