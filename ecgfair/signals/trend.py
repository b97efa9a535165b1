"""The trend: the slope of the smoothed signal, which keeps the shape of a beat and drops offset and drift."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def trend(signal: Tensor, window: int) -> Tensor:
    """Return the first difference of a moving average along time.

    The published form (multi-scale cross-restoration, arXiv 2308.01639) then rescales each lead to its own range and
    computes the trend of the unmasked signal. Here the unit stays millivolts per sample, and the caller passes the
    signal as the network sees it: the trend of a masked signal can't tell what the mask hides.

    Args:
        signal: (..., leads, time) millivolts.
        window: Samples in the moving average, at least 1.

    Returns:
        (..., leads, time) millivolts per sample. Edges repeat the outermost sample, so a constant has no trend.
    """
    shape = signal.shape
    flat = signal.reshape(-1, 1, shape[-1])
    # One sample more than the average needs, for the difference, which shortens the signal by one.
    left = window // 2 + 1
    padded = F.pad(flat, (left, window - left), mode="replicate")
    return F.avg_pool1d(padded, window, stride=1).diff(dim=-1).reshape(shape)
