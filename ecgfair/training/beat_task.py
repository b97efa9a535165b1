"""A task without diagnoses: tell median beats that were altered at random from those that were not."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from ecgfair.anomaly.normal_beats import shape_of
from ecgfair.ecg import EcgBatch
from ecgfair.losses.mean import Mean, precise
from ecgfair.models.dropout import drawing_from
from ecgfair.signals.aligned_beats import CLOCK, FIRST, aligned_beats, median_beats
from ecgfair.signals.alteration import Alteration
from ecgfair.signals.baseline import without_baseline
from ecgfair.signals.draws import Randomness, copies_of, rows_of

ALTERATIONS: Final = 4
"""Of each beat in each step: they cost little beside finding the median beat."""
ALTERATION: Final = Alteration(
    {"turn": 4.0, "bump": 2.0, "plateau": 1.0, "scale": 2.0, "warp": 1.0}, some_beats=0.0, least_change=0.03
)
"""The kinds that change the voltage or the time of waves. A median beat has less noise than a record, so less is a
change."""


def altered_beat_loss(network: nn.Module, batch: EcgBatch, sampling_rate: float, generator: Randomness = None) -> Mean:
    """Return the cross-entropy of telling altered median beats from unaltered ones; 0 without beats.

    Args:
        network: Maps shapes of beats (B, leads, points) to logits (B,).
        batch: The batch.
        sampling_rate: Hz.
        generator: Source of randomness, on the batch's device.
    """
    signal = batch["signal"].masked_fill(~batch["recorded"], torch.nan)
    aligned = aligned_beats(without_baseline(signal, sampling_rate), batch["beats"], sampling_rate)
    beat = median_beats(aligned, len(signal))
    # A lead that was not recorded is silent, in the altered beats as well.
    missing = beat.isnan()
    there = ~missing.all(dim=-1).all(dim=-1)
    # A batch without a beat goes the same way, as a batch of none: other processes may have some, and wait for it.
    own = rows_of(copies_of(generator, ALTERATIONS), there.repeat(ALTERATIONS))
    beat, missing = (part[there].repeat(ALTERATIONS, 1, 1) for part in (beat.nan_to_num(), missing))
    peak = torch.full((len(beat), 1), round(-FIRST * CLOCK), device=beat.device)
    altered, changed = ALTERATION(beat, peak, CLOCK, own)
    both = torch.cat([beat, altered]).masked_fill(torch.cat([missing, missing]), torch.nan)
    is_altered = (changed & ~missing).flatten(1).any(dim=1)
    truth = torch.cat([torch.zeros_like(is_altered), is_altered]).to(beat.dtype)
    with drawing_from(copies_of(own, 2)):
        logits = precise(network(shape_of(both).nan_to_num()))
    return Mean.of(F.binary_cross_entropy_with_logits(logits, precise(truth), reduction="none"))
