"""Random numbers of each record and purpose, independent of every other record and purpose."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What random numbers are for; a new purpose takes a new number, or every record would change."""

    PERSON = 1
    CONDITIONS_OF_PATIENT = 2
    CONDITIONS_OF_RECORD = 3
    STATEMENTS = 4
    CONSTITUTION = 5
    RHYTHM = 6
    DISTURBANCES = 7
    FOLDS = 8


def stream(seed: int, purpose: Purpose, number: int) -> np.random.Generator:
    """Return the generator of one record, or of one patient.

    Args:
        seed: Of the population, not negative.
        purpose: What the numbers are for.
        number: Of the record or the patient.
    """
    return np.random.default_rng((seed, int(purpose), number))
