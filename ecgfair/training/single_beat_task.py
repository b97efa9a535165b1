"""A task without diagnoses: restore what is hidden of single beats, and tell the patient's attributes from each.

A record has a dozen beats, so few records give many beats to learn from. It is the published restoration of the local
signal, of beats that are laid on each other, so that place is known, and without a look at the global signal, which
would show what the beat hides.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.ecg import EcgBatch
from ecgfair.losses.attributes import attribute_losses
from ecgfair.losses.mean import Mean, precise
from ecgfair.models.beat_restorer import BeatRestorer
from ecgfair.models.dropout import drawing_from
from ecgfair.models.encoder import Encoder
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.beat_view import augmented_view, beat_view
from ecgfair.signals.draws import Randomness, rand, randint, rows_of, slots_of

HIDDEN_SPAN: Final = 1 / 3
"""Share of the time of a beat that is hidden in all leads, in every other beat on average."""
HIDDEN_LEADS: Final = 0.5
"""Chance of each lead to be hidden wholly, in the others."""
AUGMENTATION: Final = Augmentation(crop_seconds=None, lead_dropout=0.0)


def single_beat_losses(
    encoder: Encoder,
    restorer: BeatRestorer,
    batch: EcgBatch,
    sampling_rate: float,
    generator: Randomness = None,
) -> dict[str, Mean]:
    """Return the losses ``single_beat`` and ``single_beat_attributes``; 0 without beats.

    Args:
        encoder: Has ``embed_beats``.
        restorer: Of the same size of embedding.
        batch: The batch.
        sampling_rate: Hz.
        generator: Source of randomness, on the batch's device.
    """
    view = beat_view(batch["signal"], batch["recorded"], batch["beats"], sampling_rate)
    view = augmented_view(view, AUGMENTATION, generator)
    there = view.column >= 0
    # A batch without a beat goes the same way, as a batch of none: other processes may have some, and wait for it.
    beats, own = view.each[there], rows_of(slots_of(generator, there.shape[1]), there.flatten())
    hidden = hidden_places(beats.shape, beats.device, own)
    with drawing_from(own):
        restored, attributes = restorer(encoder.embed_beats(beats.masked_fill(hidden, 0)))
    # A lead that was not recorded is 0, and so is what lies before the record.
    counted = hidden & (beats != 0)
    error = F.smooth_l1_loss(precise(restored), precise(beats), reduction="none")
    of_record = batch["attributes"][:, None].expand(-1, there.shape[1], -1)[there]
    measures, sex = attribute_losses(attributes, of_record)
    return {
        "single_beat": Mean.of(error, counted),
        "single_beat_attributes": measures + sex,
    }


def hidden_places(shape: torch.Size, device: torch.device, generator: Randomness = None) -> Tensor:
    """Draw what is hidden of beats: a span of time in all leads, or some leads wholly.

    Args:
        shape: (N, leads, points).
        device: Device of the result.
        generator: Source of randomness.

    Returns:
        (N, leads, points) bool.
    """
    count, leads, points = shape
    start = randint(0, points, (count, 1), generator, device)
    # The span goes on at the other end, so that every place is hidden equally often.
    in_span = (torch.arange(points, device=device) - start) % points < round(HIDDEN_SPAN * points)
    of_leads = rand((count, leads), generator, device) < HIDDEN_LEADS
    by_time = rand((count, 1, 1), generator, device) < 0.5
    return torch.where(by_time, in_span[:, None], of_leads[:, :, None])
