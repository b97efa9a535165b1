"""Two processes with a batch each train as one with both: the same losses, in both stages, by the real command line.

The two processes run this file as a program, see ``main``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ecgfair.__main__ import main as ecgfair
from ecgfair.training.pretrain_settings import PretrainWeights
from tests.gloo_processes import TIMEOUT, free_port, on_processes
from tests.training.finetune_cases import NARROW

STAGES = ("pretrain", "finetune")
RATES = {"64-true": 4e-3, "32-true": 4e-5}
"""Learning rate by precision. A bias before a norm has a gradient of 0, but for rounding, and Adam makes steps of it as
long as of any other: in single precision such biases go ways of their own, the faster the higher the rate."""
UNKEPT = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
BATCH = 8
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


def write_config(folder, stage, store, precision):
    """A configuration whose training records two processes can share, while one validates a record more."""
    folds = pd.read_parquet(store / "records.parquet")["fold"].value_counts().sort_index()
    even, odd = (next(fold for fold in range(1, 10) if folds[fold] % 2 == rest) for rest in (0, 1))
    data = {"store": str(store), "train_folds": [even], "validation_folds": [odd]}
    rate = {"optimisation": {"learning_rate": RATES[precision]}}
    config = {
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "precision": precision},
        "model": {"class_path": MODELS[stage]["class_path"], "init_args": MODELS[stage]["init_args"] | rate},
        "data": {"class_path": "EcgDataModule", "init_args": data | ({"labels": "all"} if stage == "finetune" else {})},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def fit(folder, run, batch, *flags):
    """The arguments of a run."""
    config = ["fit", "--config", str(folder / "config.yaml"), "--run", str(folder / run)]
    return [*config, f"--data.init_args.batch_size={batch}", *flags]


def main(folder):
    """Train as one of two processes."""
    assert ecgfair(fit(folder, "two", BATCH // 2, "--trainer.devices=2", "--trainer.strategy=ddp")) == 0


def losses(run):
    """What was logged in each epoch."""
    table = pd.read_csv(run / "metrics.csv")
    columns = [name for name in table if name.split("/")[1:2] == ["loss"]]
    return {name: table[name].dropna().tolist() for name in columns}


def trained_by_one(folder, stage, store, precision):
    """Train in one process with the double batch."""
    write_config(folder, stage, store, precision)
    assert ecgfair(fit(folder, "one", BATCH, "--trainer.devices=1")) == 0
    return folder


@pytest.fixture(scope="module", params=STAGES)
def double(request, tmp_path_factory, synthetic_store):
    """A run of one process in double precision."""
    return trained_by_one(tmp_path_factory.mktemp("double"), request.param, synthetic_store, "64-true")


def assert_alike(folder, run, bound):
    """Every loss of every epoch of a run is near the one of one process."""
    found, expected = losses(folder / run), losses(folder / "one")
    assert found.keys() == expected.keys()
    assert {"train/loss", "val/loss"} < found.keys()
    for name, values in expected.items():
        assert len(values) == 2, f"{name} in two epochs"
        assert found[name] == pytest.approx(values, abs=bound, rel=0), name


@UNKEPT
def test_two_processes_log_the_losses_of_one_with_the_double_batch(double):
    on_processes(main, double)
    assert_alike(double, "two", 1e-6)  # losses are logged in single precision


@pytest.mark.slow
@UNKEPT
@pytest.mark.parametrize("stage", STAGES)
def test_in_single_precision_they_differ_by_rounding_alone(tmp_path, synthetic_store, stage):
    folder = trained_by_one(tmp_path, stage, synthetic_store, "32-true")
    on_processes(main, folder)
    assert_alike(folder, "two", 1e-5)


@pytest.mark.slow
@UNKEPT
def test_two_nodes_that_torchrun_starts_log_the_losses_of_one_process(double):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    torchrun += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    nodes = ["--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp"]
    # Without the two dashes torchrun takes --run for an abbreviation of options of its own.
    command = ["-m", "--", "ecgfair", *fit(double, "nodes", BATCH // 2, *nodes)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [
        subprocess.Popen([*torchrun, f"--node-rank={rank}", *command], env=environment, **pipes) for rank in range(2)
    ]
    try:
        output = "\n".join(process.communicate(timeout=2 * TIMEOUT)[0] for process in started)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0, 0], output
    assert_alike(double, "nodes", 1e-6)
