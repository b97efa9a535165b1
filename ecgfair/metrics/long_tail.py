"""Head, medium and tail: labels by how often they occur in training, and how much better the common ones are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ecgfair.errors import ConfigurationError

HEAD: Final = "head"
MEDIUM: Final = "medium"
TAIL: Final = "tail"
BANDS: Final = (HEAD, MEDIUM, TAIL)

DEFAULT_HEAD: Final = 0.10
DEFAULT_TAIL: Final = 0.01


@dataclass(frozen=True)
class LongTail:
    """Where the long tail is cut.

    Args:
        head: A label is head from this share of positive training records upwards.
        tail: A label is tail below this share, medium between the two.

    Raises:
        ConfigurationError: The shares are not 0 < tail <= head <= 1.
    """

    head: float = DEFAULT_HEAD
    tail: float = DEFAULT_TAIL

    def __post_init__(self) -> None:
        """Refuse thresholds that do not cut."""
        if not 0 < self.tail <= self.head <= 1:
            raise ConfigurationError(
                f"The long tail is cut at head={self.head} and tail={self.tail}: expected shares of the training "
                "records with 0 < tail <= head <= 1, such as head=0.1 and tail=0.01."
            )

    def bands(self, prevalence: Sequence[float]) -> tuple[str, ...]:
        """Return the band of each label.

        A label without any positive training record is tail like the other rare ones. A model can hardly find it, and
        that is what the tail is there to show: leaving it out would flatter the model, and would change the labels
        compared between training sets of different sizes.

        Args:
            prevalence: Share of the training records that are positive, one a label, in [0, 1].

        Raises:
            ConfigurationError: A share lies outside [0, 1] or is NaN.
        """
        if strange := [share for share in prevalence if not 0 <= share <= 1]:
            raise ConfigurationError(
                f"The training prevalence of {len(strange)} labels is not in [0, 1], the first is {strange[0]}: "
                "expected the share of positive training records, not their number."
            )
        return tuple(HEAD if share >= self.head else TAIL if share < self.tail else MEDIUM for share in prevalence)
