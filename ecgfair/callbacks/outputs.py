"""What a module and its steps hand to the callbacks that measure, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ecgfair.errors import ConfigurationError

_FROM_BATCH: Final = {"index": "index", "age": "age", "sex": "sex", "targets": "labels"}
"""Column of the records kept, and where ``EcgBatch`` has it."""


def label_description(pl_module: LightningModule) -> tuple[list[str], list[float] | None]:
    """Return the names of a module's labels and their prevalences in its training, ``None`` where these are not known.

    A module without a positive record for any label has not counted those it learnt from: its data module has no
    training records, and its checkpoint did not tell. Zeros would put every label into the tail.

    Raises:
        ConfigurationError: The module has no ``label_names`` or no ``label_prevalence``.
    """
    names, prevalence = (getattr(pl_module, name, None) for name in ("label_names", "label_prevalence"))
    if names is None or prevalence is None:
        missing = "label_names" if names is None else "label_prevalence"
        raise ConfigurationError(
            f"{type(pl_module).__name__} has no {missing}: expected the names of its labels in label_names and the "
            "share of positive training records of each in label_prevalence."
        )
    shares = [float(share) for share in prevalence]
    return [str(name) for name in names], shares if any(shares) else None


def nobody(labels: int) -> dict[str, Tensor]:
    """No rows of what a batch says of its records, in the columns of ``described``."""
    return {
        "index": torch.zeros(0, dtype=torch.int64),
        "age": torch.zeros(0, dtype=torch.float32),
        "sex": torch.zeros(0, dtype=torch.int64),
        "targets": torch.zeros(0, labels, dtype=torch.float32),
    }


def described(step: str, batch: Any, dataloader_idx: int = 0) -> dict[str, Tensor]:
    """Return what a batch says of its records: which they are, whose, and their labels.

    Args:
        step: Name of the step, for messages.
        batch: An ``EcgBatch``.
        dataloader_idx: 0; positions in two stores can't be told apart.

    Raises:
        ConfigurationError: The batch is of a second loader, or lacks a field.
    """
    if dataloader_idx:
        raise ConfigurationError(
            f"{step} got a batch of a second loader: expected one loader, because positions in two stores are not "
            "comparable. Evaluate one store after the other."
        )
    if missing := [key for key in _FROM_BATCH.values() if key not in batch]:
        raise ConfigurationError(f"The batch has no {', '.join(missing)}: expected the fields of EcgBatch.")
    return {column: batch[key] for column, key in _FROM_BATCH.items()}


def off_device(columns: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take a batch's rows off the device.

    Args:
        columns: Tensors (B, ...); ``index`` says how many rows there are.
        like: No rows, of the columns, types and further shapes that are expected.

    Returns:
        Detached CPU tensors with the columns and types of ``like``.

    Raises:
        ConfigurationError: One has another shape.
    """
    count = len(columns["index"])
    rows = {}
    for name, empty in like.items():
        rows[name] = columns[name].detach().to("cpu", empty.dtype)
        expected = (count, *empty.shape[1:])
        if rows[name].shape != expected:
            raise ConfigurationError(
                f"A batch of {count} records has {name} of the shape {tuple(rows[name].shape)}: expected {expected}."
            )
    return rows


def no_records(labels: int) -> dict[str, Tensor]:
    """What a rank without records has to offer: it fixes the columns and their types on every rank."""
    return nobody(labels) | {"probabilities": torch.zeros(0, labels, dtype=torch.float32)}


def step_records(
    step: str, pl_module: LightningModule, outputs: Any, batch: Any, dataloader_idx: int = 0
) -> dict[str, Tensor]:
    """Take a batch's records and their probabilities off the device.

    Args:
        step: Name of the step, for messages.
        pl_module: The module, see ``label_description``.
        outputs: What its step returned: a mapping with ``probabilities`` (B, C).
        batch: An ``EcgBatch``.
        dataloader_idx: See ``described``.

    Returns:
        Detached CPU tensors with the columns and types of ``no_records``.

    Raises:
        ConfigurationError: Something is missing or has another shape; the message says what is expected.
    """
    columns = described(step, batch, dataloader_idx)
    if not isinstance(outputs, Mapping) or "probabilities" not in outputs:
        found = f"the keys {sorted(outputs)}" if isinstance(outputs, Mapping) else type(outputs).__name__
        raise ConfigurationError(
            f"{type(pl_module).__name__}.{step} returned {found}: expected a mapping with 'probabilities', "
            "(records, labels) in [0, 1], the sigmoid of the logits."
        )
    columns["probabilities"] = outputs["probabilities"]
    return off_device(columns, no_records(len(label_description(pl_module)[0])))
