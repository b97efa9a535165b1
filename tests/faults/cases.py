"""Tiny trainings of both stages, from a YAML each, and what they come to if nobody does them harm."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
import yaml

from ecgfair.training.checkpoint_io import read_checkpoint
from tests.faults.driven import driven

EPOCHS, STEPS = 3, 5
"""Epochs, and steps in each: 40 of the 60 records are trained on, 8 a step."""

DATA = {"batch_size": 8, "seed": 5, "train_folds": [1], "validation_folds": [9], "test_folds": []}
TRAINER = {"accelerator": "cpu", "devices": 1, "max_epochs": EPOCHS}
ENCODER = {"name": "ResidualEncoder", "arguments": {"widths": [8, 12], "trend_widths": [4, 6], "dropout": 0.1}}


def pretraining() -> dict:
    callbacks = [
        {"class_path": "BestCheckpoint", "init_args": {"monitor": "val/loss", "mode": "min"}},
        {"class_path": "EncoderExport"},
    ]
    settings = {
        "encoder": ENCODER,
        "local_widths": [8],
        "decoder_width": 8,
        "weights": {"altered": 1.0, "altered_map": 1.0},
    }
    return {
        "trainer": TRAINER | {"callbacks": callbacks},
        "model": {"class_path": "PretrainModule", "init_args": settings},
    }


def finetuning() -> dict:
    measured = {"attributes": ["sex"], "min_support": 1, "resamples": 100, "permutations": 100}
    callbacks = [
        {"class_path": "Fairness", "init_args": measured},
        {"class_path": "BestCheckpoint", "init_args": {"monitor": "val/auroc/macro", "mode": "max"}},
    ]
    settings = {"encoder": ENCODER, "dropout": 0.3, "attribute_weight": 0.1}
    return {
        "trainer": TRAINER | {"callbacks": callbacks},
        "model": {"class_path": "FinetuneModule", "init_args": settings},
    }


STAGES = {"pretrain": pretraining, "finetune": finetuning}


@dataclass(frozen=True)
class Case:
    """A training that can be run whole, harmed, and again by the same command.

    Args:
        folder: Of this case.
        store: Its data.
        config: Its YAML.
        flags: Further flags.
    """

    folder: Path
    store: Path
    config: Path
    flags: tuple[str, ...] = ()

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def last(self) -> Path:
        return self.run / "checkpoints" / "last.ckpt"

    @property
    def command(self):
        """The same command, however often it is run."""
        command = ["fit", "--config", str(self.config), "--run", str(self.run)]
        return [*command, f"--data.init_args.store={self.store}", *self.flags]

    def start(self, harm=None):
        """Run it in a process of its own."""
        return driven(self.command, self.folder, harm)

    def finish(self):
        """Run it to its end."""
        ended = self.start()
        assert ended.status == 0, ended.output
        return self


@dataclass
class Cases:
    """Makes cases, and remembers what they come to if nobody does them harm."""

    folder: Path
    store: Path
    made: int = 0
    whole: dict = field(default_factory=dict)

    def __call__(self, stage, *flags, callbacks=(), store=None) -> Case:
        self.made += 1
        folder = self.folder / f"case-{self.made}"
        folder.mkdir()
        config = STAGES[stage]()
        config["trainer"]["callbacks"] += list(callbacks)
        config["data"] = {"class_path": "EcgDataModule", "init_args": DATA}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return Case(folder, store or self.store, folder / "config.yaml", flags)

    def unharmed(self, stage, *flags, callbacks=()) -> Case:
        key = (stage, flags, str(callbacks))
        if key not in self.whole:
            self.whole[key] = self(stage, *flags, callbacks=callbacks).finish()
        return self.whole[key]


def assert_same_run(found: Case, whole: Case) -> None:
    """Check that a run ended with the same weights, to the bit, and the same tables as another."""
    for name in ("last", "best"):
        ours, theirs = (read_checkpoint(case.run / "checkpoints" / f"{name}.ckpt") for case in (found, whole))
        assert ours["global_step"] == theirs["global_step"]
        assert ours["state_dict"].keys() == theirs["state_dict"].keys()
        different = [
            key for key, value in theirs["state_dict"].items() if not torch.equal(value, ours["state_dict"][key])
        ]
        assert different == [], name
    assert (found.run / "metrics.csv").read_text() == (whole.run / "metrics.csv").read_text()
    for name in ("fairness.parquet", "fairness_tests.parquet"):
        assert (found.run / name).exists() == (whole.run / name).exists()
        if (whole.run / name).exists():
            tables = [pd.read_parquet(case.run / name) for case in (found, whole)]
            pd.testing.assert_frame_equal(*tables, check_exact=True)
    for name in ("encoder", "encoder_last"):
        files = [case.run / name / "encoder.safetensors" for case in (found, whole)]
        assert files[0].exists() == files[1].exists()
        if files[1].exists():
            assert files[0].read_bytes() == files[1].read_bytes()
    # Nothing of what was cut off is left lying about.
    assert _names(found.run) == _names(whole.run)


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
