"""From a record's age and sex to its group.

The groups of an attribute are fixed by configuration, never by the records at hand: every rank and every epoch has the
same groups, some of them possibly empty, and one for what is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from ecgfair.ecg import FEMALE, MALE, UNKNOWN_SEX
from ecgfair.errors import ConfigurationError

UNKNOWN: Final = "unknown"
"""The group of the records whose attribute is missing; the last of every attribute."""

SEX_GROUPS: Final = ("female", "male", UNKNOWN)
DEFAULT_AGE_EDGES: Final = (40, 65, 80)

_SEX_CODES: Final = (FEMALE, MALE, UNKNOWN_SEX)


@dataclass(frozen=True, eq=False)
class Grouping:
    """The groups of one attribute and the group of each record.

    Args:
        attribute: Its name, as in metric keys (``"sex"``).
        names: The groups in their order, ``UNKNOWN`` last.
        codes: (N,) int64, position in ``names``.
    """

    attribute: str
    names: tuple[str, ...]
    codes: Tensor

    def membership(self) -> Tensor:
        """Return (G, N) bool: whether a record belongs to a group, each record to exactly one."""
        return self.codes == torch.arange(len(self.names), device=self.codes.device)[:, None]

    def counts(self) -> dict[str, int]:
        """Return how many records each group has, in the order of ``names``."""
        return dict(zip(self.names, torch.bincount(self.codes, minlength=len(self.names)).tolist(), strict=True))


def group_by_sex(sex: Tensor) -> Grouping:
    """Group records into female, male and unknown.

    Args:
        sex: (N,) integers: ``ecg.FEMALE``, ``ecg.MALE`` or ``ecg.UNKNOWN_SEX``.

    Raises:
        ValueError: There is another code.
    """
    matches = sex == torch.tensor(_SEX_CODES, device=sex.device)[:, None]
    if not bool(matches.any(0).all()):
        strange = sorted(set(sex[~matches.any(0)].tolist()))
        raise ValueError(f"sex holds {strange}: expected {FEMALE} female, {MALE} male or {UNKNOWN_SEX} unknown.")
    return Grouping("sex", SEX_GROUPS, matches.long().argmax(0))


def age_bands(edges: Sequence[int] = DEFAULT_AGE_EDGES) -> tuple[str, ...]:
    """Name the bands between ages, in completed years: edges 40, 65, 80 give <40, 40-64, 65-79, 80+ and unknown.

    Args:
        edges: First year of each band but the youngest; positive, rising.

    Raises:
        ConfigurationError: There is no edge, or they do not rise from above 0.
    """
    if not edges or edges[0] <= 0 or any(low >= high for low, high in pairwise(edges)):
        raise ConfigurationError(f"age_edges is {list(edges)}: expected rising ages in years, such as [40, 65, 80].")
    between = [f"{low}-{high - 1}" if high - 1 > low else f"{low}" for low, high in pairwise(edges)]
    return (f"<{edges[0]}", *between, f"{edges[-1]}+", UNKNOWN)


def group_by_age(age: Tensor, edges: Sequence[int] = DEFAULT_AGE_EDGES) -> Grouping:
    """Group records into bands of age; a band begins at its edge (included) and ends before the next one.

    Args:
        age: (N,) years; NaN where missing.
        edges: See ``age_bands``.

    Raises:
        ConfigurationError: See ``age_bands``.
        ValueError: An age is negative or infinite.
    """
    names = age_bands(edges)
    impossible = (age < 0) | age.isinf()
    if count := int(impossible.sum()):
        raise ValueError(
            f"age is negative or infinite for {count} of {len(age)} records: expected years from 0, NaN where missing."
        )
    years = age.double()
    band = torch.bucketize(years, torch.tensor(edges, dtype=years.dtype, device=years.device), right=True)
    return Grouping("age", names, torch.where(years.isnan(), len(names) - 1, band))
