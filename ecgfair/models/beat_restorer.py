"""What stage 1 needs around a branch that reads single beats: it restores them, and reads attributes off each."""

from __future__ import annotations

from torch import Tensor, nn

from ecgfair.ecg import ATTRIBUTES
from ecgfair.signals.aligned_beats import POINTS

HIDDEN = 256
"""Units between the embedding of a beat and the beat."""


class BeatRestorer(nn.Module):
    """Restores a beat from its embedding, and predicts the patient's attributes from the same.

    Args:
        embedding: Numbers that a beat becomes.
        leads: Number of leads.
    """

    def __init__(self, embedding: int, leads: int) -> None:
        super().__init__()
        self.leads = leads
        self.decode = nn.Sequential(nn.Linear(embedding, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, leads * POINTS))
        self.attributes = nn.Linear(embedding, len(ATTRIBUTES))

    def forward(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Map embeddings (N, E) to beats (N, leads, ``POINTS``), and to attributes (N, A) as their losses take them."""
        return self.decode(embedded).view(-1, self.leads, POINTS), self.attributes(embedded)
