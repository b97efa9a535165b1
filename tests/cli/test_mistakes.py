"""What a user can get wrong is told in one clear line."""

import pytest

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


def test_a_label_unknown_to_the_test_checkpoint_is_told(finetuned, capsys):
    assert again("test", finetuned, "--data.init_args.labels", "superdiagnostic") == 2
    assert "label set it was trained on" in error_line(capsys)
