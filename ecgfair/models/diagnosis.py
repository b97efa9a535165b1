"""The network of stage 2: an encoder with a head for many labels and one for attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ecgfair.ecg import ATTRIBUTES
from ecgfair.models.blocks import MeanMaxPooling
from ecgfair.models.encoder import Encoder


class Diagnosis(NamedTuple):
    """What the diagnosis network says of a batch."""

    logits: Tensor
    """(B, C), one a label."""
    attributes: Tensor | None
    """(B, A) standardised attributes, the logit of being female in the column of sex; None without that head."""
    features: Tensor
    """(B, D) what the heads read."""


class DiagnosisNetwork(nn.Module):
    """An encoder, pooling over time, and a linear head a task.

    Args:
        encoder: The encoder.
        prevalence: Share of the training records positive, a label. The head starts from it (Lin et al. 2017), so that
            the first steps are not spent on learning that most labels are rare.
        dropout: Probability before the heads.
        attributes: Whether there is a head for attributes.
    """

    def __init__(self, encoder: Encoder, prevalence: Sequence[float], dropout: float, *, attributes: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.pool = nn.Sequential(MeanMaxPooling(), nn.Dropout(dropout))
        self.label_head = nn.Linear(2 * encoder.channels, len(prevalence))
        self.attribute_head = nn.Linear(2 * encoder.channels, len(ATTRIBUTES)) if attributes else None
        # A label with no positive record starts at one in a thousand: minus infinity would never move.
        start = [math.log(p / (1 - p)) for p in (min(max(p, 1e-3), 1 - 1e-3) for p in prevalence)]
        with torch.no_grad():
            self.label_head.bias.copy_(torch.tensor(start))

    def forward(self, signal: Tensor) -> Diagnosis:
        """Diagnose (B, leads, time) millivolts, of any length."""
        pooled = self.pool(self.encoder(signal).features())
        attributes = self.attribute_head(pooled) if self.attribute_head is not None else None
        return Diagnosis(self.label_head(pooled), attributes, pooled)
