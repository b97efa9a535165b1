"""Which loss stage 2 minimises for its labels: settings, and the loss that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.losses.long_tail import DistributionBalancedLoss, LdamLoss, LogitAdjusted
from ecgfair.losses.multi_label import AsymmetricLoss, CrossEntropy, FocalLoss, MultiLabelLoss

LossName = Literal["bce", "asymmetric", "focal", "ldam", "distribution_balanced"]
INFINITY = float("inf")


@dataclass
class LabelLoss:
    """The loss of the labels; binary cross-entropy by default.

    Every setting belongs to the losses named with it, and has no effect on others. ``losses.multi_label`` and
    ``losses.long_tail`` give formulas and sources.

    Args:
        name: ``bce`` (binary cross-entropy), ``asymmetric``, ``focal``, ``ldam`` (margins by how rare a class is, then
            weights), or ``distribution_balanced`` (weights by the other labels of a record, tolerant of negatives).
        gamma_positive: Of ``asymmetric``: focusing exponent of positives, from 0 to ``gamma_negative``.
        gamma_negative: Of ``asymmetric``: focusing exponent of negatives.
        clip: Of ``asymmetric``: shift of the probability of negatives, from 0 to below 1.
        focal_gamma: Of ``focal`` and ``distribution_balanced``: focusing exponent, 0 or more.
        max_margin: Of ``ldam``: largest margin, 0 or more, in logits.
        margin_scale: Of ``ldam``: factor on logits and margins; with another than 1, probabilities are wrong.
        deferred: Of ``ldam``: share of the training from which on classes are weighed; 0 always, 1 never.
        beta: Of ``ldam``: of the effective number of records, from 0 to below 1; weights differ more the closer to 1.
        weight_floor: Of ``distribution_balanced``: alpha, added to every weight.
        weight_steepness: Of ``distribution_balanced``: beta, how fast weights rise.
        weight_centre: Of ``distribution_balanced``: mu, where they rise; lower it the more labels there are.
        negative_scale: Of ``distribution_balanced``: lambda, tolerance of negatives, 1 (none) or more.
        label_bias: Of ``distribution_balanced``: kappa, share of logit(prevalence) that is added to the logits.
        logit_adjustment: Of all: tau, how much of logit(prevalence) is added to the logits in training alone; 0 is off,
            1 is usual. Rare labels are then called more often, and probabilities no longer match the data.

    Raises:
        ConfigurationError: A value can't work.
    """

    name: LossName = "bce"
    gamma_positive: float = 0.0
    gamma_negative: float = 2.0
    clip: float = 0.05
    focal_gamma: float = 2.0
    max_margin: float = 0.5
    margin_scale: float = 1.0
    deferred: float = 0.8
    beta: float = 0.9999
    weight_floor: float = 0.1
    weight_steepness: float = 10.0
    weight_centre: float = 0.2
    negative_scale: float = 2.0
    label_bias: float = 0.05
    logit_adjustment: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that can't work."""
        if self.name not in get_args(LossName):
            raise ConfigurationError(f"loss.name is {self.name!r}.{did_you_mean(self.name, get_args(LossName))}")
        for field in ("focal_gamma", "max_margin", "weight_floor", "weight_centre", "label_bias", "logit_adjustment"):
            self._check(field, 0 <= getattr(self, field) < INFINITY, "0 or more")
        for field in ("margin_scale", "weight_steepness"):
            self._check(field, 0 < getattr(self, field) < INFINITY, "a positive number")
        for field in ("clip", "beta"):
            self._check(field, 0 <= getattr(self, field) < 1, "0 or more and less than 1")
        self._check("deferred", 0 <= self.deferred <= 1, "a share of the training, from 0 to 1 (never)")
        self._check("negative_scale", 1 <= self.negative_scale < INFINITY, "1 or more")
        self._check("gamma_negative", 0 <= self.gamma_negative < INFINITY, "0 or more")
        self._check(
            "gamma_positive",
            0 <= self.gamma_positive <= self.gamma_negative,
            f"0 to gamma_negative ({self.gamma_negative}), or positives are learned less than negatives",
        )

    def build(self, label_prevalence: Sequence[float], training_records: int) -> MultiLabelLoss:
        """Return the loss for these training records.

        Args:
            label_prevalence: (C,) share of the training records positive, a label.
            training_records: How many training records there are.

        Raises:
            ConfigurationError: A prevalence is no share, or there is no training record.
        """
        # Shares may be rounded to float32: a class without any record has to stay one without any.
        loss = self._unadjusted([round(share * training_records) for share in label_prevalence], training_records)
        return LogitAdjusted(loss, label_prevalence, self.logit_adjustment) if self.logit_adjustment else loss

    def _unadjusted(self, positives: Sequence[float], records: int) -> MultiLabelLoss:
        match self.name:
            case "bce":
                return CrossEntropy()
            case "asymmetric":
                return AsymmetricLoss(self.gamma_positive, self.gamma_negative, self.clip)
            case "focal":
                return FocalLoss(self.focal_gamma)
            case "ldam":
                return LdamLoss(positives, records, self.max_margin, self.margin_scale, self.deferred, self.beta)
            case "distribution_balanced":
                return DistributionBalancedLoss(
                    positives,
                    records,
                    self.weight_floor,
                    self.weight_steepness,
                    self.weight_centre,
                    self.negative_scale,
                    self.label_bias,
                    self.focal_gamma,
                )

    def _check(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigurationError(f"loss.{field} is {getattr(self, field)}: expected {expected}.")
