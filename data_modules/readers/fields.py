"""Demographics as tables and headers spell them: what a person can be is read, anything else is missing and noted.

Every function takes the text found and a list that it adds a note to when it takes as missing what the source states.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from ecgfair.ecg import FEMALE, MALE
from ecgfair.errors import RecordError

_OLDEST: Final = 130
_LAST_FOLD: Final = 127  # what the store's int8 can hold
_MISSING: Final = ("", "nan", "none", "null", "n/a", "na", "unknown", "unk", "nat", "<na>")
_POSITIVE: Final = ("1", "1.0", "true")
_NEGATIVE: Final = ("0", "0.0", "false")
_SEXES: Final = {"m": MALE, "male": MALE, "f": FEMALE, "female": FEMALE}


def is_missing(text: str) -> bool:
    """Whether a cell says that nothing is known: it is empty, or a word for that."""
    return text.strip().lower() in _MISSING


def number(text: str) -> float | None:
    """Return the finite number that a text holds, or None if it holds none."""
    if "_" in text:
        return None  # Python alone reads 1_0 as 10
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def age(text: str, notes: list[str], special: Mapping[float, float] | None = None) -> float | None:
    """Return years.

    Args:
        text: As found.
        notes: Gets a note if an age is stated that nobody has.
        special: What a source's own code for an age stands for, such as PTB-XL's 300.
    """
    special = special or {}
    value = number(text)
    if value is not None and value in special:
        return special[value]
    if value is not None and 0 <= value <= _OLDEST:
        return value
    if not is_missing(text):
        codes = "".join(f" or {code:g}" for code in special)
        notes.append(f"age implausible: {text}, expected 0 to {_OLDEST}{codes}; taken as missing.")
    return None


def sex(text: str, notes: list[str], codes: Mapping[str, int] | None = None) -> int | None:
    """Return ``MALE``, ``FEMALE`` or None.

    Args:
        text: As found.
        notes: Gets a note if something is stated that is neither.
        codes: How the source spells the two, in lower case; ``male``, ``m``, ``female`` and ``f`` if None.
    """
    codes = _SEXES if codes is None else codes
    found = codes.get(text.strip().lower())
    if found is None and not is_missing(text):
        expected = ", ".join(f"{code} ({'male' if value == MALE else 'female'})" for code, value in codes.items())
        notes.append(f"sex unknown: {text}, expected {expected}; taken as missing.")
    return found


def positive(text: str, label: str, notes: list[str]) -> bool:
    """Return whether a label's own column says that it applies; an empty cell says that it does not.

    Args:
        text: As found.
        label: The column's name.
        notes: Gets a note if something is stated that is neither yes nor no, such as a probability.
    """
    found = text.strip().lower()
    if found in _POSITIVE:
        return True
    if found not in _NEGATIVE and not is_missing(text):
        notes.append(
            f"label unreadable: {label} is {text}, expected 1, true, 0, false or nothing; not taken as positive."
        )
    return False


def fold(text: str, notes: list[str]) -> int | None:
    """Return a fold from 1, or None."""
    value = number(text)
    if value is not None and value.is_integer() and 1 <= value <= _LAST_FOLD:
        return int(value)
    if not is_missing(text):
        notes.append(f"fold unusable: {text}, expected a whole number from 1 to {_LAST_FOLD}; taken as missing.")
    return None


def date(text: str, notes: list[str]) -> str | None:
    """Return an ISO 8601 date and time, or None."""
    if is_missing(text):
        return None
    try:
        return datetime.fromisoformat(text.strip()).isoformat()
    except ValueError:
        notes.append(f"date unreadable: {text}, expected as in 1984-11-09 09:17:34; taken as missing.")
        return None


def likelihoods(text: str, field: str) -> dict[str, float]:
    """Return codes with their likelihood in percent.

    Args:
        text: A dictionary in JSON or Python.
        field: Where it stands, for the message.

    Raises:
        RecordError: It is none, or a likelihood is not from 0 to 100.
    """
    expected = "expected a dictionary of codes with their likelihood in percent, as in {'NORM': 100.0}"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise RecordError(f"{field} unreadable: found {text[:80]!r}, {expected}.") from error
    if not isinstance(value, dict):
        raise RecordError(f"{field} unreadable: found {text[:80]!r}, {expected}.")
    for code, likelihood in value.items():
        is_number = isinstance(likelihood, int | float) and not isinstance(likelihood, bool)
        if not isinstance(code, str) or not is_number or not 0 <= likelihood <= 100:
            raise RecordError(f"{field} unreadable: found {code!r} with likelihood {likelihood!r}, {expected}.")
    return {code: float(likelihood) for code, likelihood in value.items()}
