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


def check_scores(scores: Tensor, targets: Tensor) -> None:
    """Refuse anything but scores, of which only the order counts, and the truth about the same records and labels.

    Args:
        scores: (N, C), any real numbers.
        targets: (N, C), 0 or 1, of any type.

    Raises:
        ValueError: Shapes do not fit, a score is NaN, a target is neither 0 nor 1.
    """
    check_targets(scores, targets, "scores")
    refuse((scores.isnan(), "scores are NaN", "real numbers; look for the records the model fails on"))


def check_targets(answers: Tensor, targets: Tensor, name: str = "probabilities") -> None:
    """Refuse targets that are not the truth about these records and labels; see ``check_predictions``.

    Args:
        answers: (N, C), the model's.
        targets: (N, C), 0 or 1, of any type.
        name: What the answers are called in messages.
    """
    check_shapes(answers, targets, name)
    refuse(((targets != 0) & (targets != 1), "targets are neither 0 nor 1", "0 or 1; leave uncertain records out"))


def check_shapes(answers: Tensor, targets: Tensor, name: str = "probabilities") -> None:
    """Refuse answers and targets that are not of the same records and labels; see ``check_targets``."""
    if answers.ndim != 2 or targets.shape != answers.shape:
        raise ValueError(
            f"{name} have the shape {tuple(answers.shape)} and targets {tuple(targets.shape)}: expected both to be "
            "(records, labels)."
        )


def check_groups(records: int, codes: Tensor, groups: int, weights: Tensor) -> None:
    """Refuse groups and weights that are not those of the records; see ``check_codes`` and ``check_weights``."""
    check_codes(records, codes, groups)
    check_weights(records, weights)


def check_codes(records: int, codes: Tensor, groups: int) -> None:
    """Refuse codes that are not a group for each record.

    Args:
        records: Their number, N.
        codes: (N,) int64 group of each record, 0 to ``groups`` - 1.
        groups: Number of groups, G.

    Raises:
        ValueError: The shape or the type does not fit, or a code is no group.
    """
    if codes.shape != (records,) or codes.is_floating_point() or codes.dtype == torch.bool:
        raise ValueError(
            f"codes have the shape {tuple(codes.shape)} and the type {codes.dtype}: expected ({records},), one whole "
            "number a record."
        )
    refuse(((codes < 0) | (codes >= groups), "codes are no group", f"0 to {groups - 1}, a position among the groups"))


def check_weights(records: int, weights: Tensor) -> None:
    """Refuse weights that are not a number from 0 for each record.

    Args:
        records: Their number, N.
        weights: (R, N), finite and not negative.

    Raises:
        ValueError: The shape does not fit, or a weight is negative or not finite.
    """
    if weights.ndim != 2 or weights.shape[1] != records:
        raise ValueError(
            f"weights have the shape {tuple(weights.shape)}: expected (weightings, {records}), one column a record."
        )
    bad = ~((weights >= 0) & (weights < torch.inf))
    refuse((bad, "weights are negative or not finite", "numbers from 0 upwards"))


def refuse(*faults: tuple[Tensor, str, str]) -> None:
    """Raise for the first fault that occurs: where (bool, of any shape), what was found, what was expected.

    Raises:
        ValueError: Something is True.
    """
    for where, found, expected in faults:
        if bool(where.any()):  # on large tables much faster than counting
            raise ValueError(f"{int(where.sum())} of {where.numel()} {found}: expected {expected}.")
