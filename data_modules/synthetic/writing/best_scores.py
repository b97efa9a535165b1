"""What the best possible scores of a synthetic population are worth, and what is told of it at the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from data_modules.summary import with_share
from data_modules.synthetic.people.population import Disparity, Population
from data_modules.synthetic.writing.published import LABELS
from data_modules.synthetic.writing.truth_tables import oracle_table

_BANDS: Final = (("head", 0.10), ("medium", 0.01), ("tail", 0.0))
"""Least share of the records of each band of labels, as the fairness report has them if not told otherwise."""
_UNDEFINED: Final = "-"


@dataclass(frozen=True)
class LabelScore:
    """A label among the records of a data set.

    Args:
        label: Its code.
        positives: Records that state it.
        share: Of all records.
        band: ``head``, ``medium`` or ``tail``.
        best_auroc: Of the oracle's score against what is stated; NaN if all records or none state it.
    """

    label: str
    positives: int
    share: float
    band: str
    best_auroc: float


@dataclass(frozen=True)
class DisparityScore:
    """A planted disparity among the records of a data set.

    Args:
        disparity: What was planted.
        records: In its group.
        labels: How many labels the two AUROCs are means of: those that it acts on, all if it names none, as far as
            some records state them and some don't, in the group and outside it.
        inside: Mean over these labels of the best AUROC in the group; NaN if there is no such label.
        outside: Likewise in all other records.
    """

    disparity: Disparity
    records: int
    labels: int
    inside: float
    outside: float


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve, by ranks: ties count half; NaN where one of the classes is empty.

    Args:
        scores: (N,) higher where a positive is likelier.
        positive: (N,) which are positive.
    """
    positives = int(positive.sum())
    negatives = positive.size - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def label_scores(truth: pa.Table) -> list[LabelScore]:
    """Return one entry a label, in the order of ``LABELS``.

    Args:
        truth: By ``truth_tables.TRUTH_SCHEMA``.
    """
    scored = []
    for label, (score, positive) in _scores(truth, LABELS).items():
        share = float(positive.mean())
        band = next(name for name, least in _BANDS if share >= least)
        scored.append(LabelScore(label, int(positive.sum()), share, band, auroc(score, positive)))
    return scored


def disparity_scores(truth: pa.Table, disparities: Sequence[Disparity]) -> list[DisparityScore]:
    """Return one entry a planted disparity.

    Args:
        truth: By ``truth_tables.TRUTH_SCHEMA``.
        disparities: Those of the population.
    """
    told = []
    for disparity in disparities:
        group = disparity.group(truth["sex"].to_numpy(), truth["age"].to_numpy())
        pairs = [
            (auroc(score[group], positive[group]), auroc(score[~group], positive[~group]))
            for score, positive in _scores(truth, disparity.labels or LABELS).values()
        ]
        both = [pair for pair in pairs if not np.isnan(pair).any()]
        inside, outside = np.mean(both, axis=0) if both else (np.nan, np.nan)
        told.append(DisparityScore(disparity, int(group.sum()), len(both), float(inside), float(outside)))
    return told


def print_population(
    place: Path, truth: pa.Table, population: Population, left_out: int, console: Console | None = None
) -> None:
    """Print what was made, to stdout or to the console given.

    Args:
        place: Where it is.
        truth: By ``truth_tables.TRUTH_SCHEMA``.
        population: What it was made from.
        left_out: Records that a planted disparity keeps out.
        console: Where to print.
    """
    console = console or Console()
    patients = len(truth["patient_id"].unique())
    rest = f", {left_out} left out by a planted disparity" if left_out else ""
    console.print(f"{truth.num_rows} records of {patients} patients{rest}.", highlight=False)
    console.print(_label_table(label_scores(truth), truth.num_rows), highlight=False)
    if population.disparities:
        console.print(_disparity_table(disparity_scores(truth, population.disparities)), highlight=False)
    told = "Best AUROC: of the score that knows the generator, against what is stated, over these records."
    if population.disparities:
        told += " Of a planted disparity: the mean of its labels, in its group and elsewhere."
    console.print(told, highlight=False, soft_wrap=True)
    console.print(f"Data set: {place}", highlight=False, markup=False, soft_wrap=True)


def group_text(disparity: Disparity) -> str:
    """Return such as ``female, 65 to <80``."""
    parts: list[str] = [disparity.sex] if disparity.sex else []
    if disparity.age:
        parts.append(f"{disparity.age[0]:g} to <{disparity.age[1]:g}")
    return ", ".join(parts)


def _label_table(scores: Sequence[LabelScore], records: int) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("label")
    table.add_column("records", justify="right")
    table.add_column("band")
    table.add_column("best AUROC", justify="right")
    for one in scores:
        table.add_row(one.label, with_share(one.positives, records), one.band, _number(one.best_auroc))
    return table


def _disparity_table(scores: Sequence[DisparityScore]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("planted", "group"):
        table.add_column(name, no_wrap=True)
    table.add_column("labels")
    for name in ("strength", "records", "AUROC", "elsewhere"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in scores:
        of = ", ".join(one.disparity.labels) or "all"
        table.add_row(
            *(one.disparity.kind.replace("_", " "), group_text(one.disparity), of),
            *(f"{one.disparity.strength:g}", str(one.records), _number(one.inside), _number(one.outside)),
        )
    return table


def _number(value: float) -> str:
    return _UNDEFINED if np.isnan(value) else f"{value:.3f}"


def _scores(truth: pa.Table, labels: Sequence[str]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Return each label's oracle score, and which records state it."""
    oracle = oracle_table(truth)
    return {
        label: (
            oracle[f"probability/{label}"].to_numpy().astype(np.float64),
            oracle[f"target/{label}"].to_numpy() > 0,
        )
        for label in labels
    }
