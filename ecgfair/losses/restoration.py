"""How well hidden samples were restored, and how well the network knew it."""

from __future__ import annotations

from typing import Final

from torch import Tensor

LOG_VARIANCE_LIMIT: Final = 10.0
"""Numerical safety only: exp(10) mV^2 is far beyond any ECG, exp(-10) mV^2 is 7 microvolts, the noise of a good one."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values where the mask is True, and 0 with a gradient of 0 where it is True nowhere.

    Args:
        values: Any shape.
        mask: Bool, of a shape that broadcasts to that of ``values``.
    """
    weight = mask.expand_as(values).to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp_min(1.0)


def uncertain_restoration_loss(restored: Tensor, log_variance: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the Gaussian negative log likelihood of the hidden samples (Kendall and Gal 2017, without its constants).

    ``mean(exp(-v) (restored - target)^2 + v)``: a large error costs less where the network said it would be large.

    Args:
        restored: (B, leads, time) millivolts.
        log_variance: (B, leads, time) v, the logarithm of the expected squared error; one value a lead and sample.
        target: (B, leads, time) millivolts.
        mask: (B, leads, time) bool, True where hidden. What was visible is not counted; the published form, which
            counts every sample, is a mask that is True everywhere.

    Returns:
        Scalar; 0 where nothing is hidden.
    """
    v = log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
    return masked_mean((-v).exp() * (restored - target).square() + v, mask)


def trend_restoration_loss(restored: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared error of the hidden samples.

    Args:
        restored: (B, leads, time) millivolts, restored from the trend.
        target: (B, leads, time) millivolts: the signal itself, not its trend.
        mask: (B, leads, time) bool, True where hidden.

    Returns:
        Scalar in mV^2; 0 where nothing is hidden.
    """
    return masked_mean((restored - target).square(), mask)
