"""What normal beats look like: the shapes of their median beats, and how much one beat differs from the next."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from ecgfair.signals.aligned_beats import POINTS, AlignedBeats, beats_side_by_side, median_beats
from ecgfair.signals.medians import lower_median

COMPONENTS: Final = 3
"""Principal components of normal shapes. Chosen on fold 9 of PTB-XL, see experiments/anomaly/baselines.py."""
LINEAR_TO: Final = 0.4
"""Of a beat's own root mean square: higher voltages count by their logarithm, else tall QRS complexes decide all."""
LEAST_VOLTAGE: Final = 0.001
"""Millivolts that a beat is taller than, so that silence has a shape, too."""
LEAST_NOISE: Final = 0.005
"""Millivolts by which beats differ at least, a few steps of a usual converter."""
EVEN_SPREAD: Final = 0.3
"""Of the mean spread, added to that of each point: no point is so regular that next to nothing is strange there."""


class Deviation(NamedTuple):
    """How far the beats of B records are from what is usual, in multiples of what is usual."""

    shapes: Tensor
    """(B, leads, ``POINTS``) of the median beats, see ``shape_of``."""
    shape: Tensor
    """(B, leads, ``POINTS``), not negative: of the record's median beat, from the shapes of normal ones."""
    variation: Tensor
    """(N, leads, ``POINTS``), not negative: of each beat from the median beat of its record."""
    between: Tensor
    """(B, leads, time), not negative: of each sample from the baseline, where there is no beat."""


class NormalBeats(nn.Module):
    """Statistics of the beats of training records, kept as buffers.

    A shape is a median beat free of its size: divided by the root mean square of the whole beat over all leads, and
    through the inverse hyperbolic sine. What few principal components of normal shapes can't express of it is strange.

    Args:
        leads: Number of leads.
    """

    mean: Tensor
    components: Tensor
    shape_spread: Tensor
    variation_spread: Tensor
    between_spread: Tensor

    def __init__(self, leads: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(leads * POINTS))
        self.register_buffer("components", torch.zeros(COMPONENTS, leads * POINTS))
        for name in ("shape_spread", "variation_spread"):
            self.register_buffer(name, torch.ones(leads, POINTS))
        self.register_buffer("between_spread", torch.ones(leads))

    def fit(self, signal: Tensor, beats: AlignedBeats) -> None:
        """Take from training records what is usual.

        Of fewer than seven records fewer components are kept, and of records without a beat nothing is taken.

        Args:
            signal: (B, leads, time) millivolts without baseline, NaN where nothing was recorded.
            beats: Of these records.
        """
        middle = median_beats(beats, len(signal))
        shapes = shape_of(middle).flatten(1)
        there = shapes[~shapes.isnan().all(dim=1)].double()
        if not len(there):
            return
        mean = there.nanmean(dim=0).nan_to_num()
        centred = (there - mean).nan_to_num()
        # As many components as records would express each of these records, and nothing of them would be left.
        kept = min(COMPONENTS, (len(there) - 1) // 2)
        self.mean.copy_(mean)
        self.components.zero_()
        self.components[:kept] = torch.linalg.svd(centred, full_matrices=False).Vh[:kept]
        for spread in (self.shape_spread, self.variation_spread, self.between_spread):
            spread.fill_(1)
        found = self.deviation(signal, beats)
        for spread, values, over in (
            (self.shape_spread, found.shape, (0,)),
            (self.variation_spread, found.variation, (0,)),
            (self.between_spread, found.between.masked_fill(covered(beats, signal.shape)[:, None], torch.nan), (0, 2)),
        ):
            usual = values.double().square().nanmean(dim=over).sqrt()
            usual = torch.where(usual.isnan(), usual.nanmean(), usual).nan_to_num(1.0).clamp_min(1e-6)
            # One record alone does not differ from the mean: that tells nothing of what is usual.
            if usual.max() > 1e-6:
                spread.copy_(usual + EVEN_SPREAD * usual.mean())

    def deviation(self, signal: Tensor, beats: AlignedBeats) -> Deviation:
        """Compare records with what is usual; NaN where a record has no such beat or nothing was recorded.

        Args:
            signal: (B, leads, time) millivolts without baseline, NaN where nothing was recorded.
            beats: Of these records.
        """
        middle = median_beats(beats, len(signal))
        shapes = shape_of(middle)
        apart = shapes.flatten(1) - self.mean
        known = apart.nan_to_num()  # a lead that is missing is as in the mean of normals
        rest = apart - known @ self.components.T @ self.components
        differ = beats.beat - middle[beats.record]
        # A beat that a wandering baseline lifts differs nowhere in particular.
        differ = differ - lower_median(differ)[..., None]
        noise = _noise(differ, beats.record, signal)
        return Deviation(
            shapes,
            rest.view(shapes.shape).abs() / self.shape_spread,
            (differ / noise[beats.record, :, None]).abs() / self.variation_spread,
            (signal / noise[..., None]).abs() / self.between_spread[:, None],
        )


def shape_of(beat: Tensor) -> Tensor:
    """Return beats (B, leads, ``POINTS``) without level and size."""
    level = beat - beat.nanmean(dim=-1, keepdim=True)
    size = level.square().nanmean(dim=(1, 2), keepdim=True).sqrt() + LEAST_VOLTAGE
    return torch.asinh(level / (LINEAR_TO * size))


def covered(beats: AlignedBeats, shape: torch.Size) -> Tensor:
    """Return which samples of records of a shape (B, leads, time) lie in a beat, (B, time) bool."""
    batch, _, time = shape
    edges = torch.zeros(batch, time + 1, dtype=torch.int64, device=beats.place.device)
    starts, ends = beats.place[:, 0].ceil().long(), beats.place[:, -1].floor().long() + 1
    one = torch.ones_like(beats.record)
    edges.index_put_((beats.record, starts.clamp(0, time)), one, accumulate=True)
    edges.index_put_((beats.record, ends.clamp(0, time)), -one, accumulate=True)
    return edges.cumsum(dim=1)[:, :time] > 0


def _noise(differ: Tensor, record: Tensor, signal: Tensor) -> Tensor:
    """Return the usual difference of two beats, (B, leads): its median over beats and points; of few beats, little.

    In a record without beats the median voltage stands for it.
    """
    own = lower_median(beats_side_by_side(differ.abs(), record, len(signal)).flatten(2))
    return torch.where(own.isnan(), lower_median(signal.abs()), own) + LEAST_NOISE
