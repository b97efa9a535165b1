"""The exact AUROC of many labels under many weightings of the same records.

A group of records is a row of zeros and ones, a bootstrap resample a row of counts. Both are weights, so subgroups,
resamples and permutations all go through this one function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

CHUNK_ELEMENTS: Final = 2**19
"""Float64 values of a working array (4 MiB): many rows at a time, and still within reach of a processor's cache."""


@dataclass(frozen=True, eq=False)
class AurocTable:
    """AUROC of each label under each weighting, with what it rests on.

    Args:
        auroc: (G, C) float64 in [0, 1]; NaN where the weighted records of a class are none.
        positives: (G, C) float64, sum of the weights of the positive records.
        negatives: (G, C) float64, likewise of the negative records.
    """

    auroc: Tensor
    positives: Tensor
    negatives: Tensor


def auroc(
    scores: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    probabilities: bool = False,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> AurocTable:
    """Compute the area under the receiver operating characteristic of each label, for each row of weights.

    It is the weighted share of (positive, negative) pairs in which the positive scores higher, a tie counting one half
    (the Mann-Whitney statistic: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747). Each label is sorted
    once, whatever the number of weightings. With whole-number weights every sum is exact, hence the result does not
    depend on the order of the records.

    Args:
        scores: (N, C), any real numbers, higher meaning positive; only their order counts.
        targets: (N, C), 0 or 1, of any type.
        weights: (G, N), not negative: a membership mask, counts of a resample, or any weights. ``None`` is one row of
            ones.
        probabilities: Also require the scores to lie in [0, 1].
        chunk_elements: Bounds the working memory: as many rows of weights are taken at a time as keep an array of
            (N, rows) below it.

    Returns:
        The (G, C) table, on the device of ``scores``.

    Raises:
        ValueError: Shapes do not fit, a score is NaN, a target is neither 0 nor 1, a weight is negative or infinite.
    """
    if weights is None:
        weights = torch.ones(1, *scores.shape[:1], device=scores.device)
    _check(scores, targets, weights, probabilities)
    values = scores.detach().double()
    positive = targets.detach() == 1
    labels = [_RankedLabel.of(values[:, label], positive[:, label]) for label in range(values.shape[1])]
    rows = max(1, chunk_elements // max(1, len(scores)))
    parts = [_weighted(labels, chunk) for chunk in torch.split(weights.detach(), rows)]
    return AurocTable(*(torch.cat(part) for part in zip(*parts, strict=True)))


@dataclass(frozen=True, eq=False)
class _RankedLabel:
    """One label's records in the order in which its pairs are counted; serves every weighting.

    Args:
        positives: (P,) positions of the positive records.
        negatives: (M,) positions of the negative records, by rising score.
        below: (P,) for each positive, how many negatives score lower.
        up_to: (P,) likewise, how many score lower or the same.
    """

    positives: Tensor
    negatives: Tensor
    below: Tensor
    up_to: Tensor

    @classmethod
    def of(cls, scores: Tensor, positive: Tensor) -> _RankedLabel:
        """Rank one column; ``scores`` is (N,) float64 and ``positive`` (N,) bool."""
        positives = positive.nonzero()[:, 0]
        negatives = (~positive).nonzero()[:, 0]
        ranked, order = scores[negatives].sort()
        threshold = scores[positives]
        return cls(
            positives,
            negatives[order],
            torch.searchsorted(ranked, threshold),
            torch.searchsorted(ranked, threshold, right=True),
        )


def _weighted(labels: list[_RankedLabel], weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """AUROC and supports, (G, C) each, of a chunk of weights (G, N)."""
    by_record = weights.T.double().contiguous()  # (N, G): a record's weights lie together, so taking records is fast
    shape = (weights.shape[0], len(labels))
    area, positives, negatives = (torch.zeros(shape, dtype=torch.float64, device=weights.device) for _ in range(3))
    for column, label in enumerate(labels):
        weight_negative = by_record[label.negatives]
        passed = torch.zeros(len(weight_negative) + 1, shape[0], dtype=torch.float64, device=weights.device)
        torch.cumsum(weight_negative, 0, out=passed[1:])
        weight_positive = by_record[label.positives]
        won = (passed[label.below] + passed[label.up_to]) / 2
        area[:, column] = (weight_positive * won).sum(0)
        positives[:, column] = weight_positive.sum(0)
        negatives[:, column] = passed[-1]
    # 0 / 0 is the NaN of an absent class. Whole-number weights are rounded here alone, once; fractional ones may end
    # just above 1, hence the clamp, which leaves NaN as it is.
    return (area / (positives * negatives)).clamp(0, 1), positives, negatives


def _check(scores: Tensor, targets: Tensor, weights: Tensor, probabilities: bool) -> None:
    """Refuse inputs for which an AUROC would be a number without a meaning."""
    if scores.ndim != 2 or targets.shape != scores.shape:
        raise ValueError(
            f"scores have the shape {tuple(scores.shape)} and targets {tuple(targets.shape)}: expected both to be "
            "(records, labels)."
        )
    if weights.ndim != 2 or weights.shape[1] != len(scores):
        raise ValueError(
            f"weights have the shape {tuple(weights.shape)}: expected (groups, {len(scores)}), one column a record."
        )
    faults = [
        (scores.isnan(), "scores are NaN", "real numbers; look for the records the model fails on"),
        ((targets != 0) & (targets != 1), "targets are neither 0 nor 1", "0 or 1; leave uncertain records out"),
        (~((weights >= 0) & (weights < torch.inf)), "weights are negative or not finite", "numbers from 0 upwards"),
    ]
    if probabilities:
        outside = (scores < 0) | (scores > 1)
        faults.append((outside, "scores lie outside [0, 1]", "probabilities; apply the sigmoid to logits"))
    for where, found, expected in faults:
        if count := int(where.sum()):
            raise ValueError(f"{count} of {where.numel()} {found}: expected {expected}.")
