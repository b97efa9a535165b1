"""Random changes to a signal that leave its diagnoses as they are, for training only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError
from ecgfair.signals.beats import crop


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the augmentations of one training step; 0 (or None) switches each off.

    Args:
        crop_seconds: Length of a random window in seconds; None keeps the whole record.
        lead_dropout: Probability that a lead is set to zero. One lead always stays.
        scaling: Standard deviation of the factor, around 1, by which all leads of a record are scaled.
        noise: Standard deviation of added white noise, in millivolts.
    """

    crop_seconds: float | None = 8.0
    lead_dropout: float = 0.1
    scaling: float = 0.1
    noise: float = 0.02

    def __post_init__(self) -> None:
        """Refuse strengths that can't work."""
        if not 0 <= self.lead_dropout < 1:
            raise ConfigurationError(f"Augmentation.lead_dropout is {self.lead_dropout}: expected 0 <= p < 1.")
        for name in ("scaling", "noise"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"Augmentation.{name} is {getattr(self, name)}: expected 0 or more.")
        if self.crop_seconds is not None and self.crop_seconds <= 0:
            raise ConfigurationError(f"Augmentation.crop_seconds is {self.crop_seconds}: expected a positive length.")

    def __call__(self, signal: Tensor, sampling_rate: float, generator: torch.Generator | None = None) -> Tensor:
        """Return an augmented copy.

        Args:
            signal: (B, leads, time) millivolts.
            sampling_rate: Hz.
            generator: Source of randomness; the default one if None.

        Returns:
            (B, leads, time or crop) millivolts.
        """
        batch, leads, time = signal.shape
        device = signal.device
        if self.crop_seconds is not None:
            length = min(round(self.crop_seconds * sampling_rate), time)
            start = torch.randint(time - length + 1, (batch,), device=device, generator=generator)
            signal = crop(signal, start, length)
        if self.lead_dropout:
            chance = torch.rand(batch, leads, 1, device=device, generator=generator)
            # The lead with the highest draw stays, whatever the probability.
            keep = (chance >= self.lead_dropout) | (chance == chance.amax(dim=1, keepdim=True))
            signal = signal * keep
        if self.scaling:
            factor = torch.randn(batch, 1, 1, device=device, generator=generator)
            signal = signal * (1 + self.scaling * factor)
        if self.noise:
            signal = signal + self.noise * torch.randn(signal.shape, device=device, generator=generator)
        return signal
