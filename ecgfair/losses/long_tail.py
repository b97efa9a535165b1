"""Losses that know how rare each label is: margins, weights and shifts that follow from the training records."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from ecgfair.errors import ConfigurationError
from ecgfair.losses.mean import Mean
from ecgfair.losses.multi_label import FocalLoss, MultiLabelLoss


class LdamLoss(MultiLabelLoss):
    """Label-distribution-aware margins and deferred reweighting (Cao et al. 2019, arXiv 1906.07413), label by label.

    Each label is a problem of two classes, negatives and positives. A record has to be on the right side by the margin
    of its class, which is proportional to n^(-1/4) with n the training records of that class: cross-entropy is taken of
    ``scale * (logit - margin)`` for a positive, ``scale * (logit + margin)`` for a negative. The largest margin of all
    labels and classes is ``max_margin``.

    From ``deferred`` of the training on, losses are weighed by (1 - beta) / (1 - beta^n) of their class, the inverse of
    its effective number of records (Cui et al. 2019, arXiv 1901.05555), times one factor for all, which makes the mean
    weight over all labels and training records 1. With a mean over classes instead, negatives, which most records are,
    would weigh next to nothing, and the label loss would shrink against every other term of the training. The weights
    act in training mode alone, so that losses of validation stay comparable over a run.

    A class without training records counts as the rarest class that has some.

    With margin 0, scale 1 and ``deferred`` 1 it is binary cross-entropy.

    Args:
        positives: (C,) positive training records, a label.
        records: Number of training records.
        max_margin: Largest margin, 0 or more, in logits.
        scale: Factor on logits and margins; positive. The authors have 30 for cosines, which end at 1; logits have no
            such end, and with another scale than 1 their probabilities are wrong.
        deferred: Share of the training from which on losses are weighed; 0 always, 1 never.
        beta: Of the effective number, from 0 (all weights 1) to below 1.

    Attributes:
        margins: (C, 2) of negatives and of positives.
        weights: (C, 2) likewise.

    Raises:
        ConfigurationError: A value is out of its range, or the counts are impossible.
    """

    margins: Tensor
    weights: Tensor

    def __init__(
        self,
        positives: Sequence[float],
        records: int,
        max_margin: float = 0.5,
        scale: float = 1.0,
        deferred: float = 0.8,
        beta: float = 0.9999,
    ) -> None:
        super().__init__()
        if not 0 <= max_margin < float("inf"):
            raise ConfigurationError(f"LdamLoss has max_margin {max_margin}: expected 0 or more, such as 0.5.")
        if not 0 < scale < float("inf"):
            raise ConfigurationError(f"LdamLoss has scale {scale}: expected a positive number, such as 1.")
        if not 0 <= deferred <= 1:
            raise ConfigurationError(f"LdamLoss has deferred {deferred}: expected a share from 0 to 1 (never).")
        if not 0 <= beta < 1:
            raise ConfigurationError(f"LdamLoss has beta {beta}: expected 0 <= beta < 1, such as 0.9999.")
        counts = _counts("LdamLoss", positives, records)
        self.scale = scale
        self.deferred = deferred
        found = torch.where(counts > 0, counts, counts[counts > 0].min())
        margins = found**-0.25
        weights = (1 - beta) / -torch.expm1(found * torch.tensor(beta, dtype=torch.float64).log())
        weights = weights * counts.sum() / (counts * weights).sum()
        # Facts of the data, not of the training: a run that goes on counts again.
        self.register_buffer("margins", (max_margin * margins / margins.max()).float(), persistent=False)
        self.register_buffer("weights", weights.float(), persistent=False)
        self.set_progress(0.0)

    @override
    def set_progress(self, share: float) -> None:
        self.weighed = self.deferred < 1 and share >= self.deferred

    @override
    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        negative, positive = (
            F.binary_cross_entropy_with_logits(
                self.scale * (logits + margin), torch.full_like(logits, which), reduction="none"
            )
            for margin, which in ((self.margins[:, 0], 0.0), (-self.margins[:, 1], 1.0))
        )
        if self.weighed and self.training:
            negative, positive = self.weights[:, 0] * negative, self.weights[:, 1] * positive
        # A soft label, as mixup makes, is so much of either class.
        return target * positive + (1 - target) * negative


class DistributionBalancedLoss(MultiLabelLoss):
    """Distribution-balanced loss (Wu et al. 2020, arXiv 2007.09654), averaged over records and labels.

    Rebalanced weights: were every label drawn equally often, a record would come by label c at a rate of 1 / n_c, and
    by all of its own labels at the sum of 1 / n_j over them. Label c of the record is weighed by
    ``floor + sigmoid(steepness * (r - centre))`` with r the first over the second: little if the record has a much
    rarer label.

    Negative-tolerant regularisation: ``label_bias / negative_scale`` times logit(prevalence) is added to every logit,
    and cross-entropy of a negative is taken of ``negative_scale`` times that logit and divided by the scale: a negative
    that is told well already has less gradient. The bias is divided by the scale as in the authors' code.

    Focal loss is taken of these logits with ``focal_gamma``, without the factor 2 of the authors' code.

    What the authors leave open is settled so: a label without positives counts as one with a single one; a record
    without any label has r without bounds, so weight ``floor + 1``, as one whose labels are all common; prevalences are
    held between 0.001 and 0.999 for the bias.

    Args:
        positives: (C,) positive training records, a label.
        records: Number of training records.
        floor: alpha of the weights, 0 or more.
        steepness: beta of the weights; positive.
        centre: mu of the weights, the r whose weight is ``floor + 0.5``; the authors have 0.2 for 80 labels (COCO) and
            0.3 for 20 (VOC).
        negative_scale: lambda, 1 or more, where 1 makes negatives and positives equal; the authors have 2 for COCO and
            5 for VOC.
        label_bias: kappa, 0 or more.
        focal_gamma: Focusing exponent; 0 is without focus, the authors' better results have 2.

    Attributes:
        rates: (C,) 1 / n.
        bias: (C,) what is added to the logits.

    Raises:
        ConfigurationError: A value is out of its range, or the counts are impossible.
    """

    rates: Tensor
    bias: Tensor

    def __init__(
        self,
        positives: Sequence[float],
        records: int,
        floor: float = 0.1,
        steepness: float = 10.0,
        centre: float = 0.2,
        negative_scale: float = 2.0,
        label_bias: float = 0.05,
        focal_gamma: float = 2.0,
    ) -> None:
        super().__init__()
        for name, value in (("floor", floor), ("centre", centre), ("label_bias", label_bias)):
            if not 0 <= value < float("inf"):
                raise ConfigurationError(f"DistributionBalancedLoss has {name} {value}: expected 0 or more.")
        if not 0 < steepness < float("inf"):
            raise ConfigurationError(
                f"DistributionBalancedLoss has steepness {steepness}: expected a positive number, such as 10."
            )
        if not 1 <= negative_scale < float("inf"):
            raise ConfigurationError(
                f"DistributionBalancedLoss has negative_scale {negative_scale}: expected 1 or more, such as 2."
            )
        counts = _counts("DistributionBalancedLoss", positives, records)
        self.floor = floor
        self.steepness = steepness
        self.centre = centre
        self.negative_scale = negative_scale
        self.focal = FocalLoss(focal_gamma)
        # Facts of the data, not of the training: a run that goes on counts again.
        self.register_buffer("rates", (1 / counts[:, 1].clamp_min(1)).float(), persistent=False)
        bias = label_bias / negative_scale * prevalence_logits((counts[:, 1] / counts.sum(1)).tolist())
        self.register_buffer("bias", bias.float(), persistent=False)

    @override
    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        ratio = self.rates / (target * self.rates).sum(1, keepdim=True)
        weights = self.floor + (self.steepness * (ratio - self.centre)).sigmoid()
        biased = logits + self.bias
        positive = self.focal.each(biased, torch.ones_like(target))
        negative = self.focal.each(self.negative_scale * biased, torch.zeros_like(target)) / self.negative_scale
        # A soft label, as mixup makes, is so much of either class.
        return weights * (target * positive + (1 - target) * negative)


class LogitAdjusted(MultiLabelLoss):
    """Any of these losses of adjusted logits (Menon et al. 2021, arXiv 2007.07314), label by label.

    In training mode ``tau`` times logit(prevalence) is added to the logits of each label. So the network learns what
    speaks for a label beyond its prevalence, and its own logits, from which everything is predicted, call rare labels
    more often. With ``tau`` 1 and cross-entropy they are those of data in which half of all records are positive, so
    they are no probabilities of the data at hand. Out of training mode the loss is that of the network's own logits. It
    is larger for that alone: compare runs of different ``tau`` by AUROC, not by their loss of validation.

    A head that starts from logit(prevalence), as DiagnosisNetwork's does, would count the prevalence 1 + tau times. Let
    it start from (1 - tau) times logit(prevalence): then the first adjusted logits are those that it has without.

    Args:
        loss: The loss of the adjusted logits.
        prevalence: (C,) share of the training records positive, a label; held between 0.001 and 0.999.
        tau: Strength; 0 is off, 1 is usual.

    Attributes:
        shift: (C,) what is added to the logits.

    Raises:
        ConfigurationError: tau is below 0, or a prevalence is no share.
    """

    shift: Tensor

    def __init__(self, loss: MultiLabelLoss, prevalence: Sequence[float], tau: float = 1.0) -> None:
        super().__init__()
        if not 0 <= tau < float("inf"):
            raise ConfigurationError(f"LogitAdjusted has tau {tau}: expected 0 (off) or more, such as 1.")
        if not prevalence or not all(0 <= share <= 1 for share in prevalence):
            raise ConfigurationError(
                f"LogitAdjusted has prevalences {list(prevalence)}: expected a share from 0 to 1 a label."
            )
        self.loss = loss
        self.register_buffer("shift", (tau * prevalence_logits(prevalence)).float(), persistent=False)

    @override
    def set_progress(self, share: float) -> None:
        self.loss.set_progress(share)

    @override
    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.loss.each(self._adjusted(logits), target)

    @override
    def forward(self, logits: Tensor, target: Tensor) -> Mean:
        mean: Mean = self.loss(self._adjusted(logits), target)
        return mean

    def _adjusted(self, logits: Tensor) -> Tensor:
        return logits + self.shift if self.training else logits


def prevalence_logits(prevalence: Sequence[float]) -> Tensor:
    """Return (C,) float64 logits of prevalences held between 0.001 and 0.999, as the heads of the networks start.

    Args:
        prevalence: (C,) shares of positives.
    """
    return torch.tensor(prevalence, dtype=torch.float64).clamp(1e-3, 1 - 1e-3).logit()


def _counts(loss: str, positives: Sequence[float], records: int) -> Tensor:
    """Return (C, 2) float64 training records, negative and positive.

    Raises:
        ConfigurationError: There is no label, or a label has fewer positives than 0 or more than there are records.
    """
    if not records >= 1:
        raise ConfigurationError(f"{loss} has {records} training records: expected at least one.")
    found = torch.tensor(positives, dtype=torch.float64)
    if found.ndim != 1 or not len(found) or not bool(((found >= 0) & (found <= records)).all()):
        raise ConfigurationError(
            f"{loss} has positives {list(positives)}: expected a number from 0 to {records}, the number of training "
            "records, a label."
        )
    return torch.stack([records - found, found], 1)
