"""Maps of what is strange, (B, leads, time): put together from windows such as beats, and smoothed along time."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import conv1d

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels.checks import refuse

PUBLISHED_SMOOTHING: Final = 0.03
"""Seconds: the published standard deviation, 15 samples at 500 Hz."""

_TRUNCATE: Final = 4.0
"""Standard deviations after which the Gaussian ends."""


def average_overlaps(
    values: Tensor, record: Tensor, start: Tensor, records: int, time: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Put windows back on the time axis of their records; where windows overlap, their mean counts, not their sum.

    Args:
        values: (N, leads, W) of each window, such as one a beat; NaN is not counted.
        record: (N,) int64, the record of each window, 0 to ``records`` - 1.
        start: (N,) int64, its first sample; what is before sample 0 or after the last one is left out.
        records: How many there are, B.
        time: Samples of a record, T.
        weights: Not negative, of any shape that broadcasts to that of the values, such as (W,), so that the ends of
            a window count less where another one overlaps. ``None`` for ones.

    Returns:
        The mean (B, leads, T), of the type of ``values``, NaN where no value falls; and the count (B, T) int64: how
        many windows have a value there, in any lead.

    Raises:
        ValueError: Shapes do not fit, a window belongs to no record, or a weight is negative or not finite.
    """
    _check_windows(values, record, start, records, weights)
    leads, width = values.shape[1:]
    position = start[:, None] + torch.arange(width, device=values.device)
    inside = (position >= 0) & (position < time)
    place = (record[:, None] * time + position.clamp(0, max(time - 1, 0))).flatten()
    known = ~values.isnan() & inside[:, None]
    # Sums in float64: the order in which a device adds them then does not show in the result.
    mass = known.double() if weights is None else weights.double() * known
    counted = mass > 0
    sums, masses = (
        torch.zeros(records * time, leads, dtype=torch.float64, device=values.device).index_add_(
            0, place, part.transpose(1, 2).reshape(-1, leads)
        )
        for part in (torch.where(counted, values.double() * mass, 0.0), mass)
    )
    mean = (sums / masses).to(values.dtype)  # 0 / 0 is the NaN of a sample without a value
    count = torch.zeros(records * time, dtype=torch.int64, device=values.device)
    count.index_add_(0, place, counted.any(1).long().flatten())
    return mean.view(records, time, leads).transpose(1, 2).contiguous(), count.view(records, time)


def smooth(maps: Tensor, seconds: float, sampling_rate: float, recorded: Tensor | None = None) -> Tensor:
    """Smooth maps along time by a Gaussian, each lead by itself.

    At the ends of a record and beside a gap, the weights of the samples that are there are scaled to 1 (normalised
    convolution: Knutsson and Westin 1993, doi:10.1109/CVPR.1993.341081). So edges do not fade, and a lead that holds
    the same value throughout keeps it.

    Args:
        maps: (B, leads, time); NaN counts as not recorded.
        seconds: Standard deviation of the Gaussian; 0 leaves the maps as they are.
        sampling_rate: Samples a second.
        recorded: (B, leads, time) bool; ``None`` for wherever the map is not NaN.

    Returns:
        (B, leads, time) of the type of ``maps``, NaN where nothing was recorded.

    Raises:
        ConfigurationError: The time or the rate can't be.
        ValueError: Shapes do not fit.
    """
    if not (math.isfinite(seconds) and seconds >= 0 and math.isfinite(sampling_rate) and sampling_rate > 0):
        raise ConfigurationError(
            f"Maps can't be smoothed over {seconds} s at {sampling_rate} Hz: expected 0 s or more, such as "
            f"{PUBLISHED_SMOOTHING}, and a positive rate."
        )
    known = known_samples(maps, recorded)
    deviation = seconds * sampling_rate
    reach = min(int(_TRUNCATE * deviation + 0.5), maps.shape[-1])
    if reach == 0:
        return maps.masked_fill(~known, torch.nan)
    steps = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    kernel = (-0.5 * (steps / deviation).square()).exp()[None, None]
    rows = (maps.numel() // maps.shape[-1], 1, maps.shape[-1])
    sums, weights = (
        conv1d(part.reshape(rows), kernel, padding=reach).view_as(maps)
        for part in (maps.masked_fill(~known, 0.0), known.to(maps.dtype))
    )
    return (sums / weights).masked_fill(~known, torch.nan)


def known_samples(maps: Tensor, recorded: Tensor | None) -> Tensor:
    """Return where a map says something, (B, leads, time) bool.

    Args:
        maps: (B, leads, time), NaN where nothing was recorded.
        recorded: (B, leads, time) bool; ``None`` for wherever the map is not NaN.

    Raises:
        ValueError: Shapes or types do not fit.
    """
    if maps.ndim != 3 or not maps.is_floating_point():
        raise ValueError(
            f"maps are {maps.dtype} of the shape {tuple(maps.shape)}: expected real numbers, (records, leads, time)."
        )
    if recorded is None:
        return ~maps.isnan()
    if recorded.shape != maps.shape or recorded.dtype != torch.bool:
        raise ValueError(
            f"recorded is {recorded.dtype} of the shape {tuple(recorded.shape)}: expected bool of {tuple(maps.shape)}, "
            "that of the maps."
        )
    return recorded & ~maps.isnan()


def _check_windows(values: Tensor, record: Tensor, start: Tensor, records: int, weights: Tensor | None) -> None:
    """Refuse windows that are not each in a record, and weights that do not weigh."""
    shapes = {"record": record, "start": start}
    for name, column in shapes.items():
        if values.ndim != 3 or column.shape != values.shape[:1] or column.is_floating_point():
            raise ValueError(
                f"values have the shape {tuple(values.shape)}, and {name} is {column.dtype} of the shape "
                f"{tuple(column.shape)}: expected (windows, leads, samples), and one whole number a window."
            )
    strange = (record < 0) | (record >= records)
    if count := int(strange.sum()):
        raise ValueError(
            f"{count} of {len(record)} windows belong to a record such as {int(record[strange][0])}: expected 0 to "
            f"{records - 1}."
        )
    if weights is not None:
        refuse(
            (~((weights >= 0) & (weights < torch.inf)), "weights are negative or not finite", "numbers from 0 upwards")
        )
