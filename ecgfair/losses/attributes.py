"""Predicting what is known of a patient; what is not known costs nothing."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.ecg import SEX_COLUMN
from ecgfair.losses.restoration import masked_mean


class AttributeLosses(NamedTuple):
    """The two terms of attribute prediction, each a scalar."""

    measures: Tensor
    """Smooth L1 of the standardised age, heart rate and intervals."""
    sex: Tensor
    """Binary cross-entropy."""


def attribute_losses(predicted: Tensor, target: Tensor) -> AttributeLosses:
    """Return the losses of attribute prediction, over the attributes that are known.

    Smooth L1 in place of the published squared error, since measured intervals have outliers; cross-entropy for sex,
    which is published as a regression.

    Args:
        predicted: (B, A) standardised values, and the logit of being female in the column of sex.
        target: (B, A) standardised values, 0 or 1 for sex; NaN where missing.

    Returns:
        Both losses; 0 with a gradient of 0 where no record of the batch has the attribute.
    """
    known = torch.isfinite(target)
    # NaN times 0 is NaN: missing targets are replaced before the loss, not masked after it.
    filled = torch.where(known, target, 0.0)
    is_sex = torch.zeros_like(known)
    is_sex[:, SEX_COLUMN] = True
    measures = F.smooth_l1_loss(predicted, filled, reduction="none")
    sex = F.binary_cross_entropy_with_logits(predicted, filled.clamp(0, 1), reduction="none")
    return AttributeLosses(masked_mean(measures, known & ~is_sex), masked_mean(sex, known & is_sex))
