"""The command line, driven in-process as a user drives it from a shell."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

import ecgfair
from ecgfair.__main__ import VERBS, main
from ecgfair.training import FinetuneModule
from tests.cli.offline_run import OfflineRun

TINY = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.accelerator=cpu",
    "--data.init_args.batch_size=16",
]


def fit(config, run, store, *more: str) -> int:
    return main(["fit", "--config", str(config), "--run", str(run), "--data.init_args.store", str(store), *TINY, *more])


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory, synthetic_store):
    """The run folder of a tiny stage 1."""
    run = tmp_path_factory.mktemp("runs") / "pretrain"
    assert fit("experiments/smoke/pretrain.yaml", run, synthetic_store) == 0
    return run


@pytest.fixture(scope="session")
def finetuned(tmp_path_factory, synthetic_store, pretrained):
    """The run folder of a tiny stage 2 from it."""
    run = tmp_path_factory.mktemp("runs") / "finetune"
    encoder = f"--model.init_args.encoder={pretrained / 'encoder'}"
    assert fit("experiments/smoke/finetune.yaml", run, synthetic_store, encoder) == 0
    return run


def again(verb: str, run, *more: str) -> int:
    return main([verb, "--config", str(run / "config.yaml"), *more])


def error_line(capsys) -> str:
    """What was printed on standard error: it has to be one line, without a traceback."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_help_lists_every_verb_and_imports_nothing_heavy():
    code = "import sys; from ecgfair.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, "torch was imported"
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)


def test_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ecgfair {ecgfair.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert "usage: python -m ecgfair" in capsys.readouterr().out


def test_an_unknown_verb_gets_the_nearest_one(capsys):
    assert main(["fti"]) == 2
    assert "Did you mean 'fit'" in error_line(capsys)


def test_stage_one_leaves_a_complete_run_folder(pretrained):
    assert {path.name for path in pretrained.iterdir()} == {
        "checkpoints",
        "config.yaml",
        "encoder",
        "encoder_last",
        "metrics.csv",
    }
    metrics = pd.read_csv(pretrained / "metrics.csv")
    for stage in ("train", "val"):
        for name in ("", "/whole", "/beat", "/trend", "/measures", "/sex"):
            assert metrics[f"{stage}/loss{name}"].notna().any()


def test_stage_two_leaves_a_complete_run_folder(finetuned):
    assert {path.name for path in finetuned.iterdir()} == {
        "checkpoints",
        "config.yaml",
        "fairness.parquet",
        "fairness_tests.parquet",
        "metrics.csv",
    }
    assert {path.name for path in (finetuned / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_every_logger_gets_the_floats_and_the_run_folder_is_complete_without_it(tmp_path, finetuned):
    second = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(tmp_path / "second")]
    assert again("fit", finetuned, "--run", str(tmp_path / "run"), *second) == 0
    (copy,) = (tmp_path / "second").rglob("metrics.csv")
    own, other = pd.read_csv(tmp_path / "run" / "metrics.csv"), pd.read_csv(copy)
    for key in ("val/loss", "val/auroc/macro", "val/fair/sex/auroc_gap", "val/fair/age/worst_auroc"):
        pd.testing.assert_series_equal(own[key], other[key])


@pytest.mark.parametrize("verb", [["synthesize", "out"], ["fit"]])
def test_a_configuration_that_is_no_text_is_told_in_one_line(verb, tmp_path, capsys):
    (tmp_path / "binary.yaml").write_bytes(b"\x7fELF\x80\x81")
    assert main([*verb, "--config", str(tmp_path / "binary.yaml")]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "expected YAML" in told[0]


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


def test_a_run_that_was_cut_off_goes_on_from_its_last_checkpoint(tmp_path, finetuned, monkeypatch, capsys):
    run = tmp_path / "run"
    step = FinetuneModule.training_step

    def until_the_power_is_cut(module, batch, batch_idx):
        if module.trainer.global_step == 3:
            raise RuntimeError("power cut")
        return step(module, batch, batch_idx)

    monkeypatch.setattr(FinetuneModule, "training_step", until_the_power_is_cut)
    two_epochs = ["--run", str(run), "--trainer.max_epochs", "2"]
    with pytest.raises(RuntimeError, match="power cut"):
        again("fit", finetuned, *two_epochs)
    monkeypatch.undo()
    last = str(run / "checkpoints" / "last.ckpt")

    assert again("fit", finetuned, *two_epochs, "--trainer.max_epochs", "3", "--ckpt_path", last) == 2
    assert "planned for 4 steps, this one is for 6" in error_line(capsys)

    assert again("fit", finetuned, *two_epochs, "--ckpt_path", last) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 4
    before, after = pd.read_csv(run / "metrics-1.csv"), pd.read_csv(run / "metrics.csv")
    assert before["val/loss"].count() == after["val/loss"].count() == 1, "what was logged before is still there"
    history = pd.read_parquet(run / "fairness.parquet")
    assert not history.duplicated(["epoch", "group", "attribute", "label", "statistic", "aggregate"]).any()
    assert sorted(history["epoch"].unique()) == [0, 1]


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
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert error_line(capsys) == f"ecgfair: interrupted: `--ckpt_path {last}` goes on from the last epoch"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.init_args.store", "nowhere"], "nowhere"),
        (["--model.init_args.encoder", "nowhere/encoder"], "no encoder checkpoint at nowhere/encoder"),
        (["--data.init_args.labels", "superdiagnosti"], "Did you mean 'superdiagnostic'"),
        (["--ckpt_path", "nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
        (["--model.init_args.loss.gamma_positive", "10"], "loss.gamma_positive is 10.0: expected 0 to gamma_negative"),
        (["--model.init_args.loss.name", "fokal"], "Got value: fokal"),
        (["--data.init_args.batchsize", "3"], "Option 'batchsize' is not accepted"),
        (["--trainer.devces", "3"], "unrecognized arguments: --trainer.devces"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_clear_line_and_leaves_nothing_behind(
    tmp_path, finetuned, capsys, flags, message
):
    assert again("fit", finetuned, "--run", str(tmp_path / "run"), *flags) == 2
    assert message in error_line(capsys)
    assert not (tmp_path / "run").exists()


def test_testing_without_a_checkpoint_does_not_measure_random_weights(tmp_path, finetuned, capsys):
    assert again("test", finetuned, "--run", str(tmp_path / "run")) == 2
    assert "checkpoints/best.ckpt" in error_line(capsys)


def test_a_damaged_checkpoint_is_refused(tmp_path, finetuned, capsys):
    damaged = tmp_path / "best.ckpt"
    damaged.write_bytes((finetuned / "checkpoints" / "best.ckpt").read_bytes()[:1000])
    assert again("test", finetuned, "--ckpt_path", str(damaged)) == 2
    assert "can't be read as a checkpoint" in error_line(capsys)


def test_an_encoder_of_another_preprocessing_is_refused_with_both_values(tmp_path, pretrained, finetuned, capsys):
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    for file in (pretrained / "encoder").iterdir():
        (encoder / file.name).write_bytes(file.read_bytes().replace(b'"sampling_rate": 100', b'"sampling_rate": 500'))
    assert again("fit", finetuned, "--run", str(tmp_path / "run"), "--model.init_args.encoder", str(encoder)) == 2
    line = error_line(capsys)
    assert "sampling_rate is 500" in line
    assert "100 in the data" in line


def test_a_missing_source_is_one_clear_line_and_leaves_no_store(tmp_path, capsys):
    assert main(["prepare", "ptbxl", str(tmp_path / "nowhere"), str(tmp_path / "store")]) == 2
    assert "nowhere" in error_line(capsys)
    assert not (tmp_path / "store").exists()


def test_a_label_unknown_to_the_test_checkpoint_is_told(finetuned, capsys):
    assert again("test", finetuned, "--data.init_args.labels", "superdiagnostic") == 2
    assert "label set it was trained on" in error_line(capsys)


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    """Forty synthetic records as a user prepares them, with a missing file."""
    folder = tmp_path_factory.mktemp("small")
    assert main(["synthesize", str(folder / "source"), "--records", "40"]) == 0
    (folder / "source" / "records100" / "00000" / "00007_lr.dat").unlink()
    assert main(["prepare", "ptbxl", str(folder / "source"), str(folder / "store"), "--jobs", "1"]) == 0
    return folder / "store"


def test_inspect_prints_what_a_store_holds_and_verifies_it(small_store, capsys):
    assert main(["inspect", str(small_store), "--verify"]) == 0
    printed = capsys.readouterr().out
    for said in ("Every file of", "PTB-XL", "39", "file missing", "100 Hz", "qrs"):
        assert said in printed
    (small_store / "signals-00000.arrow").touch()
    damaged = bytearray((small_store / "signals-00000.arrow").read_bytes())
    damaged[5000] ^= 1
    copy = small_store.with_name("damaged")
    shutil.copytree(small_store, copy)
    (copy / "signals-00000.arrow").write_bytes(bytes(damaged))
    assert main(["inspect", str(copy), "--verify"]) == 2
    assert "signals-00000.arrow is damaged: its SHA-256" in error_line(capsys)


@pytest.mark.parametrize(("name", "begins"), [("page.png", b"\x89PNG"), ("page.svg", b"<?xml")])
def test_inspect_draws_the_page_of_a_record(small_store, tmp_path, capsys, name, begins):
    assert main(["inspect", str(small_store), "12", "--output", str(tmp_path / name)]) == 0
    assert str(tmp_path / name) in capsys.readouterr().out
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["7"], "has no record '7': it was rejected: file missing"),
        (["12", "--output", "page.jpg"], "page.jpg"),
        (["--output", "page.png"], "name a record too"),
        (["12", "13"], "13"),
        (["--labels", "nothing"], "nothing"),
    ],
)
def test_what_inspect_can_not_do_is_one_line(small_store, capsys, arguments, said):
    assert main(["inspect", str(small_store), *arguments]) == 2
    assert said in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ptbx", "a", "b"], "ptbx"),
        (["ptbxl", "nowhere", "store"], "No folder nowhere"),
        (["code15", "nowhere", "store"], "nowhere"),
        (["wfdb", "nowhere", "store"], "No folder nowhere"),
        (["records", "nowhere.csv", "store"], "nowhere.csv"),
        (["ptbxl", "a", "b", "--jobs", "many"], "jobs"),
        (["ptbxl", "a", "b", "--crop", "end"], "crop"),
    ],
)
def test_what_prepare_can_not_do_is_one_line(capsys, arguments, said):
    assert main(["prepare", *arguments]) == 2
    assert said in error_line(capsys)


def test_prepare_explains_the_options_that_all_sources_share(capsys):
    for source in ("ptbxl", "code15", "wfdb", "records"):
        with pytest.raises(SystemExit):
            main(["prepare", source, "--help"])
        printed = capsys.readouterr().out
        for option in ("--sampling_rate", "--seconds", "--band_pass", "--crop", "--pad", "--jobs", "--backend"):
            assert option in printed, (source, option)
