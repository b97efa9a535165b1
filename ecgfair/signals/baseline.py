"""The baseline of a signal and what is left without it."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.signals.medians import lower_median

WINDOW: Final = 0.6
"""Seconds: longer than a QRS complex and a T wave together, so that the median within it is that of the rest line."""
EVERY: Final = 0.05
"""Seconds between two places at which the baseline is measured; it is drawn straight in between."""
_AT_ONCE: Final = 8
"""Records whose windows are laid out at once: they take a dozen times the memory of the signal and more."""


def without_baseline(signal: Tensor, sampling_rate: float) -> Tensor:
    """Subtract the running median over 0.6 s, each lead by itself.

    A median filter of this length takes a wandering baseline away and leaves the waves, which a high-pass would smear
    (de Chazal et al. 2004, doi:10.1109/TBME.2004.827359, with a second one of 0.2 s before it).

    Args:
        signal: (B, leads, time) millivolts, NaN where nothing was recorded.
        sampling_rate: Hz.

    Returns:
        (B, leads, time), NaN where the signal is.
    """
    half, step = (max(round(seconds * sampling_rate), 1) for seconds in (WINDOW / 2, EVERY))
    time = signal.shape[-1]
    # Repeating the last sample, and not NaN, at the ends: half a window of a slope would be a biased median.
    padded = F.pad(signal, (half, half + (-(time - 1) % step)), mode="replicate")
    windows = padded.unfold(-1, 2 * half + 1, step)
    knots = torch.cat([lower_median(part) for part in torch.split(windows, _AT_ONCE)])
    place = torch.arange(time, device=signal.device) / step
    before = place.long().clamp(max=knots.shape[-1] - 1)
    after = (before + 1).clamp(max=knots.shape[-1] - 1)
    share = (place - before).to(signal.dtype)
    # Beside a gap longer than the window there is a median at one end only.
    first, second = knots[..., before], knots[..., after]
    first, second = torch.where(first.isnan(), second, first), torch.where(second.isnan(), first, second)
    return signal - (first + share * (second - first))
