"""How far probabilities are from the truth: the Brier score and the expected calibration error, group by group.

Shapes, codes and weights are those of ``weighted``: N records, C labels, G groups, R weightings.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels.checks import check_groups, check_predictions
from ecgfair.metrics.kernels.weighted import group_sums

DEFAULT_BINS: Final = 10

_WORKING_ELEMENTS: Final = 2**21
"""Float64 values of a working array (16 MiB): as many labels are taken at a time as keep it below."""
_TINY: Final = 1e-300
"""Stands for a standard deviation of 0 in a quotient, so that 0 / 0 is 0."""


def brier_scores(probabilities: Tensor, targets: Tensor, codes: Tensor, groups: int, weights: Tensor) -> Tensor:
    """Average the squared error of the probabilities (Brier 1950).

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C), 0 or 1, of any type.
        codes: (N,) int64 group of each record, 0 to ``groups`` - 1.
        groups: Number of groups, G.
        weights: (R, N), not negative.

    Returns:
        (R, G, C) float64 in [0, 1], less being better; NaN where the records of a group weigh nothing.

    Raises:
        ValueError: An input is not what it should be; see ``checks``.
    """
    check_predictions(probabilities, targets)
    check_groups(len(probabilities), codes, groups, weights)
    squared = (probabilities.detach().double() - targets.double()).square()
    return (group_sums(squared, codes, groups, weights) / _totals(codes, groups, weights)).clamp(0, 1)


def calibration_errors(
    probabilities: Tensor, targets: Tensor, codes: Tensor, groups: int, weights: Tensor, bins: int = DEFAULT_BINS
) -> tuple[Tensor, Tensor]:
    """Compute the expected calibration error and its bias-corrected form.

    The records of a group are cut into bins of about equal numbers by their probability, see ``equal_mass_bins``. With
    d_b the mean probability of a bin minus the share of positives in it, the error is the mean of |d_b| over the
    records (Naeini, Cooper and Hauskrecht 2015, doi:10.1609/aaai.v29i1.9602). The bins are those of the unweighted
    records, the same for every row of weights.

    Chance alone moves d_b off 0, so a perfectly calibrated model has an error, and the larger the smaller the group:
    groups of different size cannot be compared by it. The bias-corrected form takes off how much chance adds to |d_b|,
    were d_b the truth: 2 |d_b| - E|N(d_b, s_b)|, the mean of a folded normal in closed form, where Kumar, Liang and Ma
    (2019, arXiv:1909.10155) draw random numbers. Their sum is cut off at 0.

    It corrects in part. No estimate of an absolute value is free of bias at 0: of a calibrated model about 60 % of the
    excess stay where bins have many positives, less where positives are rare, and none once s_b is small beside d_b.

    The variance s_b ** 2 is that of a calibrated model with these probabilities p and weights w,
    sum(w ** 2 p (1 - p)) / sum(w) ** 2, not ybar (1 - ybar) / (n - 1) from the share of positives. The latter is 0 in
    a bin without positives, thus of most bins of a rare label, and undefined in a bin of one record. Where a model is
    so far off that the former is a bad estimate, d_b is large beside it, and nothing is taken off either way.
    The square of the weights matters: a resample scatters around the truth with the variance of the data and, besides,
    its own. This takes off both, so resamples lie around the corrected error of the records.

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C), 0 or 1, of any type.
        codes: (N,) int64 group of each record, 0 to ``groups`` - 1.
        groups: Number of groups, G.
        weights: (R, N), not negative.
        bins: The most bins of a group and label.

    Returns:
        The error and its bias-corrected form, each (R, G, C) float64 in [0, 1]; NaN where the records of a group weigh
        nothing.

    Raises:
        ConfigurationError: ``bins`` is not positive.
        ValueError: Another input is not what it should be; see ``checks``.
    """
    check_predictions(probabilities, targets)
    check_groups(len(probabilities), codes, groups, weights)
    values = probabilities.detach().double()
    order, within = equal_mass_bins(values, codes, groups, bins)
    cells = codes.sort().values * bins + within
    excess, variance = (part.T.gather(1, order) for part in (values - targets.double(), values * (1 - values)))
    by_record = weights.T.double().contiguous()  # (N, R): a record's weights lie together
    squares = by_record.square()
    step = max(1, _WORKING_ELEMENTS // max(1, len(values) + groups * bins * len(weights)))
    parts = []
    for first in range(0, values.shape[1], step):
        chosen = slice(first, first + step)
        bags = order[chosen], cells[chosen], groups * bins
        distance = _bag_sums(*bags, excess[chosen], by_record).abs_()
        spread = _bag_sums(*bags, variance[chosen], squares).sqrt_()
        pair = torch.stack([distance, 2 * distance - folded_normal_mean(distance, spread)])
        parts.append(pair.reshape(2, -1, groups, bins, len(weights)).sum(3))  # (2, labels, G, R)
    sums = torch.cat(parts, 1) if parts else values.new_zeros(2, 0, groups, len(weights))
    plain, corrected = (sums.permute(0, 3, 2, 1) / _totals(codes, groups, weights)).clamp(0, 1)
    return plain, corrected


def equal_mass_bins(probabilities: Tensor, codes: Tensor, groups: int, bins: int) -> tuple[Tensor, Tensor]:
    """Cut the records of each group, for each label, into bins of about equal numbers by rising probability.

    A record goes where its rank says; records of equal probability share the mean of their ranks, hence the bin. So
    there are fewer bins where there are fewer distinct probabilities, and the rest is empty.

    Args:
        probabilities: (N, C), not NaN.
        codes: (N,) int64 group of each record, 0 to ``groups`` - 1.
        groups: Number of groups.
        bins: The most bins of a group and label.

    Returns:
        (C, N) int64 the records of each label, group by group and in each by rising probability; and in this order
        (C, N) int64 their bins, 0 to ``bins`` - 1.

    Raises:
        ConfigurationError: ``bins`` is not positive.
    """
    if bins < 1:
        raise ConfigurationError(f"bins is {bins}: expected 1 or more bins of the calibration error, such as 10.")
    order = torch.empty(probabilities.T.shape, dtype=torch.int64, device=codes.device)
    found = torch.empty_like(order)
    begin = 0
    for group in range(groups):
        members = (codes == group).nonzero()[:, 0]
        if not len(members):
            continue
        block = slice(begin, begin + len(members))
        ranked, positions = probabilities[members].T.contiguous().sort(1)
        order[:, block] = members[positions]
        found[:, block] = _twice_mean_rank(ranked) * bins // (2 * len(members))
        begin = block.stop
    return order, found


def _twice_mean_rank(ranked: Tensor) -> Tensor:
    """(C, n) int64: 2 i + 1 for the i-th of a row of rising values, its mean among equal ones; whole, hence exact."""
    begins = torch.ones_like(ranked, dtype=torch.bool)
    begins[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    first = begins.flatten().nonzero()[:, 0]
    end = torch.cat([first[1:], first.new_tensor([ranked.numel()])])
    middle = (first + end).repeat_interleave(end - first).reshape(ranked.shape)
    return middle - 2 * ranked.shape[1] * torch.arange(len(ranked), device=ranked.device)[:, None]


def folded_normal_mean(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return E|X| of X normal with these means and standard deviations (0 included), of any shape.

    Source: Leone, Nelson and Nottingham 1961, doi:10.1080/00401706.1961.10489974.
    """
    ratio = mean / deviation.clamp_min(_TINY)
    density = (ratio.square() / -2).exp_().mul_(deviation).mul_(math.sqrt(2 / math.pi))
    return ratio.div_(math.sqrt(2)).erf_().mul_(mean).add_(density)


def _bag_sums(order: Tensor, cells: Tensor, count: int, values: Tensor, by_record: Tensor) -> Tensor:
    """Sum values times weights over the cells of each label, in the order of the cells.

    Args:
        order: (C, N) records.
        cells: (C, N) the cell of each, 0 to ``count`` - 1, rising along a row.
        count: Cells of a label; any may be empty.
        values: (C, N) value of each.
        by_record: (N, R) weights.

    Returns:
        (C times ``count``, R).
    """
    labels = torch.arange(len(order), device=order.device)[:, None]
    sizes = torch.bincount((cells + labels * count).flatten(), minlength=count * len(order))
    if not order.numel() or not by_record.shape[1]:
        return by_record.new_zeros(len(sizes), by_record.shape[1])
    begins = sizes.cumsum(0) - sizes
    return embedding_bag(order.flatten(), by_record, begins, mode="sum", per_sample_weights=values.flatten())


def _totals(codes: Tensor, groups: int, weights: Tensor) -> Tensor:
    """(R, G, 1) sum of the weights of each group."""
    ones = torch.ones(len(codes), 1, dtype=torch.float64, device=codes.device)
    return group_sums(ones, codes, groups, weights)
