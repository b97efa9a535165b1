"""Anomaly scores of a batch's records as rows that can be gathered over processes, whoever wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ecgfair.anomaly.scores import AnomalyScores
from ecgfair.callbacks.outputs import described, nobody, off_device
from ecgfair.ecg import EcgBatch
from ecgfair.errors import ConfigurationError

OUTPUT: Final = "anomaly"
"""Key of a step's outputs with the ``AnomalyScores`` of its batch; without it the module is asked for them."""


@runtime_checkable
class AnomalyScorer(Protocol):
    """A module that says how strange records are."""

    @property
    def anomaly_parts(self) -> tuple[str, ...]:
        """Names of the terms of a score; the same for every batch."""
        ...

    def anomaly_scores(self, batch: EcgBatch, *, maps: bool = False) -> AnomalyScores:
        """Return the scores of a batch, and maps if asked for."""
        ...


def scorer(pl_module: LightningModule) -> AnomalyScorer:
    """Return the module as one that scores.

    Raises:
        ConfigurationError: It does not.
    """
    if not isinstance(pl_module, AnomalyScorer):
        missing = "anomaly_parts" if hasattr(pl_module, "anomaly_scores") else "anomaly_scores(batch, *, maps)"
        raise ConfigurationError(
            f"{type(pl_module).__name__} has no {missing}: expected a module that scores anomalies, such as "
            "PretrainModule. Leave AnomalyDetection out of this run, or choose such a module."
        )
    return pl_module


def data_labels(trainer: Trainer, pl_module: LightningModule) -> list[str]:
    """Return the names of the labels of a batch: the data module's, else the module's; none if nobody knows them."""
    for source in (getattr(trainer, "datamodule", None), pl_module):
        names = getattr(source, "label_names", None)
        if names is not None:
            return [str(name) for name in names]
    return []


def no_scored_records(labels: int, parts: int) -> dict[str, Tensor]:
    """What a rank without records has to offer: it fixes the columns and their types on every rank."""
    return nobody(labels) | {
        "score": torch.zeros(0, dtype=torch.float64),
        "parts": torch.zeros(0, parts, dtype=torch.float64),
        # A number, not a truth value: gloo and NCCL both move it.
        "has_beat": torch.zeros(0, dtype=torch.int64),
    }


def scored_records(
    step: str, pl_module: LightningModule, outputs: Any, batch: Any, labels: int, dataloader_idx: int = 0
) -> dict[str, Tensor]:
    """Score a batch, or take the scores that its step returned, and take all off the device.

    Args:
        step: Name of the step, for messages.
        pl_module: An ``AnomalyScorer``.
        outputs: What its step returned: if a mapping with ``anomaly``, those are its scores.
        batch: An ``EcgBatch``.
        labels: How many labels a batch has.
        dataloader_idx: See ``outputs.described``.

    Returns:
        CPU tensors with the columns and types of ``no_scored_records``.

    Raises:
        ConfigurationError: Something is missing or has another shape; the message says what is expected.
    """
    module = scorer(pl_module)
    columns = described(step, batch, dataloader_idx)
    given = outputs.get(OUTPUT) if isinstance(outputs, Mapping) else None
    scores = module.anomaly_scores(batch) if given is None else given
    names = tuple(module.anomaly_parts)
    if set(scores.parts) != set(names):
        raise ConfigurationError(
            f"The anomaly scores have the parts {sorted(scores.parts)}: expected {sorted(names)}, those of "
            f"{type(pl_module).__name__}.anomaly_parts, for every batch."
        )
    parts = [scores.parts[name].double() for name in names]
    columns |= {"score": scores.score, "has_beat": scores.has_beat}
    columns["parts"] = torch.stack(parts, 1) if parts else scores.score.new_zeros(len(scores.score), 0)
    return off_device(columns, no_scored_records(labels, len(names)))
