"""From what is known of a patient to the group of a record. Metrics, losses and samplers all mean these groups.

The groups of sex and age are fixed by configuration, never by the records at hand: every rank and every epoch has the
same groups, some of them possibly empty, and one for what is unknown. A column of a table has
the groups that occur in it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Final

import torch
from torch import Tensor

from ecgfair.ecg import FEMALE, MALE, UNKNOWN_SEX
from ecgfair.errors import ConfigurationError, did_you_mean

UNKNOWN: Final = "unknown"
"""The group of the records whose attribute is missing; the last of every attribute."""

CROSS: Final = "_x_"
"""Joins the attributes of an intersection, ``sex_x_age``: fit for a metric key, a flag and a file name."""

SEX_GROUPS: Final = ("female", "male", UNKNOWN)
DEFAULT_AGE_EDGES: Final = (40, 65, 80)
DEMOGRAPHICS: Final = ("sex", "age")
"""What every batch knows of its patients; other attributes are columns of a table."""
STRATA_EDGES: Final = (40, 50, 60, 70, 80)
"""First year of the strata of age within which an AUROC adjusted for age compares."""
MOST_GROUPS: Final = 100
"""Of a column; more are no groups but measurements or ids."""

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


def age_strata(age: Tensor) -> Tensor:
    """Return (N,) int64 strata of about ten years, -1 where the age is missing: such a record is like no other.

    Args:
        age: (N,) years; NaN where missing.

    Raises:
        ValueError: See ``group_by_age``.
    """
    bands = group_by_age(age, STRATA_EDGES)
    return torch.where(bands.codes == bands.names.index(UNKNOWN), -1, bands.codes)


def group_by_column(attribute: str, values: Sequence[Hashable]) -> Grouping:
    """Group records by the values of a column, in sorted order.

    Args:
        attribute: Name of the column.
        values: (N,) texts, whole numbers or truth values; ``None``, NaN, NA and empty texts are unknown.

    Raises:
        ConfigurationError: There are more than 100 values: a measurement or an id, and no group.
    """
    # NaN alone differs from itself; NA can't even be asked.
    texts = ["" if value is None or str(value) == "<NA>" or value != value else _text(value) for value in values]
    texts = ["" if text == UNKNOWN else text for text in texts]
    known = sorted(set(texts) - {""}, key=_as_number)
    if len(known) > MOST_GROUPS:
        raise ConfigurationError(
            f"The column {attribute} has {len(known)} values, such as {', '.join(known[:3])}: expected at most "
            f"{MOST_GROUPS} groups. Cut it into bands first, or choose another column."
        )
    position = {text: code for code, text in enumerate([*known, ""])}
    return Grouping(attribute, (*known, UNKNOWN), torch.tensor([position[text] for text in texts], dtype=torch.int64))


def cross(groupings: Sequence[Grouping]) -> Grouping:
    """Intersect groupings, to any depth: ``sex`` and ``age`` give ``sex_x_age`` with ``female, <40`` and so on.

    A record that is unknown in one of them is unknown in the intersection: a subgroup is what is known of it.

    Args:
        groupings: Of the same records.
    """
    known = [[name for name in grouping.names if name != UNKNOWN] for grouping in groupings]
    names = (*(", ".join(names) for names in product(*known)), UNKNOWN)
    codes = torch.zeros_like(groupings[0].codes)
    is_known = torch.ones_like(codes, dtype=torch.bool)
    for grouping, of_it in zip(groupings, known, strict=True):
        codes = codes * len(of_it) + grouping.codes
        is_known &= grouping.codes < len(of_it)  # the unknown ones are last
    return Grouping(
        CROSS.join(grouping.attribute for grouping in groupings), names, torch.where(is_known, codes, len(names) - 1)
    )


def group_by_demographics(
    attribute: str,
    age: Tensor,
    sex: Tensor,
    age_edges: Sequence[int] = DEFAULT_AGE_EDGES,
    columns: Mapping[str, Sequence[Hashable]] | None = None,
) -> Grouping:
    """Group records by ``sex``, ``age``, another column, or an intersection such as ``sex_x_age``.

    Args:
        attribute: Which.
        age: (N,) years; NaN where missing.
        sex: (N,) codes of ``ecg``.
        age_edges: See ``age_bands``.
        columns: Further columns by name, N values each.

    Raises:
        ConfigurationError: There is no such attribute; or see ``age_bands`` and ``group_by_column``.
        ValueError: See ``group_by_sex`` and ``group_by_age``.
    """
    columns = columns or {}
    parts = []
    for name in [attribute] if attribute in columns else attribute.split(CROSS):
        if name == "sex":
            parts.append(group_by_sex(sex))
        elif name == "age":
            parts.append(group_by_age(age, age_edges))
        elif name in columns:
            parts.append(group_by_column(name, columns[name]))
        else:
            known = [*DEMOGRAPHICS, *columns]
            raise ConfigurationError(f"{name!r} is no attribute to group by.{did_you_mean(name, known)}")
    return cross(parts) if len(parts) > 1 else parts[0]


def _text(value: Hashable) -> str:
    """Write a value as people do: a whole number that a column with gaps made a float has no decimals."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _as_number(text: str) -> tuple[bool, float, str]:
    """Sort numbers by size, before texts."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text
