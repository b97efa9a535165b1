"""Nine electrodes, the twelve leads that are measured between them, and whole microvolts that keep the leads' laws.

What disturbs an ECG happens at an electrode, and reaches each lead in which that electrode has a part. So potentials
are disturbed, and leads are made of them last: Einthoven's law (III = II - I) and Goldberger's equations (aVR, aVL,
aVF) then hold of any disturbance (Malmivuo & Plonsey, Bioelectromagnetism, 1995, chapter 15).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ELECTRODES: Final = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
"""Rows of potentials: right arm, left arm, left leg, chest. The right leg is the recorder's ground."""

LIMB_LIMIT: Final = 16_382
"""Microvolts at which I and II are cut off. III may be twice as much, and fits into int16 as well."""
CHEST_LIMIT: Final = 32_767
"""Microvolts at which chest leads are cut off; int16 has one more below zero, which means a missing sample."""


def to_potentials(independent: Floats) -> Floats:
    """Return what each electrode measures, zero being the mean of the three limb electrodes (Wilson).

    Args:
        independent: (8, time) millivolts of I, II and V1 to V6.

    Returns:
        (9, time) millivolts in the order of ``ELECTRODES``.
    """
    first, second = independent[:2]
    potentials = np.empty((len(ELECTRODES), *independent.shape[1:]))
    potentials[0] = (first + second) / -3
    potentials[1] = (2 * first - second) / 3
    potentials[2] = (2 * second - first) / 3
    potentials[3:] = independent[2:]
    return potentials


def to_leads(potentials: Floats) -> Floats:
    """Return the twelve leads.

    Args:
        potentials: (9, time) millivolts in the order of ``ELECTRODES``, against any common zero.

    Returns:
        (12, time) millivolts in the order of ``ecgfair.ecg.LEADS``.
    """
    right, left, foot = potentials[:3]
    leads = np.empty((12, *potentials.shape[1:]))
    leads[0], leads[1], leads[2] = left - right, foot - right, foot - left
    leads[3] = right - (left + foot) / 2
    leads[4] = left - (right + foot) / 2
    leads[5] = foot - (right + left) / 2
    leads[6:] = potentials[3:] - (right + left + foot) / 3
    return leads


def swap_arms(potentials: Floats) -> Floats:
    """Return potentials (9, time) as they are with the two arm electrodes exchanged; the chest leads stay the same."""
    return potentials[[1, 0, *range(2, len(ELECTRODES))]]


def quantise(potentials: Floats) -> NDArray[np.int16]:
    """Return the twelve leads as a recorder writes them, Einthoven's and Goldberger's laws holding exactly.

    I and II are rounded to even microvolts, so that the four limb leads that follow from them are whole microvolts.
    Beyond ``LIMB_LIMIT`` and ``CHEST_LIMIT`` a lead stays at the limit, as that of an overdriven amplifier does.

    Args:
        potentials: (9, time) finite millivolts in the order of ``ELECTRODES``.

    Returns:
        (12, time) int16 microvolts in the order of ``ecgfair.ecg.LEADS``; -32768, a missing sample, is not among them.
    """
    right, left, foot = potentials[:3]
    halves = np.rint(np.stack((left - right, foot - right)) * 500)
    first, second = 2 * np.clip(halves, -LIMB_LIMIT // 2, LIMB_LIMIT // 2)
    leads = np.empty((12, *potentials.shape[1:]))
    leads[0], leads[1], leads[2] = first, second, second - first
    leads[3] = (first + second) / -2
    leads[4] = first - second / 2
    leads[5] = second - first / 2
    leads[6:] = np.clip(np.rint((potentials[3:] - (right + left + foot) / 3) * 1000), -CHEST_LIMIT, CHEST_LIMIT)
    return leads.astype(np.int16)
