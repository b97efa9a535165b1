"""What a population means for a person: how likely each condition is by age and sex, and what is planted for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.people.person import YOUNGEST, shares_of_ages
from data_modules.synthetic.people.population import Disparity, Population, Sex, in_group
from ecgfair.ecg import FEMALE, MALE
from ecgfair.errors import ConfigurationError

Floats = NDArray[np.float64]
Cell = tuple[int, int, int]

CODES: Final = tuple(CONDITIONS)
"""Codes of the conditions, the last axis of every array here."""
CHRONIC: Final = np.array([one.chronic for one in CONDITIONS.values()])
GRADED: Final = np.array([one.graded for one in CONDITIONS.values()])

SHARES: Final = np.broadcast_to(shares_of_ages() / 2, (2, *shares_of_ages().shape))
"""(2, 78, 7) share of all records in each cell: sex as coded, age at the patient's first record from 18 years, and
years since then from 0."""
_FIRST_AGES: Final = YOUNGEST + np.arange(SHARES.shape[1])[:, None]
_AGES: Final = _FIRST_AGES + np.arange(SHARES.shape[2])
_SEXES: Final = np.array([MALE, FEMALE])[:, None, None]


def cell(sex: int, first_age: int, age: int) -> Cell:
    """Return where a person stands in the arrays.

    Args:
        sex: ``MALE`` or ``FEMALE``.
        first_age: Completed years at the patient's first record.
        age: Completed years at this one.
    """
    return sex, first_age - YOUNGEST, age - first_age


def cells_of(sex: Sex | None, age: tuple[float, float] | None) -> NDArray[np.bool_]:
    """Return which cells a group has, (2, 78, 7), see ``population.in_group``."""
    return in_group(_SEXES, _AGES, sex, age)


@dataclass(frozen=True)
class Circumstances:
    """What holds for people of every sex and age; the last axis is of conditions, in the order of ``CODES``.

    Args:
        prior: (2, 78, 7, C) probability of each condition, before others hide it.
        separation: (2, 78, 7, C) by how much it raises severity.
        missed: (2, 78, 7, C) probability that it is not stated where it is.
        invented: (2, 78, 7, C) probability that it is stated where it is neither there nor hidden.
        noise: (2, 78, 7) factor on all disturbances.
        left_out: (2, 78, 7) share of the patients who are left out of the training folds.
        plain_separation: (C,) separation in the groups for which no weaker signs are planted. Strength of the signs is
            reckoned from it, so that a lower separation does show less.
    """

    prior: Floats = field(repr=False)
    separation: Floats = field(repr=False)
    missed: Floats = field(repr=False)
    invented: Floats = field(repr=False)
    noise: Floats = field(repr=False)
    left_out: Floats = field(repr=False)
    plain_separation: Floats = field(repr=False)


@lru_cache(maxsize=32)
def circumstances(population: Population) -> Circumstances:
    """Work out what holds for whom.

    Raises:
        ConfigurationError: Label errors are asked for that no labels can have.
    """
    plain = np.array([population.separation.get(code, one.separation) for code, one in CONDITIONS.items()])
    kept = {
        kind: np.ones((*SHARES.shape, len(CODES)))
        for kind in ("prevalence", "signs", "label_errors", "training_records")
    }
    noise = np.full(SHARES.shape, float(population.noise))
    for one in population.disparities:
        if one.kind == "noise":
            noise[one.group(_SEXES, _AGES)] *= 1 + one.strength
        else:
            kept[one.kind][_acts_on(one)] *= 1 - one.strength
    prior = _prior(population) * kept["prevalence"]
    missed = 1 - kept["label_errors"]
    # As many are stated in error as are missed, among those in whom the condition could be: so its share stays.
    invented = missed * prior / (1 - prior)
    if invented.max() > 1:
        worst = np.unravel_index(invented.argmax(), invented.shape)
        raise ConfigurationError(
            f"Population.disparities have label errors of {missed[worst]:g} for {CODES[worst[-1]]}, whose prevalence "
            f"is up to {prior[worst]:.2f} in the group: too few records are without it for it to be stated on as many "
            f"others. Expected a strength of at most {(1 - prior[worst]) / prior[worst]:.2f}, or a lower prevalence."
        )
    return Circumstances(
        prior=prior,
        separation=plain * kept["signs"],
        missed=missed,
        invented=invented,
        noise=noise,
        left_out=1 - kept["training_records"][..., 0],
        plain_separation=plain,
    )


def _acts_on(disparity: Disparity) -> NDArray[np.bool_]:
    """Return (2, 78, 7, C), true where a disparity acts."""
    now = disparity.group(_SEXES, _AGES)[..., None]
    if disparity.kind == "prevalence":  # what a patient has on all records can't depend on the age at one of them
        at_first = np.broadcast_to(disparity.group(_SEXES, _FIRST_AGES)[..., None], now.shape)
        now = np.where(CHRONIC, at_first, now)
    named = np.isin(CODES, disparity.labels) if disparity.labels else np.ones(len(CODES), dtype=bool)
    return now & named


def _prior(population: Population) -> Floats:
    """Return (2, 78, 7, C) probabilities whose mean over all records is the prevalence asked for."""
    every = CONDITIONS.values()
    asked = np.array([population.prevalence.get(code, one.prevalence) for code, one in CONDITIONS.items()])
    decades = (np.where(CHRONIC, _FIRST_AGES[..., None], _AGES[..., None]) - 60) / 10
    offset = decades * np.log([one.per_decade for one in every]) + np.where(
        _SEXES[..., None] == MALE, 0.5, -0.5
    ) * np.log([one.male for one in every])
    # The mean grows with the log-odds at 60 years, which lie between these for every share from 1e-40 to 1 - 1e-15.
    low, high = np.full(len(CODES), -100.0), np.full(len(CODES), 100.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = (SHARES[..., None] * expit(middle + offset)).sum(axis=(0, 1, 2)) > asked
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.where(asked > 0, expit(low + offset), 0.0)
