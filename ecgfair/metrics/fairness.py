"""How well the labels are found overall, along the long tail, and in each group of patients.

Two conventions on which labels a mean covers are kept apart, and each mean states its number of labels. Overall means
follow the literature: every label with a positive and a negative record. Groups are small, so a label counts in a group
only with enough of both, and groups are compared over the labels defined in both: macro AUROCs over different labels
differ even where every label is found equally well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.groups import UNKNOWN, Grouping
from ecgfair.metrics.blocks import Block
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.comparison import GroupComparison
from ecgfair.metrics.estimates import Estimates, estimate, rank
from ecgfair.metrics.fairness_report import ALL, OVERALL, FairnessReport
from ecgfair.metrics.kernels.checks import check_predictions
from ecgfair.metrics.long_tail import LongTail
from ecgfair.metrics.overall import overall_blocks
from ecgfair.metrics.predictions import Predictions
from ecgfair.metrics.statistics import AUROC, STATISTICS
from ecgfair.metrics.worst_group_bound import bounded_row, check_bound

LEAST_RESAMPLES = 100
"""Fewer can't tell where 95 % of them lie."""


@dataclass(frozen=True)
class FairnessConfig:
    """The choices an evaluation rests on.

    Args:
        min_support: Positives and negatives a label needs in a group.
        min_support_overall: Positives and negatives a label needs among all records.
        long_tail: Where head, medium and tail are cut.
        reference: The group to compare with, by attribute: ``{"sex": "male", "age": "40-64"}``. For an attribute not
            named it is the group with the most records, the first of them if several have, never the unknown ones.
        statistics: Which of ``statistics.STATISTICS``.
        bins: Of the calibration errors, each with the same number of records.
        details: Compare groups label by label, too; without, AUROC alone is given by label.
        resamples: How many resamples of the patients the intervals are made of; 0 for none.
        seed: Of the resamples.
        bound: The least AUROC that the worst group of every attribute may have, see ``worst_group_bound``; the mean
            AUROC under this bound is then a row of the report. ``None`` for none.

    Raises:
        ConfigurationError: A value is impossible.
    """

    min_support: int = 5
    min_support_overall: int = 1
    long_tail: LongTail = field(default_factory=LongTail)
    reference: Mapping[str, str] = field(default_factory=dict)
    statistics: tuple[str, ...] = STATISTICS
    bins: int = 10
    details: bool = False
    resamples: int = 0
    seed: int = 0
    bound: float | None = None

    def __post_init__(self) -> None:
        """Refuse what could only fail once the records are there."""
        for name in ("min_support", "min_support_overall"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)}: expected at least 1 positive and 1 negative."
                )
        if self.bins < 1:
            raise ConfigurationError(f"bins is {self.bins}: expected at least 1.")
        if self.resamples < 0 or 0 < self.resamples < LEAST_RESAMPLES:
            raise ConfigurationError(
                f"resamples is {self.resamples}: expected 0 for no intervals, or at least {LEAST_RESAMPLES}."
            )
        for name in self.statistics:
            if name not in STATISTICS:
                raise ConfigurationError(f"There is no statistic {name!r}.{did_you_mean(name, STATISTICS)}")
        check_bound(self.bound)
        if self.bound is not None and AUROC not in self.statistics:
            raise ConfigurationError(f"bound is {self.bound}, of an AUROC: expected {AUROC} among the statistics.")

    def check_reference(self, groupings: Mapping[str, tuple[str, ...]]) -> None:
        """Refuse a reference that is no group.

        Args:
            groupings: The names of the groups, by attribute.

        Raises:
            ConfigurationError: It is none.
        """
        for attribute, group in self.reference.items():
            if attribute not in groupings:
                raise ConfigurationError(
                    f"reference names {attribute!r}, no attribute.{did_you_mean(attribute, groupings)}"
                )
            known = [name for name in groupings[attribute] if name != UNKNOWN]
            if group not in known:
                raise ConfigurationError(
                    f"reference of {attribute} is {group!r}, which is no group to compare with."
                    f"{did_you_mean(group, known)}"
                )


def evaluate(predictions: Predictions, config: FairnessConfig | None = None) -> FairnessReport:
    """Measure how well labels are found, for all records and for each group.

    The **gap** of a group is its mean minus that of the reference group, over the labels defined in both. Two values
    sum an attribute up. They compare means over one set of labels, which have the support in every group compared;
    which groups and labels these are follows from supports alone (``permutation.compared_groups``), so it is the same
    for all models and epochs on the same records, and a group with too few labels is named in the reason and left out.
    The unknown records are no group to compare: nobody is of it.

    - ``worst``: the mean of the worst group.
    - ``spread``: that of the worst minus that of the best, hence never positive where more is better (AUROC, TPR),
      never negative where less is (FPR, calibration error), and 0 only if all groups are served equally well. As an
      extreme of noisy values it is away from 0 even for a fair model, and further away the more and the smaller the
      groups are: a guide to choose between epochs. ``gap_tests`` says of this very spread whether it could be chance.

    A label whose probability is NaN for some record is undefined everywhere, with that reason, so that a diverged model
    ends in NaN instead of an exception or a number.

    Args:
        predictions: What is measured.
        config: ``None`` for the defaults.

    Raises:
        ConfigurationError: A reference names no group.
        ValueError: Probabilities or targets are not what they should be; see ``auroc``.
    """
    rows = [row for block in evaluation_blocks(predictions, config) for row in block.finished()]
    if config is not None and config.bound is not None:
        rows.append(bounded_row(rows, config.bound))
    return FairnessReport(tuple(rows))


def evaluation_blocks(predictions: Predictions, config: FairnessConfig | None = None) -> Iterator[Block]:
    """Yield what ``evaluate`` reports together with its resamples, part by part.

    For the same targets, groupings and configuration, two models give the same rows in the same order.
    """
    config = config or FairnessConfig()
    for estimates in estimates_of(predictions, config):
        yield from blocks_of(estimates, predictions, config)


def estimates_of(predictions: Predictions, config: FairnessConfig) -> Iterator[Estimates]:
    """Measure all records, then the groups of one attribute after the other.

    Raises:
        ConfigurationError: See ``evaluate``.
        ValueError: See ``evaluate``.
    """
    config.check_reference({grouping.attribute: grouping.names for grouping in predictions.groupings})
    check_predictions(predictions.probabilities.nan_to_num(0.0), predictions.targets)
    weights = patient_weights(predictions.units, config.resamples, config.seed)
    records = len(predictions.probabilities)
    everyone = Grouping(OVERALL, (ALL,), torch.zeros(records, dtype=torch.int64, device=weights.device))
    groupings = [everyone, *predictions.groupings]
    ranked = rank(predictions, groupings, weights, config.statistics)
    for grouping, of_it in zip(groupings, ranked, strict=True):
        support = config.min_support_overall if grouping is everyone else config.min_support
        yield estimate(predictions, grouping, weights, config.statistics, support, config.bins, of_it)


def blocks_of(estimates: Estimates, predictions: Predictions, config: FairnessConfig) -> Iterator[Block]:
    """Yield what is reported of some ``estimates_of`` predictions."""
    names, details = predictions.label_names, config.details
    if estimates.grouping.attribute == OVERALL:
        yield from overall_blocks(estimates, names, predictions.label_prevalence, config.long_tail, details=details)
    else:
        reference = _reference(estimates.grouping, config)
        yield from GroupComparison(estimates, names, reference, config.min_support, details).blocks()


def _reference(grouping: Grouping, config: FairnessConfig) -> int | None:
    """Position of the reference group; ``None`` if the attribute is unknown for every record."""
    if grouping.attribute in config.reference:
        return grouping.names.index(config.reference[grouping.attribute])
    counts = {name: count for name, count in grouping.counts().items() if name != UNKNOWN and count}
    largest = max(counts, key=counts.__getitem__, default=None)
    return None if largest is None else grouping.names.index(largest)
