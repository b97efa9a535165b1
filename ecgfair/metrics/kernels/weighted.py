"""Sums of weights, the one operation under every statistic: of records, by group, for many weightings at once.

Everywhere in this package ``codes`` (N,) is the group of each record, 0 to ``groups`` - 1, each record in exactly one;
and ``weights`` (R, N) has a row a weighting: ones for the point estimate, weights of a resample for an interval.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def group_sums(values: Tensor, codes: Tensor, groups: int, weights: Tensor) -> Tensor:
    """Sum values over the records of each group, weighted.

    Args:
        values: (N, K) float64; not NaN.
        codes: (N,) int64.
        groups: Number of groups, G.
        weights: (R, N).

    Returns:
        (R, G, K) float64; 0 for a group without records.
    """
    sums = torch.zeros(len(weights), groups, values.shape[1], dtype=torch.float64, device=values.device)
    for group in range(groups):
        members = (codes == group).nonzero()[:, 0]
        sums[:, group] = weights[:, members].double() @ values[members]
    return sums


def bag_sums(bags: Tensor, count: int, weights_by_record: Tensor) -> Tensor:
    """Sum the weights of the records in each bag.

    A bag is a set of records, such as those of a label with a score between two thresholds. Sums over all bags of all
    labels at once are what makes resampling fast: nothing is sorted again, and a record's weights lie together.

    Args:
        bags: (N, C) int64, for each record and label the bag it falls into, from 0.
        count: Number of bags, over all labels; a bag may be empty.
        weights_by_record: (N, R) float64, contiguous.

    Returns:
        (count, R) float64.
    """
    if weights_by_record.shape[1] == 1 and bags.numel() and not bags.is_cuda:
        # One weighting, as at the end of an epoch: sorting would cost more than the sums.
        mass = weights_by_record.expand(bags.shape).reshape(-1)
        return torch.bincount(bags.reshape(-1), weights=mass, minlength=count)[:, None]
    flat = bags.T.reshape(-1)
    order = flat.argsort(stable=True)
    records = torch.arange(len(bags), device=bags.device).repeat(bags.shape[1])[order]
    sizes = torch.bincount(flat, minlength=count)
    if not len(records) or not weights_by_record.shape[1]:
        return weights_by_record.new_zeros(count, weights_by_record.shape[1])
    return embedding_bag(records, weights_by_record, sizes.cumsum(0) - sizes, mode="sum")


def patients_with(flags: Tensor, patients: Tensor, members: Tensor) -> Tensor:
    """Count the patients among some records who have a record with a flag.

    Args:
        flags: (N, K) bool.
        patients: (N,) int64, equal for the records of one patient.
        members: (M,) int64, positions of the records looked at.

    Returns:
        (K,) float64.
    """
    own, local = torch.unique(patients[members], return_inverse=True)
    counts = torch.zeros(len(own), flags.shape[1], dtype=torch.float64, device=flags.device)
    return (counts.index_add_(0, local, flags[members].double()) > 0).sum(0).double()
