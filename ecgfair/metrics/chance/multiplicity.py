"""P-values of many labels, adjusted for having looked at all of them.

A label without a test has the p-value NaN: it stays NaN and is not counted among the tests.
"""

from __future__ import annotations

import torch
from torch import Tensor


def holm(p: Tensor) -> Tensor:
    """Adjust p-values so that rejecting those up to a level errs in any label with at most that probability.

    Holm's step-down procedure (Holm 1979, Scandinavian Journal of Statistics 6:65-70): valid however the labels depend
    on each other.

    Args:
        p: (C,) in [0, 1], NaN where there was no test.

    Returns:
        (C,) float64.

    Raises:
        ValueError: There is another shape, or a p-value outside [0, 1].
    """
    tested, ranked, order = _ranked(p)
    left = torch.arange(len(ranked), 0, -1, dtype=torch.float64, device=p.device)
    # The one that is rejected last needs all before it rejected.
    stepped = (ranked * left).clamp(max=1).cummax(0).values if len(ranked) else ranked
    return _restored(p, tested, order, stepped)


def benjamini_hochberg(p: Tensor) -> Tensor:
    """Adjust p-values so that among those up to a level at most that share is expected to be rejected in error.

    The false discovery rate (Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x): valid for
    independent tests and for those that depend positively on each other.

    Args:
        p: (C,) in [0, 1], NaN where there was no test.

    Returns:
        (C,) float64.

    Raises:
        ValueError: There is another shape, or a p-value outside [0, 1].
    """
    tested, ranked, order = _ranked(p)
    count = len(ranked)
    position = torch.arange(1, count + 1, dtype=torch.float64, device=p.device)
    # From the largest downwards: one that is rejected takes all smaller ones with it.
    stepped = (ranked * count / position).clamp(max=1).flip(0).cummin(0).values.flip(0) if count else ranked
    return _restored(p, tested, order, stepped)


def _ranked(p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which labels were tested (C,), their p-values by rising size, and the order that sorts them."""
    if p.ndim != 1:
        raise ValueError(f"p-values have the shape {tuple(p.shape)}: expected (labels,).")
    values = p.detach().double()
    if count := int(((values < 0) | (values > 1)).sum()):
        raise ValueError(f"{count} of {len(p)} p-values lie outside [0, 1]: expected probabilities, NaN if not tested.")
    tested = ~values.isnan()
    ranked, order = values[tested].sort(stable=True)
    return tested, ranked, order


def _restored(p: Tensor, tested: Tensor, order: Tensor, stepped: Tensor) -> Tensor:
    """Put adjusted p-values back where the labels stood."""
    of_tested = torch.empty_like(stepped)
    of_tested[order] = stepped
    adjusted = torch.full(p.shape, torch.nan, dtype=torch.float64, device=p.device)
    adjusted[tested] = of_tested
    return adjusted
