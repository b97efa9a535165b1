"""Predicting what is known of a patient; what is not known costs nothing."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.ecg import SEX_COLUMN
from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.losses.mean import Mean, precise

SexLoss = Literal["cross_entropy", "squared_error"]
MeasureLoss = Literal["smooth_l1", "squared_error"]


class AttributeLosses(NamedTuple):
    """The two terms of attribute prediction, each a mean."""

    measures: Mean
    """Of the standardised age, heart rate and intervals."""
    sex: Mean
    """Of sex."""


def attribute_losses(
    predicted: Tensor,
    target: Tensor,
    *,
    sex: SexLoss = "cross_entropy",
    measures: MeasureLoss = "smooth_l1",
) -> AttributeLosses:
    """Return the losses of attribute prediction, over the attributes that are known.

    Smooth L1 in place of the published squared error, since measured intervals have outliers; cross-entropy for sex,
    which is published as a regression. Both published forms are to be had.

    Args:
        predicted: (B, A) standardised values. In the column of sex the logit of being female under cross-entropy, and
            the number 0 or 1 itself, without a sigmoid, under squared error.
        target: (B, A) standardised values, 0 or 1 for sex; NaN where missing.
        sex: What is minimised for sex.
        measures: What is minimised for all others.

    Returns:
        Both losses; 0 with a gradient of 0 where no record of the batch has the attribute.

    Raises:
        ConfigurationError: There is no such loss.
    """
    known = torch.isfinite(target)
    # NaN times 0 is NaN: missing targets are replaced before the loss, not masked after it.
    predicted, filled = precise(predicted), torch.where(known, precise(target), 0.0)
    is_sex = torch.zeros_like(known)
    is_sex[:, SEX_COLUMN] = True
    return AttributeLosses(
        Mean.of(_errors(predicted, filled, measures, "measures", ("smooth_l1", "squared_error")), known & ~is_sex),
        Mean.of(_errors(predicted, filled, sex, "sex", ("cross_entropy", "squared_error")), known & is_sex),
    )


def _errors(predicted: Tensor, target: Tensor, loss: str, field: str, offered: tuple[str, ...]) -> Tensor:
    """Return the error of every value, in the shape of ``predicted``; refuse a loss that the field does not offer."""
    if loss not in offered:
        raise ConfigurationError(
            f"The loss of {field} is {loss!r}: expected {' or '.join(offered)}.{did_you_mean(loss, offered)}"
        )
    if loss == "smooth_l1":
        return F.smooth_l1_loss(predicted, target, reduction="none")
    if loss == "squared_error":
        return F.mse_loss(predicted, target, reduction="none")
    return F.binary_cross_entropy_with_logits(predicted, target.clamp(0, 1), reduction="none")
