"""The catalogue: every condition that a synthetic patient can have, how common it is, and where its signs are.

Severity of a condition is a latent normal variable, standard normal in those without it and shifted by ``separation``
in those with it, so that the AUROC of the best possible score is known in closed form, see ``oracle``. Prevalences are
of the order of those in PTB-XL (Wagner et al., Sci. Data 7:154, 2020), those of the tail included.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast, get_args

from ecgfair.ecg import LEADS

NORMAL: Final = "NORM"
"""Stated where no condition is stated but those of ``COMPATIBLE_WITH_NORMAL``."""
SINUS_RHYTHM: Final = "SR"
"""Stated where no other rhythm is stated."""
COMPATIBLE_WITH_NORMAL: Final = ("STACH", "SBRAD")

Segment = Literal["PR", "QRS", "ST", "T", "beat", "pause", "record"]
"""Where in a beat a sign is: from the onset of P to that of QRS; the QRS complex, with a pacemaker's spike before it;
its end to the onset of T; the T wave. ``beat`` is the whole of those beats that are abnormal (premature ones),
``pause`` from a P wave that is not conducted to the next QRS complex, ``record`` all of the recording."""

Kind = Literal["diagnostic", "form", "rhythm"]


@dataclass(frozen=True)
class Condition:
    """One condition.

    Args:
        code: SCP code as in PTB-XL; ``ALR`` is that of the PhysioNet/CinC Challenge 2021.
        name: As PTB-XL describes the code.
        kind: Whether the statement is a diagnosis, a form or a rhythm, as in ``scp_statements.csv``.
        diagnostic_class: Likewise; empty where it is no diagnosis.
        diagnostic_subclass: Likewise.
        prevalence: Share of the records, before conditions that hide it are taken into account.
        per_decade: Factor on the odds for every ten years of age.
        male: Odds of men over those of women.
        separation: By how much severity is higher with the condition than without, in standard deviations.
        graded: Whether the signs grow with severity; else they are there wholly or not at all.
        chronic: Whether it is the patient's, on all records, or that of one record.
        hidden_by: Codes of conditions, all earlier in the catalogue, beside which this one can't be told and is absent.
        segments: Where in a beat its signs are.
        leads: Leads that show them.
        signs: What a textbook says is to be seen.
    """

    code: str
    name: str
    kind: Kind
    diagnostic_class: str
    diagnostic_subclass: str
    prevalence: float
    per_decade: float
    male: float
    separation: float
    graded: bool
    chronic: bool
    hidden_by: tuple[str, ...]
    segments: tuple[Segment, ...]
    leads: tuple[str, ...]
    signs: str


def _read(row: Mapping[str, str]) -> Condition:
    segments = tuple(row["segments"].split())
    leads = LEADS if row["leads"] == "all" else tuple(row["leads"].split())
    if row["kind"] not in get_args(Kind) or not set(segments) <= set(get_args(Segment)) or not set(leads) <= set(LEADS):
        raise ValueError(f"conditions.csv: {row['code']} has a kind, segment or lead that there is not.")
    return Condition(
        code=row["code"],
        name=row["name"],
        kind=cast("Kind", row["kind"]),
        diagnostic_class=row["class"],
        diagnostic_subclass=row["subclass"],
        prevalence=float(row["prevalence"]),
        per_decade=float(row["per_decade"]),
        male=float(row["male"]),
        separation=float(row["separation"]),
        graded=row["signs_grow"] == "yes",
        chronic=row["chronic"] == "yes",
        hidden_by=tuple(row["hidden_by"].split()),
        segments=cast("tuple[Segment, ...]", segments),
        leads=leads,
        signs=row["signs"],
    )


def _catalogue() -> dict[str, Condition]:
    with Path(__file__).with_name("conditions.csv").open(encoding="utf-8", newline="") as lines:
        return {row["code"]: _read(row) for row in csv.DictReader(lines)}


CONDITIONS: Final[Mapping[str, Condition]] = _catalogue()
"""Code -> condition, in the order in which they are drawn: what hides others comes first."""
