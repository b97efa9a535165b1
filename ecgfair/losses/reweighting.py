"""Label-wise reweighting: weights under which no label depends on the group."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgfair.errors import ConfigurationError


def independence_weights(records: Tensor, positives: Tensor, cap: float) -> Tensor:
    """Return the weights under which group and label are independent (Kamiran and Calders 2012).

    For group g, label c and value y the weight is P(g) P_c(y) / P(g, y), doi 10.1007/s10115-011-0463-8, done for each
    label by itself. Under the weights, every group has the prevalence that all records have, and weighs as much as
    before, but for what the cap cuts off.

    Args:
        records: (G,) training records of each group.
        positives: (G, C) those of them that are positive.
        cap: Greatest weight. Without one, the few positives of a small group would be learned by heart.

    Returns:
        (G, C, 2) float64: of negatives and of positives; 1 where there is no such record.

    Raises:
        ConfigurationError: The counts are impossible, or the cap is below 1.
    """
    if not 1 <= cap < float("inf"):
        raise ConfigurationError(f"The cap of the label weights is {cap}: expected 1 or more, such as 10.")
    records, positives = records.double(), positives.double()
    if positives.ndim != 2 or records.shape != positives.shape[:1]:
        raise ConfigurationError(
            f"There are records of {tuple(records.shape)} groups and positives of {tuple(positives.shape)} groups and "
            "labels: expected (G,) and (G, C)."
        )
    # Counts may be sums of weights, so they are equal to rounding only.
    if bool((positives < 0).any() | (positives > records[:, None] * (1 + 1e-9)).any()) or not bool(records.sum() > 0):
        raise ConfigurationError(
            "Training records and positives by group contradict each other: expected positives from 0 to the number of "
            "the group's records, and at least one record."
        )
    found = torch.stack([(records[:, None] - positives).clamp_min(0), positives], dim=-1)
    expected = records[:, None, None] / records.sum() * found.sum(0)
    return torch.where(found > 0, expected / found.clamp_min(1e-300), 1.0).clamp_max(cap)


class LabelReweighting(nn.Module):
    """Weighs the loss of each record and label by ``independence_weights``.

    Args:
        groups: How many groups there are.
        labels: How many labels.
        cap: Greatest weight, 1 or more.

    Raises:
        ConfigurationError: The cap is below 1.
    """

    weights: Tensor

    def __init__(self, groups: int, labels: int, cap: float = 10.0) -> None:
        super().__init__()
        self.cap = cap
        # Facts of the data, not of the training: a run that goes on counts again.
        self.register_buffer("weights", torch.ones(groups, labels, 2), persistent=False)
        independence_weights(torch.ones(1), torch.ones(1, 1), cap)  # refuses an impossible cap now

    def count(self, records: Tensor, positives: Tensor) -> None:
        """Tell how many training records and positives each group has.

        Args:
            records: (G,).
            positives: (G, C).

        Raises:
            ConfigurationError: They are of other groups or labels, or impossible.
        """
        weights = independence_weights(records, positives, self.cap)
        if weights.shape != self.weights.shape:
            groups, labels, _ = self.weights.shape
            raise ConfigurationError(
                f"LabelReweighting got positives of {tuple(positives.shape)} groups and labels: expected "
                f"{(groups, labels)}."
            )
        self.weights.copy_(weights)

    def forward(self, losses: Tensor, target: Tensor, codes: Tensor) -> Tensor:
        """Return (B, C) weighted losses.

        Args:
            losses: (B, C) loss of each record and label.
            target: (B, C), 0 or 1.
            codes: (B,) int64 group of each record.
        """
        of_record = self.weights[codes]
        return losses * torch.where(target > 0, of_record[..., 1], of_record[..., 0])
