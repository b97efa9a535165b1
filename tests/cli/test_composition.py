"""Several files and flags make one configuration; every one that is shipped can be printed and run again."""

from pathlib import Path

import pytest
import yaml

from ecgfair.__main__ import main
from tests.test_experiments import ANOMALY, CHOICES, EXPERIMENTS, MITIGATIONS, OVERLAYS, ROWS

COMPOSE = Path("experiments/compose")
PARTS = [COMPOSE / f"{name}.yaml" for name in ("trainer", "synthetic", "finetune", "long_tail")]
COMPOSED = [
    *([config] for config in EXPERIMENTS),
    *([ANOMALY / f"{base}.yaml", *([ANOMALY / f"{top}.yaml"] if top else [])] for base, top in OVERLAYS),
    *([ANOMALY / "default.yaml", choice] for choice in CHOICES),
    *([Path("experiments/smoke/finetune.yaml"), mitigation] for mitigation in MITIGATIONS),
    *(
        [Path("experiments/ptbxl") / ("pretrain.yaml" if row.stem.startswith("pretrain") else "statements.yaml"), row]
        for row in ROWS
    ),
]


def printed(capsys, configs, *flags: str) -> str:
    """What `--print_config` prints of a `fit` of several files."""
    named = [word for config in configs for word in ("--config", str(config))]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *named, *flags, "--print_config"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def composed(capsys, *flags: str, configs=PARTS):
    return yaml.safe_load(printed(capsys, configs, "--run", "runs/composed", *flags))


def test_later_files_hold_over_earlier_ones_and_keep_what_they_do_not_name(capsys):
    config = composed(capsys)
    assert config["model"]["init_args"]["loss"]["name"] == "asymmetric"
    assert config["model"]["init_args"]["attribute_weight"] == 0.1
    assert config["data"]["init_args"]["batch_size"] == 64
    assert config["data"]["init_args"]["store"] == "demo/store"
    assert config["trainer"]["max_epochs"] == 20


def test_flags_hold_over_files_wherever_they_stand(capsys):
    flags = ["--trainer.max_epochs=2", "--model.init_args.optimisation.learning_rate=0.001"]
    config = composed(capsys, *flags)
    assert config["trainer"]["max_epochs"] == 2
    assert config["model"]["init_args"]["optimisation"]["learning_rate"] == 0.001
    assert config["model"]["init_args"]["optimisation"]["weight_decay"] == 0.05


def test_a_list_is_replaced_or_with_a_plus_appended_to(capsys, tmp_path):
    assert names(composed(capsys)) == ["BestCheckpoint", "Fairness", "PredictionTable"]
    (tmp_path / "replaced.yaml").write_text("trainer: {callbacks: [{class_path: EncoderExport}]}")
    assert names(composed(capsys, configs=[*PARTS, tmp_path / "replaced.yaml"])) == ["EncoderExport"]
    appended = composed(capsys, "--trainer.callbacks+=LearningRateMonitor")
    assert names(appended) == ["BestCheckpoint", "Fairness", "PredictionTable", "LearningRateMonitor"]


def names(config) -> list[str]:
    return [callback["class_path"].rpartition(".")[2] for callback in config["trainer"]["callbacks"]]


def test_the_order_of_files_decides(capsys):
    config = composed(capsys, configs=[*PARTS, PARTS[2]])
    assert config["model"]["init_args"]["loss"]["name"] == "bce"


@pytest.mark.parametrize(
    "configs", [*COMPOSED, PARTS], ids=lambda configs: "+".join("/".join(path.parts[-2:]) for path in configs)
)
def test_every_shipped_configuration_prints_one_that_is_itself_again(configs, capsys, tmp_path):
    flags = [] if any("run" in yaml.safe_load(config.read_text()) for config in configs) else ["--run", "runs/x"]
    once = printed(capsys, configs, *flags)
    assert "Unable to serialize" not in once
    (tmp_path / "printed.yaml").write_text(once)
    assert printed(capsys, [tmp_path / "printed.yaml"]) == once


@pytest.mark.parametrize(
    "flag",
    [
        "masking.local_ratio=0.4",
        "weights.trend=0.5",
        "choices.scale=min_max",
        "alteration.twice=0.4",
        "scoring.reference_records=3",
    ],
)
def test_one_value_of_many_changed_by_a_flag_prints_what_can_be_run_again(flag, capsys, tmp_path):
    once = printed(capsys, ["experiments/smoke/pretrain.yaml"], f"--model.init_args.{flag}")
    assert "Unable to serialize" not in once
    part, _, value = flag.partition("=")
    group, name = part.split(".")
    assert str(yaml.safe_load(once)["model"]["init_args"][group][name]) == value
    (tmp_path / "printed.yaml").write_text(once)
    assert printed(capsys, [tmp_path / "printed.yaml"]) == once


@pytest.mark.parametrize("config", [*EXPERIMENTS, *ANOMALY.glob("*.yaml"), *COMPOSE.glob("*.yaml")], ids=str)
def test_shipped_configurations_name_classes_without_their_packages(config):
    def class_paths(part):
        parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
        own = [part["class_path"]] if isinstance(part, dict) and "class_path" in part else []
        return own + [path for inner in parts for path in class_paths(inner)]

    assert not [path for path in class_paths(yaml.safe_load(config.read_text())) if "." in path]


def test_a_short_name_that_two_libraries_know_is_lightnings(capsys):
    pytest.importorskip("pytorch_lightning.loggers")
    for logger in ("WandbLogger", "CSVLogger"):
        flags = ["--trainer.logger", logger, "--trainer.logger.save_dir", "x"]
        assert composed(capsys, *flags)["trainer"]["logger"]["class_path"] == f"lightning.pytorch.loggers.{logger}"
