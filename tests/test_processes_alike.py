"""Two processes with a batch each train as one with both: the same losses, in both stages, by the real command line.

The two processes run this file as a program, see ``main``.
"""

import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ecgfair.__main__ import main as ecgfair
from ecgfair.training.pretrain_settings import PretrainWeights
from tests.training.finetune_cases import NARROW
from tests.two_processes import TIMEOUT, free_port, on_two_processes

STAGES = ("pretrain", "finetune")
PRECISIONS = {"64-true": 1e-6, "32-true": 1e-5}
"""How near losses have to be; those in double precision are logged in single precision."""
BATCH = 16
ENCODER = {"name": "TwoScaleEncoder", "arguments": {**NARROW, "dropout": 0.1, "beat_embedding": 16}}
EVERY_TASK = dict.fromkeys(vars(PretrainWeights()), 1.0)
MODELS = {
    "pretrain": {
        "class_path": "PretrainModule",
        "init_args": {"encoder": ENCODER, "local_widths": [8], "decoder_width": 8, "weights": EVERY_TASK},
    },
    "finetune": {
        "class_path": "FinetuneModule",
        "init_args": {
            "encoder": ENCODER,
            "hidden": 8,
            "conditioning": {"inputs": ["heart_rate", "qrs"], "how": "modulate"},
            "mitigation": {"robust_step": 0.1, "reweighting_cap": 5.0, "adversary_strength": 1.0},
        },
    },
}


def write_configs(folder, store):
    """A configuration of each stage, whose training records two processes can share."""
    folds = pd.read_parquet(store / "records.parquet")["fold"].value_counts()
    odd = next(fold for fold in range(1, 10) if folds[fold] % 2)
    others = [fold for fold in range(1, 10) if fold != odd]
    train = next(pair for pair in combinations(others, 2) if sum(folds[fold] for fold in pair) % 2 == 0)
    for stage in STAGES:
        data = {"store": str(store), "train_folds": list(train), "validation_folds": [odd]}
        config = {
            "seed_everything": 0,
            "trainer": {"accelerator": "cpu", "max_epochs": 2},
            "model": MODELS[stage],
            "data": {"class_path": "EcgDataModule", "init_args": data | ({"labels": "all"} if stage == "finetune" else {})},
        }
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(config))


def fit(folder, stage, precision, run, batch, *flags):
    """The arguments of a run."""
    config = ["fit", "--config", str(folder / f"{stage}.yaml"), "--run", str(folder / run)]
    return [*config, f"--trainer.precision={precision}", f"--data.init_args.batch_size={batch}", *flags]


def main(folder):
    """Train both stages in both precisions as one of two processes."""
    for stage in STAGES:
        for precision in PRECISIONS:
            name = f"{stage}_{precision}_two"
            two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
            assert ecgfair(fit(folder, stage, precision, name, BATCH // 2, *two)) == 0


def losses(run):
    """What was logged in each epoch."""
    table = pd.read_csv(run / "metrics.csv")
    columns = [name for name in table if name.split("/")[1:2] == ["loss"]]
    return {name: table[name].dropna().tolist() for name in columns}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, synthetic_store):
    folder = tmp_path_factory.mktemp("alike")
    write_configs(folder, synthetic_store)
    return folder


@pytest.fixture(scope="module")
def one(folder):
    """Losses of one process with the double batch, by stage and precision."""
    found = {}
    for stage in STAGES:
        for precision in PRECISIONS:
            name = f"{stage}_{precision}_one"
            assert ecgfair(fit(folder, stage, precision, name, BATCH, "--trainer.devices=1")) == 0
            found[stage, precision] = losses(folder / name)
    return found


@pytest.fixture(scope="module")
def two(folder):
    on_two_processes(__file__, folder)
    return folder


def assert_alike(found, expected, bound):
    """Every loss of every epoch of a run is near the one of another run."""
    assert found.keys() == expected.keys()
    assert {"train/loss", "val/loss"} < found.keys()
    for name, values in expected.items():
        assert len(values) == 2, f"{name} in two epochs"
        assert found[name] == pytest.approx(values, abs=bound, rel=bound), name


@pytest.mark.parametrize(("precision", "bound"), PRECISIONS.items())
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_log_the_losses_of_one_with_the_double_batch(two, one, stage, precision, bound):
    assert_alike(losses(two / f"{stage}_{precision}_two"), one[stage, precision], bound)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
