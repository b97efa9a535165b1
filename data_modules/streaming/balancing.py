"""How often each training record is drawn: shares of labels or of demographic groups evened out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgfair.ecg import ATTRIBUTES, SEX_COLUMN
from ecgfair.errors import ConfigurationError


@dataclass
class Sampling:
    """How training records are drawn.

    ``label`` and ``group`` are class-balanced sampling (Kang et al., "Decoupling representation and classifier for
    long-tailed recognition", ICLR 2020): of classes with n records, one is drawn with a probability proportional to
    n^(1 - balance_power), then a record of it. Power 1 draws every class equally often, 0.5 is their square-root
    sampling, 0 leaves the classes as they are. An epoch has as many records as without: rare ones repeat, and some of
    the frequent ones wait for the next epoch.

    Args:
        balance: ``none`` draws every record once an epoch; ``label`` evens out the labels (a record with several is
            drawn for each of them, those with none are one more class); ``group`` the groups of ``balance_groups``.
        balance_power: From 0 to 1, see above.
        balance_groups: Demographic whose groups are evened out. Records that lack it are drawn as often as they are
            there: a handful of them would otherwise fill a group's share of every epoch.
        age_edges: First year of each age band but the youngest.
        window: Shuffle the store's files, then the records within so many files at a time; for stores on a spinning
            disk or behind a URI. 0 shuffles all records at once.

    Raises:
        ConfigurationError: A value can't work.
    """

    balance: Literal["none", "label", "group"] = "none"
    balance_power: float = 1.0
    balance_groups: Literal["sex", "age", "sex x age"] = "sex x age"
    age_edges: tuple[int, ...] = (40, 65, 80)
    window: int = 0

    def __post_init__(self) -> None:
        """Refuse values that can't work; lists, as YAML has them, become tuples."""
        self.age_edges = tuple(self.age_edges)
        if not 0 <= self.balance_power <= 1:
            raise ConfigurationError(f"sampling.balance_power is {self.balance_power}: expected 0 to 1.")
        if self.window < 0:
            raise ConfigurationError(f"sampling.window is {self.window}: expected 0 or more files.")
        if not self.age_edges or any(low >= high for low, high in pairwise((0, *self.age_edges))):
            raise ConfigurationError(
                f"sampling.age_edges is {list(self.age_edges)}: expected rising ages in years, such as [40, 65, 80]."
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
        return group_weights(self._groups(attributes), self.balance_power)

    def _groups(self, attributes: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the group of each record, -1 where it is unknown."""
        sex, age = attributes[:, SEX_COLUMN], attributes[:, ATTRIBUTES.index("age")]
        known = np.ones(len(attributes), dtype=bool)
        group = np.zeros(len(attributes), dtype=np.int64)
        if "sex" in self.balance_groups:
            known &= ~np.isnan(sex)
            group += np.nan_to_num(sex).astype(np.int64)
        if "age" in self.balance_groups:
            known &= ~np.isnan(age)
            group += 2 * np.digitize(age, self.age_edges)
        return np.where(known, group, -1)


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
