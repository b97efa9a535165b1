"""Losses for many labels at once, most of them rare."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from ecgfair.errors import ConfigurationError


class MultiLabelLoss(nn.Module):
    """A loss of every record and label, and its mean."""

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return (B, C) losses, which is what weights of records and groups are put on.

        Args:
            logits: (B, C).
            target: (B, C), 0 or 1.
        """
        raise NotImplementedError

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over records and labels, a scalar.

        Args:
            logits: (B, C).
            target: (B, C), 0 or 1.
        """
        return self.each(logits, target).mean()


class CrossEntropy(MultiLabelLoss):
    """Binary cross-entropy."""

    @override
    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")

    @override
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        # Not the mean of `each`, whose gradient is rounded otherwise: old runs stay repeatable.
        return F.binary_cross_entropy_with_logits(logits, target)


class AsymmetricLoss(MultiLabelLoss):
    """Asymmetric loss (Ridnik et al. 2021, arXiv 2009.14119), averaged over records and labels.

    Easy negatives are down-weighted by ``gamma_negative`` and dropped below a probability of ``clip``; positives keep
    their full gradient at ``gamma_positive`` 0. The form published with the method has gamma+ 10 and a sum: then a
    positive at p = 0.5 has 1/1024 of the gradient that it has here (0.5^10, the focus held constant).

    With both gammas and the clip 0 it is binary cross-entropy.

    Args:
        gamma_positive: Focusing exponent of positives, from 0 to ``gamma_negative``.
        gamma_negative: Focusing exponent of negatives, 0 or more.
        clip: Shift of the probability of negatives, from 0 to below 1.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    def __init__(self, gamma_positive: float = 0.0, gamma_negative: float = 2.0, clip: float = 0.05) -> None:
        super().__init__()
        if not 0 <= gamma_positive <= gamma_negative:
            raise ConfigurationError(
                f"AsymmetricLoss has gamma_positive {gamma_positive} and gamma_negative {gamma_negative}: expected "
                "0 <= gamma_positive <= gamma_negative, or positives are learned less than negatives."
            )
        if not 0 <= clip < 1:
            raise ConfigurationError(f"AsymmetricLoss has clip {clip}: expected 0 <= clip < 1.")
        self.gamma_positive = gamma_positive
        self.gamma_negative = gamma_negative
        self.clip = clip

    @override
    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        p = logits.sigmoid()
        # log p from the logits themselves: a probability of exactly 0 or 1 keeps a finite loss and a gradient.
        positive = -F.logsigmoid(logits) * self._focus(1 - p, self.gamma_positive)
        if self.clip:
            shifted = (p - self.clip).clamp_min(0)
            negative = -torch.log1p(-shifted) * self._focus(shifted, self.gamma_negative)
        else:
            negative = -F.logsigmoid(-logits) * self._focus(p, self.gamma_negative)
        return target * positive + (1 - target) * negative

    @staticmethod
    def _focus(base: Tensor, gamma: float) -> Tensor | float:
        return base**gamma if gamma else 1.0


def multi_label_loss(name: str, asymmetric: AsymmetricLoss) -> MultiLabelLoss:
    """Return the loss of that name: ``"bce"`` or ``"asymmetric"``.

    Raises:
        ConfigurationError: There is no loss of that name.
    """
    if name == "bce":
        return CrossEntropy()
    if name == "asymmetric":
        return asymmetric
    raise ConfigurationError(f"loss is {name!r}: expected 'bce' or 'asymmetric'.")
