"""How well anomaly scores tell abnormal records from normal ones: overall, by diagnosis, by group, and within ages.

What is measured of whom is in ``anomaly.evaluation.population``; here is what is accepted, and what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from ecgfair.anomaly.evaluation.decisions import LEVEL, Thresholds, check_score
from ecgfair.anomaly.evaluation.population import STATISTICS, Population
from ecgfair.anomaly.evaluation.report import AnomalyReport
from ecgfair.anomaly.protocols import NORMAL_LABEL
from ecgfair.ecg import UNKNOWN_SEX
from ecgfair.errors import ConfigurationError
from ecgfair.groups import DEFAULT_AGE_EDGES
from ecgfair.metrics.fairness import FairnessConfig
from ecgfair.metrics.kernels.checks import refuse
from ecgfair.metrics.long_tail import LongTail

ATTRIBUTES: Final = ("sex", "age", "sex_x_age")


def evaluate_anomaly(
    score: Tensor,
    abnormal: Tensor,
    *,
    patients: Tensor | None = None,
    age: Tensor | None = None,
    sex: Tensor | None = None,
    labels: Tensor | None = None,
    label_names: Sequence[str] = (),
    prevalence: Sequence[float] | None = None,
    threshold: Thresholds | float | None = None,
    normal_label: str = NORMAL_LABEL,
    long_tail: LongTail | None = None,
    attributes: Sequence[str] = ATTRIBUTES,
    age_edges: Sequence[int] = DEFAULT_AGE_EDGES,
    level: float = LEVEL,
    min_support: int = 5,
    resamples: int = 1000,
    seed: int = 0,
) -> AnomalyReport:
    """Measure anomaly scores on records that are normal or abnormal.

    - **All records**: AUROC, average precision, F1, sensitivity at a specificity, sensitivity and false alarms at a
      threshold carried over; AUROC over pairs of the same age stratum (``groups.age_strata``) alone; and what age
      alone reaches, without any ECG. A score that has learnt age falls towards one half within strata.
    - **Diagnoses**: the abnormal records positive for a label against all normal ones; means over common and rare
      labels as ``metrics.long_tail`` cuts them, and the gap between them.
    - **Groups**: a group's abnormal records against its own normal ones, and rates at the threshold carried over.

    Intervals are those of ``metrics.chance``, over resampled patients. That of ``best_f1`` takes its threshold as
    given: chosen anew in each resample, it would be better in each than on the records.

    Args:
        score: (N,) finite, higher is stranger; only its order counts, and which records reach the thresholds.
        abnormal: (N,) bool, False for normal records. Records that are neither are to be left out before, see
            ``protocols.select``.
        patients: (N,) int64, -1 where unknown; ``None`` if unknown throughout.
        age: (N,) years, NaN where missing; ``None`` if unknown throughout.
        sex: (N,) codes of ``ecg``; ``None`` if unknown throughout.
        labels: (N, C), 0 or 1, the diagnoses; any label set. ``None`` for none.
        label_names: C names; the normal label among them is left out.
        prevalence: C shares of positive training records, which cut the long tail; ``None`` if unknown.
        threshold: Chosen on other records, see ``decisions.choose_thresholds``; a single number serves for F1 and for
            specificity. ``None`` leaves undefined what needs one.
        normal_label: See ``label_names``.
        long_tail: Where head, medium and tail are cut; ``None`` for the usual shares.
        attributes: ``sex``, ``age`` and intersections of them.
        age_edges: First year of each band of age but the youngest.
        level: The specificity at which sensitivity is reported.
        min_support: Abnormal and normal records that a group needs.
        resamples: Of the patients; 0 for no intervals.
        seed: Of the resamples.

    Raises:
        ConfigurationError: A setting is impossible, or names do not fit the labels.
        ValueError: Scores are NaN or infinite, with how many; a column is not one value a record; a label is neither 0
            nor 1.
    """
    if not 0 < level < 1:
        raise ConfigurationError(f"level is {level}: expected a specificity above 0 and below 1, such as 0.9.")
    check_score(score, abnormal)
    config = FairnessConfig(
        min_support,
        long_tail=long_tail or LongTail(),
        statistics=STATISTICS,
        details=True,
        resamples=resamples,
        seed=seed,
    )
    population = Population(
        score.detach().cpu().double(),
        abnormal.detach().cpu(),
        _units(patients, len(score)),
        torch.full((len(score),), torch.nan) if age is None else age.detach().cpu(),
        torch.full((len(score),), UNKNOWN_SEX) if sex is None else sex.detach().cpu(),
        _thresholds(threshold),
        config,
        level,
    )
    population.check()
    diagnoses = _diagnoses(labels, label_names, prevalence, normal_label, len(score))
    rows = [*population.overall_rows(), *population.age_rows()]
    rows += population.diagnosis_rows(*diagnoses)
    rows += population.group_rows(attributes, age_edges)
    return AnomalyReport(
        tuple(rows),
        int((~abnormal).sum()),
        int(abnormal.sum()),
        len(torch.unique(population.units)),
        level,
        "" if population.thresholds is None else population.thresholds.chosen_on,
        tuple(_notes(population, patients)),
    )


def _notes(population: Population, patients: Tensor | None) -> Iterator[str]:
    """Say what the numbers are without."""
    if missing := int(population.age.isnan().sum()):
        yield f"{missing} of {len(population.age)} records have no known age: age-stratified pairs are without them."
    if missing := int((population.sex == UNKNOWN_SEX).sum()):
        yield f"{missing} of {len(population.sex)} records have no known sex: they are a group of their own."
    unknown = len(population.units) if patients is None else int((patients < 0).sum())
    if unknown:
        yield f"{unknown} of {len(population.units)} records have no known patient: each was resampled by itself."
    if population.thresholds is None:
        yield "No thresholds were carried over: F1, tpr and fpr at such are undefined."
    else:
        yield (
            f"Thresholds carried over from {population.thresholds.chosen_on}: {population.thresholds.f1:.6g} for F1, "
            f"{population.thresholds.specificity:.6g} for specificity (tpr, fpr)."
        )


def _units(patients: Tensor | None, records: int) -> Tensor:
    """(N,) int64 from 0, a unit of its own for each record of an unknown patient, whichever records are looked at."""
    own = torch.arange(records)
    if patients is None:
        return own
    if patients.shape != (records,) or patients.is_floating_point() or patients.dtype == torch.bool:
        raise ValueError(
            f"patients is {patients.dtype} of the shape {tuple(patients.shape)}: expected one whole number for each of "
            f"{records} records."
        )
    known = patients.detach().cpu().long()
    beyond = int(known.max()) + 1 if records else 0
    return torch.where(known < 0, max(beyond, 0) + own, known)


def _thresholds(threshold: Thresholds | float | None) -> Thresholds | None:
    if threshold is None or isinstance(threshold, Thresholds):
        return threshold
    return Thresholds(float(threshold), float(threshold), "records that the caller knows")


def _diagnoses(
    labels: Tensor | None,
    label_names: Sequence[str],
    prevalence: Sequence[float] | None,
    normal_label: str,
    records: int,
) -> tuple[Tensor, list[str], list[float] | None]:
    """Return (N, C) bool, names and prevalences of the labels other than the normal one."""
    names = list(label_names)
    shape = (records, len(names)) if labels is None and not names else (() if labels is None else tuple(labels.shape))
    shares = names if prevalence is None else list(prevalence)
    if shape != (records, len(names)) or len(shares) != len(names):
        raise ConfigurationError(
            f"labels have the shape {shape}, with {len(names)} label names and {len(shares)} training prevalences: "
            f"expected ({records}, labels), and one of each for every label."
        )
    if labels is not None:
        refuse(((labels != 0) & (labels != 1), "labels are neither 0 nor 1", "0 or 1; leave uncertain records out"))
    kept = [column for column, name in enumerate(names) if name != normal_label]
    positive = torch.zeros(records, 0, dtype=torch.bool) if labels is None else labels.detach().cpu()[:, kept] == 1
    shown = None if prevalence is None else [float(prevalence[column]) for column in kept]
    return positive, [names[column] for column in kept], shown
