"""What is published of a synthetic record, and how: its statements as PTB-XL has them, its age and its sex."""

from __future__ import annotations

from typing import Final

import pandas as pd

from data_modules.synthetic.people.conditions import CONDITIONS, NORMAL, SINUS_RHYTHM, Condition
from data_modules.synthetic.people.truth import Truth
from ecgfair.ecg import AGE_OVER_89

LABELS: Final = (NORMAL, SINUS_RHYTHM, *CONDITIONS)
"""Every code that can be stated, in the order of the table of statements."""

STATEMENT_COLUMNS: Final = (
    *("", "description", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"),
    *("Statement Category", "SCP-ECG Statement Description", "AHA code", "aECG REFID", "CDISC Code", "DICOM Code"),
)
"""Columns of the official ``scp_statements.csv``; the first, that of the codes, has no name there."""

_OLDEST: Final = 89
"""Years; an older person's age is not published, see ``AGE_OVER_89``."""
_STATED: Final = 100.0
"""Likelihood of a diagnosis in percent. Forms and rhythms have none, as nearly all in PTB-XL."""


def statements() -> pd.DataFrame:
    """Return ``scp_statements.csv`` as text: one row a code of ``LABELS``."""
    rows = [
        _row(NORMAL, "normal ECG", "diagnostic", "NORM", "NORM"),
        _row(SINUS_RHYTHM, "sinus rhythm", "rhythm", "", ""),
        *(_row_of(condition) for condition in CONDITIONS.values()),
    ]
    return pd.DataFrame(rows, columns=list(STATEMENT_COLUMNS), dtype=str)


def likelihoods(truth: Truth) -> dict[str, float]:
    """Return each stated code with its likelihood in percent; 0 where it has none."""
    return {code: _STATED if _is_diagnosis(code) else 0.0 for code in truth.stated}


def age(truth: Truth) -> float | None:
    """Return the age in years as a reader of PTB-XL gives it: ``AGE_OVER_89`` above 89, None if it is missing."""
    if not truth.age_known:
        return None
    return AGE_OVER_89 if truth.age > _OLDEST else truth.age


def sex(truth: Truth) -> int | None:
    """Return ``MALE`` or ``FEMALE``, None if it is missing."""
    return truth.sex if truth.sex_known else None


def _is_diagnosis(code: str) -> bool:
    return code == NORMAL or (code in CONDITIONS and CONDITIONS[code].kind == "diagnostic")


def _row_of(condition: Condition) -> list[str]:
    return _row(
        condition.code,
        condition.name,
        condition.kind,
        condition.diagnostic_class,
        condition.diagnostic_subclass,
    )


def _row(code: str, name: str, kind: str, diagnostic_class: str, diagnostic_subclass: str) -> list[str]:
    flags = ["1.0" if kind == column else "" for column in ("diagnostic", "form", "rhythm")]
    return [code, name, *flags, diagnostic_class, diagnostic_subclass, "", name, "", "", "", ""]
