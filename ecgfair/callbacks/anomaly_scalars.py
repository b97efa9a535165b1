"""What is logged of an epoch's anomaly scores: areas under the curve, and how many records they are of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ecgfair.anomaly.protocols import Selection
from ecgfair.callbacks.history import Stage
from ecgfair.groups import age_strata
from ecgfair.metrics.kernels.auroc import auroc
from ecgfair.metrics.kernels.stratified import stratified_auroc


def anomaly_scalars(
    records: Mapping[str, Tensor], kinds: Selection, parts: Sequence[str], stage: Stage
) -> dict[str, float]:
    """Measure how well scores tell abnormal records from normal ones; warn of scores that are NaN.

    Args:
        records: The columns of ``anomaly_records.no_scored_records``, of all records.
        kinds: Which of them are normal, abnormal or neither.
        parts: Names of the terms of the score, in the order of the columns of ``records["parts"]``.
        stage: Of which evaluation; the keys begin with it.

    Returns:
        Values by the key that they are logged under, the same keys whatever the records; undefined is NaN.
    """
    compared, abnormal = ~kinds.neither, kinds.abnormal
    score, age = records["score"], records["age"]
    if count := int(score.isnan().sum()):
        warnings.warn(
            f"The anomaly score is NaN for {count} of {len(score)} records: {stage}/anomaly/auroc is NaN.",
            stacklevel=2,
        )
    values = {
        "auroc": _auroc(score[compared], abnormal[compared]),
        "age_stratified_auroc": _within_ages(score[compared], abnormal[compared], age[compared]),
        "normals": float(kinds.normal.sum()),
        "abnormals": float(abnormal.sum()),
        "neither": float(kinds.neither.sum()),
        "without_beat": float((records["has_beat"] == 0).sum()),
    }
    for column, name in enumerate(parts):
        part = records["parts"][:, column]
        there = compared & ~part.isnan()
        values[f"{name}/auroc"] = _auroc(part[there], abnormal[there])
    return {f"{stage}/anomaly/{key}": value for key, value in values.items()}


def _auroc(score: Tensor, abnormal: Tensor) -> float:
    """AUROC of (N,) scores; NaN without both classes, or where a score is NaN."""
    if not len(score) or bool(score.isnan().any()):
        return math.nan
    return float(auroc(score[:, None], abnormal[:, None].long()).auroc)


def _within_ages(score: Tensor, abnormal: Tensor, age: Tensor) -> float:
    """AUROC over pairs of records of the same stratum of age."""
    if not len(score) or bool(score.isnan().any()):
        return math.nan
    nobody = torch.zeros(len(score), dtype=torch.int64)
    ones = torch.ones(1, len(score), dtype=torch.float64)
    return float(stratified_auroc(score[:, None], abnormal[:, None].long(), nobody, 1, age_strata(age), ones).auroc)
