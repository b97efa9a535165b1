"""One training with several seeds: the mean of what the models of the seeds find on the same records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.estimates import Cells, Estimates
from ecgfair.metrics.fairness import FairnessConfig, estimates_of
from ecgfair.metrics.predictions import Predictions
from ecgfair.metrics.statistics import AUROC, STRATIFIED_AUROC


def mean_over_seeds(
    models: Sequence[Predictions], config: FairnessConfig, *, within_strata: bool = False
) -> Iterator[Estimates]:
    """Measure several models of one training, and average label by label and group by group.

    The models are measured under the same resamples of the patients and averaged within each, so an interval made of
    the means is that of a mean over these seeds: it tells how much other patients would change, not other seeds.
    Where one model has no value the mean has none, so that all means rest on all seeds. ``worst`` and ``spread`` are
    then those of the group whose mean over seeds is the worst, not means of each seed's worst group.

    Args:
        models: A model a seed; the same records in the same order.
        config: See ``fairness.evaluate``.
        within_strata: AUROC is the one over pairs of records of the same stratum (``Predictions.strata``), and nothing
            else is measured: for out-of-fold predictions, where the scores of records of different folds come from
            different networks and can't be ranked among each other.

    Yields:
        All records, then the groups of one attribute after the other, as ``fairness.estimates_of`` does.

    Raises:
        ConfigurationError: There is no model; records, labels or groups of two differ.
        ValueError: See ``fairness.evaluate``.
    """
    if not models:
        raise ConfigurationError("There is no model to average: expected the predictions of one seed or more.")
    for other in models[1:]:
        check_same_records(models[0], other)
    if within_strata:
        config = replace(config, statistics=(STRATIFIED_AUROC,))
    for of_each in zip(*(estimates_of(model, config) for model in models), strict=True):
        mean = _mean(of_each)
        yield _renamed(mean) if within_strata else mean


def _mean(of_each: Sequence[Estimates]) -> Estimates:
    """Average the cells; of the patients they rest on the fewest."""
    first = of_each[0]
    patients = {
        name: torch.stack([one.patients[name] for one in of_each]).amin(0) for name in first.patients
    }  # they differ only where a model calls other records positive
    cells = {name: _mean_cells([one.cells[name] for one in of_each]) for name in first.cells}
    return replace(first, patients=patients, cells=cells)


def _mean_cells(of_each: Sequence[Cells]) -> Cells:
    reasons = tuple(
        tuple(next(filter(None, of_label), "") for of_label in zip(*of_group, strict=True))
        for of_group in zip(*(cells.reasons for cells in of_each), strict=True)
    )
    return Cells(of_each[0].statistic, torch.stack([cells.values for cells in of_each]).mean(0), reasons)


def _renamed(estimates: Estimates) -> Estimates:
    """Let the AUROC within strata stand where reports look for the AUROC."""
    return replace(estimates, cells={AUROC: replace(estimates.cells[STRATIFIED_AUROC], statistic=AUROC)})


def check_same_records(first: Predictions, second: Predictions) -> None:
    """Refuse two models that were not measured on the same records.

    Raises:
        ConfigurationError: Labels, targets, patients or groups differ.
    """
    if list(first.label_names) != list(second.label_names):
        differing = sorted(set(first.label_names) ^ set(second.label_names))[:5]
        how = f" ({', '.join(differing)})" if differing else ", in their order"
        raise ConfigurationError(
            f"The models differ in their labels{how}: expected the same. Leave out those that one model lacks."
        )
    if first.targets.shape != second.targets.shape:
        raise ConfigurationError(
            f"The models have {len(first.targets)} and {len(second.targets)} records: expected the same records in the "
            "same order."
        )
    if others := int((first.targets != second.targets).any(1).sum()):
        raise ConfigurationError(
            f"The targets of {others} of {len(first.targets)} records differ between the models: expected the same "
            "records in the same order, with the same truth."
        )
    if not torch.equal(first.units, second.units):
        raise ConfigurationError("The patients differ between the models: expected the same records in the same order.")
    groups = [
        [(each.attribute, each.names, each.codes.tolist()) for each in model.groupings] for model in (first, second)
    ]
    if groups[0] != groups[1]:
        raise ConfigurationError("The groups differ between the models: expected the same records in the same order.")
