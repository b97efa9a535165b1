"""How much worse a model finds each label elsewhere than at home: two tests of the same weights on other patients.

Intervals are those of ``metrics.chance.intervals`` from resamples of the patients, which are drawn apart for the two.
The drop is home minus elsewhere; its interval is put together from both (``gap_interval``), whose correlation is that
of independent resamples, near 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ecgfair.metrics.blocks import Resampled, means_over
from ecgfair.metrics.chance.intervals import Support, confidence_interval, gap_interval
from ecgfair.metrics.estimates import Estimates
from ecgfair.metrics.fairness import FairnessConfig, estimates_of
from ecgfair.metrics.predictions import Predictions
from ecgfair.metrics.statistics import AUROC
from ecgfair.report.prediction_table import PredictionTable
from experiments.ptbxl.measured import RESAMPLES, SUPPORT, Value
from experiments.ptbxl.tables import cell

SEEDS: Final = (0, 1)
"""Of the resamples at home and elsewhere. With one seed the n-th patient of both would weigh the same."""
NO_RECORD: Final = "no record elsewhere is positive"


@dataclass(frozen=True, eq=False)
class Records:
    """The records elsewhere.

    Args:
        table: Those that can be judged.
        left_out: Reason -> how many other records.
        may_hold: Label -> how many records of the table count as negative although a code of theirs leaves it open.
    """

    table: PredictionTable
    left_out: Mapping[str, int]
    may_hold: Mapping[str, int]


@dataclass(frozen=True)
class Drop:
    """A label, or the mean over labels, in both places.

    Args:
        label: Its name.
        home: AUROC at home.
        elsewhere: AUROC elsewhere.
        drop: Home minus elsewhere.
        positives: Positive records at home and elsewhere.
        may_hold: See ``Records``.
    """

    label: str
    home: Value
    elsewhere: Value
    drop: Value
    positives: tuple[int, int] = (0, 0)
    may_hold: int = 0


@dataclass(frozen=True)
class Drops:
    """What a comparison found.

    Args:
        labels: Those supported in both, the largest drop first.
        macro: Means over these; None if there are none.
        left_out: Reason -> labels that are not compared.
        records: Records at home, and elsewhere.
        records_left_out: Reason -> how many records elsewhere.
    """

    labels: tuple[Drop, ...]
    macro: Drop | None
    left_out: Mapping[str, Sequence[str]]
    records: tuple[int, int]
    records_left_out: Mapping[str, int]


def drops(
    home: PredictionTable,
    elsewhere: Records,
    *,
    labels: Sequence[str] | None = None,
    support: int = SUPPORT,
    resamples: int = RESAMPLES,
) -> Drops:
    """Compare two tests of one model.

    Args:
        home: Predictions at home.
        elsewhere: Predictions elsewhere, of the same labels.
        labels: Compare these alone; all if None.
        support: Positive and negative records that a label needs in both.
        resamples: Of the patients.

    Raises:
        ConfigurationError: ``support`` or ``resamples`` can't work.
    """
    names = list(home.label_names if labels is None else labels)
    tables = [table.take(range(len(table)), names) for table in (home, elsewhere.table)]
    both = [_estimates(table, support, resamples, seed) for table, seed in zip(tables, SEEDS, strict=True)]
    reasons = {name: _reason(*whys) for name, *whys in zip(names, *(_reasons(one) for one in both), strict=True)}
    left_out: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if reason:
            left_out.setdefault(reason, []).append(name)
    shared = torch.tensor([not reasons[name] for name in names], dtype=torch.bool)
    values = zip(*_compared([_labels(one) for one in both]), strict=True)
    counts = zip(*(one.positives[0].tolist() for one in both), strict=True)
    found = [
        Drop(name, here, there, drop, (at_home, away), elsewhere.may_hold.get(name, 0))
        for name, (here, there, drop), (at_home, away) in zip(names, values, counts, strict=True)
        if not reasons[name]
    ]
    macro = None
    if found:
        ((home_mean,), (other_mean,), (drop,)) = _compared([_mean(one, shared) for one in both])
        macro = Drop("macro", home_mean, other_mean, drop)
    return Drops(
        tuple(sorted(found, key=lambda one: -one.drop.value)),
        macro,
        left_out,
        (len(home), len(elsewhere.table)),
        elsewhere.left_out,
    )


def _estimates(table: PredictionTable, support: int, resamples: int, seed: int) -> Estimates:
    model = Predictions(table.probabilities, table.targets, table.label_names, patients=table.patients)
    config = FairnessConfig(min_support_overall=support, statistics=(AUROC,), resamples=resamples, seed=seed)
    return next(iter(estimates_of(model, config)))


def _reasons(estimates: Estimates) -> list[str]:
    """Return why each label is undefined, empty where it is not."""
    positives = estimates.positives[0].tolist()
    return [
        "no positive" if why and not count else why
        for why, count in zip(estimates.cells[AUROC].reasons[0], positives, strict=True)
    ]


def _reason(home: str, elsewhere: str) -> str:
    """Say where a label lacks support; which numbers it has would make a reason of every label."""
    if elsewhere == "no positive":
        return NO_RECORD
    lacking = [place for place, why in (("at home", home), ("elsewhere", elsewhere)) if why]
    return f"too few records {' and '.join(lacking)}" if lacking else ""


def _labels(estimates: Estimates) -> Resampled:
    return Resampled(estimates.cells[AUROC].values[:, 0], Support(estimates.support(AUROC)[0]))


def _mean(estimates: Estimates, among: Tensor) -> Resampled:
    return means_over(estimates.cells[AUROC].values, estimates.support(AUROC)[[0]], among[None])


def _compared(both: Sequence[Resampled]) -> tuple[list[Value], list[Value], list[Value]]:
    """Return the values at home and elsewhere, and home minus elsewhere, all with intervals."""
    home, elsewhere = both
    gap = gap_interval(home.values, elsewhere.values, home.support, elsewhere.support)
    return (
        _values(home.values[0], confidence_interval(home.values, home.support, bounded=True)),
        _values(elsewhere.values[0], confidence_interval(elsewhere.values, elsewhere.support, bounded=True)),
        _values(home.values[0] - elsewhere.values[0], gap),
    )


def _values(point: Tensor, interval: tuple[Tensor, Tensor]) -> list[Value]:
    return [Value(*row) for row in zip(point.tolist(), *(end.tolist() for end in interval), strict=True)]


def markdown(found: Drops, title: str) -> str:
    """Return the comparison as Markdown.

    Args:
        found: What was found.
        title: Of which run and store.
    """
    heads = ("label", "positive at home", "elsewhere", "AUROC at home", "elsewhere", "drop", "may hold elsewhere")
    parts = [f"### {title}", _about(found)]
    if found.macro is None:
        parts.append("No label has enough positive and negative records in both: nothing can be compared.")
        return "\n\n".join([*parts, *_left_out(found)])
    rows = [["**macro**", "", "", *_cells(found.macro), ""]]
    rows += [[one.label, *map(str, one.positives), *_cells(one), str(one.may_hold)] for one in found.labels]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    parts.append("\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]))
    return "\n\n".join([*parts, *_left_out(found)])


def _cells(one: Drop) -> list[str]:
    return [cell(one.home), cell(one.elsewhere), cell(one.drop, signed=True)]


def _about(found: Drops) -> str:
    home, elsewhere = found.records
    return (
        f"{home} records at home, {elsewhere} elsewhere; macro over the {len(found.labels)} labels below. In brackets: "
        "95 % intervals from resamples of the patients, of one trained model; above 0 a drop is a loss. The last "
        "column: records that count as negative although one of their codes leaves the label open."
    )


def _left_out(found: Drops) -> list[str]:
    labels = sum(map(len, found.left_out.values()))
    lines = [f"Left out: {labels} labels, {sum(found.records_left_out.values())} records elsewhere."]
    lines += [
        f"- {len(names)} label{'s' * (len(names) > 1)}, {reason}: {', '.join(names)}"
        for reason, names in found.left_out.items()
    ]
    lines += [f"- {count} records elsewhere {reason}" for reason, count in found.records_left_out.items()]
    return [lines[0], "\n".join(lines[1:])] if len(lines) > 1 else lines
