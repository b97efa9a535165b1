"""What the kernels of this package refuse: inputs for which a statistic would be a number without a meaning."""

from __future__ import annotations

import torch
from torch import Tensor


def check_predictions(probabilities: Tensor, targets: Tensor) -> None:
    """Refuse anything but probabilities and the truth about the same records and labels.

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C), 0 or 1, of any type.

    Raises:
        ValueError: Shapes do not fit, a probability is NaN or outside [0, 1], a target is neither 0 nor 1.
    """
    check_targets(probabilities, targets)
    refuse(
        (probabilities.isnan(), "probabilities are NaN", "real numbers; look for the records the model fails on"),
        (
            (probabilities < 0) | (probabilities > 1),
            "probabilities lie outside [0, 1]",
            "probabilities; apply the sigmoid to logits",
        ),
    )


def check_targets(probabilities: Tensor, targets: Tensor) -> None:
    """Refuse targets that are not the truth about these records and labels; see ``check_predictions``."""
    if probabilities.ndim != 2 or targets.shape != probabilities.shape:
        raise ValueError(
            f"probabilities have the shape {tuple(probabilities.shape)} and targets {tuple(targets.shape)}: expected "
            "both to be (records, labels)."
        )
    refuse(((targets != 0) & (targets != 1), "targets are neither 0 nor 1", "0 or 1; leave uncertain records out"))


def check_groups(records: int, codes: Tensor, groups: int, weights: Tensor) -> None:
    """Refuse groups and weights that are not those of the records.

    Args:
        records: Their number, N.
        codes: (N,) int64 group of each record, 0 to ``groups`` - 1.
        groups: Number of groups, G.
        weights: (R, N), finite and not negative.

    Raises:
        ValueError: Shapes do not fit, a code is no group, a weight is negative or not finite.
    """
    if codes.shape != (records,):
        raise ValueError(f"codes have the shape {tuple(codes.shape)}: expected ({records},), one group a record.")
    if weights.ndim != 2 or weights.shape[1] != records:
        raise ValueError(
            f"weights have the shape {tuple(weights.shape)}: expected (resamples, {records}), one column a record."
        )
    refuse(
        ((codes < 0) | (codes >= groups), "codes are no group", f"0 to {groups - 1}, a position among the groups"),
        (~((weights >= 0) & (weights < torch.inf)), "weights are negative or not finite", "numbers from 0 upwards"),
    )


def refuse(*faults: tuple[Tensor, str, str]) -> None:
    """Raise for the first fault that occurs: where (bool, of any shape), what was found, what was expected.

    Raises:
        ValueError: Something is True.
    """
    for where, found, expected in faults:
        if bool(where.any()):  # on large tables much faster than counting
            raise ValueError(f"{int(where.sum())} of {where.numel()} {found}: expected {expected}.")
