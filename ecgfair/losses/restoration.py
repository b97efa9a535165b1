"""How well hidden samples were restored, and how well the network knew it."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from ecgfair.losses.mean import Mean, precise

LOG_VARIANCE_LIMIT: Final = 10.0
"""Numerical safety only: exp(10) mV^2 is far beyond any ECG, exp(-10) mV^2 is 7 microvolts, the noise of a good one."""


def uncertain_restoration_loss(restored: Tensor, log_variance: Tensor, target: Tensor, mask: Tensor) -> Mean:
    """Return the Gaussian negative log likelihood of the hidden samples (Kendall and Gal 2017, without its constants).

    ``mean(exp(-v) (restored - target)^2 + v)``: a large error costs less where the network said it would be large.

    Args:
        restored: (B, leads, time) millivolts.
        log_variance: (B, leads, time) v, the logarithm of the expected squared error; one value a lead and sample.
        target: (B, leads, time) millivolts.
        mask: (B, leads, time) bool, True where hidden. What was visible is not counted; the published form, which
            counts every sample, is a mask that is True everywhere.

    Returns:
        Their mean; 0 where nothing is hidden.
    """
    # Half precision ends at 65504, soon reached by exp(10) times an error.
    v = precise(log_variance).clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
    return Mean.of((-v).exp() * (precise(restored) - target).square() + v, mask)


def trend_restoration_loss(restored: Tensor, target: Tensor, mask: Tensor) -> Mean:
    """Return the mean squared error of the hidden samples.

    Args:
        restored: (B, leads, time) millivolts, restored from the trend.
        target: (B, leads, time) millivolts: the signal itself, not its trend.
        mask: (B, leads, time) bool, True where hidden.

    Returns:
        Their mean in mV^2; 0 where nothing is hidden.
    """
    return Mean.of((precise(restored) - target).square(), mask)
