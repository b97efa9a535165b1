"""Which column of a table of predictions holds what: ours by name, others' by what the command line says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.groups import CROSS, DEMOGRAPHICS
from ecgfair.report.prediction_table import ANOMALY_PERCENTILE, ANOMALY_SCORE, LABEL, PROBABILITY, TARGET

FIELDS: Final = ("record_id", "patient_id", "fold", "age", "sex")
SCORES: Final = (ANOMALY_SCORE, ANOMALY_PERCENTILE)
"""Columns that are read where a table has them, by these names alone."""


@dataclass(frozen=True)
class ColumnNames:
    """Which column of the table holds what.

    A column of the field's own name needs no mapping. ``null`` leaves a field out, even if there is such a column.

    Args:
        record_id: A different one for each row; without it rows are numbered from 1.
        patient_id: The same for all records of a patient; without it, each record is taken as a patient of its own.
        fold: A whole number.
        age: Years.
        sex: 0, male or m; 1, female or f; other spellings by ``sexes``.
        probability: Columns of probabilities, with {label} in place of a label's name, as in prob_{label}.
        target: Columns of the truth, 0 or 1, likewise.

    Raises:
        ConfigurationError: A pattern does not have one {label}, or both are the same.
    """

    record_id: str | None = "record_id"
    patient_id: str | None = "patient_id"
    fold: str | None = "fold"
    age: str | None = "age"
    sex: str | None = "sex"
    probability: str = PROBABILITY
    target: str = TARGET

    def __post_init__(self) -> None:
        """Refuse patterns that find no label."""
        for name in ("probability", "target"):
            if getattr(self, name).count(LABEL) != 1:
                raise ConfigurationError(
                    f"columns.{name} is {getattr(self, name)!r}: expected a name with one {LABEL} in place of the "
                    f"label's, such as 'prob_{LABEL}'."
                )
        if self.probability == self.target:
            raise ConfigurationError(
                f"columns.probability and columns.target are both {self.target!r}: expected two different patterns."
            )


@dataclass(frozen=True)
class FoundColumns:
    """Columns of a table by what they hold.

    Args:
        fields: Column of each of ``FIELDS`` and ``SCORES`` that the table has.
        labels: Label -> its columns of probabilities and targets.
        extra: Columns to group by.
        notes: What was left out, a sentence each.
    """

    fields: dict[str, str]
    labels: dict[str, tuple[str, str]]
    extra: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """Every column needed, each once."""
        of_labels = [column for columns in self.labels.values() for column in columns]
        return list(dict.fromkeys([*self.fields.values(), *self.extra, *of_labels]))


def find_columns(names: ColumnNames, present: Sequence[str], source: str, attributes: Sequence[str]) -> FoundColumns:
    """Find the columns of a table.

    Args:
        names: What they are called.
        present: What is there.
        source: The table, for messages.
        attributes: To group by.

    Raises:
        ConfigurationError: A column is missing or there twice, or no label is found.
    """
    fields = {field: column for field in FIELDS if (column := _field(field, names, present, source)) is not None}
    fields |= {name: name for name in SCORES if name in present}
    labels, notes = _labels(names, present, source)
    of_labels = {column for columns in labels.values() for column in columns}
    groupable = [name for name in present if name and name not in of_labels and name not in fields.values()]
    found = FoundColumns(fields, labels, _extra(attributes, present, groupable, source), notes)
    if double := [column for column in found.all if list(present).count(column) > 1]:
        raise ConfigurationError(f"{source} has two columns {double[0]!r}: expected each name once. Rename one.")
    return found


def _field(field: str, names: ColumnNames, present: Sequence[str], source: str) -> str | None:
    column: str | None = getattr(names, field)
    if column is None or column in present:
        return column
    if column != field:
        raise ConfigurationError(
            f"columns.{field} names {column!r}, no column of {source}.{did_you_mean(column, present)}"
        )
    if alike := [name for name in present if _letters(name) == _letters(field)]:
        raise ConfigurationError(
            f"{source} has no column {field!r} but {alike[0]!r}: set --columns.{field} to {alike[0]!r}, or to null to "
            "leave it out."
        )
    return None


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _labels(
    names: ColumnNames, present: Sequence[str], source: str
) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """Find the labels by that pattern which is more than the name of the label, and their other column by the other."""
    asked = _matches(names.probability, present)
    true = _matches(names.target, present)
    if names.probability == LABEL:
        asked = [label for label in true if label in present]
    elif names.target == LABEL:
        true = [label for label in asked if label in present]
    if not asked and ANOMALY_SCORE in present:
        raise ConfigurationError(
            f"{source} has anomaly scores ({ANOMALY_SCORE}) and no probabilities of labels, as of a model of stage 1: "
            "an audit asks for probabilities. `test` with the callback AnomalyDetection evaluates the scores and "
            "writes anomaly.parquet beside the table; audit the predictions of a model of stage 2."
        )
    if not asked:
        raise ConfigurationError(
            f"{source} has no column {names.probability.replace(LABEL, '<label>')!r}, but {_listed(present)}: "
            f"expected one of probabilities for each label. Say how they are named, as in --columns.probability "
            f"'prob_{LABEL}' --columns.target 'y_{LABEL}'."
        )
    if missing := [label for label in asked if label not in true]:
        raise ConfigurationError(
            f"{source} has probabilities of the label {missing[0]!r} ({names.probability.replace(LABEL, missing[0])}) "
            f"but no column {names.target.replace(LABEL, missing[0])!r}: expected its truth, 0 or 1. Add it, or say "
            "how it is named by --columns.target."
        )
    labels = {label: (names.probability.replace(LABEL, label), names.target.replace(LABEL, label)) for label in asked}
    alone = [label for label in true if label not in labels]
    if not alone:
        return labels, ()
    return labels, (f"{len(alone)} labels have targets and no probabilities and are left out: {_listed(alone)}.",)


def _matches(pattern: str, present: Sequence[str]) -> list[str]:
    before, after = pattern.split(LABEL)
    expression = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    return list(dict.fromkeys(match[1] for name in present if (match := expression.fullmatch(name))))


def _extra(attributes: Sequence[str], present: Sequence[str], groupable: Sequence[str], source: str) -> tuple[str, ...]:
    """Columns that groups are asked for by, besides sex and age."""
    extra = []
    for attribute in attributes:
        for name in [attribute] if attribute in present else attribute.split(CROSS):
            if name not in (*DEMOGRAPHICS, *present):
                advice = did_you_mean(name, [*DEMOGRAPHICS, *groupable])
                raise ConfigurationError(
                    f"Groups are asked for by {attribute}: {name!r} is no column of {source}.{advice}"
                )
            if name not in DEMOGRAPHICS:
                extra.append(name)
    return tuple(dict.fromkeys(extra))


def _listed(names: Sequence[str]) -> str:
    few, more = ", ".join(names[:5]), len(names) - 5
    return f"{few} and {more} more" if more > 0 else few or "none"
