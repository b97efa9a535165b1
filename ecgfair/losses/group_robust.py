"""Group distributionally robust optimisation: train on the loss of the groups that are served worst."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from ecgfair.errors import ConfigurationError
from ecgfair.processes import several_processes


class GroupRobustLoss(nn.Module):
    """The groups' losses, weighted by how much each group has lost so far (Sagawa et al. 2020, arXiv 1911.08731).

    Every group g has a weight q_g, and all weights sum to 1. A training step multiplies the weight of each group in the
    batch by exp(step * L_g), with L_g the mean loss of its records, and minimises the sum of q_g L_g over the groups in
    the batch. So the weights climb towards the worst group while the network descends.

    What the authors leave open is settled so: a group that a batch lacks keeps its weight exactly, and the others share
    theirs anew. Losses are positive; if all weights were normalised together, a rare group would lose weight in every
    batch it is not in. A rare group still counts in few batches: draw groups equally often, as the authors do.

    With several processes, sums and counts are added up over all of them. So all have the same weights, those of one
    process with all of their records, and DDP's mean of the gradients is that one's gradient.

    A loss is no AUROC: a group with more disease, or with labels that are harder to tell, has the larger loss even
    if it is served as well as the others. ``LabelReweighting`` before this loss takes away what prevalence does to it.

    Args:
        groups: How many groups there are.
        step: Step size of the weights; positive. The authors use 0.01.
        adjustment: C of the generalisation adjustment: C / sqrt(n_g) is added to the loss of a group with n_g training
            records when weights are updated, since a small group is overfitted more. 0 or more; the authors try 0 to 5.

    Attributes:
        log_weights: (G,) logarithms of the weights, up to a constant: a weight that was next to nothing can come back.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    log_weights: Tensor
    records: Tensor

    def __init__(self, groups: int, step: float = 0.01, adjustment: float = 0.0) -> None:
        super().__init__()
        if not 0 < step < float("inf"):
            raise ConfigurationError(f"GroupRobustLoss has step {step}: expected a positive number, such as 0.01.")
        if not 0 <= adjustment < float("inf"):
            raise ConfigurationError(f"GroupRobustLoss has adjustment {adjustment}: expected 0 or more, such as 1.")
        self.step = step
        self.adjustment = adjustment
        self.register_buffer("log_weights", torch.zeros(groups))
        # Facts of the data, not of the training: a run that goes on counts again.
        self.register_buffer("records", torch.ones(groups), persistent=False)

    @property
    def weights(self) -> Tensor:
        """(G,) weights of the groups, summing to 1; 0 for those without training records."""
        return self.log_weights.masked_fill(self.records == 0, -torch.inf).softmax(0)

    def count(self, records: Tensor) -> None:
        """Tell how many training records each group has.

        Args:
            records: (G,) numbers, not all 0.

        Raises:
            ConfigurationError: They are of other groups, or there is no record.
        """
        if records.shape != self.records.shape or not bool(records.sum() > 0):
            raise ConfigurationError(
                f"GroupRobustLoss got {records.tolist()} as training records by group: expected "
                f"{len(self.records)} numbers, not all 0."
            )
        self.records.copy_(records)

    def forward(self, losses: Tensor, codes: Tensor) -> Tensor:
        """Update the weights, if in training, and return what is to be minimised.

        Args:
            losses: (B,) loss of each record.
            codes: (B,) int64 group of each record.

        Returns:
            Scalar. Over processes its mean, and that of its gradient, is the robust loss of all of their records.
        """
        membership = (codes == torch.arange(len(self.records), device=codes.device)[:, None]).to(losses.dtype)
        # No index_add and no matrix product: the one is not deterministic on a GPU, the other loses digits in autocast.
        sums = (membership * losses).sum(1)
        totals = torch.stack([sums.detach(), membership.sum(1)]).float()
        processes = 1
        if several_processes():
            distributed.all_reduce(totals)
            processes = distributed.get_world_size()
        counts = totals[1].clamp_min(1)
        if self.training:
            self._climb(totals[0] / counts, totals[1] > 0)
        return processes * (self.weights / counts * sums).sum()

    @torch.no_grad()
    def _climb(self, means: Tensor, seen: Tensor) -> None:
        before = self.log_weights.masked_fill(~seen, -torch.inf)
        after = before + self.step * (means + self.adjustment * self.records.clamp_min(1).rsqrt())
        # The groups of the batch share the weight that they had together.
        after = after + before.logsumexp(0) - after.logsumexp(0)
        self.log_weights.copy_(torch.where(seen, after, self.log_weights))
