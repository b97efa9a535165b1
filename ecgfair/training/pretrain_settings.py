"""What stage 1 hides, what it minimises, and which published choices it takes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ecgfair.errors import ConfigurationError
from ecgfair.signals.mask_schemes import MaskScheme, check_schemes

MIXTURE: Final[Mapping[str, MaskScheme]] = {"shared_patches": MaskScheme(0.5), "lead_patches": MaskScheme(0.5)}
"""How stage 1 hides unless it is told otherwise."""


@dataclass
class Masking:
    """What stage 1 hides.

    Args:
        schemes: How the global signal is hidden, by name, see ``signals.mask_schemes``: each record by one of them,
            drawn by their shares; by ``MIXTURE`` if left out. Published is ``shared_patches`` alone.
        local_ratio: Share of the beat hidden, in one span.
        before_seconds: Start of a beat before its R peak.
        after_seconds: End of a beat after its R peak.
    """

    # No mixture as a default: a configuration with one of the other values could not be written as YAML.
    schemes: dict[str, MaskScheme] | None = None
    local_ratio: float = 0.3
    before_seconds: float = 0.28
    after_seconds: float = 0.68

    def __post_init__(self) -> None:
        """Refuse unknown schemes and windows without length."""
        check_schemes(self.mixture)
        for name in ("before_seconds", "after_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"masking.{name} is {getattr(self, name)}: expected a positive length.")

    @property
    def mixture(self) -> Mapping[str, MaskScheme]:
        """The schemes that hold."""
        return MIXTURE if self.schemes is None else self.schemes


@dataclass
class PretrainWeights:
    """Factors of the losses of stage 1. The published five are all 1; 0 switches a loss off.

    Args:
        whole: Masked restoration of the global signal.
        beat: Masked restoration of a beat, the local signal.
        trend: Restoration from the trend.
        measures: Prediction of age, heart rate and intervals.
        sex: Prediction of sex.
        altered: Telling altered records from those that are not; not published, off unless asked for.
        altered_map: Telling where they were altered.
        altered_beat: Telling altered median beats from those that are not; a network of its own, see ``beat_task``.
        single_beat: Masked restoration of single beats, of an encoder that reads them, see ``single_beat_task``.
        single_beat_attributes: Prediction of age, sex, heart rate and intervals from each of these beats.
    """

    whole: float = 1.0
    beat: float = 1.0
    trend: float = 1.0
    measures: float = 1.0
    sex: float = 1.0
    altered: float = 0.0
    altered_map: float = 0.0
    altered_beat: float = 0.0
    single_beat: float = 0.0
    single_beat_attributes: float = 0.0

    def __post_init__(self) -> None:
        """Refuse weights below 0, and a task that is never taught beside one that is."""
        for name, weight in vars(self).items():
            if not 0 <= weight < float("inf"):
                raise ConfigurationError(f"weights.{name} is {weight}: expected 0 (off) or more.")
        if (self.altered > 0) != (self.altered_map > 0):
            raise ConfigurationError(
                f"weights.altered is {self.altered} and weights.altered_map {self.altered_map}: expected both above 0 "
                "or both 0, since they are two outputs of one task."
            )

    @property
    def reads_single_beats(self) -> bool:
        """Whether anything is learned from single beats."""
        return self.single_beat > 0 or self.single_beat_attributes > 0

    @property
    def restores(self) -> bool:
        """Whether anything is restored or predicted from masked records."""
        return any((self.whole, self.beat, self.trend, self.measures, self.sex))


@dataclass
class Choices:
    """Where the published method and this one differ: the first value of each is this project's, the second published.

    Args:
        scale: Signals in ``millivolts``, or each lead rescaled to its own range.
        trend: Of the ``masked`` signal, or of the unmasked one, which tells what the mask hides.
        log_variance: One a lead and sample, or one a sample that all leads share, within -1 and 1.
        error: Over the ``hidden`` samples, or over all.
        sex: Cross-entropy, or squared error as of a quantity.
        measures: Smooth L1, or squared error.
    """

    scale: Literal["millivolts", "min_max"] = "millivolts"
    trend: Literal["masked", "unmasked"] = "masked"
    log_variance: Literal["by_lead", "shared"] = "by_lead"
    error: Literal["hidden", "all"] = "hidden"
    sex: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    measures: Literal["smooth_l1", "squared_error"] = "smooth_l1"
