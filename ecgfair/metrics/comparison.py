"""The groups of an attribute against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ecgfair.groups import UNKNOWN
from ecgfair.metrics.blocks import Block, Resampled, extremes, means_over
from ecgfair.metrics.chance.intervals import Support
from ecgfair.metrics.chance.permutation import compared_groups
from ecgfair.metrics.estimates import LACKING, Cells, Estimates
from ecgfair.metrics.fairness_report import (
    DIFFERENCE,
    GAP,
    GROUP_MAX,
    GROUP_MIN,
    MACRO,
    RATIO,
    SHARED,
    SPREAD,
    VALUE,
    WORST,
    Row,
)
from ecgfair.metrics.statistics import AUROC, EQUAL_OPPORTUNITY, EQUALIZED_ODDS, FPR, TPR, is_better_high


@dataclass(frozen=True, eq=False)
class GroupComparison:
    """Makes the blocks of one attribute.

    Args:
        estimates: Its statistics.
        label_names: C names.
        reference: Position of the group to compare with; ``None`` if no record's group is known.
        needed: Positives and negatives a label needed in a group, for the reasons.
        details: Also compare the groups label by label.
    """

    estimates: Estimates
    label_names: Sequence[str]
    reference: int | None
    needed: int
    details: bool

    @property
    def attribute(self) -> str:
        """Its name."""
        return self.estimates.grouping.attribute

    @property
    def names(self) -> tuple[str, ...]:
        """Its groups."""
        return self.estimates.grouping.names

    @property
    def anchor(self) -> str:
        """Name of the reference group, empty if there is none."""
        return "" if self.reference is None else self.names[self.reference]

    def blocks(self) -> Iterator[Block]:
        """Yield all blocks, statistic by statistic."""
        for cells in self.estimates.cells.values():
            if self.details or cells.statistic == AUROC:
                yield self._label_values(cells)
            yield from self._means(cells)
            yield self._extremes(cells)
            if self.details:
                yield self._label_gaps(cells)
                yield self._between(cells)
        if self.details and {TPR, FPR} <= set(self.estimates.cells):
            yield self._odds()

    def _rows(self, cells: Cells, aggregate: str, reference: str, reasons: Sequence[Sequence[str]]) -> list[Row]:
        """One row a group and label."""
        estimates = self.estimates
        supports = zip(estimates.positives.tolist(), estimates.negatives.tolist(), strict=True)
        return [
            Row(
                self.attribute,
                group,
                label,
                cells.statistic,
                aggregate,
                torch.nan,
                positives=positives,
                negatives=negatives,
                records=records,
                labels=int(not reason),
                reference=reference,
                reason=reason,
            )
            for group, records, of_group, why in zip(self.names, estimates.records, supports, reasons, strict=True)
            for label, positives, negatives, reason in zip(self.label_names, *of_group, why, strict=True)
        ]

    def _label_values(self, cells: Cells) -> Block:
        rows = self._rows(cells, VALUE, "", cells.reasons)
        return Block(rows, self._by_label(cells.values, self.estimates.support(cells.statistic)))

    def _by_label(self, values: Tensor, patients: Tensor) -> Resampled:
        """One value a group and label."""
        return Resampled(values.flatten(1), Support(patients.expand(values.shape[1:]).flatten()))

    def _label_gaps(self, cells: Cells) -> Block:
        """Signed differences to the reference group, label by label."""
        patients, at = self.estimates.support(cells.statistic), self.reference
        if at is None:
            anchors, there = torch.full_like(cells.values, torch.nan), [self._no_reference] * len(self.label_names)
        else:
            anchors = cells.values[:, [at]].expand_as(cells.values)
            there = [f"in {self.anchor}: {reason}" if reason else "" for reason in cells.reasons[at]]
        reasons = [[here or other for here, other in zip(row, there, strict=True)] for row in cells.reasons]
        rows = self._rows(cells, GAP, self.anchor, reasons)
        of_anchor = patients[[at or 0]]
        return Block(rows, self._by_label(cells.values, patients), self._by_label(anchors, of_anchor))

    @property
    def _no_reference(self) -> str:
        return f"no record has a known {self.attribute}"

    def _means(self, cells: Cells) -> Iterator[Block]:
        """Means over labels: the group's, its gap to the reference, and over the labels shared with it."""
        defined, patients, at = cells.defined, self.estimates.support(cells.statistic), self.reference
        shared = defined & (defined[at] if at is not None else False)
        of_group = defined.sum(1).tolist()
        for aggregate, among in ((VALUE, defined), (GAP, shared), (SHARED, shared)):
            counts = zip(range(len(self.names)), of_group, among.sum(1).tolist(), strict=True)
            rows = [self._mean_row(cells, aggregate, *of_it) for of_it in counts]
            minus = None
            if aggregate == GAP:
                anchors = cells.values[:, [at or 0]].expand_as(cells.values)
                minus = means_over(anchors, patients[[at or 0]].expand_as(patients), among)
            yield Block(rows, means_over(cells.values, patients, among), minus)

    def _mean_row(self, cells: Cells, aggregate: str, group: int, defined: int, count: int) -> Row:
        """A mean over ``count`` labels of a group in which ``defined`` are."""
        records = self.estimates.records[group]
        reason = ""
        if not defined:
            reason = self._nothing_defined(cells, group)
        elif not count:
            missing = f"no label is defined both here and in {self.anchor}"
            reason = missing if self.anchor else self._no_reference
        reference = "" if aggregate == VALUE else self.anchor
        return self._row(cells.statistic, aggregate, self.names[group], records, count, reference, reason)

    def _nothing_defined(self, cells: Cells, group: int) -> str:
        if not self.estimates.records[group]:
            return "no records"
        reasons = set(cells.reasons[group])
        if len(reasons) == 1:
            return reasons.pop()
        if all(reason.endswith(LACKING) for reason in reasons):
            return f"support below {self.needed} in every label" if reasons else "no labels"
        return "undefined in every label, for reasons that differ"

    def _row(
        self, statistic: str, aggregate: str, group: str, records: int, labels: int, reference: str, reason: str
    ) -> Row:
        """A row about a mean over labels."""
        return Row(
            self.attribute,
            group,
            MACRO,
            statistic,
            aggregate,
            torch.nan,
            records=records,
            labels=labels,
            reference=reference,
            reason=reason,
        )

    def _extremes(self, cells: Cells) -> Block:
        """``spread`` and ``worst``, which sum an attribute up; their definition is in ``fairness.evaluate``."""
        rows, values = self._worst(cells)
        return Block(rows, extremes(values, cells.values))

    def _worst(self, cells: Cells) -> tuple[list[Row], list[float]]:
        if self.reference is None:
            return self._no_worst(cells, self._no_reference)
        # Which groups and labels these are must not depend on the scores, or epochs and models could not be compared.
        compared, shared = compared_groups(self._supported & self._known[:, None])
        if not bool(compared.any()):
            needed = f"{self.needed} positives and negatives"
            return self._no_worst(cells, f"no two known groups share a label with support of {needed}")
        undefined = compared[:, None] & shared & ~cells.defined
        shared = shared & ~undefined.any(0)
        if not bool(shared.any()):
            group, label = undefined.nonzero()[0].tolist()
            return self._no_worst(cells, cells.reasons[group][label])

        means = dict(zip(compared.nonzero()[:, 0].tolist(), _means(cells, compared, shared), strict=True))
        lowest, highest = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        worst, best = (lowest, highest) if is_better_high(cells.statistic) else (highest, lowest)
        records, labels = self.estimates.records[worst], int(shared.sum())
        about = (self.names[worst], records, labels, self.names[best], self._not_compared(compared))
        rows = [self._row(cells.statistic, aggregate, *about) for aggregate in (SPREAD, WORST)]
        return rows, [means[worst] - means[best], means[worst]]

    @cached_property
    def _supported(self) -> Tensor:
        """(G, C) bool: where there is the support, whether or not a statistic is defined besides."""
        defined = [cells.defined for cells in self.estimates.cells.values()]
        return torch.stack(defined).any(0)

    def _not_compared(self, compared: Tensor) -> str:
        records = self.estimates.records
        left_out = [
            name
            for name, taken, known, count in zip(
                self.names, compared.tolist(), self._known.tolist(), records, strict=True
            )
            if known and not taken and count
        ]
        return f"without {'; '.join(left_out)}: too few labels with support" if left_out else ""

    def _no_worst(self, cells: Cells, reason: str) -> tuple[list[Row], list[float]]:
        rows = [self._row(cells.statistic, aggregate, "", 0, 0, "", reason) for aggregate in (SPREAD, WORST)]
        return rows, [torch.nan, torch.nan]

    @cached_property
    def _known(self) -> Tensor:
        """(G,) bool: all groups but that of the unknown records."""
        return torch.tensor([name != UNKNOWN for name in self.names], device=self.estimates.positives.device)

    def _between(self, cells: Cells) -> Block:
        """Fairlearn's ``difference``, ``ratio``, ``group_min`` and ``group_max`` of each label."""
        rows, values = [], []
        for label, low, high, lowest, highest, count in self._range(cells):
            reason = "" if count > 1 else "fewer than two known groups have the support"
            for aggregate, value in (
                (DIFFERENCE, high - low if count > 1 else torch.nan),
                (RATIO, _ratio(low, high) if count > 1 else torch.nan),
                (GROUP_MIN, low),
                (GROUP_MAX, high),
            ):
                group, other = (highest, lowest) if aggregate == GROUP_MAX else (lowest, highest)
                why = reason if aggregate in (DIFFERENCE, RATIO) else "" if count else "no known group has the support"
                if aggregate == RATIO and count > 1 and value != value:
                    why = "0 in every group"
                rows.append(
                    Row(
                        self.attribute, group, label, cells.statistic, aggregate, torch.nan, reference=other, reason=why
                    )
                )
                values.append(value)
        return Block(rows, extremes(values, cells.values))

    def _range(self, cells: Cells) -> Iterator[tuple[str, float, float, str, str, int]]:
        """Label, lowest and highest value, the groups that have them, and how many known groups are defined."""
        known = self._known.nonzero()[:, 0]
        for label, column in zip(self.label_names, cells.values[0, known].T.tolist(), strict=True):
            found = [(value, self.names[at]) for at, value in zip(known.tolist(), column, strict=True)]
            defined = [pair for pair in found if pair[0] == pair[0]]
            low, high = (_extreme(choose, defined) for choose in (min, max))
            yield label, low[0], high[0], low[1], high[1], len(defined)

    def _odds(self) -> Block:
        """Equalized odds, the larger of the differences in TPR and FPR, and equal opportunity, that in TPR.

        Hardt, Price and Srebro 2016, arXiv 1610.02413.
        """
        rows, values = [], []
        cells = self.estimates.cells
        for tpr, fpr in zip(self._range(cells[TPR]), self._range(cells[FPR]), strict=True):
            enough = min(tpr[-1], fpr[-1]) > 1
            reason = "" if enough else "fewer than two known groups have the support, and a threshold"
            differences = [high - low for _, low, high, *_ in (tpr, fpr)]
            ratios = [_ratio(low, high) for _, low, high, *_ in (tpr, fpr)]
            for statistic, aggregate, value in (
                (EQUALIZED_ODDS, DIFFERENCE, max(differences)),
                (EQUALIZED_ODDS, RATIO, min((ratio for ratio in ratios if ratio == ratio), default=torch.nan)),
                (EQUAL_OPPORTUNITY, DIFFERENCE, differences[0]),
                (EQUAL_OPPORTUNITY, RATIO, ratios[0]),
            ):
                why = reason or ("" if value == value else "0 in every group")
                rows.append(Row(self.attribute, "", tpr[0], statistic, aggregate, torch.nan, reason=why))
                values.append(value if enough else torch.nan)
        return Block(rows, extremes(values, cells[TPR].values))


def _extreme(choose: Callable[..., tuple[float, str]], defined: Sequence[tuple[float, str]]) -> tuple[float, str]:
    return choose(defined, key=lambda pair: pair[0]) if defined else (torch.nan, "")


def _means(cells: Cells, compared: Tensor, shared: Tensor) -> list[float]:
    """The mean of each compared group over the shared labels."""
    means: list[float] = cells.values[0][compared][:, shared].mean(1).tolist()
    return means


def _ratio(low: float, high: float) -> float:
    """Lowest over highest; undefined where both are 0."""
    return low / high if high else torch.nan
