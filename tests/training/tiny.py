"""Pretraining small enough to run whole in a test: networks, and twelve leads of beats in closed form."""

from __future__ import annotations

import torch

from ecgfair.ecg import ATTRIBUTES, FEMALE, EcgBatch, Preprocessing
from ecgfair.losses.mean import Mean
from ecgfair.models.encoder import EncoderSpec
from ecgfair.training import PretrainModule

PREPROCESSING = Preprocessing(length=400)
ENCODERS = {
    "residual": EncoderSpec("ResidualEncoder", {"widths": [8, 12], "trend_widths": [4, 6], "dropout": 0.1}),
    "published": EncoderSpec("McfEncoder", {"widths": [8, 8, 8], "channels": 8, "trend_window": 2}),
}
ALTERED = {"altered": 1.0, "altered_map": 1.0}
"""Weights that switch the task of alterations on."""


def tiny_module(encoder: str = "residual", preprocessing: Preprocessing = PREPROCESSING, **settings) -> PretrainModule:
    torch.manual_seed(0)
    return PretrainModule(
        preprocessing, encoder=ENCODERS[encoder], **({"local_widths": [8], "decoder_width": 8} | settings)
    )


def values(losses: dict[str, Mean]) -> dict[str, torch.Tensor]:
    """The scalars of losses."""
    return {name: loss.value for name, loss in losses.items()}


def beating_batch(records: int = 8) -> EcgBatch:
    """Records of four beats of a QRS complex and a T wave, whose height depends on lead and record."""
    time = torch.arange(400)[None, :]
    peaks = 40 + 4 * torch.arange(records)[:, None] + torch.tensor([[0, 90, 180, 270]])
    since = time[:, None] - peaks[..., None]  # (records, beats, time)
    waves = torch.exp(-((since / 3.0) ** 2)) + 0.3 * torch.exp(-(((since - 28) / 7.0) ** 2))
    height = torch.linspace(-1, 1.5, 12)[None, :] * torch.linspace(0.6, 1.2, records)[:, None]
    sex = torch.arange(records) % 2
    attributes = torch.linspace(-1, 1, records)[:, None] * torch.linspace(0.5, 1, len(ATTRIBUTES))[None, :]
    attributes[:, 1] = (sex == FEMALE).float()
    return EcgBatch(
        signal=height[..., None] * waves.sum(dim=1)[:, None],
        recorded=torch.ones(records, 12, 400, dtype=torch.bool),
        beats=torch.cat([peaks, torch.full((records, 1), -1)], dim=1),
        attributes=attributes,
        age=torch.full((records,), 60.0),
        sex=sex,
        labels=torch.zeros(records, 1),
        index=torch.arange(records),
    )
