"""Sweep files in the format of Weights & Biases: which kinds of parameters there are, and what is refused by name."""

import math
import os

import pytest
import yaml

from ecgfair.cli.run_path import run_path
from ecgfair.cli.sweep_file import Halving, read_sweep
from ecgfair.cli.sweep_parameters import Choice, parse_parameter
from ecgfair.cli.trial import RUN_ID, Trial, best, sweep_folder
from ecgfair.errors import ConfigurationError

optuna = pytest.importorskip("optuna")
COMMAND = ["${env}", "${interpreter}", "-m", "ecgfair", "fit", "--run", "runs/x/$WANDB_RUN_ID", "${args}"]
GOOD = {
    "method": "random",
    "metric": {"name": "val/loss", "goal": "minimize"},
    "parameters": {"a": {"values": [1, 2]}},
    "command": COMMAND,
}


def drawn(told, count=200):
    """What a search by chance asks for."""
    parameter = parse_parameter("a", told)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [parameter.suggest(study.ask(), "a") for _ in range(count)]


def written(folder, **changes):
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return path


def test_a_constant_and_choices_come_back_as_they_were_told():
    assert drawn({"value": None}, 2) == [None, None]
    values = [True, 1, "1", None, [8, 16], {"name": "bce"}]
    found = drawn({"values": values})
    assert {repr(value) for value in found} == {repr(value) for value in values}


def test_two_integers_mean_integers_and_both_limits_are_in():
    found = drawn({"min": 2, "max": 4})
    assert set(found) == {2, 3, 4}
    assert all(isinstance(value, int) for value in found)


@pytest.mark.parametrize("told", [{"min": 0.0, "max": 2.0}, {"distribution": "uniform", "min": 0, "max": 2}])
def test_uniform_values_lie_evenly_between_the_limits(told):
    found = drawn(told)
    assert 0 <= min(found) <= max(found) <= 2
    assert sum(found) / len(found) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    "told",
    [
        {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0},
        {"distribution": "log_uniform", "min": math.log(1e-4), "max": 0.0},
    ],
)
def test_logarithmic_values_have_their_median_at_the_geometric_mean(told):
    found = sorted(drawn(told))
    assert 1e-4 <= found[0] <= found[-1] <= 1
    assert math.log10(found[100]) == pytest.approx(-2, abs=0.5)


def test_quantised_values_are_multiples_and_whole_where_all_is_whole():
    found = drawn({"distribution": "q_uniform", "min": 0.0, "max": 0.5, "q": 0.1})
    assert set(found) == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    whole = drawn({"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 8})
    assert set(whole) <= set(range(8, 65, 8))
    assert all(isinstance(value, int) for value in whole)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"distribution": "normal", "mu": 0, "sigma": 1}, "'mu'"),
        ({"distribution": "beta", "min": 0, "max": 1}, "distribution 'beta', which is not supported"),
        ({"values": [1, 2], "probabilities": [0.1, 0.9]}, "'probabilities'"),
        ({"parameters": {"b": {"value": 1}}}, "is nested"),
        ({"min": "1e-3", "max": 1}, "such as 1.0e-3"),
        ({"min": 2, "max": 1}, "expected min below max"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "above 0"),
        ({"values": []}, "at least one"),
        (3, "expected value, values"),
    ],
)
def test_what_an_embedded_sweep_does_not_have_is_refused_by_name(told, said):
    with pytest.raises(ConfigurationError, match="parameter a of the sweep") as refused:
        parse_parameter("a", told)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "genetic"}, "expected grid, random, bayes"),
        ({"metric": {"goal": "minimize"}}, "expected a name"),
        ({"parametres": {}}, "Did you mean 'parameters'"),
        ({"parameters": {}}, "at least one"),
        ({"command": ["python", "train.py"]}, "expected a list such as"),
        ({"command": [*COMMAND, "${args_no_boolean_flags}"]}, "${args_no_boolean_flags}, which is not supported"),
        ({"run_cap": 0}, "number of trials"),
        ({"early_terminate": {"type": "median"}}, "expected type hyperband"),
        ({"method": "grid", "parameters": {"a": {"min": 0, "max": 1}}}, "has no values"),
    ],
)
def test_a_file_that_can_not_be_run_is_told_in_one_line(changes, said, tmp_path):
    with pytest.raises(ConfigurationError) as refused:
        read_sweep(written(tmp_path, **changes))
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_is_not_there_or_no_yaml_is_told_in_one_line(tmp_path):
    (tmp_path / "broken.yaml").write_text("a: [1")
    for name in ("broken.yaml", "none.yaml"):
        with pytest.raises(ConfigurationError, match="can't be read as a sweep") as refused:
            read_sweep(tmp_path / name)
        assert len(str(refused.value).splitlines()) == 1


def test_hyperband_is_told_by_its_first_or_by_its_last_measurement(tmp_path):
    assert read_sweep(written(tmp_path, early_terminate={"type": "hyperband", "min_iter": 3})).halving == Halving(3, 3)
    by_last = {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3}
    assert read_sweep(written(tmp_path, early_terminate=by_last)).halving == Halving(3, 3)


def test_variables_of_the_environment_are_filled_in_as_the_agent_does(tmp_path, monkeypatch):
    monkeypatch.setenv("STORE", "/stores/mine")
    monkeypatch.delenv("NO_SUCH", raising=False)
    command = [*COMMAND, "--data.store=${envvar:STORE}/x", "${envvar:NO_SUCH}"]
    assert read_sweep(written(tmp_path, command=command)).words({"a": 1})[-3:] == [
        "--a=1",
        "--data.store=/stores/mine/x",
        "NO_SUCH",
    ]


@pytest.mark.parametrize("run", ["runs/x", "runs/$WANDB_RUN_ID/x", "runs/$WANDB_RUN_IDX"])
def test_trials_that_would_share_a_run_folder_are_refused(run):
    with pytest.raises(ConfigurationError, match="folder of its own"):
        sweep_folder(["fit", "--run", run])


def test_the_last_run_folder_counts_and_a_trial_expands_it_for_a_shell(monkeypatch):
    monkeypatch.delenv(RUN_ID, raising=False)
    command = ("fit", "--run", "a/$WANDB_RUN_ID", "--b", "c d", "--run=e/${WANDB_RUN_ID}")
    assert sweep_folder(command).name == "e"
    trial = Trial("t1", command)
    assert str(trial.folder) == "e/t1"
    assert trial.shown == "fit --run a/t1 --b 'c d' --run=e/t1"


def test_the_environment_of_a_trial_knows_its_name_no_agent_and_no_server_unless_it_was_asked_for(monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    environment = Trial("t1", ("fit", "--run", "a/$WANDB_RUN_ID")).environment
    assert (environment[RUN_ID], environment["WANDB_MODE"], "WANDB_SWEEP_ID" in environment) == (
        "t1",
        "disabled",
        False,
    )
    monkeypatch.setenv("WANDB_MODE", "online")
    assert Trial("t1", ("fit", "--run", "a/$WANDB_RUN_ID")).environment["WANDB_MODE"] == "online"


def test_the_best_of_a_trial_is_its_best_defined_value():
    assert best([math.nan, 0.5, 0.2, 0.9], "minimize") == 0.2
    assert best([math.nan, 0.5, 0.2, 0.9], "maximize") == 0.9
    assert best([math.nan], "maximize") is None


def test_a_run_folder_may_be_named_by_variables_and_never_by_one_that_is_not_set():
    assert run_path("runs/$A/${B}x", {"A": "1", "B": "2"}) == "runs/1/2x"
    assert run_path("runs/mine", {}) == "runs/mine"
    for environment in ({}, {"A": ""}):
        with pytest.raises(ConfigurationError, match="variable A, which is not set"):
            run_path("runs/$A", environment)


def test_the_command_line_tells_a_variable_that_is_not_set(monkeypatch, capsys):
    from ecgfair.__main__ import main

    monkeypatch.delenv("NO_SUCH", raising=False)
    assert main(["fit", "--config", "experiments/smoke/pretrain.yaml", "--run", "runs/$NO_SUCH"]) == 2
    (told,) = capsys.readouterr().err.strip().splitlines()
    assert "NO_SUCH, which is not set" in told
    assert "NO_SUCH" not in os.listdir()  # noqa: PTH208


def test_kept_values_are_told_apart_by_type():
    assert len(set(Choice((True, 1, "1")).kept)) == 3
