"""The verb ``audit``: how well a model serves each group, from a table of its predictions alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.console import Console
from torch import Tensor

from ecgfair import __version__
from ecgfair.errors import ConfigurationError
from ecgfair.groups import DEFAULT_AGE_EDGES, age_bands, age_strata
from ecgfair.metrics.age_profile import age_profile
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.fairness_report import FairnessReport
from ecgfair.metrics.gap_tests import DEFAULT_PERMUTATIONS, gap_tests
from ecgfair.metrics.kernels.operating_points import YOUDEN, OperatingPoints, Rule, check_rule
from ecgfair.metrics.long_tail import DEFAULT_HEAD, DEFAULT_TAIL, LongTail
from ecgfair.metrics.paired import compare
from ecgfair.metrics.predictions import Predictions
from ecgfair.report.age_figure import save_age_profile
from ecgfair.report.audit_inputs import (
    chosen_thresholds,
    described,
    own_thresholds,
    paired,
    prevalence_of,
    read_prevalence,
    read_thresholds,
)
from ecgfair.report.comparison_table import render_comparison
from ecgfair.report.fairness_table import console, render, render_tests
from ecgfair.report.prediction_columns import ColumnNames
from ecgfair.report.prediction_table import PredictionTable, groupings
from ecgfair.report.read_predictions import read_predictions

FOLDER: Final = "audit"
FRAME: Final = "frame.parquet"
EXCLUDED: Final = "excluded.parquet"
TESTS: Final = "tests.parquet"
COMPARISON: Final = "comparison.parquet"
AGE_PROFILE: Final = "age_profile.parquet"
AGE_FIGURE: Final = "age_profile.png"
SUMMARY: Final = "audit.json"


def audit(
    predictions: str,
    groups: str = "sex,age,sex_x_age",
    against: str | None = None,
    validation: str | None = None,
    validation_folds: list[int] | None = None,
    thresholds: str | None = None,
    rule: Rule = "youden",
    level: float | None = None,
    prevalence: str | None = None,
    head: float = DEFAULT_HEAD,
    tail: float = DEFAULT_TAIL,
    folds: list[int] | None = None,
    columns: ColumnNames = ColumnNames(),  # noqa: B008  # frozen, and jsonargparse shows its fields as defaults
    against_columns: ColumnNames | None = None,
    sexes: dict[str, str] | None = None,
    age_edges: tuple[int, ...] = DEFAULT_AGE_EDGES,
    min_support: int = 5,
    reference: dict[str, str] | None = None,
    resamples: int = 1000,
    permutations: int = DEFAULT_PERMUTATIONS,
    out: str | None = None,
    seed: int = 0,
) -> None:
    """Measure how well a model serves each group of patients, from a table of its predictions: ours or any other.

    Writes frame.parquet (every value with its 95 % interval), excluded.parquet (every label, group and mean that is
    undefined, and why), tests.parquet (whether the largest gaps could be chance), age_profile.parquet and .png (AUROC
    in windows that slide along age), comparison.parquet (with --against) and audit.json (what was audited and how), and
    prints the means.

    Args:
        predictions: The table, .parquet or .csv: one row a record, a column of probabilities and one of the truth for
            each label.
        groups: Attributes to compare groups of, with commas between: sex, age, any other column of the table, and
            intersections such as sex_x_age_x_device.
        against: Table of another model on the same records; differences are this model's value minus the other's.
        validation: Table of the same model on other patients, on which thresholds for TPR, FPR, FNR and PPV are chosen.
        validation_folds: Of that table; all if left out.
        thresholds: JSON file of thresholds in place of these, label -> threshold.
        rule: How thresholds are chosen: youden (the largest sum of sensitivity and specificity), specificity or
            sensitivity (the level of one of the two).
        level: The specificity or sensitivity to keep; none for youden.
        prevalence: JSON file, label -> share of the training records that are positive, which cuts the long tail;
            by default what the table carries.
        head: A label is head from this share upwards.
        tail: A label is tail below this share.
        folds: Of the table to audit; all if left out.
        columns: Which column holds what.
        against_columns: Likewise, of the other model's table; by default the same.
        sexes: How the tables spell male and female, as in '{"1": male, "2": female}'; by default 0 and 1, in English,
            or by the initial.
        age_edges: First year of each age band but the youngest.
        min_support: Positives and negatives that a label needs in a group.
        reference: The group that others are compared with, by attribute, as in --reference.sex male; by default the
            one with the most records.
        resamples: Of the patients, for the intervals; 0 for none.
        permutations: For the tests; 0 for none.
        out: Folder to write; by default the folder audit beside the table.
        seed: Of resamples and permutations.

    Raises:
        ConfigurationError: A file or an argument is not what it should be.
    """
    settings = {name: _plain(value) for name, value in locals().items()}
    attributes = _attributes(groups)
    age_bands(age_edges)
    config = FairnessConfig(
        min_support, 1, LongTail(head, tail), reference or {}, details=True, resamples=resamples, seed=seed
    )
    _check_thresholds(validation, validation_folds, thresholds, rule, level)
    folder = Path(predictions).parent / FOLDER if out is None else Path(out)

    table = read_predictions(predictions, columns, attributes, sexes)
    table = table if folds is None else table.of_folds(folds)
    notes = list(table.notes)
    if thresholds is not None:
        points: OperatingPoints | None = _given(read_thresholds(thresholds), table, notes)
    elif validation is not None:
        chosen_on = read_predictions(validation, columns, (), sexes)
        chosen_on = chosen_on if validation_folds is None else chosen_on.of_folds(validation_folds)
        points = chosen_thresholds(table, chosen_on, rule, level)
        notes.append(f"Thresholds: {described(points)}.")
    else:
        points, note = own_thresholds(table)
        notes.append(note)
    if prevalence is not None:
        known = read_prevalence(prevalence, table.label_names)
        table = replace(table, metadata=replace(table.metadata, label_prevalence=known))
    asked = _Asked(attributes, age_edges, config)
    measured = asked.predictions(table, points, notes)
    pair = None
    if against is not None:
        other = read_predictions(against, against_columns or columns, (), sexes)
        pair = asked.pair(table, points, other, notes)
    _require_folder(folder)

    # Everything was read and can be written; the rest takes time.
    found = _Found(
        evaluate(measured, config),
        gap_tests(measured, config, permutations) if permutations else None,
        None if pair is None else compare(*pair, config),
        None if table.age is None else _along_age(measured, table.age, config),
    )
    about = {"ecgfair": __version__, **_about(table, points), "notes": notes, "settings": settings}
    _write(folder, found, about)
    _show(console(), found, table, against, notes, folder)


@dataclass(frozen=True)
class _Asked:
    """What is asked of every table."""

    attributes: tuple[str, ...]
    age_edges: tuple[int, ...]
    config: FairnessConfig

    def predictions(self, table: PredictionTable, points: OperatingPoints | None, notes: list[str]) -> Predictions:
        """Describe a table for ``evaluate``."""
        prevalence, note = prevalence_of(table.metadata, table.label_names)
        notes += [note] if note else []
        return Predictions(
            table.probabilities,
            table.targets,
            table.label_names,
            groupings(table, self.attributes, self.age_edges),
            patients=table.patients,
            label_prevalence=prevalence,
            operating_points=points,
            strata=None if table.age is None else age_strata(table.age),
        )

    def pair(
        self, table: PredictionTable, points: OperatingPoints | None, other: PredictionTable, notes: list[str]
    ) -> tuple[Predictions, Predictions]:
        """Describe another model and this one for ``compare``, on the records and labels that both have."""
        mine, theirs, left_out = paired(table, other)
        their_points, note = own_thresholds(theirs)
        notes += [*left_out, *([note] if points is not None and their_points is None else [])]
        second = self.predictions(mine, points, [])
        # The prevalences of this model's training records cut the long tail of both.
        return replace(second, probabilities=theirs.probabilities, operating_points=their_points), second


@dataclass(frozen=True)
class _Found:
    """What came out."""

    report: FairnessReport
    tests: pd.DataFrame | None
    comparison: pd.DataFrame | None
    age_profile: pd.DataFrame | None

    def files(self) -> dict[str, pd.DataFrame | None]:
        """Tables by the name of their file; ``None`` where one was not asked for."""
        return {
            FRAME: self.report.frame(),
            EXCLUDED: self.report.excluded(),
            TESTS: self.tests,
            COMPARISON: self.comparison,
            AGE_PROFILE: self.age_profile,
        }


def _along_age(measured: Predictions, age: Tensor, config: FairnessConfig) -> pd.DataFrame:
    return age_profile(measured, age, min_support=config.min_support, resamples=config.resamples, seed=config.seed)


def _attributes(groups: str) -> tuple[str, ...]:
    attributes = tuple(name.strip() for name in groups.split(","))
    if "" in attributes or len(set(attributes)) < len(attributes):
        raise ConfigurationError(
            f"groups is {groups!r}: expected attributes, each once, with commas between, such as sex,age,sex_x_age."
        )
    return attributes


def _check_thresholds(
    validation: str | None, folds: list[int] | None, thresholds: str | None, rule: Rule, level: float | None
) -> None:
    check_rule(rule, level)
    if validation is not None and thresholds is not None:
        raise ConfigurationError("Both --validation and --thresholds are given: expected one source of thresholds.")
    if validation is None and (rule != YOUDEN or folds is not None):
        given = "--validation_folds" if folds is not None else f"--rule {rule}"
        raise ConfigurationError(
            f"{given} is given without --validation: name the table on whose records thresholds are to be chosen."
        )


def _given(points: OperatingPoints, table: PredictionTable, notes: list[str]) -> OperatingPoints:
    """Check thresholds of a file as far as it says where they come from."""
    if not points.folds or table.folds is None:
        notes.append(f"Thresholds: those of {points.chosen_on}; nothing shows that other patients chose them.")
    else:
        points.require_disjoint(set(table.folds.tolist()), table.metadata.data)
        notes.append(f"Thresholds: {described(points)}.")
    return points.for_labels(table.label_names)


def _require_folder(folder: Path) -> None:
    """Fail before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"out is {folder}, which can't be made ({error.strerror}): expected a folder to write."
        ) from error


def _write(folder: Path, found: _Found, about: dict[str, Any]) -> None:
    for name, frame in found.files().items():
        if frame is None:
            # That of an earlier audit would be taken for one of these.
            (folder / name).unlink(missing_ok=True)
            continue
        partial = folder / f"{name}.partial"
        frame.to_parquet(partial, index=False)
        partial.replace(folder / name)
    if found.age_profile is None:
        (folder / AGE_FIGURE).unlink(missing_ok=True)
    else:
        save_age_profile(found.age_profile, folder / AGE_FIGURE)
    partial = folder / f"{SUMMARY}.partial"
    partial.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / SUMMARY)


def _about(table: PredictionTable, points: OperatingPoints | None) -> dict[str, Any]:
    return {
        "predictions": table.source,
        "model_fingerprint": table.metadata.model_fingerprint,
        "records": len(table),
        "patients": _patients(table),
        "labels": list(table.label_names),
        "operating_points": None if points is None else points.to_dict(),
    }


def _patients(table: PredictionTable) -> int | None:
    """How many patients there are, unknown ones each by itself; ``None`` without ids."""
    return None if table.patient_ids is None else len(set(table.patient_ids) - {""}) + table.patient_ids.count("")


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, ColumnNames) else value


def _show(
    out: Console, found: _Found, table: PredictionTable, against: str | None, notes: Sequence[str], folder: Path
) -> None:
    patients = _patients(table)
    of_patients = "" if patients is None else f" of {patients:,} patients"
    lines = [f"Audited: {table.source}, {len(table):,} records{of_patients}, {len(table.label_names)} labels"]
    lines += [] if against is None else [f"Against: {against}"]
    _say(out, lines)
    out.print(render(found.report, "Mean AUROC over labels"))
    if found.tests is not None:
        out.print(render_tests(found.tests))
    if found.comparison is not None:
        out.print(render_comparison(found.comparison, "This model minus the other, on the same records"))
    excluded = len(found.report.excluded())
    if excluded:
        notes = [*notes, f"{excluded:,} values are undefined; {EXCLUDED} has each with its reason."]
    _say(out, [*(f"- {note}" for note in notes), f"Audit: {folder}"])


def _say(out: Console, lines: Sequence[str]) -> None:
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
