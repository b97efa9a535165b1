"""The network that tells altered beats: small, since a median beat is short and has next to no noise."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from ecgfair.models.dropout import RecordDropout
from ecgfair.models.norms import BatchNorm
from ecgfair.signals.aligned_beats import POINTS

WIDTHS = (32, 32, 64, 64)
"""Channels of the convolutions; all but the first halve time."""
KERNELS = (7, 5, 5, 3)


class BeatNetwork(nn.Module):
    """Tells whether the shape of a median beat was altered.

    The last layer has weights for every place in the beat: on the clock of aligned beats each place is a wave.

    Args:
        leads: Number of leads.
        dropout: Probability before the last layer.
    """

    def __init__(self, leads: int, dropout: float = 0.3) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        points = POINTS
        for place, ((before, width), kernel) in enumerate(zip(pairwise((leads, *WIDTHS)), KERNELS, strict=True)):
            stride = 1 if place == 0 else 2
            points = -(-points // stride)
            stages += [
                nn.Conv1d(before, width, kernel, stride, kernel // 2, bias=False),
                BatchNorm(width),
                nn.SiLU(),
            ]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.Flatten(), RecordDropout(dropout), nn.Linear(points * WIDTHS[-1], 1))

    def forward(self, shapes: Tensor) -> Tensor:
        """Map shapes of beats (B, leads, ``POINTS``), 0 where a lead is missing, to logits (B,)."""
        logits: Tensor = self.head(self.stages(shapes)).squeeze(-1)
        return logits
