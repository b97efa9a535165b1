"""How often each training record is drawn: shares of labels or of demographic groups evened out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfair.ecg import ATTRIBUTES, SEX_COLUMN, UNKNOWN_SEX
from ecgfair.errors import ConfigurationError
from ecgfair.groups import CROSS, DEFAULT_AGE_EDGES, DEMOGRAPHICS, UNKNOWN, Grouping, age_bands, group_by_demographics


@dataclass
class Sampling:
    """How training records are drawn.

    ``label`` and ``group`` are class-balanced sampling (Kang et al., "Decoupling representation and classifier for
    long-tailed recognition", ICLR 2020): of classes with n records, one is drawn with a probability proportional to
    n^(1 - balance_power), then a record of it. Power 1 draws every class equally often, 0.5 is their square-root
    sampling, 0 leaves the classes as they are. An epoch has as many records as without: rare ones repeat, and some of
    the frequent ones wait for the next epoch. Balancing groups alone is a strong remedy for a worst group (Idrissi et
    al., "Simple data balancing achieves competitive worst-group-accuracy", CLeaR 2022, arXiv 2110.14503).

    Args:
        balance: ``none`` draws every record once an epoch; ``label`` evens out the labels (a record with several is
            drawn for each of them, those with none are one more class); ``group`` the groups of ``balance_groups``.
        balance_power: From 0 to 1, see above.
        balance_groups: Demographic whose groups are evened out: ``sex``, ``age`` or ``sex_x_age``. Records that lack it
            are drawn as often as they are there: a handful of them would otherwise fill a group's share of every epoch.
        age_edges: First year of each age band but the youngest.
        window: Shuffle the store's files, then the records within so many files at a time; for stores on a spinning
            disk or behind a URI. 0 shuffles all records at once.

    Raises:
        ConfigurationError: A value can't work.
    """

    balance: Literal["none", "label", "group"] = "none"
    balance_power: float = 1.0
    balance_groups: str = "sex_x_age"
    age_edges: tuple[int, ...] = DEFAULT_AGE_EDGES
    window: int = 0

    def __post_init__(self) -> None:
        """Refuse values that can't work; lists, as YAML has them, become tuples."""
        self.age_edges = tuple(self.age_edges)
        if not 0 <= self.balance_power <= 1:
            raise ConfigurationError(f"sampling.balance_power is {self.balance_power}: expected 0 to 1.")
        if self.window < 0:
            raise ConfigurationError(f"sampling.window is {self.window}: expected 0 or more files.")
        age_bands(self.age_edges)
        parts = self.balance_groups.split(CROSS)
        if not set(parts) <= set(DEMOGRAPHICS) or len(set(parts)) < len(parts):
            raise ConfigurationError(
                f"sampling.balance_groups is {self.balance_groups!r}: expected sex, age or both, joined as sex_x_age."
            )

    def weights(self, labels: NDArray[np.uint8], attributes: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """Return how often to draw each record, relative to the others; None for each once.

        Args:
            labels: (N, C) 0 or 1.
            attributes: (N, A) as measured, NaN where missing.

        Raises:
            ConfigurationError: Labels are to be balanced, and there are none.
        """
        if self.balance == "none":
            return None
        if self.balance == "label":
            return label_weights(labels, self.balance_power)
        grouping = demographic_groups(attributes, self.balance_groups, self.age_edges)
        codes = grouping.codes.numpy()
        return group_weights(np.where(codes == grouping.names.index(UNKNOWN), -1, codes), self.balance_power)


def demographic_groups(attributes: NDArray[np.float32], attribute: str, age_edges: Sequence[int]) -> Grouping:
    """Return the groups of a demographic, of attributes as measured.

    Args:
        attributes: (N, A), NaN where missing.
        attribute: ``sex``, ``age`` or ``sex_x_age``.
        age_edges: First year of each age band but the youngest.

    Raises:
        ConfigurationError: There is no such attribute.
        ValueError: A sex or an age is impossible.
    """
    sex = np.nan_to_num(attributes[:, SEX_COLUMN], nan=UNKNOWN_SEX).astype(np.int64)
    age = attributes[:, ATTRIBUTES.index("age")]
    return group_by_demographics(attribute, torch.from_numpy(age.copy()), torch.from_numpy(sex), age_edges)


def count_by_group(
    grouping: Grouping,
    column: Callable[[int], NDArray[np.uint8]],
    columns: int,
    weights: NDArray[np.float64] | None,
) -> tuple[Tensor, Tensor]:
    """Count the records and their positives by group.

    Args:
        grouping: Of N records in G groups.
        column: Returns the (N,) 0 or 1 of a label, by its number; all at once would be (N, C) floating-point numbers.
        columns: C, how many labels there are.
        weights: (N,) how often each record counts, relative to the others; None for each once.

    Returns:
        Records (G,) and positives (G, C), float64.
    """
    codes, groups = grouping.codes.numpy(), len(grouping.names)
    drawn = np.ones(len(codes)) if weights is None else weights / weights.mean()
    positives = np.zeros((groups, columns))
    for number in range(columns):
        positives[:, number] = np.bincount(codes, drawn * column(number), minlength=groups)
    return torch.from_numpy(np.bincount(codes, drawn, minlength=groups)), torch.from_numpy(positives)


def label_weights(labels: NDArray[np.uint8], power: float) -> NDArray[np.float64]:
    """Return (N,) the sum over a record's labels of n^-power, with n the number of records that have the label.

    That is the probability of drawing a label, n^(1 - power), times that of drawing this record of it, 1 / n.

    Args:
        labels: (N, C) 0 or 1. Records without a label count as having one more.
        power: See ``Sampling``.

    Raises:
        ConfigurationError: There are no labels.
    """
    if labels.shape[1] == 0:
        raise ConfigurationError(
            "sampling.balance is label, but the data have no labels: expected a label set, or another balance."
        )
    weights = _per_class(np.asarray(~labels.any(axis=1), dtype=np.float64), power)
    for column in range(labels.shape[1]):  # at once it would be (N, C) floating-point numbers
        weights += _per_class(labels[:, column].astype(np.float64), power)
    return weights


def group_weights(groups: NDArray[np.int64], power: float) -> NDArray[np.float64]:
    """Return (N,) n^-power, with n the size of a record's group, scaled to a mean of 1.

    Args:
        groups: (N,) group of each record; -1 for an unknown one, whose records get the weight 1.
        power: See ``Sampling``.
    """
    known = groups >= 0
    weights = np.ones(len(groups))
    if known.any():
        own = np.bincount(groups[known])[groups[known]] ** -power
        weights[known] = own / own.mean()
    return weights


def _per_class(members: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    count = float(members.sum())
    return members * count**-power if count else members
