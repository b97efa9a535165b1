"""Losses for many labels at once, most of them rare."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from ecgfair.errors import ConfigurationError
from ecgfair.losses.mean import Mean, precise


class MultiLabelLoss(nn.Module):
    """A loss of every record and label, and its mean."""

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return (B, C) losses, which is what weights of records and groups are put on.

        Args:
            logits: (B, C).
            target: (B, C), 0 or 1.
        """
        raise NotImplementedError

    def forward(self, logits: Tensor, target: Tensor) -> Mean:
        """Return the mean over records and labels.

        Args:
            logits: (B, C).
            target: (B, C), 0 or 1.
        """
        return Mean.of(self.each(precise(logits), target))

    def set_progress(self, share: float) -> None:
        """Tell how much of the training is done; a loss that changes on the way acts on it, others do nothing.

        A loss remembers nothing else, so that a run that goes on needs nothing of it in its checkpoint.

        Args:
            share: Steps done over all steps, from 0 to 1.
        """


class CrossEntropy(MultiLabelLoss):
    """Binary cross-entropy."""

    @override
    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")

    @override
    def forward(self, logits: Tensor, target: Tensor) -> Mean:
        if not len(logits):
            return super().forward(logits, target)
        # Not the mean of `each`, whose gradient is rounded otherwise: old runs stay repeatable.
        return Mean.over(F.binary_cross_entropy_with_logits(precise(logits), target), logits.numel())


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
        # A root has no finite slope at 0, and 0 is where the probability of an extreme logit is rounded to.
        return base.clamp_min(torch.finfo(base.dtype).tiny) ** gamma if gamma else 1.0


class FocalLoss(MultiLabelLoss):
    """Focal loss (Lin et al. 2017, arXiv 1708.02002), averaged over records and labels, without its factor alpha.

    With p the probability given to what is true, cross-entropy is multiplied by (1 - p)^gamma: what is told well
    already costs less, positive or negative. With gamma 0 it is binary cross-entropy.

    Args:
        gamma: Focusing exponent, 0 or more; the authors use 2.

    Raises:
        ConfigurationError: The exponent is out of its range.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if not 0 <= gamma < float("inf"):
            raise ConfigurationError(f"FocalLoss has gamma {gamma}: expected 0 or more, such as 2.")
        self.gamma = gamma

    @override
    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if not self.gamma:
            return losses
        # The power of 1 - p from its logarithm: neither rounded to 0 nor without a slope there.
        return (self.gamma * F.logsigmoid((1 - 2 * target) * logits)).exp() * losses
