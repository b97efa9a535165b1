"""What a user can get wrong is told in one clear line."""

import pytest
import yaml

from ecgfair.__main__ import main
from tests.cli.driving import again, error_line


@pytest.mark.parametrize("verb", [["synthesize", "out"], ["fit"]])
def test_a_configuration_that_is_no_text_is_told_in_one_line(verb, tmp_path, capsys):
    (tmp_path / "binary.yaml").write_bytes(b"\x7fELF\x80\x81")
    assert main([*verb, "--config", str(tmp_path / "binary.yaml")]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "expected YAML" in told[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.init_args.store", "nowhere"], "nowhere"),
        (["--model.init_args.encoder", "nowhere/encoder"], "no encoder checkpoint at nowhere/encoder"),
        (["--data.init_args.labels", "superdiagnosti"], "Did you mean 'superdiagnostic'"),
        (["--ckpt_path", "nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
        (["--model.init_args.loss.gamma_positive", "10"], "loss.gamma_positive is 10.0: expected 0 to gamma_negative"),
        (["--model.init_args.loss.name", "fokal"], "Got value: fokal"),
        (
            ["--data.init_args.batchsize", "3"],
            "Option 'batchsize' is not accepted by EcgDataModule (data.init_args). Did you mean 'batch_size'?",
        ),
        (["--trainer.devces", "3"], "unrecognized arguments: --trainer.devces 3. Did you mean '--trainer.devices'?"),
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


def test_a_label_unknown_to_the_test_checkpoint_is_told(finetuned, capsys):
    assert again("test", finetuned, "--data.init_args.labels", "superdiagnostic") == 2
    assert "label set it was trained on" in error_line(capsys)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"trainer": {"max_epoch": 3}},
            "sets 'trainer.max_epoch', which there is not. Did you mean 'trainer.max_epochs'?",
        ),
        (
            {"traine": {"max_epochs": 3}},
            "sets 'traine.max_epochs', which there is not. Did you mean 'trainer.max_epochs'?",
        ),
        ({"seed_everythin": 3}, "Did you mean 'seed_everything'?"),
        ({"model": {"init_args": {"optimization": {"learning_rate": 1}}}}, "Did you mean 'optimisation'?"),
        (
            {"model": {"init_args": {"optimisation": {"learningrate": 1}}}},
            "Option 'learningrate' is not accepted by Optimisation (model.init_args.optimisation). "
            "Did you mean 'learning_rate'?",
        ),
        ({"data": {"init_args": {"stor": "x"}}}, "Did you mean 'store'?"),
        (
            {"model": {"class_path": "FinetuneModul"}},
            "no class 'FinetuneModul' for model. Did you mean 'FinetuneModule'?",
        ),
        ({"data": {"class_path": "EcgDatamodule"}}, "Did you mean 'EcgDataModule'?"),
        ({"trainer": {"callbacks": [{"class_path": "Fairnes"}]}}, "Did you mean 'Fairness'?"),
        ({"trainer": {"callbacks": [{"class_path": "ecgfair.callbacks.Fairnes"}]}}, "Did you mean 'Fairness'?"),
        (
            {"trainer": {"callbacks": [{"class_path": "Fairness", "init_args": {"resample": 3}}]}},
            "Option 'resample' is not accepted by Fairness (trainer.callbacks.init_args). Did you mean 'resamples'?",
        ),
        ({"trainer": {"logger": {"class_path": "WandbLoger"}}}, "Did you mean 'WandbLogger'?"),
        ({"trainer": {"max_epochs": "three"}}, "trainer.max_epochs\": Expected a <class 'int'>, got 'three'"),
    ],
    ids=str,
)
def test_what_a_yaml_can_get_wrong_is_answered_with_the_nearest_valid_name(settings, message, tmp_path, capsys):
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(settings))
    base = ["--config", "experiments/smoke/finetune.yaml", "--run", str(tmp_path / "run")]
    assert main(["fit", *base, "--config", str(tmp_path / "given.yaml")]) == 2
    assert message in error_line(capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trainer.max_epoch", "3"], "Did you mean '--trainer.max_epochs'?"),
        (["--trainer.max_epoch=3"], "Did you mean '--trainer.max_epochs'?"),
        (["--overwirte", "true"], "Did you mean '--overwrite'?"),
        (["--model", "FinetuneModul"], "Did you mean 'FinetuneModule'?"),
        (["--model.init_args.los.name", "bce"], "Did you mean '--loss'?"),
        (["--model.init_args.los", "bce"], "Did you mean 'loss'?"),
    ],
)
def test_what_a_flag_can_get_wrong_is_answered_with_the_nearest_valid_name(flags, message, tmp_path, capsys):
    base = ["--config", "experiments/smoke/finetune.yaml", "--run", str(tmp_path / "run")]
    assert main(["fit", *base, *flags]) == 2
    assert message in error_line(capsys)


def test_flags_of_plain_verbs_are_answered_with_the_nearest_as_well(capsys):
    assert main(["prepare", "ptbxl", "a", "b", "--job", "3"]) == 2
    assert "Did you mean '--jobs'?" in error_line(capsys)
    assert main(["audit", "table.parquet", "--outt", "x"]) == 2
    assert "Did you mean '--out'?" in error_line(capsys)
