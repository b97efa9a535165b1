"""Two processes with a batch each train as one with both: the same losses, in both stages, by the real command line.

The two processes run this file as a program, see ``main``.
"""

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
RATES = {"64-true": 4e-3, "32-true": 4e-5}
"""Learning rate by precision. A bias before a norm has a gradient of 0, but for rounding, and Adam makes steps of it as
long as of any other: in single precision such biases go ways of their own, the faster the higher the rate."""
UNKEPT = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
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


def write_configs(folder, store, precision):
    """A configuration of each stage, whose training records two processes can share."""
    folds = pd.read_parquet(store / "records.parquet")["fold"].value_counts()
    odd = next(fold for fold in range(1, 10) if folds[fold] % 2)
    others = [fold for fold in range(1, 10) if fold != odd]
    train = next(pair for pair in combinations(others, 2) if sum(folds[fold] for fold in pair) % 2 == 0)
    for stage in STAGES:
        data = {"store": str(store), "train_folds": list(train), "validation_folds": [odd]}
        model = {**MODELS[stage]["init_args"], "optimisation": {"learning_rate": RATES[precision]}}
        config = {
            "seed_everything": 0,
            "trainer": {"accelerator": "cpu", "max_epochs": 2, "precision": precision},
            "model": {"class_path": MODELS[stage]["class_path"], "init_args": model},
            "data": {
                "class_path": "EcgDataModule",
                "init_args": data | ({"labels": "all"} if stage == "finetune" else {}),
            },
        }
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(config))


def fit(folder, stage, run, batch, *flags):
    """The arguments of a run."""
    config = ["fit", "--config", str(folder / f"{stage}.yaml"), "--run", str(folder / run)]
    return [*config, f"--data.init_args.batch_size={batch}", *flags]


def main(folder):
    """Train both stages as one of two processes."""
    for stage in STAGES:
        two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
        assert ecgfair(fit(folder, stage, f"{stage}_two", BATCH // 2, *two)) == 0


def losses(run):
    """What was logged in each epoch."""
    table = pd.read_csv(run / "metrics.csv")
    columns = [name for name in table if name.split("/")[1:2] == ["loss"]]
    return {name: table[name].dropna().tolist() for name in columns}


def trained_by_one(folder, store, precision):
    """Write the configurations into a folder, and train both stages in one process with the double batch."""
    write_configs(folder, store, precision)
    for stage in STAGES:
        assert ecgfair(fit(folder, stage, f"{stage}_one", BATCH, "--trainer.devices=1")) == 0
    return folder


@pytest.fixture(scope="module")
def double(tmp_path_factory, synthetic_store):
    return trained_by_one(tmp_path_factory.mktemp("double"), synthetic_store, "64-true")


def assert_alike(folder, stage, run, bound):
    """Every loss of every epoch of a run is near the one of one process."""
    found, expected = losses(folder / run), losses(folder / f"{stage}_one")
    assert found.keys() == expected.keys()
    assert {"train/loss", "val/loss"} < found.keys()
    for name, values in expected.items():
        assert len(values) == 2, f"{name} in two epochs"
        assert found[name] == pytest.approx(values, abs=bound, rel=0), name


@UNKEPT
def test_two_processes_log_the_losses_of_one_with_the_double_batch(double):
    on_two_processes(__file__, double)
    for stage in STAGES:
        assert_alike(double, stage, f"{stage}_two", 1e-6)  # what single precision, in which they are logged, leaves


@pytest.mark.slow
@UNKEPT
def test_in_single_precision_they_differ_by_rounding_alone(tmp_path, synthetic_store):
    folder = trained_by_one(tmp_path, synthetic_store, "32-true")
    on_two_processes(__file__, folder)
    for stage in STAGES:
        assert_alike(folder, stage, f"{stage}_two", 1e-5)


@pytest.mark.slow
@UNKEPT
@pytest.mark.parametrize("stage", STAGES)
def test_two_nodes_that_torchrun_starts_log_the_losses_of_one_process(double, stage):
    run, port = f"{stage}_nodes", free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    torchrun += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    nodes = ["--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp"]
    command = ["-m", "ecgfair", *fit(double, stage, run, BATCH // 2, *nodes)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [
        subprocess.Popen([*torchrun, f"--node_rank={rank}", *command], env=environment, **pipes) for rank in range(2)
    ]
    try:
        output = "\n".join(process.communicate(timeout=2 * TIMEOUT)[0] for process in started)
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], output
    assert_alike(double, stage, run, 1e-6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
