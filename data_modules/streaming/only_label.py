"""Which records have one label and no other, such as those of healthy people, to train on these alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecgfair.errors import ConfigurationError, did_you_mean


def find_label(name: str, label_names: Sequence[str]) -> int:
    """Return the column of the label that ``train_only`` names.

    Raises:
        ConfigurationError: There are no labels, or none of this name.
    """
    if not label_names:
        raise ConfigurationError(
            f"data.train_only is {name!r}, but the data have no labels: choose a label set with data.labels, or leave "
            "train_only out to train on every record."
        )
    if name not in label_names:
        raise ConfigurationError(f"data.train_only is {name!r}: no such label.{did_you_mean(name, label_names)}")
    return list(label_names).index(name)


def only_label(labels: NDArray[np.uint8], column: int) -> NDArray[np.bool_]:
    """Return (N,) whether the label of a column is positive and every other one is not.

    Args:
        labels: (N, C) 0 or 1.
        column: Of the label.
    """
    alone: NDArray[np.bool_] = (labels[:, column] != 0) & (np.count_nonzero(labels, axis=1) == 1)
    return alone


def fingerprint(chosen: Sequence[NDArray[np.bool_]]) -> str:
    """Return how many records are chosen and a digest of which, of a mask a store.

    The name of the label would not do: another label set, or another least likelihood, gives it to other records.
    """
    masks = np.concatenate(chosen)
    return f"{int(masks.sum())} records {hashlib.sha256(np.packbits(masks).tobytes()).hexdigest()[:16]}"
