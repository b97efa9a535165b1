"""What the network of stage 2 is shown of a batch: records changed at random in training, windows of them elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ecgfair.ecg import AttributeStatistics, EcgBatch
from ecgfair.errors import ConfigurationError
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.beat_view import BeatView, augmented_view, beat_view
from ecgfair.signals.draws import Randomness
from ecgfair.signals.mixup import mixup
from ecgfair.signals.windows import Windows


class Shown(NamedTuple):
    """The arguments of ``DiagnosisNetwork``."""

    signal: Tensor
    """(B, leads, time) millivolts."""
    attributes: Tensor | None
    """(B, A) as measured; None if the network does not ask."""
    view: BeatView | None
    """The beats; None if the network does not ask."""


@dataclass(frozen=True)
class Showing:
    """How batches are shown.

    The beat view is always that of the record as recorded and whole: a crop has fewer beats.

    Args:
        sampling_rate: Hz.
        augmentation: Random changes of the training signals.
        mixup: Alpha of ``signals.mixup``; 0 is off.
        windows: Windows that a record is cut into outside training.
        attribute_statistics: What standardised the attributes; None if the network is not told them.
        views: Whether the network reads beat views.

    Raises:
        ConfigurationError: The alpha of mixup can't be one.
    """

    sampling_rate: float
    augmentation: Augmentation
    mixup: float
    windows: Windows
    attribute_statistics: AttributeStatistics | None
    views: bool

    def __post_init__(self) -> None:
        """Refuse an alpha of no Beta distribution."""
        if not 0 <= self.mixup < float("inf"):
            raise ConfigurationError(f"mixup is {self.mixup}: expected 0, which is off, or more, such as 0.2.")

    def augmented(self, batch: EcgBatch, generator: Randomness = None) -> tuple[Shown, Tensor]:
        """Return a training batch, changed at random, and its labels (B, C), soft where records are mixed.

        Args:
            batch: The batch.
            generator: Source of randomness, on the batch's device; the default one if None.
        """
        view = self._view(batch)
        signal = self.augmentation(batch["signal"], self.sampling_rate, generator, batch["recorded"])
        beside: tuple[Tensor, ...] = ()
        if view is not None:
            view = augmented_view(view, self.augmentation, generator)
            beside = (view.shape, view.rhythm, view.each)
        signal, labels, *mixed = mixup(signal, batch["labels"], self.mixup, generator, beside=beside)
        if view is not None:
            view = view._replace(shape=mixed[0], rhythm=mixed[1], each=mixed[2])
        return Shown(signal, self._measured(batch), view), labels

    def windows_of(self, batch: EcgBatch) -> tuple[Shown, int]:
        """Return the windows of all records, those of a record one after the other, and how many a record has."""
        cut = self.windows.cut(batch["signal"], self.sampling_rate)
        windows = cut.shape[1]
        view, measured = self._view(batch), self._measured(batch)
        if windows > 1:
            view = None if view is None else view.repeated(windows)
            measured = None if measured is None else measured.repeat_interleave(windows, 0)
        return Shown(cut.flatten(0, 1), measured, view), windows

    def _view(self, batch: EcgBatch) -> BeatView | None:
        if not self.views:
            return None
        return beat_view(batch["signal"], batch["recorded"], batch["beats"], self.sampling_rate)

    def _measured(self, batch: EcgBatch) -> Tensor | None:
        """Return the attributes in their units."""
        if self.attribute_statistics is None:
            return None
        attributes, usual = batch["attributes"], self.attribute_statistics
        return attributes * attributes.new_tensor(usual.std) + attributes.new_tensor(usual.mean)
