"""What the predictions of a row say: means over its seeds, their intervals, and how far it is ahead of another row.

Every value comes from ``ecgfair.metrics``. Models of several seeds are measured under the same 1,000 resamples of the
patients and averaged within each, so an interval is that of the mean over these seeds and knows nothing of others.
Bands of the long tail are cut by the prevalence in folds 1 to 8 of the whole store for every row, also for those that
are trained on fewer records: the labels of a band are the same in all rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nan

from data_modules.stores.store import RecordStore
from ecgfair.errors import ConfigurationError
from ecgfair.metrics.estimates import Estimates
from ecgfair.metrics.fairness import FairnessConfig, blocks_of
from ecgfair.metrics.fairness_report import COMMON_RARE_GAP, GAP, MACRO, OVERALL, SPREAD, VALUE, WORST, Row
from ecgfair.metrics.long_tail import BANDS
from ecgfair.metrics.paired import GAP_REDUCTION, compare_estimates
from ecgfair.metrics.predictions import Predictions
from ecgfair.metrics.seeds import mean_over_seeds
from ecgfair.metrics.statistics import AUROC
from ecgfair.report.prediction_table import PredictionTable, groupings

RESAMPLES: Final = 1000
SUPPORTED: Final = "supported"
"""The macro AUROC over labels with ``SUPPORT`` positives and negatives; ``macro`` takes those with one of each."""
SUPPORT: Final = 5
GAP_OF_SEX: Final = "women - men"
SPREAD_OF_AGE: Final = "age gap"
WORST_AGE: Final = "worst age band"
COMPARED: Final = (MACRO, SUPPORTED, *BANDS, COMMON_RARE_GAP, GAP_OF_SEX)
"""Values of which paired differences are made; extremes over groups have no interval, hence none."""


class Value(NamedTuple):
    """A value with its 95 % interval.

    Args:
        value: NaN where undefined.
        low: NaN where there is no interval.
        high: Likewise.
        labels: Over how many labels it is a mean.
        note: The group it is of, or why it is undefined.
    """

    value: float = nan
    low: float = nan
    high: float = nan
    labels: int = 0
    note: str = ""


@dataclass(frozen=True, eq=False)
class Measured:
    """A row, measured.

    Args:
        table: Its first table of predictions; all others have its records in its order.
        models: A model a seed, or one of all folds.
        config: What it was measured with.
        estimates: All records, then the groups by sex and by age; means over the seeds.
        supported: All records, over the labels with ``SUPPORT``.
    """

    table: PredictionTable
    models: tuple[Predictions, ...]
    config: FairnessConfig
    estimates: tuple[Estimates, ...]
    supported: tuple[Estimates, ...]

    @property
    def summary(self) -> dict[str, Value]:
        """Every value by name: overall, by band, and by group (``female``, ``80+``)."""
        rows = [
            row
            for one in self.estimates
            for block in blocks_of(one, self.models[0], self.config)
            for row in block.finished()
        ]
        found = {name: _value(row) for row in rows if (name := _name(row._asdict()))}
        for one in self.supported:
            for block in blocks_of(one, self.models[0], self._supported_config):
                found |= _supported(row._asdict() for row in block.finished())
        return found

    def ahead_of(self, other: Measured) -> dict[str, Value]:
        """Return what this row has more than another, paired by patients, and the gap reduction against it.

        Raises:
            ConfigurationError: The rows are not of the same records and labels.
        """
        if other.table.record_ids != self.table.record_ids or other.table.label_names != self.table.label_names:
            raise ConfigurationError(
                f"{self.table.source} and {other.table.source} differ in records or labels: expected the same, in the "
                "same order. Test both on the same store and folds."
            )
        of_all = compare_estimates(other.estimates, self.estimates, other.models[0], self.models[0], self.config)
        of_supported = compare_estimates(
            other.supported, self.supported, other.models[0], self.models[0], self._supported_config
        )
        found = {name: _value(line) for line in of_all.to_dict("records") if (name := _name(line))}
        return found | _supported(of_supported.to_dict("records"))

    @property
    def _supported_config(self) -> FairnessConfig:
        return _with_support(self.config)


def training_prevalence(store: str, labels: str = "all") -> dict[str, float]:
    """Return the share of positive records in folds 1 to 8 of a store, by label."""
    opened = RecordStore(store)
    names, values = opened.labels(labels, 0.0)
    trained = opened.columns(["fold"])["fold"].to_numpy() <= 8
    return dict(zip(names, values[trained].mean(axis=0).tolist(), strict=True))


def measure(
    tables: Sequence[PredictionTable],
    prevalence: Mapping[str, float],
    *,
    within_folds: bool = False,
    resamples: int = RESAMPLES,
) -> Measured:
    """Measure a row.

    Args:
        tables: Predictions of its seeds; or of out-of-fold predictions one table, see ``pooled``.
        prevalence: By label, which cuts the long tail.
        within_folds: AUROC is that over pairs of records of the same fold: networks of different folds do not share a
            scale of probabilities.
        resamples: Of the patients.

    Raises:
        ConfigurationError: The tables are not of the same records and labels, or a label has no prevalence.
    """
    same = [aligned(table, tables[0]) for table in tables]
    if unknown := [name for name in same[0].label_names if name not in prevalence]:
        raise ConfigurationError(
            f"{same[0].source} has the label {unknown[0]!r} ({len(unknown)} such labels), which the store has not: "
            "expected a model of its label set."
        )
    models = tuple(_predictions(table, prevalence) for table in same)
    config = FairnessConfig(
        SUPPORT, reference={"sex": "male", "age": "40-64"}, statistics=(AUROC,), resamples=resamples
    )
    whole = [replace(model, groupings=()) for model in models]
    return Measured(
        same[0],
        models,
        config,
        tuple(mean_over_seeds(models, config, within_strata=within_folds)),
        tuple(mean_over_seeds(whole, _with_support(config), within_strata=within_folds)),
    )


def aligned(table: PredictionTable, like: PredictionTable) -> PredictionTable:
    """Return a table with the records and labels of another in its order.

    Raises:
        ConfigurationError: It has others.
    """
    for what, own, others in (
        ("records", table.record_ids, like.record_ids),
        ("labels", table.label_names, like.label_names),
    ):
        if differing := sorted(set(own) ^ set(others)):
            raise ConfigurationError(
                f"{table.source} and {like.source} differ in {len(differing)} {what}, the first is {differing[0]!r}: "
                "expected the same. Test both on the same store, folds and label set."
            )
    places = {name: place for place, name in enumerate(table.record_ids)}
    return table.take([places[name] for name in like.record_ids], like.label_names)


def pooled(tables: Sequence[PredictionTable]) -> PredictionTable:
    """Put the tables of networks with different test folds together, a record once, for ``measure`` within folds.

    Raises:
        ConfigurationError: Tables differ in their labels, a record is in two, or a table knows no folds.
    """
    first = tables[0]
    for table in tables:
        if table.label_names != first.label_names or table.folds is None or table.patient_ids is None:
            raise ConfigurationError(
                f"{table.source} can't be pooled with {first.source}: expected the same labels in the same order, "
                "folds and patients."
            )
    ids = tuple(name for table in tables for name in table.record_ids)
    if len(set(ids)) < len(ids):
        raise ConfigurationError(
            f"{len(ids) - len(set(ids))} records were tested by two networks of {first.source} and its like: expected "
            "each record in the test fold of one."
        )

    def joined(name: str) -> Any:
        return torch.cat([getattr(table, name) for table in tables])

    return replace(
        first,
        record_ids=ids,
        patient_ids=tuple(name for table in tables for name in table.patient_ids or ()),
        extra={},
        probabilities=joined("probabilities"),
        targets=joined("targets"),
        folds=joined("folds"),
        age=joined("age"),
        sex=joined("sex"),
        anomaly_score=None,
        anomaly_percentile=None,
    )


def _predictions(table: PredictionTable, prevalence: Mapping[str, float]) -> Predictions:
    return Predictions(
        table.probabilities,
        table.targets,
        table.label_names,
        groupings(table, ["sex", "age"]),
        patients=table.patients,
        label_prevalence=[prevalence[name] for name in table.label_names],
        strata=table.folds,
    )


def _with_support(config: FairnessConfig) -> FairnessConfig:
    return replace(config, min_support_overall=SUPPORT, reference={})


def _supported(rows: Iterable[Mapping[Any, Any]]) -> dict[str, Value]:
    """Return the macro AUROC of a report over the supported labels, under the name it has here."""
    return next(({SUPPORTED: _value(row)} for row in rows if _name(row) == MACRO), {})


def _name(row: Mapping[Any, Any]) -> str:
    """Under which name a row of a report is kept; empty for those that are not."""
    attribute, aggregate, label = row["attribute"], row["aggregate"], row["label"]
    if attribute == OVERALL and aggregate in (COMMON_RARE_GAP, GAP_REDUCTION):
        return str(aggregate)
    if attribute == OVERALL and aggregate == VALUE and label in (MACRO, *BANDS):
        return str(label)
    if attribute == OVERALL or label != MACRO:
        return ""
    named = {("sex", GAP, "female"): GAP_OF_SEX}
    extremes = {("age", SPREAD): SPREAD_OF_AGE, ("age", WORST): WORST_AGE}
    if aggregate == VALUE:
        return str(row["group"])
    return named.get((attribute, aggregate, row["group"]), extremes.get((attribute, aggregate), ""))


def _value(row: Row | Mapping[Any, Any]) -> Value:
    fields = row._asdict() if isinstance(row, Row) else row
    value = float(fields["value"])
    group = fields["group"] if fields["aggregate"] in (SPREAD, WORST) else ""
    note = str(fields["reason"]) if np.isnan(value) or pd.isna(value) else str(group)
    return Value(value, float(fields["low"]), float(fields["high"]), int(fields["labels"]), note)
