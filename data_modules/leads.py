"""Leads by name: the standard twelve under the names that devices give them, and the limb leads that follow from two.

Einthoven's and Goldberger's equations make all six limb leads linear in I and II (Malmivuo & Plonsey,
Bioelectromagnetism, 1995, chapter 15), so a recording of the eight independent leads holds all twelve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecgfair.ecg import LEADS
from ecgfair.errors import RecordError

LIMB_LEADS: Final = LEADS[:6]

_IN_I_AND_II: Final = np.array([[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]])
"""(6, 2) the limb leads as combinations of I and II."""

_ALIASES: Final = (
    {lead.upper(): lead for lead in LEADS}
    | {f"C{number}": f"V{number}" for number in range(1, 7)}  # Wilson's chest leads in German and Slavic devices
    | {prefix + str(number): lead for prefix in ("D", "L") for number, lead in enumerate(LEADS[:3], start=1)}
    | {"D" + lead: lead for lead in LEADS[:3]}  # derivación, dérivation
    | {"ML" + lead: lead for lead in LEADS[:3]}  # modified limb leads of ambulatory recorders
    | {f"MV{number}": f"V{number}" for number in range(1, 7)}
)
_PREFIXES: Final = ("LEAD", "ECG", "EKG")


def standard_name(name: str | None) -> str | None:
    """Return the standard lead that a recorded name stands for, or None for any other signal.

    Case, blanks, hyphens inside and words such as "lead" do not matter (``avr``, ``Lead II``, ``ECG_V1``, ``MLII``). A
    leading minus does: ``-aVR`` is another lead.
    """
    plain = (name or "").strip().upper()
    for prefix in _PREFIXES:
        plain = plain.removeprefix(prefix).lstrip(" _:")
    if plain.startswith("-"):
        return None
    return _ALIASES.get("".join(character for character in plain if character not in " _-"))


def standard_rows(names: Sequence[str | None], where: str) -> dict[str, int]:
    """Return the row of each standard lead that is there, in the order of ``LEADS``.

    Args:
        names: Lead names as recorded, a row each.
        where: What they belong to, for the message.

    Raises:
        RecordError: A standard lead is there twice, or there is none at all.
    """
    found: dict[str, int] = {}
    for row, name in enumerate(names):
        lead = standard_name(name)
        if lead is None:
            continue
        if lead in found:
            raise RecordError(
                f"lead there twice: {where} names {lead} in rows {found[lead] + 1} ({names[found[lead]]}) and "
                f"{row + 1} ({name})."
            )
        found[lead] = row
    if not found:
        listed = ", ".join(str(name) for name in names) or "no lead"
        raise RecordError(f"no standard lead: {where} has {listed}; expected some of {', '.join(LEADS)}.")
    return {lead: found[lead] for lead in LEADS if lead in found}


def derivable(leads: Sequence[str]) -> tuple[str, ...]:
    """Return the limb leads that are not among ``leads`` but follow from them, in the order of ``LEADS``."""
    missing = tuple(lead for lead in LIMB_LEADS if lead not in leads)
    return missing if len(LIMB_LEADS) - len(missing) >= 2 else ()


def with_derived(
    signal: NDArray[np.floating], leads: Sequence[str]
) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[str, ...]]:
    """Add the limb leads that follow from those recorded; what was recorded is left as it is.

    Args:
        signal: (leads, time) millivolts; NaN where nothing was recorded, and so in each lead derived from it.
        leads: Standard names of the rows, none twice.

    Returns:
        (leads, time) float32 millivolts with the derived leads last, the names of its rows, and the derived ones.
    """
    derived = derivable(leads)
    recorded = np.asarray(signal, dtype=np.float32)
    if not derived:
        return recorded, tuple(leads), ()
    known = [lead for lead in LIMB_LEADS if lead in leads]
    # Two leads determine the others; with three or more the least squares share out what noise they disagree by.
    to_i_and_ii = np.linalg.pinv(_IN_I_AND_II[[LIMB_LEADS.index(lead) for lead in known]])
    combination = _IN_I_AND_II[[LIMB_LEADS.index(lead) for lead in derived]] @ to_i_and_ii
    added = combination @ recorded[[leads.index(lead) for lead in known]].astype(np.float64)
    return np.concatenate((recorded, added.astype(np.float32))), (*leads, *derived), derived
