"""The best possible score of every label, from what the generator knows, and the AUROC to be expected of it.

Whoever reads a signal can at best tell from it how severe each condition is. The oracle is given just that, beside the
true age and sex, and reckons how probable it is that each label is stated. No score of a record alone can have a higher
AUROC: ranking by this probability is optimal (Neyman and Pearson, Phil. Trans. R. Soc. A 231:289, 1933).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_ndtr, ndtr

from data_modules.synthetic.people.circumstances import CODES, GRADED, SHARES, Cell, Floats, cells_of, circumstances
from data_modules.synthetic.people.conditions import COMPATIBLE_WITH_NORMAL, CONDITIONS, NORMAL, SINUS_RHYTHM
from data_modules.synthetic.people.population import Population, Sex
from ecgfair.errors import ConfigurationError, did_you_mean

Flags = NDArray[np.bool_]

LABELS: Final = (*CODES, NORMAL, SINUS_RHYTHM)
"""What the oracle scores, in this order."""
HIDDEN_BY: Final[Flags] = np.array([[code in one.hidden_by for code in CODES] for one in CONDITIONS.values()])
"""(C, C): the condition of a row can't be told beside that of a column."""
_STATED_WITHOUT: Final[Flags] = np.array(
    [
        [code not in COMPATIBLE_WITH_NORMAL for code in CODES],
        [one.kind == "rhythm" for one in CONDITIONS.values()],
    ]
)
"""(2, C) conditions of which none is stated where ``NORM`` is, and where ``SR`` is."""
_LEAST: Final = 1e-300  # a probability of 0 whose logarithm can be multiplied by 0


class Arrangements:
    """All ways in which those conditions that hide others can lawfully be present together.

    There are few, since most exclude each other. Given one of them, all other conditions are independent, so that sums
    over all that may be true of a record are exact.

    Args:
        hidden_by: (C, C) what hides what; a condition is only hidden by earlier ones.
    """

    def __init__(self, hidden_by: Flags) -> None:
        self._hides = hidden_by.any(axis=0)
        rows = [np.zeros(len(hidden_by), dtype=bool)]
        for one in np.flatnonzero(self._hides):
            also = np.arange(len(hidden_by)) == one
            rows += [row | also for row in rows if not (row & hidden_by[one]).any()]
        present = np.stack(rows)
        possible = ~(present.astype(int) @ hidden_by.T.astype(int)).astype(bool)
        self._present = present.astype(float)  # (K, C), 0 for all conditions that hide nothing
        self._possible = possible.astype(float)  # (K, C), 1 where not hidden
        self._absent = (possible & ~present).astype(float)

    def weights(self, log_present: Floats, log_absent: Floats) -> Floats:
        """Return the logarithm of each arrangement's weight, all values of the other conditions summed over.

        Args:
            log_present: (..., C) logarithm of the weight of a condition that is present.
            log_absent: (..., C) likewise absent, though not hidden.

        Returns:
            (..., K) logarithms.
        """
        either = np.where(self._hides, log_absent, np.logaddexp(log_present, log_absent))
        return np.asarray(log_present @ self._present.T + either @ self._absent.T)

    def marginals(self, weights: Floats, log_odds: Floats) -> tuple[Floats, Floats]:
        """Return the probability that each condition is present, and that it is not hidden.

        Args:
            weights: (..., K) as ``weights`` returns them.
            log_odds: (..., C) ``log_present - log_absent``.

        Returns:
            (..., C) probabilities, twice.
        """
        shares = np.exp(weights - weights.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        possible = np.asarray(shares @ self._possible)
        return np.where(self._hides, shares @ self._present, possible * expit(log_odds)), possible

    def stated(self, log_present: Floats, log_absent: Floats, missed: Floats, invented: Floats) -> Floats:
        """Return the probability that each condition is stated, and that none of a set is.

        Args:
            log_present: (1 + S, C) as ``unstated`` returns them for S sets.
            log_absent: (1 + S, C) likewise.
            missed: (C,) probability that a condition is not stated where it is.
            invented: (C,) probability that it is stated where it is neither there nor hidden.

        Returns:
            (C + S,) probabilities.
        """
        weights = self.weights(log_present, log_absent)
        present, possible = self.marginals(weights[0], log_present[0] - log_absent[0])
        totals = np.exp(weights - weights[0].max()).sum(axis=-1)
        stated = present * (1 - missed) + (possible - present) * invented
        return np.asarray(np.clip(np.concatenate([stated, totals[1:] / totals[0]]), 0, 1))


def unstated(prior: Floats, missed: Floats, invented: Floats, sets: Flags) -> tuple[Floats, Floats]:
    """Return the logarithms of how probable conditions are, and how probable they are without being stated.

    Args:
        prior: (..., C) probability of each condition where it is not hidden.
        missed: (..., C) probability that it is not stated where it is.
        invented: (..., C) probability that it is stated where it is neither there nor hidden.
        sets: (S, C) conditions that must not be stated, those of each set together.

    Returns:
        (..., 1 + S, C) of a condition that is present, and of one that is absent; in row 0 whether stated or not.
    """
    which = np.concatenate([np.zeros((1, sets.shape[1]), dtype=bool), sets])

    def with_sets(probability: Floats, silent: Floats) -> Floats:
        factor = np.where(which, silent[..., None, :], 1.0)
        return np.asarray(np.log(np.maximum(probability, _LEAST))[..., None, :] + np.log(np.maximum(factor, _LEAST)))

    return with_sets(prior, missed), with_sets(1 - prior, 1 - invented)


ARRANGEMENTS: Final = Arrangements(HIDDEN_BY)


class Oracle:
    """The best possible scores in a population.

    Args:
        population: As the records are drawn from.
    """

    def __init__(self, population: Population) -> None:
        known = circumstances(population)
        self._missed, self._invented, self._separation = known.missed, known.invented, known.separation
        self._log_present, self._log_absent = unstated(known.prior, known.missed, known.invented, _STATED_WITHOUT)
        self._cut = known.plain_separation / 2
        # Of signs that are there wholly or not at all, all that can be seen is whether they are there.
        self._if_shown = log_ndtr(known.separation - self._cut) - log_ndtr(-self._cut)
        self._if_not = log_ndtr(self._cut - known.separation) - log_ndtr(self._cut)

    def probabilities(self, at: Cell, severity: Floats) -> Floats:
        """Return how probable it is that each label is stated, given what can be known without being told.

        These are the severities of all conditions (of those whose signs don't grow, only whether they show), the
        person's true age and sex, and what the population was asked to be. Other records of the patient are not known.

        Args:
            at: Where the person stands, see ``circumstances.cell``.
            severity: (C,) as in ``Truth.severity``.

        Returns:
            (C + 2,) in the order of ``LABELS``.
        """
        separation = self._separation[at]
        whole = np.where(severity > self._cut, self._if_shown[at], self._if_not[at])
        evidence = np.where(GRADED, separation * (severity - separation / 2), whole)
        log_present = self._log_present[at] + evidence
        return ARRANGEMENTS.stated(log_present, self._log_absent[at], self._missed[at], self._invented[at])


@lru_cache(maxsize=32)
def oracle(population: Population) -> Oracle:
    """Return the oracle of a population, made once."""
    return Oracle(population)


def best_auroc(
    separation: float,
    graded: bool,
    missed: float = 0.0,
    prevalence: float | None = None,
    plain_separation: float | None = None,
) -> float:
    """Return the AUROC of severity among people of one age and sex, in closed form.

    With severity normal in both classes it is ``Phi(separation / sqrt(2))``; of signs that are there or not it is the
    mean of sensitivity and specificity. Errors of the labels draw it towards 0.5: it is multiplied, above 0.5, by the
    share of the records stating the condition that have it, less that share of those not stating it.

    Args:
        separation: Of severity, in standard deviations.
        graded: Whether the signs grow with severity.
        missed: Share of the records with the condition of which it is not stated; as many others state it.
        prevalence: Of the condition; needed where some are missed.
        plain_separation: Where the signs are weaker than elsewhere, the separation elsewhere; signs that don't grow
            show from half of it on.

    Raises:
        ConfigurationError: Labels are missed and the prevalence is not given.
    """
    if graded:
        area = float(ndtr(separation / np.sqrt(2)))
    else:
        cut = (separation if plain_separation is None else plain_separation) / 2
        area = float((ndtr(separation - cut) + ndtr(cut)) / 2)
    if not missed:
        return area
    if prevalence is None:
        raise ConfigurationError(
            f"missed is {missed} without prevalence: expected the prevalence of the condition too."
        )
    with_it, without = 1 - missed, missed * prevalence / (1 - prevalence)
    return 0.5 + (with_it - without) * (area - 0.5)


def expected_prevalence(
    population: Population, code: str, sex: Sex | None = None, age: tuple[float, float] | None = None
) -> float:
    """Return the share of the records of a group that is expected to state a condition, label errors or not.

    Args:
        population: As the records are drawn from.
        code: Of the condition.
        sex: Of the group; both if None.
        age: From, included, and to, excluded, in years; all if None.

    Returns:
        A share; NaN if there is nobody in the group.
    """
    parts = _parts(population, code, sex, age)
    if parts is None:
        return float("nan")
    stated, not_stated, _ = parts
    return float(stated.sum() / (stated.sum() + not_stated.sum()))


def expected_auroc(
    population: Population, code: str, sex: Sex | None = None, age: tuple[float, float] | None = None
) -> float:
    """Return the AUROC of a condition's severity, as far as it shows, against what is stated, in a group.

    It is exact for the mixture of people in the group: prevalence changes with age and sex, as does what hides the
    condition and what is planted. It is the size that a planted disparity has for a reader of the signs alone. The
    oracle's AUROC is higher, since it also knows age, sex and the other conditions; by much where half of a group show
    no sign at all. Of graded signs it is an upper limit: weak ones drown in what healthy hearts differ by.

    Args:
        population: As the records are drawn from.
        code: Of the condition.
        sex: Of the group; both if None.
        age: From, included, and to, excluded, in years; all if None.

    Returns:
        An AUROC; NaN if there is nobody in the group, or if all or none are expected to have the condition.

    Raises:
        ConfigurationError: The code is not of a condition.
    """
    parts = _parts(population, code, sex, age)
    if parts is None or not (parts[0].sum() > 0 and parts[1].sum() > 0):
        return float("nan")
    # Severity is normal around 0 or the separation of the person's group: a few means in all.
    stated, not_stated, mean = (part.ravel() for part in parts)
    means, which = np.unique(mean, return_inverse=True)
    positive = np.bincount(which, stated) / stated.sum()
    negative = np.bincount(which, not_stated) / not_stated.sum()
    place = CODES.index(code)
    if GRADED[place]:
        area = positive @ ndtr((means[:, None] - means) / np.sqrt(2)) @ negative
    else:
        shown = ndtr(means - circumstances(population).plain_separation[place] / 2)
        area = (1 + (positive - negative) @ shown) / 2
    return min(float(area), 1.0)  # a sum of shares may be a rounding more than 1


def _parts(
    population: Population, code: str, sex: Sex | None, age: Sequence[float] | None
) -> tuple[Floats, Floats, Floats] | None:
    """Return (2, N) share of all records that state a condition, and that do not, and their mean severity.

    The rows are of those who have the condition, and have not; the N cells those of the group. None if it has none.
    """
    if code not in CODES:
        raise ConfigurationError(f"{code!r} is no condition.{did_you_mean(code, CODES)}")
    known, place = circumstances(population), CODES.index(code)
    cells = cells_of(sex, None if age is None else (age[0], age[1]))
    if not cells.any():
        return None
    prior = known.prior[cells]
    log_present, log_absent = np.log(np.maximum(prior, _LEAST)), np.log1p(-prior)
    _, possible = ARRANGEMENTS.marginals(ARRANGEMENTS.weights(log_present, log_absent), log_present - log_absent)
    share, possible = SHARES[cells], possible[:, place]
    missed, invented = known.missed[cells][:, place], known.invented[cells][:, place]
    present, absent = share * possible * prior[:, place], share * possible * (1 - prior[:, place])
    stated = np.stack([present * (1 - missed), absent * invented])
    not_stated = np.stack([present * missed, share - present - absent * invented])
    separation = known.separation[cells][:, place]
    return stated, not_stated, np.stack([separation, np.zeros_like(separation)])
