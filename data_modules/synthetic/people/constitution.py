"""What a healthy ECG of a person is like: heart rate, intervals, axis and voltage by age and sex, each with its source.

The expectation is linear in age, with a slope of each sex. Persons vary around it. Their variation is squeezed evenly
on both sides so that nobody leaves the limits of a normal ECG, and so the expectation stays what the table says.

Directions are those of the literature cited at each row. Sizes are of the order of both the literature and what this
project measures on the records of PTB-XL that are stated NORM alone, see ``experiments/synthetic/demographics.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Final

from ecgfair.ecg import FEMALE, MALE

YOUNGEST: Final = 16.0
OLDEST: Final = 95.0
"""Years between which age acts; beyond them a person is as one of that age. Children's ECGs follow other rules."""

_REFERENCE_AGE: Final = 60.0


@dataclass(frozen=True)
class Constitution:
    """A healthy person's ECG.

    Args:
        heart_rate: Beats per minute.
        pr: Onset of P to onset of QRS, ms.
        qrs: Onset to end of QRS, ms.
        qtc: Onset of QRS to end of T at 60 beats per minute (Fridericia), ms.
        axis: Of QRS in the frontal plane, degrees; 0 to the left arm, 90 to the feet.
        voltage: Factor on all waves; 1 in a man of 60 on average.
    """

    heart_rate: float
    pr: float
    qrs: float
    qtc: float
    axis: float
    voltage: float


@dataclass(frozen=True)
class Effect:
    """How age and sex act on one quantity, in its unit.

    Args:
        man_of_60: Expected in a man of 60.
        women: A woman of 60 over a man of 60.
        men_per_decade: Change with ten years of age in men.
        women_per_decade: Likewise in women.
        spread: Standard deviation of persons of one age and sex, before it is squeezed into the limits.
        men_within: Limits of a normal ECG in men, themselves never reached.
        women_within: Likewise in women.
    """

    man_of_60: float
    women: float
    men_per_decade: float
    women_per_decade: float
    spread: float
    men_within: tuple[float, float]
    women_within: tuple[float, float]

    def expected(self, age: float, sex: int) -> float:
        """Return the expectation at an age in years, for ``MALE`` or ``FEMALE``."""
        decades = (min(max(age, YOUNGEST), OLDEST) - _REFERENCE_AGE) / 10
        if sex == FEMALE:
            return self.man_of_60 + self.women + self.women_per_decade * decades
        return self.man_of_60 + self.men_per_decade * decades

    def of_person(self, age: float, sex: int, deviate: float) -> float:
        """Return the value of a person whose place among those of the same age and sex is ``deviate``.

        The deviation x is squeezed to x / (1 + (x / room)^4)^(1/4), where ``room`` is from the expectation to the
        nearer limit. That is odd, so that the mean stays the expectation; it rises, so that persons keep their order;
        it hardly acts within one standard deviation; and no value piles up at a limit, as it would with clipping.
        """
        expected = self.expected(age, sex)
        low, high = self.women_within if sex == FEMALE else self.men_within
        deviation = self.spread * deviate
        share = deviation / min(expected - low, high - expected)
        share *= share
        # Division and square roots are the same to the last bit on every machine, powers and tanh need not be.
        return expected + deviation / sqrt(sqrt(1 + share * share))


EFFECTS: Final[Mapping[str, Effect]] = {
    # Women's hearts beat faster: Macfarlane et al., J. Electrocardiol. 27 Suppl.:14, 1994 (upper limits); Ahmadi et
    # al., BMC Cardiovasc. Disord. 2023, doi:10.1186/s12872-023-03339-z. On PTB-XL the rate does not change with age.
    # The mean is of those between 60 and 100 alone: slower and faster hearts are conditions of their own.
    "heart_rate": Effect(73.0, 3.0, 0.0, 0.0, 7.0, (61, 97), (61, 97)),
    # Longer with age: Magnani et al., Circ. Arrhythm. Electrophysiol. 6:84, 2013; linearly: Giovanardi et al., J. Clin.
    # Med. 11:3737, 2022. Shorter in women: Simonson et al., Circulation 22:598, 1960.
    "pr": Effect(163.0, -5.0, 3.5, 3.5, 13.0, (122, 196), (122, 196)),
    # Men 94 +- 7, women 89 +- 7 ms: Vicente et al., Am. Heart J. 168:749, 2014. Narrower with age in men and not in
    # women: Levy et al., J. Electrocardiol. 20 Suppl., 1987 (Framingham).
    "qrs": Effect(92.0, -4.0, -0.7, -0.1, 7.0, (70, 112), (70, 112)),
    # Men 394 +- 16, women 408 +- 15 ms; men's grows with age and the difference shrinks: Vicente et al. 2014. It arises
    # as men's falls by 20 ms after puberty: Rautaharju et al., Can. J. Cardiol. 8:690, 1992.
    "qtc": Effect(398.0, 11.0, 4.0, 2.0, 15.0, (350, 448), (360, 458)),
    # To the left with age in both sexes: Levy et al. 1987; Rijnbeek et al., J. Electrocardiol. 47:914, 2014; linearly:
    # Giovanardi et al. 2022. That women's is a little further to the right at 60 is as on PTB-XL.
    "axis": Effect(26.0, 4.0, -6.5, -6.5, 18.0, (-25, 85), (-25, 85)),
    # Falls with age in men and not in women: Levy et al. 1987. So the difference is greatest below 40 and shrinks with
    # age: Macfarlane, Adv. Exp. Med. Biol. 1065:93, 2018. In truth women's is lower in the chest leads and hardly in
    # the limb leads (Simonson et al. 1960); one factor on all leads is a simplification.
    "voltage": Effect(1.0, -0.15, -0.045, -0.005, 0.13, (0.6, 1.5), (0.6, 1.5)),
}
"""Quantity -> effect, in the order of the fields of ``Constitution`` and of the deviates; columns as in ``Effect``.

Limits keep away from those of the conditions in the catalogue (PR 200 ms, QRS 120 ms, 60 and 100 beats a minute, axis
-45 degrees, QTc 500 ms). They are narrower than the 2nd to 98th percentile of people in whom heart disease is unlikely:
heart rate 48-98, PR 113-212, axis -40 to 91; for QRS (69-109) and QTc by Fridericia (359-445) they are about the same
(Mason et al., J. Electrocardiol. 40:228, 2007). Hence spreads are 0.6 to 0.84 of those measured on PTB-XL, of which
errors of measurement are a part."""

_RESPIRATORY_ARRHYTHMIA: Final = ((YOUNGEST, 0.043), (20.0, 0.040), (40.0, 0.025), (60.0, 0.016), (80.0, 0.012))


def constitution(age: float, sex: int, deviates: Sequence[float]) -> Constitution:
    """Return the healthy ECG of a person.

    Args:
        age: Years, see ``YOUNGEST`` and ``OLDEST``.
        sex: ``MALE`` or ``FEMALE``.
        deviates: Six independent standard normal numbers, of ``heart_rate``, ``pr``, ``qrs``, ``qtc``, ``axis`` and
            ``voltage``; zeros give the expectation.

    Raises:
        ValueError: Age or sex is missing, or the deviates are not six.
    """
    if not age >= 0 or sex not in (MALE, FEMALE) or len(deviates) != len(EFFECTS):
        raise ValueError(
            f"age {age}, sex {sex} and {len(deviates)} deviates: expected years, {MALE} or {FEMALE}, {len(EFFECTS)}."
        )
    return Constitution(*[effect.of_person(age, sex, z) for effect, z in zip(EFFECTS.values(), deviates, strict=True)])


def respiratory_arrhythmia(age: float) -> float:
    """Return by what share RR intervals grow and shrink with breathing: the amplitude of a sine over the mean.

    It falls by three fifths from 20 to 60 and little after that: Umetani et al., J. Am. Coll. Cardiol. 31:593, 1998; in
    ECGs of 10 s Tegegne et al., Eur. J. Prev. Cardiol. 27:2191, 2020 (median RMSSD 67 ms at 13 and 14 years, 15 to 16
    ms from 75 on). Medians of men and women hardly differ: van den Berg et al., Front. Physiol. 9:424, 2018.

    Args:
        age: Years, see ``YOUNGEST``.
    """
    for (younger, before), (older, after) in pairwise(_RESPIRATORY_ARRHYTHMIA):
        if age < older:
            return before + (after - before) * (max(age, younger) - younger) / (older - younger)
    return _RESPIRATORY_ARRHYTHMIA[-1][1]
