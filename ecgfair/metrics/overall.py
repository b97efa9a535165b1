"""All records together: the labels, their mean, and the long tail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch

from ecgfair.metrics.blocks import Block, Resampled, means_over
from ecgfair.metrics.chance.intervals import Support
from ecgfair.metrics.estimates import Cells, Estimates
from ecgfair.metrics.fairness_report import ALL, COMMON_RARE_GAP, MACRO, OVERALL, SUMMARIES, VALUE, Row
from ecgfair.metrics.long_tail import BANDS, HEAD, MEDIUM, TAIL, LongTail
from ecgfair.metrics.statistics import AUROC

NO_PREVALENCE: Final = "the training prevalence of the labels is not known"


def overall_blocks(
    estimates: Estimates,
    label_names: Sequence[str],
    label_prevalence: Sequence[float] | None,
    long_tail: LongTail,
    *,
    details: bool,
) -> Iterator[Block]:
    """Yield the values of all records: labels, their mean, head, medium and tail, and the gap between common and rare.

    Args:
        estimates: Of a grouping with one group.
        label_names: C names.
        label_prevalence: C shares of positive training records; ``None`` if unknown.
        long_tail: Where head, medium and tail are cut.
        details: Every statistic label by label; AUROC alone otherwise.
    """
    bands = [""] * len(label_names) if label_prevalence is None else long_tail.bands(label_prevalence)
    untrained = ["" if share else "no positive in training" for share in label_prevalence or [1.0] * len(label_names)]
    for cells in estimates.cells.values():
        if details or cells.statistic == AUROC:
            yield _labels(estimates, cells, label_names, untrained)
        yield from _means(estimates, cells, bands, long_tail)


def _labels(estimates: Estimates, cells: Cells, label_names: Sequence[str], notes: Sequence[str]) -> Block:
    supports = zip(estimates.positives[0].tolist(), estimates.negatives[0].tolist(), strict=True)
    rows = [
        Row(
            OVERALL,
            ALL,
            label,
            cells.statistic,
            VALUE,
            torch.nan,
            positives=positives,
            negatives=negatives,
            records=estimates.records[0],
            labels=int(not reason),
            reason="; ".join(filter(None, (reason, note))),
        )
        for label, (positives, negatives), reason, note in zip(
            label_names, supports, cells.reasons[0], notes, strict=True
        )
    ]
    return Block(rows, Resampled(cells.values[:, 0], Support(estimates.support(cells.statistic)[0])))


def _means(estimates: Estimates, cells: Cells, bands: Sequence[str], long_tail: LongTail) -> Iterator[Block]:
    defined = cells.defined[0]
    considered = torch.tensor(
        [[summary in (MACRO, band) for band in bands] for summary in SUMMARIES], dtype=torch.bool, device=defined.device
    ).reshape(len(SUMMARIES), len(bands))
    among = considered & defined
    labels = dict(zip(SUMMARIES, among.sum(1).tolist(), strict=True))
    rows = []
    for summary, is_considered in zip(SUMMARIES, considered.tolist(), strict=True):
        count = sum(is_considered)
        known = summary == MACRO or any(bands)
        reason = _left_out(summary, count, labels[summary], long_tail) if known else NO_PREVALENCE
        if count and not labels[summary]:
            reasons = {why for why, is_of_it in zip(cells.reasons[0], is_considered, strict=True) if is_of_it}
            reason = reasons.pop() if len(reasons) == 1 else reason
        rows.append(_row(estimates, cells, summary, VALUE, labels[summary], reason))
    patients = estimates.support(cells.statistic)[[0]]
    yield Block(rows, means_over(cells.values, patients, among))
    if cells.statistic == AUROC:
        head, tail = (means_over(cells.values, patients, among[[SUMMARIES.index(band)]]) for band in (HEAD, TAIL))
        empty = [band for band in (HEAD, TAIL) if not labels[band]]
        reason = NO_PREVALENCE if not any(bands) else f"{' and '.join(empty)} undefined" if empty else ""
        row = _row(estimates, cells, MACRO, COMMON_RARE_GAP, labels[HEAD] + labels[TAIL], reason)
        yield Block([row], head, minus=tail)


def _row(estimates: Estimates, cells: Cells, label: str, aggregate: str, labels: int, reason: str) -> Row:
    return Row(
        OVERALL,
        ALL,
        label,
        cells.statistic,
        aggregate,
        torch.nan,
        records=estimates.records[0],
        labels=labels,
        reason=reason,
    )


def _left_out(summary: str, considered: int, averaged: int, long_tail: LongTail) -> str:
    """Say which labels an overall mean is without."""
    if summary in BANDS and not considered:
        head, tail = (f"{100 * share:g} %" for share in (long_tail.head, long_tail.tail))
        cut = {HEAD: f"{head} or more", MEDIUM: f"{tail} to {head}", TAIL: f"less than {tail}"}[summary]
        return f"no label is positive in {cut} of the training records"
    if not considered:
        return "no labels"
    if averaged < considered:
        return f"{considered - averaged} of {considered} labels undefined"
    return ""
