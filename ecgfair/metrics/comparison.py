"""One group's labels, and the groups of an attribute against each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ecgfair.groups import UNKNOWN
from ecgfair.metrics.auroc import AurocTable
from ecgfair.metrics.fairness_report import AUROC, AUROC_GAP, GAP, MACRO, SHARED_AUROC, WORST_AUROC, Row
from ecgfair.metrics.long_tail import Macro, macro


@dataclass(frozen=True, eq=False)
class GroupAurocs:
    """The AUROCs of one group, of labels with support only.

    Args:
        name: The group.
        records: How many it has.
        auroc: (C,) float64, NaN where undefined.
        positives: C supports.
        negatives: Likewise.
        reasons: C, why a label is undefined; empty where it is not.
    """

    name: str
    records: int
    auroc: Tensor
    positives: tuple[int, ...]
    negatives: tuple[int, ...]
    reasons: tuple[str, ...]

    @classmethod
    def of(
        cls, name: str, records: int, table: AurocTable, position: int, needed: int, faults: Sequence[str]
    ) -> GroupAurocs:
        """Take a group's row of the table and blank the labels without support or with a fault.

        Args:
            name: The group.
            records: How many it has.
            table: Supports of whole records.
            position: The group's row.
            needed: Positives and negatives a label needs.
            faults: C, what else makes a label undefined; empty where nothing does.
        """
        positives = tuple(int(count) for count in table.positives[position].tolist())
        negatives = tuple(int(count) for count in table.negatives[position].tolist())
        reasons = tuple(
            fault or (_support_reason(positive, negative, needed) if records else "no records")
            for fault, positive, negative in zip(faults, positives, negatives, strict=True)
        )
        undefined = torch.tensor([bool(reason) for reason in reasons], device=table.auroc.device)
        values = table.auroc[position].masked_fill(undefined, torch.nan)
        return cls(name, records, values, positives, negatives, reasons)

    def label_rows(self, attribute: str, label_names: Sequence[str], notes: Sequence[str] = ()) -> list[Row]:
        """One row a label; ``notes`` takes the place of the reasons in them."""
        columns = (label_names, self.auroc.tolist(), self.positives, self.negatives, notes or self.reasons)
        return [
            Row(
                attribute,
                self.name,
                label,
                AUROC,
                value,
                positives,
                negatives,
                self.records,
                int(not math.isnan(value)),
                "",
                note,
            )
            for label, value, positives, negatives, note in zip(*columns, strict=True)
        ]

    def summary(
        self, attribute: str, label: str, statistic: str, mean: Macro, reference: str = "", reason: str = ""
    ) -> Row:
        """A row about a mean over labels."""
        records, count = self.records, mean.labels
        return Row(attribute, self.name, label, statistic, mean.value, None, None, records, count, reference, reason)

    def shared(self, other: GroupAurocs) -> Tensor:
        """Return (C,) bool: the labels defined in both groups."""
        return ~(self.auroc.isnan() | other.auroc.isnan())

    def gap(self, reference: GroupAurocs) -> Macro:
        """Signed difference to the reference over the shared labels."""
        return macro(self.auroc - reference.auroc)


def _support_reason(positives: int, negatives: int, needed: int) -> str:
    """Say what is missing, or nothing."""
    few = [
        f"{count} {kind}" + "s" * (count != 1)
        for count, kind in ((positives, "positive"), (negatives, "negative"))
        if count < needed
    ]
    return f"{' and '.join(few)}, {needed}{' of each' * (len(few) > 1)} needed" if few else ""


def comparison_rows(attribute: str, groups: Sequence[GroupAurocs], reference: str | None, needed: int) -> list[Row]:
    """Compare the groups of an attribute.

    Args:
        attribute: Its name.
        groups: All of its groups, in order.
        reference: The group to compare with; ``None`` if there is none.
        needed: Positives and negatives a label needed in a group, for the reasons.

    Returns:
        For each group its mean AUROC, its gap to the reference and its mean over the labels shared with it, then
        ``auroc_gap`` and ``worst_auroc`` as ``fairness.evaluate`` defines them.
    """
    anchor = next((group for group in groups if group.name == reference), None)
    rows = []
    for group in groups:
        mean = macro(group.auroc)
        reason = f"support below {needed} in every label" if group.records else "no records"
        rows.append(group.summary(attribute, MACRO, AUROC, mean, "", "" if mean.labels else reason))
        if anchor is None:
            missing, gap, shared = f"no record has a known {attribute}", Macro(torch.nan, 0), Macro(torch.nan, 0)
        else:
            missing = f"no label is defined both here and in {anchor.name}"
            gap, shared = group.gap(anchor), macro(group.auroc, group.shared(anchor))
        for statistic, value in ((GAP, gap), (SHARED_AUROC, shared)):
            why = "" if value.labels else missing if mean.labels else reason
            rows.append(group.summary(attribute, MACRO, statistic, value, reference or "", why))
    return rows + _worst_rows(attribute, groups, anchor)


def _worst_rows(attribute: str, groups: Sequence[GroupAurocs], reference: GroupAurocs | None) -> list[Row]:
    """The two rows that sum an attribute up; their definition is in ``evaluate``."""
    if reference is None:
        return _no_worst_rows(attribute, f"no record has a known {attribute}")
    others = [group for group in groups if group.name not in (reference.name, UNKNOWN)]
    gaps = [(gap, group) for group in others if (gap := group.gap(reference)).labels]
    if not gaps:
        return _no_worst_rows(attribute, f"no other known group shares a label with {reference.name}")

    lowest, worst = min(gaps, key=lambda pair: pair[0].value)
    highest, best = max(gaps, key=lambda pair: pair[0].value)
    if lowest.value > 0:
        worst, lowest = reference, Macro(0.0, highest.labels)
    if highest.value <= 0:
        best, highest = reference, Macro(0.0, lowest.labels)
    spread = Macro(lowest.value - highest.value, lowest.labels)
    partner = best if worst is reference else reference
    level = macro(worst.auroc, worst.shared(partner))
    return [
        worst.summary(attribute, MACRO, AUROC_GAP, spread, best.name),
        worst.summary(attribute, MACRO, WORST_AUROC, level, partner.name),
    ]


def _no_worst_rows(attribute: str, reason: str) -> list[Row]:
    """The two rows of an attribute without two groups that can be compared."""
    return [
        Row(attribute, "", MACRO, name, torch.nan, None, None, 0, 0, "", reason) for name in (AUROC_GAP, WORST_AUROC)
    ]
