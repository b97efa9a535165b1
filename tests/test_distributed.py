"""Both stages on two processes over gloo, by the real command line, against one process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ecgfair.__main__ import main
from ecgfair.ecg import ATTRIBUTES
from tests.gloo_processes import on_processes

TINY = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--data.init_args.batch_size=8"]
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]


def as_rank(_folder: Path, *arguments: str) -> None:
    """Run the command as one of two processes that somebody else starts."""
    assert main(arguments) == 0


def ecgfair(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell does: Lightning starts the second process by the same command line."""
    command = [sys.executable, "-m", "ecgfair", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def runs(tmp_path_factory, synthetic_store):
    """Run folders of both stages, each trained on two processes."""
    folder = tmp_path_factory.mktemp("distributed")
    store = f"--data.init_args.store={synthetic_store}"
    # A logged loss is the mean of the batches', and of the processes'. It is that of all records, however they are
    # shared out, where both processes have as many, and no record lacks what a term of the loss is about.
    records = pd.read_parquet(synthetic_store / "records.parquet")
    of_fold = records[list(ATTRIBUTES)].notna().all(axis=1).groupby(records["fold"])
    even = next(fold for fold in range(1, 9) if of_fold.size()[fold] % 2 == 0 and of_fold.all()[fold])
    validated = [
        f"--data.init_args.validation_folds=[{even}]",
        f"--data.init_args.train_folds={[fold for fold in range(1, 9) if fold != even]}",
    ]
    for name in ("pretrain", "finetune"):
        config = f"experiments/smoke/{name}.yaml"
        encoder = [f"--model.init_args.encoder={folder}/pretrain/encoder"] if name == "finetune" else []
        command = ["fit", "--config", config, "--run", str(folder / name), store, *TINY, *TWO, *encoder, *validated]
        if name == "pretrain":
            ecgfair(*command)
        else:
            on_processes(as_rank, folder, *command)
    return folder


def metrics(run, column):
    return pd.read_csv(run / "metrics.csv")[column].dropna().iloc[-1]


def test_two_processes_train_both_stages_into_one_run_folder_each(runs):
    assert (runs / "pretrain" / "encoder" / "encoder.safetensors").is_file()
    assert (runs / "finetune" / "checkpoints" / "best.ckpt").is_file()
    assert not list(runs.rglob("*.partial*"))


def test_validation_on_two_processes_with_an_odd_number_of_records_counts_each_once(runs, synthetic_store):
    run = runs / "finetune"
    folds = ["--data.init_args.validation_folds=[9]", "--data.init_args.train_folds=[1,2,3,4,5,6,7]"]
    odd = pd.read_parquet(synthetic_store / "records.parquet").query("fold == 9")
    if len(odd) % 2 == 0:
        folds = ["--data.init_args.validation_folds=[8]", "--data.init_args.train_folds=[1,2,3,4,5,6,7]"]
        odd = pd.read_parquet(synthetic_store / "records.parquet").query("fold == 8")
    assert len(odd) % 2 == 1, "the point of this test"
    config = ["--config", str(run / "config.yaml"), *folds]
    on_processes(as_rank, runs, "validate", *config)
    two = pd.read_parquet(run / "validate" / "fairness.parquet")
    assert main(["validate", *config, "--trainer.devices=1", "--trainer.strategy=auto"]) == 0
    one = pd.read_parquet(run / "validate" / "fairness.parquet")
    key = ["attribute", "group", "label", "statistic", "aggregate"]
    of_all = one.query("group == 'all'").iloc[0]
    assert of_all["records"] == len(odd)
    both = one.merge(two, on=key, suffixes=("_one", "_two"), validate="one_to_one")
    assert len(both) == len(one) == len(two)
    np.testing.assert_allclose(both["value_one"], both["value_two"], atol=1e-6)
    for column in ("positives", "negatives", "records"):
        pd.testing.assert_series_equal(both[f"{column}_one"], both[f"{column}_two"], check_names=False)


def test_what_two_processes_logged_in_training_is_what_one_process_measures_of_their_checkpoint(runs):
    run = runs / "finetune"
    one_process = ["--trainer.devices=1", "--trainer.strategy=auto"]
    assert main(["validate", "--config", str(run / "config.yaml"), *one_process]) == 0
    for key in ("val/auroc/macro", "val/loss", "val/loss/labels"):
        assert metrics(run / "validate", key) == pytest.approx(metrics(run, key), abs=1e-5)


def test_the_test_table_of_two_processes_holds_every_record_once_and_scikit_learn_agrees(runs, synthetic_store):
    run = runs / "finetune"
    on_processes(as_rank, runs, "test", "--config", str(run / "config.yaml"))
    predictions = pd.read_parquet(run / "test" / "predictions.parquet")
    expected = pd.read_parquet(synthetic_store / "records.parquet").query("fold == 10")
    assert predictions["record_id"].tolist() == expected["record_id"].tolist()
    logged = pd.read_parquet(run / "test" / "fairness.parquet")
    logged = logged.query("group == 'all' and statistic == 'auroc' and aggregate == 'value'")
    for row in logged[logged["value"].notna()].itertuples():
        if f"target/{row.label}" in predictions:
            target, probability = predictions[f"target/{row.label}"], predictions[f"probability/{row.label}"]
            assert row.value == pytest.approx(roc_auc_score(target, probability), abs=1e-6)
