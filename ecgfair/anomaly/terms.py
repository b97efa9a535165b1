"""The terms of a score before they are added: what each network output says of each record, and where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

from torch import Tensor

WHOLE, BEAT, TREND = "whole", "beat", "trend"
RESTORED_TERMS: Final = (WHOLE, BEAT, TREND)
"""Terms that tell how badly something hidden was restored."""
SHAPE, VARIATION, ALTERED_BEAT = "shape", "variation", "altered_beat"
BEAT_TERMS: Final = (SHAPE, VARIATION, ALTERED_BEAT)
"""Terms of beats that are laid on each other; the first two need no network."""


@dataclass(frozen=True)
class Geometry:
    """Where a beat lies in a signal.

    Args:
        sampling_rate: Hz.
        before: Samples of a beat before its R peak.
        after: Samples of a beat from its R peak on.
    """

    sampling_rate: float
    before: int
    after: int

    @property
    def window(self) -> int:
        """Samples of a beat."""
        return self.before + self.after


@dataclass
class Terms:
    """Terms of B records.

    Args:
        has_beat: (B,) bool.
        terms: (B,) by name; NaN where a record has no such term.
        maps: (B, leads, time) by name; NaN where a term says nothing.
    """

    has_beat: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def none(cls, beats: Tensor, time: int) -> Self:
        """Return no terms yet, of records with these R peaks."""
        return cls(((beats >= 0) & (beats < time)).any(dim=1))
