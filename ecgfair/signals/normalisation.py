"""Scales of a signal other than millivolts, for comparisons with methods that use them."""

from __future__ import annotations

import torch
from torch import Tensor


def min_max(signal: Tensor, recorded: Tensor) -> Tensor:
    """Rescale each lead of each record to the range from -1 to 1.

    The published form (multi-scale cross-restoration, arXiv 2308.01639). It makes every lead equally tall and so loses
    what voltages say: low voltage and hypertrophy are diagnoses. ecgfair keeps millivolts; this is for the ablation.

    Args:
        signal: (B, leads, time) millivolts. What was not recorded may be any value, NaN too: it is not looked at.
        recorded: (B, leads, time) bool, or a shape that broadcasts to it.

    Returns:
        (B, leads, time) without unit: -1 at a lead's lowest recorded sample and 1 at its highest; 0 throughout a flat
        lead, which has no range, and wherever nothing was recorded.
    """
    infinity = torch.full((), torch.inf, dtype=signal.dtype, device=signal.device)
    lowest = torch.where(recorded, signal, infinity).amin(dim=-1, keepdim=True)
    highest = torch.where(recorded, signal, -infinity).amax(dim=-1, keepdim=True)
    # Where nothing was recorded, the lowest is above the highest.
    has_range = highest > lowest
    share = (signal - lowest) / torch.where(has_range, highest - lowest, 1)
    return torch.where(has_range & recorded, 2 * share - 1, 0)
