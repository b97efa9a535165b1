"""A configuration runs no code but ecgfair's and Lightning's, unless the command line trusts more."""

import sys
from pathlib import Path

import fsspec
import pytest
import yaml

from ecgfair.__main__ import main
from tests.cli.driving import error_line

BASE = ["--config", "experiments/smoke/finetune.yaml", "--run", "nowhere"]


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A package on the path that leaves a file when it is imported, and where it does."""
    imported = tmp_path / "imported"
    (tmp_path / "foreign_code.py").write_text(
        f"from pathlib import Path\nPath({str(imported)!r}).touch()\n"
        "from lightning.pytorch import Callback\nclass Foreign(Callback): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield imported
    sys.modules.pop("foreign_code", None)


def parsed(tmp_path, settings, *flags: str) -> int:
    """The exit status of reading a configuration on top of a whole one."""
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(settings))
    return main(["fit", *BASE, "--config", str(tmp_path / "given.yaml"), *flags, "--print_config"])


def callback(class_path: str, **init_args):
    return {"trainer": {"callbacks": [{"class_path": class_path, "init_args": init_args}]}}


@pytest.mark.parametrize(
    "settings",
    [
        callback("os.system", command="touch DONE"),
        callback("subprocess.Popen", args=["touch", "DONE"]),
        callback("builtins.eval"),
        callback("builtins.exec"),
        callback("importlib.import_module", name="this"),
        callback("pathlib.Path"),
        callback("torch.load"),
        callback("torch.hub.load"),
        callback("lightning.pytorch.cli.instantiate_class"),
        callback("ecgfair.cli.environment.os.system"),
        callback("ecgfair.cli.environment.subprocess.Popen", args=["touch", "DONE"]),
        callback("LambdaCallback", on_fit_start="os.getcwd"),
        callback("LambdaCallback", on_fit_start="ecgfair.cli.environment.os.getcwd"),
        {"model": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "DONE"]}}},
        {"data": {"class_path": "os.system", "init_args": {"command": "touch DONE"}}},
        {"trainer": {"logger": {"class_path": "shutil.rmtree", "init_args": {"path": "x"}}}},
        {"trainer": {"plugins": [{"class_path": "os.system"}]}},
        {"trainer": {"strategy": {"class_path": "os.system"}}},
        {"trainer": {"profiler": {"class_path": "os.system"}}},
    ],
    ids=str,
)
def test_code_that_is_neither_of_ecgfair_nor_of_a_trainer_is_not_run(settings, tmp_path, monkeypatch, capsys):
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(settings))
    base = [str(Path(word).resolve()) if word.endswith(".yaml") else word for word in BASE]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["fit", *base, "--config", str(tmp_path / "given.yaml"), "--print_config"]) == 2
    assert "neither of ecgfair nor one of Lightning's" in error_line(capsys)
    assert not list((tmp_path / "here").iterdir())


def test_an_unknown_package_is_not_even_imported(foreign, tmp_path, capsys):
    assert parsed(tmp_path, callback("foreign_code.Foreign")) == 2
    line = error_line(capsys)
    assert "names foreign_code.Foreign" in line
    assert "add `--trust foreign_code` to the command" in line
    assert not foreign.exists()


@pytest.mark.parametrize(
    "flags", [["--trust"], ["--trust", "foreign_code"], ["--trust=foreign_code"], ["--trust", "other,foreign_code"]]
)
def test_it_is_with_trust_and_that_holds_for_one_command(flags, foreign, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        parsed(tmp_path, callback("foreign_code.Foreign"), *flags)
    assert stopped.value.code == 0
    assert "foreign_code.Foreign" in capsys.readouterr().out
    assert foreign.exists()
    assert parsed(tmp_path, callback("foreign_code.Foreign")) == 2


def test_trust_in_another_package_is_none_in_this_one(foreign, tmp_path):
    assert parsed(tmp_path, callback("foreign_code.Foreign"), "--trust", "another") == 2
    assert not foreign.exists()


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "builtins.eval"])
def test_trust_in_all_packages_is_none_in_pythons_own(name, tmp_path, capsys):
    assert parsed(tmp_path, callback(name), "--trust") == 2
    assert name in error_line(capsys)


def test_a_configuration_can_not_say_that_it_is_trusted(foreign, tmp_path):
    assert parsed(tmp_path, callback("foreign_code.Foreign") | {"trust": "foreign_code"}) == 2
    assert not foreign.exists()


@pytest.mark.parametrize("name", ["my-package", "jsonargparse", "jsonargparse.set_parsing_settings", "a b"])
def test_what_can_not_be_trusted_is_told(name, tmp_path, capsys):
    assert parsed(tmp_path, {}, "--trust", name) == 2
    assert f"--trust names {name!r}" in error_line(capsys)


def test_classes_of_a_trainer_are_trusted(tmp_path):
    for name in ("LearningRateMonitor", "lightning.pytorch.callbacks.DeviceStatsMonitor", "EMAWeightAveraging"):
        with pytest.raises(SystemExit) as stopped:
            parsed(tmp_path, callback(name))
        assert stopped.value.code == 0


@pytest.mark.parametrize("where", ["https://localhost:9/a.yaml", "memory://a.yaml", "s3://bucket/a.yaml"])
def test_configurations_are_never_fetched(where, capsys, monkeypatch):
    monkeypatch.setattr(fsspec, "open", lambda *_, **__: pytest.fail("something was fetched"))
    fsspec.filesystem("memory").pipe("/a.yaml", b"seed_everything: 1")
    assert main(["fit", *BASE, "--config", where, "--print_config"]) == 2
    assert where in error_line(capsys)


def test_variables_of_the_environment_set_nothing(monkeypatch, capsys):
    monkeypatch.setenv("PL_FIT__TRAINER__MAX_EPOCHS", "77")
    with pytest.raises(SystemExit):
        main(["fit", *BASE, "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["max_epochs"] == 2
