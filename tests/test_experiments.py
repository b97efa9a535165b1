"""Every configuration that is shipped runs through the real command line, on a few records."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from ecgfair.__main__ import main
from ecgfair.training.pretrain_settings import Choices

# The others are arguments of other verbs, such as own_records/records.yaml, or go on top of a configuration.
EXPERIMENTS = sorted(
    path
    for path in Path("experiments").rglob("*.yaml")
    if "run" in (told := yaml.safe_load(path.read_text()))
    and "class_path" in (told.get("model") or {})
    and path.parent.name != "anomaly"
)
ANOMALY = Path("experiments/anomaly")
# Not `everything`: trained on all records of a synthetic store, the default is it already.
OVERLAYS = [
    ("default", None),
    ("default", "ablations/with_restoration"),
    ("default", "ablations/restoration_alone"),
    ("mcf", None),
    ("mcf", "published"),
]
CHOICES = [path for path in sorted(ANOMALY.glob("ablations/*.yaml")) if "choices" in path.read_text()]
MITIGATIONS = [
    path
    for path in sorted(Path("experiments/mitigation").glob("*.yaml"))
    if path.stem != "population"  # what `compare.py` measures them on, an argument of `synthesize`
]
TINY = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.accelerator=cpu"]


def stage(config: Path) -> str:
    return yaml.safe_load(config.read_text())["model"]["class_path"]


def run(config: Path, folder: Path, stores: list[Path], verb: str = "fit", *more: str) -> int:
    is_mixture = "stores" in yaml.safe_load(config.read_text())["data"]["init_args"]
    data = ["stores", f"[{', '.join(map(str, stores))}]"] if is_mixture else ["store", str(stores[0])]
    flags = ["--run", str(folder), f"--data.init_args.{data[0]}", data[1], "--data.init_args.batch_size=8", *TINY]
    return main([verb, "--config", str(config), *flags, *more])


@pytest.mark.parametrize(
    "config",
    # `superdiagnostic` is `statements` with other labels.
    [
        pytest.param(
            path,
            id=str(path.relative_to("experiments")),
            marks=(pytest.mark.slow,) if path.stem == "superdiagnostic" else (),
        )
        for path in EXPERIMENTS
    ],
)
def test_every_shipped_experiment_runs(config, tmp_path, request):
    is_real = config.parent.name != "smoke"
    names = ["ptbxl_store", "synthetic_store"] if is_real else ["synthetic_store"]
    store = [request.getfixturevalue(name) for name in names]
    pretrain = tmp_path / "pretrain"
    assert run(config.with_name("pretrain.yaml"), pretrain, store) == 0
    if stage(config) == "PretrainModule":
        assert (pretrain / "encoder" / "encoder.safetensors").is_file()
        return
    encoder = f"--model.init_args.encoder={pretrain / 'encoder'}"
    assert run(config, tmp_path / "run", store, "fit", encoder) == 0
    assert (tmp_path / "run" / "fairness.parquet").is_file()
    assert run(config, tmp_path / "run", store, "test", encoder) == 0
    assert (tmp_path / "run" / "test" / "predictions.parquet").is_file()


@pytest.mark.parametrize("config", EXPERIMENTS, ids=lambda path: str(path.relative_to("experiments")))
def test_the_second_stage_names_the_encoder_of_the_first_and_the_same_store(config):
    settings = yaml.safe_load(config.read_text())
    first = yaml.safe_load(config.with_name("pretrain.yaml").read_text())
    assert settings["data"]["init_args"].get("store") == first["data"]["init_args"].get("store")
    if settings["model"]["class_path"] == "FinetuneModule":
        assert settings["model"]["init_args"]["encoder"] == f"{first['run']}/encoder"


@pytest.mark.parametrize(
    "mitigation",
    # One of training, and the one that has a checkpoint chosen otherwise; all are trained in tests/training as well.
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in ("group_dro", "worst_group") else (pytest.mark.slow,))
        for path in MITIGATIONS
    ],
)
def test_every_shipped_mitigation_goes_on_top_of_a_configuration_of_stage_two(mitigation, tmp_path, synthetic_store):
    folder, base = tmp_path / "run", "experiments/smoke/finetune.yaml"
    encoder = '{"name": "ResidualEncoder", "arguments": {"widths": [8, 16], "trend_widths": [4, 8]}}'
    flags = ["--run", str(folder), "--data.init_args.store", str(synthetic_store), "--model.init_args.encoder", encoder]
    assert main(["fit", "--config", base, "--config", str(mitigation), *flags, *TINY]) == 0
    done, asked = (yaml.safe_load(path.read_text()) for path in (folder / "config.yaml", mitigation))
    assert done["data"]["init_args"]["labels"] == "all", "what it goes on top of still holds"
    for part in ("model", "data"):
        for name, values in asked.get(part, {}).get("init_args", {}).items():
            assert values.items() <= done[part]["init_args"][name].items()
    kept = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["mitigation"]
    assert bool(kept) == ("model" in asked)
    assert main(["test", "--config", str(folder / "config.yaml")]) == 0


@pytest.mark.parametrize(
    ("base", "overlay"),
    [pytest.param(*pair, marks=(pytest.mark.slow,) if pair[1] else ()) for pair in OVERLAYS],
)
def test_every_shipped_experiment_on_anomalies_trains_scores_and_is_tested(base, overlay, tmp_path, synthetic_store):
    configs = [ANOMALY / f"{base}.yaml"] + ([ANOMALY / f"{overlay}.yaml"] if overlay else [])
    flags = ["--run", str(tmp_path / "run"), "--data.init_args.store", str(synthetic_store), *TINY]
    flags += ["--trainer.check_val_every_n_epoch=1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]
    flags += ["--data.init_args.batch_size=4", "--data.init_args.train_only=null"]
    flags += ["--model.init_args.scoring.reference_records=16", "--trainer.num_sanity_val_steps=0"]
    named = [flag for config in configs for flag in ("--config", str(config))]
    assert main(["fit", *named, *flags]) == 0
    assert main(["test", "--config", str(tmp_path / "run" / "config.yaml")]) == 0
    assert "anomaly_score" in pq.read_schema(tmp_path / "run" / "test" / "predictions.parquet").names
    done = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["init_args"]
    asked = yaml.safe_load(configs[-1].read_text()).get("model", {"init_args": {}})["init_args"]
    for name, values in asked.items():
        if name in ("choices", "scoring", "weights"):
            assert values.items() <= done[name].items()


@pytest.mark.parametrize("ablation", CHOICES, ids=lambda path: path.stem)
def test_every_shipped_ablation_takes_one_choice_back(ablation):
    settings = yaml.safe_load(ablation.read_text())
    assert list(settings["model"]["init_args"]) == ["choices"]
    (changed,) = settings["model"]["init_args"]["choices"].items()
    published = yaml.safe_load((ANOMALY / "published.yaml").read_text())["model"]["init_args"]["choices"]
    assert changed in published.items()
    assert getattr(Choices(), changed[0]) != changed[1]
    assert Choices(**dict([changed])) != Choices()


ROWS = sorted(Path("experiments/ptbxl/rows").glob("*.yaml"))
RESULT_BASE = Path("experiments/ptbxl")


@pytest.mark.parametrize(
    "row",
    # Every one is parsed in the fast suite, see tests/cli/test_composition.py, and a few are run.
    [
        pytest.param(row, id=row.stem, marks=() if order % 6 == 0 else (pytest.mark.slow,))
        for order, row in enumerate(ROWS)
    ],
)
def test_every_row_of_the_result_tables_goes_on_top_of_its_stage(row, tmp_path, synthetic_store):
    base = "pretrain" if row.stem.startswith("pretrain") else "statements"
    asked = yaml.safe_load(row.read_text())
    small = {"widths": [8, 16], "trend_widths": [4, 8], "shape_widths": [8, 8], "rhythm_width": 4}
    overrides = {"data": {"init_args": {"batch_size": 8}}, "model": {"init_args": {}}}
    if "stores" in asked.get("data", {}).get("init_args", {}):
        overrides["data"]["init_args"]["stores"] = [str(synthetic_store)] * 1
    else:
        overrides["data"]["init_args"]["store"] = str(synthetic_store)
    told = asked.get("model", {}).get("init_args", {}).get("encoder")
    overrides["model"]["init_args"]["encoder"] = told or {
        "name": "TwoScaleEncoder",
        "arguments": {**small, "beat_widths": [8, 8], "beat_embedding": 8},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(overrides))
    configs = [RESULT_BASE / f"{base}.yaml", row, tmp_path / "tiny.yaml"]
    named = [flag for config in configs for flag in ("--config", str(config))]
    limits = ["--trainer.limit_val_batches=2", "--trainer.num_sanity_val_steps=0"]
    assert main(["fit", *named, "--run", str(tmp_path / "run"), *TINY, *limits]) == 0
    done = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    for part in ("model", "data"):
        for name, value in asked.get(part, {}).get("init_args", {}).items():
            kept = done[part]["init_args"][name]
            if isinstance(value, dict):
                assert value.items() <= kept.items(), f"{row.stem} asked for {name}: {value}, and got {kept}"
            elif name not in ("stores", "batch_size"):
                assert kept == value
