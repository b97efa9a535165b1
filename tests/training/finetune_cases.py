"""Stage 2 small enough to run whole in a test: a network of each family, and a module that logs nowhere."""

from __future__ import annotations

import torch

from ecgfair.ecg import AttributeStatistics, EcgBatch, Preprocessing
from ecgfair.models.encoder import EncoderSpec
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.beat_view import BeatView, beat_view
from ecgfair.training import FinetuneModule
from tests.training.tiny import ENCODERS as PRETRAINED
from tests.training.tiny import PREPROCESSING, beating_batch, values

UNCHANGED = Augmentation(crop_seconds=None, lead_dropout=0, scaling=0, noise=0)
NARROW = {
    "widths": [8, 12],
    "trend_widths": [4, 6],
    "shape_widths": [4, 4],
    "rhythm_width": 4,
    "beat_widths": [4, 4],
    "beat_embedding": 4,
    "dropout": 0.0,
}
ENCODERS = {
    "residual": EncoderSpec("ResidualEncoder", {"widths": [8, 12], "trend_widths": [4, 6], "dropout": 0.0}),
    "two scales": EncoderSpec("TwoScaleEncoder", NARROW),
    "published": PRETRAINED["published"],
    "xresnet": EncoderSpec("XResNetEncoder", {"layers": [1, 2], "width": 8}),
}
"""One of each family, without dropout."""

PREVALENCE = (0.5, 0.2, 0.05)
STATISTICS = AttributeStatistics(
    (55.0, 0.0, 70.0, 160.0, 90.0, 400.0, 420.0), (18.0, 1.0, 12.0, 25.0, 15.0, 30.0, 25.0)
)
EVERY_INPUT = ("age", "sex", "heart_rate", "pr", "qrs", "qt", "qtc")


def quiet_module(
    encoder: str | EncoderSpec = "two scales", preprocessing: Preprocessing = PREPROCESSING, **settings
) -> FinetuneModule:
    """A module that draws nothing at random but what the settings ask for; ``encoder`` is one of ``ENCODERS``."""
    torch.manual_seed(0)
    plain = {
        "training_records": 200,
        "attribute_statistics": STATISTICS,
        "dropout": 0.0,
        "beat_dropout": 0.0,
        "augmentation": UNCHANGED,
    }
    spec = ENCODERS.get(encoder, encoder) if isinstance(encoder, str) else encoder
    return FinetuneModule(preprocessing, ["a", "b", "c"], list(PREVALENCE), encoder=spec, **(plain | settings))


def labelled_batch(records: int = 8) -> EcgBatch:
    """Beating hearts with labels; the second has no R peak that was found."""
    batch = beating_batch(records)
    generator = torch.Generator().manual_seed(1)
    batch["labels"] = (torch.rand(records, len(PREVALENCE), generator=generator) < 0.4).float()
    batch["beats"][1] = -1
    return batch


def view_of(batch: EcgBatch) -> BeatView:
    """The beats of a batch at 100 Hz."""
    return beat_view(batch["signal"], batch["recorded"], batch["beats"], PREPROCESSING.sampling_rate)


def told_losses(module: FinetuneModule, batch: EcgBatch, step: str = "training_step") -> dict[str, torch.Tensor]:
    """What a step logs, by name, its total as that of the stage."""
    told = {}
    module.log_losses = lambda stage, total, losses: told.update(values({stage: total, **losses}))
    getattr(module, step)(batch, 0)
    return told
