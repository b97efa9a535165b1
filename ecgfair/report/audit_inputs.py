"""What an audit takes besides the table: thresholds, prevalences, and the predictions of another model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels.operating_points import OperatingPoints, Rule, choose
from ecgfair.report.prediction_table import Metadata, PredictionTable


def json_mapping(path: str, flag: str, expected: str) -> dict[str, Any]:
    """Read a JSON file that holds one mapping.

    Args:
        path: Of the file.
        flag: That named it, for messages.
        expected: What it should hold, in words.

    Raises:
        ConfigurationError: There is no such file, or it holds something else.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{flag} {path} can't be read ({reason}): expected {expected}.") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{flag} {path} holds {type(values).__name__}: expected {expected}.")
    return values


def read_prevalence(path: str, label_names: Sequence[str]) -> dict[str, float]:
    """Read how common each label was in training.

    Args:
        path: JSON, label -> share of the training records that are positive.
        label_names: Labels that it has to know.

    Raises:
        ConfigurationError: It can't be read, lacks a label, or has a share outside [0, 1].
    """
    expected = 'label -> share of the training records that are positive, as in {"AFIB": 0.07}'
    shares = json_mapping(path, "--prevalence", expected)
    for name in label_names:
        share = shares.get(name)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            found = repr(share) if name in shares else "nothing"
            raise ConfigurationError(
                f"--prevalence {path} has {found} for the label {name}: expected a share in [0, 1]."
            )
    return {name: float(shares[name]) for name in label_names}


def read_thresholds(path: str) -> OperatingPoints:
    """Read thresholds.

    Args:
        path: JSON: what ``OperatingPoints.to_dict`` gives, or label -> threshold.

    Raises:
        ConfigurationError: It can't be read as either.
    """
    expected = 'label -> threshold in [0, 1], as in {"AFIB": 0.3}, or operating points as ecgfair writes them'
    values = json_mapping(path, "--thresholds", expected)
    try:
        return _points(values, path)
    except ConfigurationError as error:
        raise ConfigurationError(f"--thresholds {path}: {error} Expected {expected}.") from error


def chosen_thresholds(
    table: PredictionTable, validation: PredictionTable, rule: Rule, level: float | None
) -> OperatingPoints:
    """Choose thresholds on other records than those that are audited.

    Args:
        table: What is audited.
        validation: The same model's predictions of validation records.
        rule: See ``operating_points.choose``.
        level: Likewise.

    Raises:
        ConfigurationError: The two share records or patients, or the validation lacks a label.
    """
    advice = "expected thresholds chosen on other patients. Leave them out, or name folds by --validation_folds."
    if not table.numbered and not validation.numbered and (shared := _shared(table.record_ids, validation.record_ids)):
        raise ConfigurationError(
            f"{len(shared)} records of --validation {validation.source} are among those audited, the first is "
            f"{shared[0]}: {advice}"
        )
    if shared := _shared(table.patient_ids or (), validation.patient_ids or ()):
        raise ConfigurationError(
            f"{len(shared)} patients of --validation {validation.source} are among those audited, the first is "
            f"{shared[0]}: {advice}"
        )
    if missing := [name for name in table.label_names if name not in validation.label_names]:
        raise ConfigurationError(
            f"--validation {validation.source} lacks the label {missing[0]}, which {table.source} has: expected "
            "predictions of the same model."
        )
    same = validation.take(range(len(validation)), table.label_names)
    folds = set() if same.folds is None else set(same.folds.tolist()) - {-1}
    return choose(
        same.probabilities,
        same.targets,
        rule,
        level,
        label_names=same.label_names,
        chosen_on=f"{len(same)} records of {same.source}",
        folds=folds,
        data=same.metadata.data,
    )


def own_thresholds(table: PredictionTable) -> tuple[OperatingPoints | None, str]:
    """Return the thresholds that a table carries, where they were chosen on other records, or say why not.

    Args:
        table: What is audited.

    Returns:
        The thresholds or ``None``, and a sentence about them.
    """
    points = table.metadata.operating_points
    if points is None:
        return None, (
            f"{table.source} carries no thresholds: TPR, FPR, FNR and PPV are undefined. Choose some on validation "
            "records by --validation."
        )
    try:
        points.require_disjoint([] if table.folds is None else set(table.folds.tolist()), table.metadata.data)
    except ConfigurationError as error:
        return None, f"The thresholds in {table.source} are not used, and TPR, FPR, FNR and PPV are undefined: {error}"
    unchecked = ", which have no folds to tell them from those" if table.folds is None else ""
    return points, f"Thresholds: {described(points)}, as {table.source} carries them{unchecked}."


def described(points: OperatingPoints) -> str:
    """Say by which rule and on which records thresholds were chosen."""
    level = "" if points.level is None else f" {points.level:g}"
    return f"{points.rule}{level} on {points.chosen_on}"


def paired(table: PredictionTable, other: PredictionTable) -> tuple[PredictionTable, PredictionTable, list[str]]:
    """Bring two models' tables to the records and labels that both have, in the order of the first.

    The demographics and patients are those of the first, so that the groups are the same.

    Args:
        table: What is audited.
        other: What it is compared with.

    Returns:
        Both, and what was left out of them, a sentence each.

    Raises:
        ConfigurationError: They share no record or no label, or contradict each other about a shared record.
    """
    for numbered in (one for one in (table, other) if one.numbered):
        raise ConfigurationError(
            f"{numbered.source} has no record ids, so its records can't be matched: name the column by "
            "--columns.record_id or --against_columns.record_id."
        )
    position = {name: row for row, name in enumerate(other.record_ids)}
    rows = [row for row, name in enumerate(table.record_ids) if name in position]
    names = [name for name in table.label_names if name in other.label_names]
    _require_shared(table, other, rows, names)
    mine = table.take(rows, names)
    theirs = other.take([position[name] for name in mine.record_ids], names)
    _require_same(mine, theirs)
    notes = [
        f"{len(one) - len(rows)} of {len(one)} records of {one.source} are not in {another.source} and not compared."
        for one, another in ((table, other), (other, table))
        if len(one) > len(rows)
    ]
    for one, another in ((table, other), (other, table)):
        if alone := [name for name in one.label_names if name not in names]:
            notes.append(f"Not compared, since {another.source} lacks them: the labels {', '.join(alone)}.")
    same = replace(theirs, patient_ids=mine.patient_ids, folds=mine.folds, age=mine.age, sex=mine.sex, extra=mine.extra)
    return mine, same, notes


def prevalence_of(metadata: Metadata, label_names: Sequence[str]) -> tuple[list[float] | None, str]:
    """Return the training prevalences that a table carries, or say that it does not.

    Args:
        metadata: Of the table.
        label_names: Of its labels.

    Returns:
        C shares or ``None``, and a sentence, empty if they are known.
    """
    shares: Mapping[str, float] = metadata.label_prevalence or {}
    missing = [name for name in label_names if name not in shares]
    if not missing:
        return [shares[name] for name in label_names], ""
    why = "carries no training prevalences" if not shares else f"carries no training prevalence of {missing[0]}"
    return None, f"The table {why}: head, medium and tail are undefined. Name a file of them by --prevalence."


def _require_shared(table: PredictionTable, other: PredictionTable, rows: list[int], names: list[str]) -> None:
    if not rows:
        raise ConfigurationError(
            f"{other.source} has none of the {len(table)} records of {table.source} ({table.record_ids[0]} there, "
            f"{other.record_ids[0]} here): expected predictions of the same records. Check --against_columns.record_id."
        )
    if not names:
        raise ConfigurationError(
            f"{other.source} has none of the labels of {table.source} ({', '.join(table.label_names[:3])} there, "
            f"{', '.join(other.label_names[:3])} here): expected some in common. Rename its columns."
        )


def _require_same(table: PredictionTable, other: PredictionTable) -> None:
    """Refuse two tables that mean different records by the same id."""
    differing = (table.targets != other.targets).nonzero()
    if len(differing):
        row, column = differing[0].tolist()
        raise ConfigurationError(
            f"{table.source} and {other.source} contradict each other on {len(differing)} targets, the first is "
            f"{table.label_names[column]} of record {table.record_ids[row]}: expected the same truth."
        )
    if table.patients is None or other.patients is None:
        return
    mine, theirs = table.patient_ids or (), other.patient_ids or ()
    both = [(row, one, two) for row, (one, two) in enumerate(zip(mine, theirs, strict=True)) if one and two]
    row = next((row for row, one, two in both if one != two), None)
    if row is not None:
        raise ConfigurationError(
            f"Record {table.record_ids[row]} is of patient {mine[row]} in {table.source} and of {theirs[row]} in "
            f"{other.source}: expected the same records. Check --columns.patient_id and --against_columns.patient_id."
        )


def _points(values: Mapping[str, Any], path: str) -> OperatingPoints:
    if "label_names" in values:
        return OperatingPoints.from_dict(values)
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigurationError(f"The threshold of {name} is {value!r}.")
    # Which rule chose them the file does not say; no number depends on it.
    return OperatingPoints("youden", None, tuple(values), tuple(map(float, values.values())), ("",) * len(values), path)


def _shared(some: Sequence[str], others: Sequence[str]) -> list[str]:
    known = set(others) - {""}
    return [name for name in dict.fromkeys(some) if name in known]
