"""A pretraining run, loaded again: its module with the weights of the best epoch, and its data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from data_modules.streaming.base import StoresDataModule
from data_modules.streaming.datamodules import EcgDataModule
from ecgfair.anomaly.scoring import Scoring
from ecgfair.callbacks import BEST
from ecgfair.ecg import EcgBatch
from ecgfair.models.encoder import EncoderSpec
from ecgfair.signals.alteration import Alteration
from ecgfair.signals.mask_schemes import MaskScheme
from ecgfair.training import PretrainModule
from ecgfair.training.pretrain_settings import Choices, Masking, PretrainWeights


def load(run: Path, checkpoint: str = BEST) -> tuple[PretrainModule, StoresDataModule]:
    """Return the module of a run in evaluation mode, with the weights of a checkpoint, and its data module."""
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    data = EcgDataModule(**settings["data"]["init_args"] | {"sampling": None})
    told = {name: value for name, value in settings["model"]["init_args"].items() if value is not None}
    if "masking" in told:
        named = told["masking"]["schemes"] or {}
        schemes = {name: MaskScheme(**scheme) for name, scheme in named.items()}
        told["masking"] = Masking(**told["masking"] | {"schemes": schemes or None})
    classes: dict[str, Any] = {
        "encoder": EncoderSpec,
        "weights": PretrainWeights,
        "choices": Choices,
        "alteration": Alteration,
        "scoring": Scoring,
    }
    for name, kind in classes.items():
        if name in told:
            told[name] = kind(**told[name])
    told.pop("optimisation", None)
    module = PretrainModule(data.preprocessing, **told)
    module.load_state_dict(torch.load(run / checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    return module.eval(), data


def normal_records(data: StoresDataModule, part: str) -> Iterator[EcgBatch]:
    """Yield batches of the records of ``validation`` or ``test`` that are positive for NORM and nothing else."""
    loader = data.val_dataloader() if part == "validation" else data.test_dataloader()
    normal = data.label_names.index("NORM")
    for batch in loader:
        finished = data.on_after_batch_transfer(batch, 0)
        rows = (finished["labels"][:, normal] > 0) & (finished["labels"].sum(1) == 1)
        if rows.any():
            taken = {name: value.expand(len(rows), *value.shape[1:])[rows] for name, value in finished.items()}
            yield cast("EcgBatch", taken)
