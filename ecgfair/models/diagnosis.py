"""The network of stage 2: an encoder with a head for many labels and one for attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ecgfair.ecg import ATTRIBUTES
from ecgfair.errors import ConfigurationError
from ecgfair.models.blocks import MeanMaxPooling
from ecgfair.models.conditioning import Conditioning, DemographicInput
from ecgfair.models.dropout import RecordDropout
from ecgfair.models.encoder import Encoder
from ecgfair.models.norms import BatchNorm
from ecgfair.signals.beat_view import BeatView


class Diagnosis(NamedTuple):
    """What the diagnosis network says of a batch."""

    logits: Tensor
    """(B, C), one a label: the mean of those of all scales."""
    attributes: Tensor | None
    """(B, A) standardised attributes, the logit of being female in the column of sex; None without that head."""
    features: Tensor
    """(B, D) what the heads read of the signal alone, before the network is told anything of the patient: an adversary
    that read more would only find what was put in."""
    by_scale: tuple[Tensor, ...]
    """(B, C) logits of the record and, where the encoder reads beats, one more for each of its branches over beats;
    those of the record stand in for a record without a beat. Each is to be taught by itself."""


class DiagnosisNetwork(nn.Module):
    """An encoder, pooling over time, and a head a task.

    Each branch of the encoder over beats gets a label head of its own. All heads are taught by the same loss, one
    beside the other, and what is said is the mean of their logits: opinions whose errors differ. One head over all
    features would lean on the branch that learns fastest.

    Args:
        encoder: The encoder.
        prevalence: Share of the training records positive, a label. The head starts from it (Lin et al. 2017), so that
            the first steps are not spent on learning that most labels are rare.
        dropout: Probability before the heads. With ``hidden``, that before the last layer of the label head, with half
            of it before its first layer, as published, and none before the head for attributes.
        attributes: Whether there is a head for attributes. It reads the features of the signal alone: told the
            attributes, it would only copy them.
        hidden: Units of a hidden layer of the label head, which is then that of the published xresnet1d101 (Strodthoff
            et al. 2020, 128 units): batch norm, dropout and a linear layer, twice, a ReLU between. With 0 the head is
            linear.
        conditioning: What the label heads are told of the patient; nothing if None or without inputs.
        beat_dropout: Probability before the label heads of beats.
        logit_adjustment: What ``losses.long_tail.LogitAdjusted`` adds to the logits while training, as a factor of
            logit(prevalence): the heads start by so much lower, or prevalence would count twice.

    Attributes:
        features: Width D of ``Diagnosis.features``.

    Raises:
        ConfigurationError: ``hidden`` is negative.
    """

    def __init__(
        self,
        encoder: Encoder,
        prevalence: Sequence[float],
        dropout: float,
        *,
        attributes: bool,
        hidden: int = 0,
        conditioning: Conditioning | None = None,
        beat_dropout: float = 0.4,
        logit_adjustment: float = 0.0,
    ) -> None:
        super().__init__()
        if hidden < 0:
            raise ConfigurationError(f"hidden is {hidden}: expected 0, for a linear head, or more.")
        self.encoder = encoder
        of_record = 2 * encoder.channels
        self.features = of_record + sum(encoder.beat_features)
        self.pool = nn.Sequential(MeanMaxPooling(), RecordDropout(0.0 if hidden else dropout))
        # A label with no positive record starts at one in a thousand: minus infinity would never move.
        odds = [math.log(p / (1 - p)) for p in (min(max(p, 1e-3), 1 - 1e-3) for p in prevalence)]
        start = torch.tensor(odds) * (1 - logit_adjustment)
        self.conditioning = _told(conditioning, of_record)
        self.label_head = _label_head(self.conditioning, of_record, hidden, dropout, start)
        self.attribute_head = nn.Linear(of_record, len(ATTRIBUTES)) if attributes else None
        self.beat_dropout = RecordDropout(beat_dropout)
        self.beat_conditioning = nn.ModuleList()
        self.beat_heads = nn.ModuleList()
        for features in encoder.beat_features:
            told = _told(conditioning, features)
            self.beat_conditioning.append(nn.Identity() if told is None else told)
            self.beat_heads.append(_label_head(told, features, 0, 0.0, start))

    def forward(
        self,
        signal: Tensor,
        attributes: Tensor | None = None,
        view: BeatView | None = None,
    ) -> Diagnosis:
        """Diagnose a batch.

        Args:
            signal: (B, leads, time) millivolts, of any length.
            attributes: (B, A) as measured, not standardised, NaN where missing; None if nothing is known. Read by the
                conditioning alone, see ``DemographicInput``.
            view: The beats of the same records, see ``signals.beat_view``; needed where the encoder reads beats.
        """
        pooled: Tensor = self.pool(self.encoder(signal).features())
        told = pooled if self.conditioning is None else self.conditioning(pooled, attributes)
        predicted = self.attribute_head(pooled) if self.attribute_head is not None else None
        of_record: Tensor = self.label_head(told)
        if not self.beat_heads:
            return Diagnosis(of_record, predicted, pooled, (of_record,))
        if view is None:
            raise ValueError("The encoder reads beats: expected the beat view of every record.")
        by_scale, features = [of_record], [pooled]
        beats = self.encoder.encode_beats(view)
        for found, conditioning, head in zip(beats, self.beat_conditioning, self.beat_heads, strict=True):
            features.append(self.beat_dropout(found))
            told = features[-1] if self.conditioning is None else conditioning(features[-1], attributes)
            by_scale.append(torch.where(view.has_beat[:, None], head(told), of_record))
        return Diagnosis(torch.stack(by_scale).mean(0), predicted, torch.cat(features, dim=1), tuple(by_scale))


def _told(conditioning: Conditioning | None, features: int) -> DemographicInput | None:
    return DemographicInput(conditioning, features) if conditioning is not None and conditioning.inputs else None


def _label_head(told: DemographicInput | None, features: int, hidden: int, dropout: float, start: Tensor) -> nn.Module:
    """Return a head whose last layer starts from the odds of the labels."""
    width = features if told is None else told.width
    last = nn.Linear(hidden or width, len(start))
    head: nn.Module = _deep_head(width, hidden, dropout, last) if hidden else last
    with torch.no_grad():
        last.bias.copy_(start)
    return head


def _deep_head(width: int, hidden: int, dropout: float, last: nn.Linear) -> nn.Sequential:
    """Return the published head around its last layer; the hidden one starts as published (He et al. 2015)."""
    first = nn.Linear(width, hidden)
    nn.init.kaiming_normal_(first.weight)
    nn.init.zeros_(first.bias)
    return nn.Sequential(
        BatchNorm(width),
        RecordDropout(dropout / 2),
        first,
        nn.ReLU(),
        BatchNorm(hidden),
        RecordDropout(dropout),
        last,
    )
