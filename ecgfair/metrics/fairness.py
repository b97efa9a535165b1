"""How well the labels are found overall, along the long tail, and in each group of sex and age.

Two conventions on which labels a mean covers are kept apart, and each mean states its number of labels. Overall means
follow the literature: every label with a positive and a negative record. Groups are small, so a label counts in a group
only with enough of both, and groups are compared over the labels defined in both: macro AUROCs over different labels
differ even where every label is found equally well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.groups import (
    DEFAULT_AGE_EDGES,
    SEX_GROUPS,
    UNKNOWN,
    Grouping,
    age_bands,
    group_by_age,
    group_by_sex,
)
from ecgfair.metrics.auroc import auroc
from ecgfair.metrics.comparison import GroupAurocs, comparison_rows
from ecgfair.metrics.fairness_report import ALL, AUROC, COMMON_RARE_GAP, MACRO, OVERALL, SUMMARIES, FairnessReport, Row
from ecgfair.metrics.long_tail import BANDS, HEAD, MEDIUM, TAIL, LongTail, Macro, common_rare_gap, macro


@dataclass(frozen=True)
class FairnessConfig:
    """The choices an evaluation rests on. They fix the groups, so that no key depends on the records at hand.

    Args:
        age_edges: First year of each age band but the youngest.
        min_support: Positives and negatives a label needs in a group.
        min_support_overall: Positives and negatives a label needs among all records.
        long_tail: Where head, medium and tail are cut.
        reference: The group to compare with, by attribute: ``{"sex": "male", "age": "40-64"}``. For an attribute not
            named it is the group with the most records, the first of them if several have, never the unknown ones.

    Raises:
        ConfigurationError: A value is impossible, or a reference names no group.
    """

    age_edges: tuple[int, ...] = DEFAULT_AGE_EDGES
    min_support: int = 5
    min_support_overall: int = 1
    long_tail: LongTail = field(default_factory=LongTail)
    reference: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what could only fail once the records are there."""
        for name in ("min_support", "min_support_overall"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)}: expected at least 1 positive and 1 negative."
                )
        groups = {"sex": SEX_GROUPS, "age": age_bands(self.age_edges)}
        for attribute, group in self.reference.items():
            if attribute not in groups:
                raise ConfigurationError(
                    f"reference names {attribute!r}, no attribute.{did_you_mean(attribute, groups)}"
                )
            known = [name for name in groups[attribute] if name != UNKNOWN]
            if group not in known:
                raise ConfigurationError(
                    f"reference of {attribute} is {group!r}, which is no group to compare with."
                    f"{did_you_mean(group, known)}"
                )


def evaluate(
    probabilities: Tensor,
    targets: Tensor,
    age: Tensor,
    sex: Tensor,
    label_names: Sequence[str],
    label_prevalence: Sequence[float],
    config: FairnessConfig | None = None,
) -> FairnessReport:
    """Measure how well labels are found, for all records and for each group.

    The gap of a group is its mean AUROC minus that of the reference group, over the labels defined in both. Of an
    attribute's known groups with a gap (the reference has 0), the **worst** is the one with the lowest gap. The unknown
    ones have a gap but are never the worst, because nobody is of that group. Two values sum an attribute up:

    - ``auroc_gap``: the gap of the worst group minus the gap of the best, hence never positive, and 0 only if all
      groups are served equally well. The lowest gap alone would not do: it is 0 when the reference itself is the group
      behind all others, and so would call a model fair that fails the largest group. Each of the two gaps is taken
      over labels shared with the reference; for two groups this is minus the size of their one gap. As an extreme of
      noisy values it is below 0 even for a fair model, and further below the more and the smaller the groups are: a
      guide to choose between epochs, not a test.
    - ``worst_auroc``: the mean AUROC of the worst group over the labels it shares with the reference, or, if it is the
      reference, with the best group.

    A label whose probability is NaN for some record is undefined everywhere, with that reason, so that a diverged model
    ends in NaN instead of an exception or a number.

    Args:
        probabilities: (N, C) in [0, 1] or NaN.
        targets: (N, C), 0 or 1.
        age: (N,) years, NaN where missing.
        sex: (N,) int64 codes of ``ecg``.
        label_names: C names.
        label_prevalence: C shares of positive records in training.
        config: ``None`` for the defaults.

    Raises:
        ConfigurationError: Names are not unique, or one is that of a mean; names and prevalences do not fit the labels.
        ValueError: Values are not what they should be; see ``auroc`` and ``groups``.
    """
    config = config or FairnessConfig()
    _check_labels(probabilities, label_names, label_prevalence)
    groupings = (group_by_sex(sex), group_by_age(age, config.age_edges))
    everyone = torch.ones(1, len(age), dtype=torch.bool, device=age.device)
    members = torch.cat([everyone, *(grouping.membership() for grouping in groupings)])
    diverged = probabilities.isnan()
    table = auroc(torch.where(diverged, 0, probabilities), targets, members, probabilities=True)

    faults = [
        f"the probability is NaN for {count} of {len(age)} records" if count else ""
        for count in diverged.sum(0).tolist()
    ]
    overall = GroupAurocs.of(ALL, len(age), table, 0, config.min_support_overall, faults)
    rows = _overall_rows(overall, label_names, label_prevalence, config)
    first = 1
    for grouping in groupings:
        groups = [
            GroupAurocs.of(name, records, table, position, config.min_support, faults)
            for position, (name, records) in enumerate(grouping.counts().items(), start=first)
        ]
        first += len(groups)
        for group in groups:
            rows += group.label_rows(grouping.attribute, label_names)
        rows += comparison_rows(grouping.attribute, groups, _reference(grouping, config), config.min_support)
    return FairnessReport(tuple(rows))


def _overall_rows(
    overall: GroupAurocs, label_names: Sequence[str], label_prevalence: Sequence[float], config: FairnessConfig
) -> list[Row]:
    """Rows of all records: the labels, macro, head, medium, tail and the gap between common and rare."""
    untrained = ["" if share else "no positive in training" for share in label_prevalence]
    notes = ["; ".join(filter(None, pair)) for pair in zip(overall.reasons, untrained, strict=True)]
    rows = overall.label_rows(OVERALL, label_names, notes)
    bands = config.long_tail.bands(label_prevalence)
    means = {}
    for summary in SUMMARIES:
        among = torch.tensor([summary in (MACRO, band) for band in bands], device=overall.auroc.device)
        means[summary] = macro(overall.auroc, among)
        reason = _left_out(summary, int(among.sum()), means[summary].labels, config)
        rows.append(overall.summary(OVERALL, summary, AUROC, means[summary], "", reason))
    head, tail = means[HEAD], means[TAIL]
    gap = Macro(common_rare_gap(head.value, tail.value), head.labels + tail.labels)
    empty = [band for band in (HEAD, TAIL) if not means[band].labels]
    reason = f"{' and '.join(empty)} undefined" if empty else ""
    return [*rows, overall.summary(OVERALL, MACRO, COMMON_RARE_GAP, gap, "", reason)]


def _left_out(summary: str, considered: int, averaged: int, config: FairnessConfig) -> str:
    """Say which labels an overall mean is without."""
    if summary in BANDS and not considered:
        head, tail = (f"{100 * share:g} %" for share in (config.long_tail.head, config.long_tail.tail))
        cut = {HEAD: f"{head} or more", MEDIUM: f"{tail} to {head}", TAIL: f"less than {tail}"}[summary]
        return f"no label is positive in {cut} of the training records"
    if averaged < considered:
        return f"{considered - averaged} of {considered} labels undefined"
    return ""


def _reference(grouping: Grouping, config: FairnessConfig) -> str | None:
    """The reference group's name; ``None`` if the attribute is unknown for every record."""
    if grouping.attribute in config.reference:
        return config.reference[grouping.attribute]
    counts = {name: count for name, count in grouping.counts().items() if name != UNKNOWN and count}
    return max(counts, key=counts.__getitem__, default=None)


def _check_labels(probabilities: Tensor, label_names: Sequence[str], label_prevalence: Sequence[float]) -> None:
    """Refuse names that do not tell the labels apart, or that do not fit the columns."""
    columns = probabilities.shape[1] if probabilities.ndim == 2 else 0
    if not len(label_names) == len(label_prevalence) == columns:
        raise ConfigurationError(
            f"There are {len(label_names)} label names and {len(label_prevalence)} training prevalences for "
            f"probabilities of the shape {tuple(probabilities.shape)}: expected (records, labels), and one of each for "
            "every label."
        )
    unfit = [name for name in label_names if name in SUMMARIES or list(label_names).count(name) > 1]
    if unfit:
        raise ConfigurationError(
            f"Labels are named {', '.join(sorted(set(unfit)))}: expected names that differ from each other and from "
            f"{', '.join(SUMMARIES)}, which name means over labels."
        )
