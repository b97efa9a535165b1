"""Views of beats drawn at random, and modules as they are after training, for the branches over beats."""

from __future__ import annotations

import torch
from torch import nn

from ecgfair.signals.aligned_beats import POINTS
from ecgfair.signals.beat_view import BeatView
from ecgfair.signals.rhythm_view import CHANNELS


def settled(module: nn.Module) -> nn.Module:
    """The module as after training: norms with statistics and weights of their own, in eval mode."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            for values in (part.running_mean, part.weight.data, part.bias.data):
                values.copy_(torch.randn(values.shape, generator=generator))
            part.running_var.copy_(0.5 + torch.rand(part.running_var.shape, generator=generator))
    return module.eval()


def random_views(*counts: int, leads: int, columns: int, slots: int | None = None) -> BeatView:
    """Views of records with so many beats, no two of which are alike.

    Args:
        counts: Beats of each record.
        leads: Number of leads.
        columns: Of the rhythm.
        slots: Single beats that are shown at most, as many as columns if None; those of a record are its last ones.
    """
    generator = torch.Generator().manual_seed(2)
    slots = columns if slots is None else slots
    shape = torch.randn(len(counts), 2 * leads, POINTS, generator=generator)
    rhythm = torch.zeros(len(counts), CHANNELS, columns)
    each = torch.zeros(len(counts), slots, leads, POINTS)
    column = torch.full((len(counts), slots), -1)
    for row, count in enumerate(counts):
        rhythm[row, :, :count] = torch.randn(CHANNELS, count, generator=generator)
        rhythm[row, 0, :count] = 1
        shown = min(count, slots)
        each[row, :shown] = torch.randn(shown, leads, POINTS, generator=generator)
        column[row, :shown] = torch.arange(count - shown, count)
    has_beat = torch.tensor(counts) > 0
    return BeatView(shape * has_beat[:, None, None], rhythm, each, column, has_beat)
