"""What is asked of a synthetic population: how common and plain conditions are, and which groups are disadvantaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from data_modules.synthetic.people.conditions import CONDITIONS, NORMAL, SINUS_RHYTHM
from data_modules.synthetic.people.person import OLDEST, YOUNGEST
from ecgfair.ecg import FEMALE, MALE
from ecgfair.errors import ConfigurationError, did_you_mean

Sex = Literal["female", "male"]
DisparityKind = Literal["prevalence", "training_records", "noise", "signs", "label_errors"]

_SEXES: Final[Mapping[str, int]] = {"female": FEMALE, "male": MALE}
_OF_RECORDS: Final = ("training_records", "noise")
"""Kinds that act on records, not on labels."""
_MOST_PREVALENCE: Final = 0.999
"""Nearer to 1, a condition is certain at some ages in all digits that there are, and nothing can be reckoned of it."""
_MOST_SEPARATION: Final = 100.0
"""Far beyond, the evidence for one condition has so many digits that none is left for the others."""
_LEAST_SEPARATION: Final = 4.0
"""Of signs that are there or not: of those without the condition, 1 in 44 show them even so. With more, rhythms that
nobody has would end rhythms and premature beats that are there."""
_MOST_NOISE: Final = 1000.0
"""Nothing is left of the heart far below; without a limit voltages overflow."""


def in_group(
    sexes: NDArray[np.int64], ages: NDArray[np.int64], sex: Sex | None, age: tuple[float, float] | None
) -> NDArray[np.bool_]:
    """Tell who is in a group.

    Args:
        sexes: True sexes.
        ages: True ages in years, of a shape that broadcasts with that of ``sexes``.
        sex: Of the group; None for both.
        age: Of the group, from the first, included, to the second, excluded; None for all.
    """
    inside = np.ones(np.broadcast_shapes(sexes.shape, ages.shape), dtype=bool)
    if sex is not None:
        inside &= sexes == _SEXES[sex]
    if age is not None:
        inside &= (age[0] <= ages) & (ages < age[1])
    return inside


@dataclass(frozen=True)
class Disparity:
    """A disadvantage of one group, planted with a known size.

    The group is told by true sex and age, also where these are published as missing; with both given, it is those who
    have both. Where several disparities act on one record, their factors are multiplied.

    Args:
        kind: ``prevalence``: conditions are rarer in the group. ``training_records``: fewer of its patients are in
            folds 1 to 8. ``noise``: all disturbances are larger. ``signs``: conditions show less, so that the best
            possible AUROC is lower. ``label_errors``: conditions are missed, and as many are stated of others of the
            group who do not have them, so that the stated prevalence stays as it is.
        strength: ``prevalence``: it is multiplied by 1 - strength. ``training_records``: share of the group's patients
            that is left out. ``noise``: amplitudes are multiplied by 1 + strength. ``signs``: the separation of
            severity is multiplied by 1 - strength. ``label_errors``: share of the records with the condition of which
            it is not stated. From 0 to 1, but for noise, where 1000 is the most.
        sex: ``female`` or ``male``; both if not given.
        age: From, included, and to, excluded, in years; all ages if not given. At least one of sex and age is needed.
            Chronic conditions are rarer by the age at the patient's first record, since they are on all records. All
            else goes by the age at each record, so that a patient who was left out may come back when too old for it.
        labels: Codes of the conditions on which ``prevalence``, ``signs`` and ``label_errors`` act; all if empty.

    Raises:
        ConfigurationError: A value is impossible.
    """

    kind: DisparityKind
    strength: float
    sex: Sex | None = None
    age: tuple[float, float] | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what can't be planted; lists, as YAML has them, become tuples."""
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.age is not None:
            object.__setattr__(self, "age", tuple(self.age))
        if self.kind not in get_args(DisparityKind):
            raise ConfigurationError(
                f"Disparity.kind is {self.kind!r}: unknown.{did_you_mean(self.kind, get_args(DisparityKind))}"
            )
        most = _MOST_NOISE if self.kind == "noise" else 1
        if not 0 <= self.strength <= most:
            raise ConfigurationError(
                f"Disparity.strength is {self.strength}: expected 0 to {most:g} for the kind {self.kind}."
            )
        self._check_group()
        if self.labels and self.kind in _OF_RECORDS:
            raise ConfigurationError(
                f"Disparity.labels is {list(self.labels)}: expected none for the kind {self.kind}, which acts on whole "
                "records. Leave labels out."
            )
        _check_codes("Disparity.labels", self.labels)

    def _check_group(self) -> None:
        if self.sex is None and self.age is None:
            raise ConfigurationError(
                f"Disparity of the kind {self.kind} has neither sex nor age: expected a group. Give at least one."
            )
        if self.sex is not None and self.sex not in _SEXES:
            raise ConfigurationError(f"Disparity.sex is {self.sex!r}: expected female, male or nothing.")
        if self.age is not None and not (
            len(self.age) == 2
            and all(map(math.isfinite, self.age))  # JSON, in which the population is kept, has no other number
            and any(self.age[0] <= years < self.age[1] for years in range(YOUNGEST, OLDEST + 1))
        ):
            raise ConfigurationError(
                f"Disparity.age is {list(self.age)}: expected two ages, the first lower than the second, with somebody "
                f"between them, such as [60, 120]. Synthetic people are {YOUNGEST} to {OLDEST} whole years old."
            )

    def group(self, sexes: NDArray[np.int64], ages: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell on whom it acts, see ``in_group``."""
        return in_group(sexes, ages, self.sex, self.age)


@dataclass(frozen=True)
class Population:
    """A synthetic population, but for the number of its records and the seed.

    What is changed here changes nothing else: all else is drawn from the same random numbers.

    Args:
        prevalence: Code of a condition in ``conditions.csv`` -> share of the records that have it, before conditions
            that hide it are taken into account, at most 0.999; the others have that of the catalogue. ``NORM`` and
            ``SR`` follow from them.
        separation: Code of a condition -> by how many standard deviations it raises severity, at most 100, and at least
            4 where the signs are there or not; likewise.
        disparities: What is planted.
        missing_age: Share of the patients whose age is not published.
        missing_sex: Share of the patients whose sex is not published.
        noise: Factor on all disturbances, at most 1000.

    Raises:
        ConfigurationError: A value is impossible.
    """

    prevalence: dict[str, float] = field(default_factory=dict)
    separation: dict[str, float] = field(default_factory=dict)
    disparities: tuple[Disparity, ...] = ()
    missing_age: float = 0.01
    missing_sex: float = 0.01
    noise: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what can't be drawn; lists, as YAML has them, become tuples."""
        object.__setattr__(self, "prevalence", dict(self.prevalence))
        object.__setattr__(self, "separation", dict(self.separation))
        object.__setattr__(self, "disparities", tuple(self.disparities))
        _check_codes("Population.prevalence", self.prevalence)
        _check_codes("Population.separation", self.separation)
        for code, share in self.prevalence.items():
            if not 0 <= share <= _MOST_PREVALENCE:
                raise ConfigurationError(
                    f"Population.prevalence of {code} is {share}: expected a share from 0 to {_MOST_PREVALENCE}."
                )
        for name in ("missing_age", "missing_sex"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"Population.{name} is {getattr(self, name)}: expected a share from 0 to 1.")
        for code, value in self.separation.items():
            least = 0.0 if CONDITIONS[code].graded else _LEAST_SEPARATION
            if not least <= value <= _MOST_SEPARATION:
                raise ConfigurationError(
                    f"Population.separation of {code} is {value}: expected {least:g} to {_MOST_SEPARATION:g}."
                )
        if not 0 <= self.noise <= _MOST_NOISE:
            raise ConfigurationError(f"Population.noise is {self.noise}: expected 0 to {_MOST_NOISE:g}.")

    def __hash__(self) -> int:
        """Equal populations have equal hashes, for what is computed once for each; of no use beyond one process."""
        overrides = (frozenset(self.prevalence.items()), frozenset(self.separation.items()))
        return hash((*overrides, self.disparities, self.missing_age, self.missing_sex, self.noise))


def _check_codes(where: str, codes: Iterable[str]) -> None:
    for code in codes:
        if code in (NORMAL, SINUS_RHYTHM):
            raise ConfigurationError(
                f"{where} names {code}, which is stated where no other condition is: expected codes of conditions. "
                "Change those instead."
            )
        if code not in CONDITIONS:
            raise ConfigurationError(f"{where} names {code!r}, no condition.{did_you_mean(code, CONDITIONS)}")


PLAIN: Final = Population()
"""The population without any disparity."""
