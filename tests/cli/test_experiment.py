"""Both stages and what is measured of them, by the command line."""

import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from tests.cli.driving import again
from tests.cli.offline_run import OfflineRun


def test_stage_one_leaves_a_complete_run_folder(pretrained):
    assert {path.name for path in pretrained.iterdir()} == {
        "checkpoints",
        "command.txt",
        "config.yaml",
        "encoder",
        "encoder_last",
        "metrics.csv",
        "run.json",
    }
    metrics = pd.read_csv(pretrained / "metrics.csv")
    for stage in ("train", "val"):
        for name in ("", "/whole", "/beat", "/trend", "/measures", "/sex"):
            assert metrics[f"{stage}/loss{name}"].notna().any()


def test_stage_two_leaves_a_complete_run_folder(finetuned):
    asked_by_other_tests = {"validate", "test", "predict"}
    assert {path.name for path in finetuned.iterdir()} - asked_by_other_tests == {
        "checkpoints",
        "command.txt",
        "config.yaml",
        "fairness.parquet",
        "fairness_tests.parquet",
        "metrics.csv",
        "run.json",
    }
    assert {path.name for path in (finetuned / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_every_logger_gets_the_floats_and_the_run_folder_is_complete_without_it(tmp_path, finetuned):
    second = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(tmp_path / "second")]
    assert again("fit", finetuned, "--run", str(tmp_path / "run"), *second) == 0
    (copy,) = (tmp_path / "second").rglob("metrics.csv")
    own, other = pd.read_csv(tmp_path / "run" / "metrics.csv"), pd.read_csv(copy)
    for key in ("val/loss", "val/auroc/macro", "val/fair/sex/auroc_gap", "val/fair/age/worst_auroc"):
        pd.testing.assert_series_equal(own[key], other[key])


def test_weights_and_biases_offline_gets_the_configuration_and_the_floats(tmp_path, finetuned, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "run"
    assert again("fit", finetuned, "--run", str(folder), "--trainer.logger", "WandbLogger") == 0
    run = OfflineRun(folder)
    as_run = yaml.safe_load((folder / "config.yaml").read_text())
    assert as_run.items() <= run.config.items()
    assert {"val/auroc/macro", "val/fair/sex/worst_auroc"} <= run.history.keys()
    assert len(run.tables("fairness_tests")[0]) == len(pd.read_parquet(folder / "fairness_tests.parquet"))


def test_the_configuration_in_the_run_folder_is_the_one_that_was_run(finetuned, synthetic_store):
    config = yaml.safe_load((finetuned / "config.yaml").read_text())
    assert config["data"]["init_args"]["store"] == str(synthetic_store)
    assert config["trainer"]["max_epochs"] == 1


def test_test_measures_the_best_checkpoint_on_the_test_fold_and_prints_the_table(finetuned, synthetic_store, capsys):
    assert again("test", finetuned) == 0
    printed = capsys.readouterr().out
    for word in ("macro", "head", "tail", "female", "male", "80+", "worst", str(finetuned)):
        assert word in printed
    predictions = pd.read_parquet(finetuned / "test" / "predictions.parquet")
    records = pd.read_parquet(synthetic_store / "records.parquet")
    assert set(predictions["record_id"]) == set(records["record_id"][records["fold"] == 10])
    assert (predictions["fold"] == 10).all()
    probability = predictions["probability/NORM"]
    logged = pd.read_parquet(finetuned / "test" / "fairness.parquet")
    of_norm = logged.query("label == 'NORM' and group == 'all' and statistic == 'auroc'")
    assert of_norm["value"].item() == pytest.approx(roc_auc_score(predictions["target/NORM"], probability), abs=1e-6)


def test_validate_gives_the_numbers_of_the_best_epoch(finetuned):
    assert again("validate", finetuned) == 0
    fitted = pd.read_csv(finetuned / "metrics.csv")["val/auroc/macro"].dropna().iloc[-1]
    validated = pd.read_csv(finetuned / "validate" / "metrics.csv")["val/auroc/macro"].dropna().iloc[-1]
    assert validated == pytest.approx(fitted, abs=1e-6)


def test_predict_covers_all_but_the_test_fold_each_record_once(finetuned, synthetic_store):
    assert again("predict", finetuned) == 0
    predictions = pd.read_parquet(finetuned / "predict" / "predictions.parquet")
    records = pd.read_parquet(synthetic_store / "records.parquet")
    assert sorted(predictions["record_id"]) == sorted(records["record_id"][records["fold"] != 10])
    assert len(set(predictions["model_fingerprint"])) == 1
