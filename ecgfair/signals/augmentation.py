"""Random changes to a signal that leave its diagnoses as they are, for training only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from ecgfair.errors import ConfigurationError
from ecgfair.signals.beats import crop
from ecgfair.signals.disturbance import kept_leads, mains, wander, warped, warped_times
from ecgfair.signals.draws import Randomness, randint, randn

MOST_TIME_WARP: Final = 0.5
"""The greatest change of speed that can be asked for: at half and at one and a half times it, it is another heart."""


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the augmentations of one training step; 0 (or None) switches each off.

    They are applied in this order: crop, time warp, scaling, then what is added (baseline wander, powerline, noise),
    and lead dropout last. So a dropped lead is exactly 0, as a missing lead is, and nothing is added where nothing was
    recorded.

    Args:
        crop_seconds: Length of a random window in seconds; None keeps the whole record.
        lead_dropout: Probability that a lead is set to zero. One lead that was recorded always stays.
        scaling: Standard deviation of the factor, around 1, by which all leads of a record are scaled.
        noise: Standard deviation of added white noise, in millivolts.
        baseline_wander: Greatest height of a slow wander of the baseline (0.05 to 0.5 Hz), in millivolts; that of a
            record, in its strongest lead, is uniform from 0 to this.
        powerline: Greatest height of mains hum, in millivolts, likewise; of 50 or of 60 Hz, each in half of the
            records. A frequency above half the sampling rate is left out: 60 Hz at a rate of 100 Hz, and both below it.
        time_warp: Greatest relative change of speed, up to 0.5; that of a record is uniform from 0 to this. Speed
            changes smoothly and the length stays, but an interval changes by up to as much, and attributes do not
            follow: 0.1 may shorten a PR interval by a tenth, and take it across the limit of a diagnosis. Reading
            between samples lowers narrow peaks: at 0.1, one with a standard deviation of 10 ms by 6 % on average at
            100 Hz, by 0.4 % at 500 Hz.

    Raises:
        ConfigurationError: A strength can't work.
    """

    crop_seconds: float | None = 8.0
    lead_dropout: float = 0.1
    scaling: float = 0.1
    noise: float = 0.02
    baseline_wander: float = 0.0
    powerline: float = 0.0
    time_warp: float = 0.0

    def __post_init__(self) -> None:
        """Refuse strengths that can't work."""
        if not 0 <= self.lead_dropout < 1:
            raise ConfigurationError(f"Augmentation.lead_dropout is {self.lead_dropout}: expected 0 <= p < 1.")
        for name in ("scaling", "noise", "baseline_wander", "powerline"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(f"Augmentation.{name} is {getattr(self, name)}: expected 0 or more.")
        if not 0 <= self.time_warp <= MOST_TIME_WARP:
            raise ConfigurationError(
                f"Augmentation.time_warp is {self.time_warp}: expected a share of the speed from 0 to "
                f"{MOST_TIME_WARP}, such as 0.05."
            )
        if self.crop_seconds is not None and not 0 < self.crop_seconds < math.inf:
            raise ConfigurationError(f"Augmentation.crop_seconds is {self.crop_seconds}: expected a positive length.")

    def __call__(
        self,
        signal: Tensor,
        sampling_rate: float,
        generator: Randomness = None,
        recorded: Tensor | None = None,
    ) -> Tensor:
        """Return an augmented copy.

        Args:
            signal: (B, leads, time) millivolts. Twelve leads are taken for ``ecg.LEADS``, in that order.
            sampling_rate: Hz.
            generator: Source of randomness, on the device of the signal; the default one if None.
            recorded: (B, leads, time) bool, or a shape that broadcasts to it; where False the signal becomes 0 and
                stays 0. None if everything was recorded.

        Returns:
            (B, leads, time or crop) millivolts; the signal itself where every strength is off.
        """
        if recorded is not None:
            recorded = recorded.expand(signal.shape)
            # Before anything is read between samples, so that what stands in for "not recorded", say NaN, can't spread.
            signal = signal.masked_fill(~recorded, 0)
        signal, recorded = self._retimed(signal, sampling_rate, generator, recorded)
        # Drawn here, applied last: where the newer augmentations are off, old runs draw the same numbers again.
        keep = self._kept(signal, recorded, generator) if self.lead_dropout else None
        if self.scaling:
            factor = randn((len(signal), 1, 1), generator, signal.device)
            signal = signal * (1 + self.scaling * factor.to(signal.dtype))
        signal = self._disturbed(signal, sampling_rate, generator)
        if recorded is not None:
            signal = signal.masked_fill(~recorded, 0)
        if keep is not None:
            signal = signal.masked_fill(~keep, 0)
        return signal

    def _retimed(
        self, signal: Tensor, sampling_rate: float, generator: Randomness, recorded: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Crop and warp the signal, and what is recorded of it along."""
        batch, _, time = signal.shape
        device = signal.device
        if self.crop_seconds is not None:
            length = min(max(round(self.crop_seconds * sampling_rate), 1), time)
            start = randint(0, time - length + 1, (batch,), generator, device)
            signal = crop(signal, start, length)
            recorded = None if recorded is None else crop(recorded, start, length)
        if self.time_warp:
            shape = (batch, signal.shape[-1])
            position = warped_times(shape, self.time_warp, sampling_rate, device=device, generator=generator)
            signal, recorded = warped(signal, position, recorded)
        return signal, recorded

    def _kept(self, signal: Tensor, recorded: Tensor | None, generator: Randomness) -> Tensor:
        """Draw (B, leads, 1) bool, which leads are not dropped."""
        heard = None if recorded is None else recorded.any(dim=-1)
        shape = (signal.shape[0], signal.shape[1])
        return kept_leads(shape, self.lead_dropout, heard, device=signal.device, generator=generator)[:, :, None]

    def _disturbed(self, signal: Tensor, sampling_rate: float, generator: Randomness) -> Tensor:
        """Add wander, mains hum and noise."""
        shape = (signal.shape[0], signal.shape[1], signal.shape[2])
        device = signal.device
        for amplitude, drawn in ((self.baseline_wander, wander), (self.powerline, mains)):
            if amplitude:
                added = drawn(shape, amplitude, sampling_rate, device=device, generator=generator)
                signal = signal + added.to(signal.dtype)
        if self.noise:
            noise = randn(shape, generator, device)
            signal = signal + self.noise * noise.to(signal.dtype)
        return signal
