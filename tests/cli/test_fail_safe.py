"""Weights & Biases, absent, offline, out of reach and failing: the training goes on, and what it takes is complete."""

import os
import pickle
import pty
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger

from ecgfair.callbacks.log_tables import log_table
from ecgfair.cli.fail_safe import FailSafeWandbLogger, build_logger
from tests.callbacks.toy import Toy, fairness, loader, trainer_for
from tests.cli.offline_run import OfflineRun

wandb = pytest.importorskip("wandb")

SERVER_DOWN = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40, "WANDB_INIT_TIMEOUT": "3"}
"""Nothing listens on that port."""


@pytest.fixture(autouse=True)
def _by_itself(tmp_path, monkeypatch):
    """Weights & Biases keeps its process, its settings and an account for the process: each test gets its own."""
    wandb.teardown()  # first: it takes the address of its process away, which would else come back after the test
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    wandb.teardown()


def fitted(folder, logger, **settings):
    """A finished training with a logger; the metrics in its run folder, `run` in that folder."""
    folder = folder / "run"
    trainer = trainer_for(folder, fairness(), logger=[CSVLogger(folder, "", ""), logger], **settings)
    trainer.fit(Toy(), loader(), loader())
    assert trainer.state.finished
    return pd.read_csv(folder / "metrics.csv")


def logger_in(folder, **settings):
    return build_logger(WandbLogger, project="ecg", save_dir=str(folder), **settings)


def lines(capsys):
    """What the logger told on standard error."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("ecgfair:")]


def test_offline_the_run_has_every_metric_and_every_table_of_the_run_folder_and_is_closed(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    metrics = fitted(tmp_path, logger_in(tmp_path))
    run = OfflineRun(tmp_path)
    assert run.exit_code == 0
    assert wandb.run is None
    for key in ("val/auroc/macro", "val/fair/sex/worst_auroc", "val/fair/age/tpr_gap"):
        assert run.history[key] == pytest.approx(metrics[key].dropna().tolist())
    kept = pd.read_parquet(tmp_path / "run" / "fairness.parquet")
    by_label = run.tables("val/fairness_by_label")[0]
    best = kept[kept["epoch"] == 1].drop(columns=["epoch", "step", "stage"])
    best = best.astype(object).where(best.notna(), None)  # as JSON has it
    assert len(run.tables("val/fairness")) == 3, "one an epoch"
    assert by_label.columns.tolist() == best.columns.tolist()
    for name in best:
        assert by_label[name].astype(object).where(by_label[name].notna(), None).tolist() == best[name].tolist()


def test_a_table_of_more_rows_than_weights_and_biases_cuts_at_is_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("MAX_ROWS", "MAX_ARTIFACT_ROWS"):
        monkeypatch.setattr(wandb.Table, name, getattr(wandb.Table, name))
    rows = wandb.Table.MAX_ROWS + 1
    logger = logger_in(tmp_path)
    log_table(trainer_for(tmp_path, logger=logger), "long", pd.DataFrame({"row": range(rows)}))
    logger.finalize("success")
    assert OfflineRun(tmp_path).tables("long")[0]["row"].tolist() == list(range(rows))


# Weights & Biases leaves the file open that its agent tells the parameters in; nothing of this project's.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_trial_of_a_sweep_has_the_configuration_besides_what_the_agent_asked_for(tmp_path, monkeypatch):
    (tmp_path / "asked.yaml").write_text("wandb_version: 1\nmodel.learning_rate: {value: 0.5}\n")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "asked.yaml"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_RUN_ID", "trial7")
    logger = logger_in(tmp_path)
    logger.log_hyperparams({"model": {"learning_rate": 0.5, "widths": [8, 16], "name": None}, "run": "runs/a"})
    logger.finalize("success")
    run = OfflineRun(tmp_path)
    assert run.id == "trial7"
    assert run.config["model.learning_rate"] == 0.5
    assert run.config["model"] == {"learning_rate": 0.5, "widths": [8, 16], "name": None}
    assert run.config["run"] == "runs/a"


def test_a_server_out_of_reach_costs_seconds_and_one_line_and_the_run_is_kept_offline(tmp_path, monkeypatch, capsys):
    for name, value in SERVER_DOWN.items():
        monkeypatch.setenv(name, value)
    metrics = fitted(tmp_path, logger_in(tmp_path))
    (told,) = lines(capsys)
    assert "can't be reached (" in told
    assert f"`wandb sync` uploads it from {tmp_path / 'wandb'}" in told
    assert OfflineRun(tmp_path).history["val/auroc/macro"] == pytest.approx(
        metrics["val/auroc/macro"].dropna().tolist()
    )


def test_who_is_not_logged_in_is_not_asked_at_the_terminal(tmp_path):
    code = (
        "from tests.cli.test_fail_safe import logger_in\n"
        f"logger = logger_in({str(tmp_path)!r})\n"
        "logger.log_metrics({'a': 1.0}, 0)\n"
        "logger.finalize('success')\n"
    )
    master, terminal = pty.openpty()
    settings = {"stdin": terminal, "stdout": terminal, "stderr": subprocess.PIPE, "text": True, "timeout": 120}
    done = subprocess.run([sys.executable, "-c", code], **settings, check=False, env=os.environ | {"PYTHONPATH": "."})
    os.close(master), os.close(terminal)
    assert done.returncode == 0, done.stderr
    assert "No API key configured" in done.stderr
    assert OfflineRun(tmp_path).history["a"] == [1.0]


def test_weights_and_biases_that_is_not_installed_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    logger = logger_in(tmp_path)
    assert isinstance(logger, DummyLogger)
    assert fitted(tmp_path, logger)["val/auroc/macro"].notna().sum() == 3
    (told,) = lines(capsys)
    assert "pip install 'ecgfair[wandb]'" in told


def test_where_it_is_switched_off_nobody_misses_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    fitted(tmp_path, logger_in(tmp_path))
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    logger_in(tmp_path)
    assert lines(capsys) == []
    assert not list(tmp_path.glob("wandb/*run*"))


class Broken:
    """A run of Weights & Biases whose method of that name fails from a number of calls on."""

    id, name = "broken", "broken"

    def __init__(self, method="", after=0):
        self.method, self.left, self.logged = method, after, []
        self.config = self

    def _call(self, method, *told):
        if method == self.method:
            self.left -= 1
            if self.left < 0:
                raise ConnectionResetError("the service is gone\nand here is more")
        self.logged.append((method, *told))

    def log(self, metrics):
        self._call("log", metrics)

    def update(self, settings, allow_val_change):
        self._call("update", settings)

    def finish(self, exit_code):
        self._call("finish", exit_code)


@pytest.mark.parametrize(("method", "after"), [("log", 0), ("log", 4), ("update", 0), ("finish", 0)])
def test_a_failure_at_any_moment_is_one_line_and_the_run_folder_is_complete(method, after, tmp_path, capsys):
    logger = logger_in(tmp_path, experiment=Broken(method, after))
    whole = fitted(tmp_path / "whole", logger_in(tmp_path, experiment=Broken()))
    logger.log_hyperparams({"asked": "of the run"})
    metrics = fitted(tmp_path, logger)
    pd.testing.assert_frame_equal(metrics, whole)
    (told,) = lines(capsys)
    assert "the service is gone. The training goes on" in told
    assert "here is more" not in told


def test_a_table_and_a_figure_that_are_refused_cost_no_more_than_that(tmp_path, capsys):
    logger = logger_in(tmp_path, experiment=(run := Broken()))
    logger.log_table("odd", columns=["a"], data=[[1, 2]])
    logger.log_image("odd", ["no such file.png"])
    logger.log_metrics({"a": 1.0}, 0)
    assert [line.split(":")[1] for line in lines(capsys)] == [
        " Weights & Biases did not take the table 'odd'",
        " Weights & Biases did not take the figures 'odd'",
    ]
    assert run.logged == [("log", {"a": 1.0, "trainer/global_step": 0})]


def test_a_training_that_fails_is_closed_as_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")

    class Failing(Toy):
        def on_train_epoch_end(self):
            raise OSError("no more")

    trainer = trainer_for(tmp_path, logger=logger_in(tmp_path))
    with pytest.raises(OSError, match="no more"):
        trainer.fit(Failing(), loader(), loader())
    assert OfflineRun(tmp_path).exit_code == 1


def test_a_service_that_is_killed_in_the_middle_ends_neither_the_training_nor_the_process(tmp_path):
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from tests.cli.test_fail_safe import Toy, fitted, logger_in\n"
        "class Killing(Toy):\n"
        "    def on_train_epoch_end(self):\n"
        "        if self.current_epoch == 1:\n"
        "            for path in Path('/proc').glob('[0-9]*/stat'):\n"
        "                words = path.read_text().rsplit(')', 1)[1].split()\n"
        "                if int(words[1]) == os.getpid():\n"
        "                    os.kill(int(path.parent.name), signal.SIGKILL)\n"
        "import tests.cli.test_fail_safe as module\n"
        "module.Toy = Killing\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "assert fitted(folder, logger_in(folder))['val/auroc/macro'].notna().sum() == 3\n"
    )
    if not Path("/proc/self/stat").exists():
        pytest.skip("finds the service by /proc")
    started = time.monotonic()
    settings = {"capture_output": True, "text": True, "timeout": 200, "check": False}
    environment = os.environ | {"PYTHONPATH": ".", "WANDB_MODE": "offline"}
    done = subprocess.run([sys.executable, "-c", code], **settings, env=environment)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("ecgfair:")]) == 1, done.stderr
    assert time.monotonic() - started < 150, "it hung"


def spawned(logger):
    """What a process gets that is started by `ddp_spawn`."""
    return pickle.loads(pickle.dumps(logger))  # noqa: S301  # of this test itself


def test_it_goes_to_a_spawned_process_without_beginning_a_run_and_joins_the_one_that_is_there(tmp_path):
    logger = logger_in(tmp_path)
    assert spawned(logger)._experiment is None
    assert logger._experiment is None
    begun = logger_in(tmp_path, experiment=Broken())
    there = spawned(begun)
    assert there._id == "broken"
    assert isinstance(there, FailSafeWandbLogger)
    gone = logger_in(tmp_path, experiment=Broken("log"))
    gone.log_metrics({"a": 1.0}, 0)
    assert spawned(gone)._given_up
    assert isinstance(spawned(DummyLogger()), DummyLogger)


def test_a_short_name_means_one_class_whatever_else_is_imported():
    code = (
        "import pytorch_lightning.loggers, lightning.pytorch.loggers\n"
        "from ecgfair.__main__ import main\n"
        "main(['fit', '--config', 'experiments/smoke/pretrain.yaml', '--trainer.logger', 'WandbLogger',\n"
        "      '--trainer.logger.project', 'ecg', '--print_config'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert "class_path: lightning.pytorch.loggers.WandbLogger" in done.stdout, done.stderr


def test_other_loggers_are_built_as_they_are(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger = build_logger(CSVLogger, save_dir=str(tmp_path))
    assert type(logger) is CSVLogger
