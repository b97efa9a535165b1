"""A pretraining run, loaded again: its module with the weights of the best epoch, and its data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from data_modules.streaming.base import StoresDataModule
from data_modules.streaming.datamodules import EcgDataModule
from data_modules.streaming.datasets import finish
from ecgfair.anomaly.scoring import Scoring
from ecgfair.callbacks import BEST
from ecgfair.ecg import EcgBatch
from ecgfair.models.encoder import EncoderSpec
from ecgfair.signals.alteration import Alteration
from ecgfair.signals.mask_schemes import MaskScheme
from ecgfair.training import PretrainModule
from ecgfair.training.pretrain_settings import Choices, Masking, PretrainWeights


def load(run: Path) -> tuple[PretrainModule, StoresDataModule]:
    """Return the module of a run in evaluation mode, and its data module."""
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    data = EcgDataModule(**settings["data"]["init_args"] | {"sampling": None})
    told = {name: value for name, value in settings["model"]["init_args"].items() if value is not None}
    if "masking" in told:
        schemes = {name: MaskScheme(**scheme) for name, scheme in told["masking"]["schemes"].items()}
        told["masking"] = Masking(**told["masking"] | {"schemes": schemes})
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
    module.load_state_dict(torch.load(run / BEST, map_location="cpu", weights_only=True)["state_dict"])
    return module.eval(), data


def batches_of(data: StoresDataModule, positions: np.ndarray[Any, np.dtype[np.int64]], size: int) -> Iterator[EcgBatch]:
    """Yield batches of the records at these positions of the store, on the CPU."""
    dataset = data._dataset("predict")
    dataset.positions = positions
    for start in range(0, len(positions), size):
        yield finish(dataset.__getitems__(list(range(start, min(start + size, len(positions))))), data.preprocessing)
