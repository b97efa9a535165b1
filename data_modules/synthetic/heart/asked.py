"""Rate and intervals that a record is drawn with: those of the person, and what the conditions make of them.

A condition of strength s brings every value by the share s from where it is to where a textbook has it in a plain case
(Surawicz and Knilans, Chou's Electrocardiography in Clinical Practice, 6th ed. 2008).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from data_modules.synthetic.people.constitution import EFFECTS, Constitution
from ecgfair.ecg import FEMALE, MALE

Strength = Mapping[str, float]
"""Code of every condition -> how plainly its signs are drawn, 0 to 1."""


@dataclass(frozen=True)
class Asked:
    """Rate and intervals that a record is drawn with.

    Args:
        heart_rate: Mean, beats per minute, without premature beats; of the atria in second degree AV block.
        pr: Onset of P to onset of QRS, ms; None where no P wave belongs to QRS, or where PR differs from beat to beat.
        qrs: Onset to end of QRS, ms.
        qt: Onset of QRS to end of T, ms.
        qtc: ``qt`` at 60 beats per minute by Fridericia's formula, ms.
        axis: Of QRS in the frontal plane, degrees; None where a condition changes QRS or swaps leads.
    """

    heart_rate: float
    pr: float | None
    qrs: float
    qt: float
    qtc: float
    axis: float | None


_AVERAGE: Final = {
    name: (effect.expected(60, MALE) + effect.expected(60, FEMALE)) / 2 for name, effect in EFFECTS.items()
}
"""Of healthy people of 60; what a person differs by from it also shows in the values of a condition."""
_KEPT: Final = 0.5  # share of that difference, in intervals
_RATES: Final = {
    "STACH": (120.0, 0.4),
    "SBRAD": (47.0, 0.3),
    "AFIB": (86.0, 2.5),
    "AFLT": (76.0, 3.0),
    "PACE": (68.0, 0.3),
}
"""Heart rate of a plain case, and by how much of it people differ as they do without it."""
_PR: Final = {"1AVB": 245.0, "2AVB": 190.0, "WPW": 100.0}
_QRS: Final = {"PACE": 165.0, "CLBBB": 152.0, "CRBBB": 144.0, "WPW": 138.0, "LAFB": 104.0, "LVH": 100.0, "RVH": 98.0}
FLUTTER: Final = (4.3, 5.7)
"""Hz between which atria flutter, 260 to 340 a minute."""
_USUAL_FLUTTER: Final = 5.0
_QTC: Final = {"LNGQT": 535.0}
_QT_FOLLOWS_QRS: Final = 0.7  # of the time by which a slow QRS is longer; a wide QRS delays T (Bogossian 2014)
_AXIS_HIDDEN_BY: Final = ("PACE", "WPW", "CLBBB", "CRBBB", "RVH", "AMI", "IMI", "LMI", "LAFB", "LVH", "ALR")
_DIGITS: Final = 6  # decimals that are kept: the last bits of a power differ between processors
_PLAIN: Final = 0.05  # strength below which a condition leaves the axis of QRS as it was


def ask(constitution: Constitution, strength: Strength) -> Asked:
    """Return the rate and intervals of a record."""
    rate = constitution.heart_rate
    # The plainest acts last: what is hidden by a tachycardia shows a little, and must not end it.
    for code, (target, spread) in sorted(_RATES.items(), key=lambda item: strength[item[0]]):
        rate += strength[code] * (target + spread * (constitution.heart_rate - _AVERAGE["heart_rate"]) - rate)
    pr, qrs, qtc = constitution.pr, constitution.qrs, constitution.qtc
    for code, target in _PR.items():
        pr += strength[code] * (target + _KEPT * (constitution.pr - _AVERAGE["pr"]) - pr)
    for code, target in _QRS.items():
        qrs += strength[code] * max(target + _KEPT * (constitution.qrs - _AVERAGE["qrs"]) - qrs, 0.0)
    for code, target in _QTC.items():
        qtc += strength[code] * (target + _KEPT * (constitution.qtc - _AVERAGE["qtc"]) - qtc)
    if strength["AFLT"] > 0:
        conducted = conducted_flutter(rate)
        rate = min(max(rate, 60 * FLUTTER[0] / conducted), 60 * FLUTTER[1] / conducted)
    qtc += _QT_FOLLOWS_QRS * (qrs - constitution.qrs)
    # The shortest that leaves a T wave, so that an extreme of every factor at once still is a heart beat.
    qt = max(qtc * (60 / rate) ** (1 / 3), qrs + 160)
    has_p = all(strength[code] == 0 for code in ("PACE", "AFIB", "AFLT", "2AVB"))
    is_plain = all(strength[code] < _PLAIN for code in _AXIS_HIDDEN_BY)
    return Asked(
        heart_rate=round(rate, _DIGITS),
        pr=round(pr, _DIGITS) if has_p else None,
        qrs=round(qrs, _DIGITS),
        qt=round(qt, _DIGITS),
        qtc=round(qt / (60 / rate) ** (1 / 3), _DIGITS),
        axis=round(constitution.axis, _DIGITS) if is_plain else None,
    )


def conducted_flutter(heart_rate: float) -> int:
    """Return of how many waves of fluttering atria one is conducted to the ventricles: 2, 3 or 4."""
    return min(max(round(60 * _USUAL_FLUTTER / heart_rate), 2), 4)


def conducted_pr(constitution: Constitution, strength: Strength) -> float:
    """Return the PR interval of a conducted beat in ms, in second degree AV block too."""
    asked = ask(constitution, {**strength, "2AVB": 0.0})
    pr = asked.pr or constitution.pr
    return pr + strength["2AVB"] * (_PR["2AVB"] - pr)
