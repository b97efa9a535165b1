"""What an ECG is to this project: leads, units, preprocessing, demographics, attributes and the batch.

Everything else stands on this file, and it imports nothing of either package but the errors.

Units, everywhere: signals in millivolts, time in samples of the stated rate, intervals in milliseconds, heart rate in
beats per minute, age in years.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, TypedDict

from torch import Tensor

from ecgfair.errors import ConfigurationError, PreprocessingMismatchError

LEADS: Final = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The twelve standard leads in the order in which every store holds them."""

MALE: Final = 0
FEMALE: Final = 1
UNKNOWN_SEX: Final = -1
"""Sex is coded as in PTB-XL; a missing sex is explicit, never 0."""

AGE_OVER_89: Final = 90.0
"""De-identified sources publish every age above 89 as one category (PTB-XL writes 300); it is kept as 90 years."""

ATTRIBUTES: Final = ("age", "sex", "heart_rate", "pr", "qrs", "qt", "qtc")
"""Columns of ``EcgBatch['attributes']``. Years; 0 male, 1 female; beats per minute; the intervals in milliseconds."""

SEX_COLUMN: Final = ATTRIBUTES.index("sex")

MISSING_SAMPLE: Final = -32768
"""The stored int16 value of a sample that was not recorded: of a missing lead, of padding, or not a number."""

PREPROCESSING_VERSION: Final = 2
"""Raised whenever the same settings would write other samples than before."""


@dataclass(frozen=True)
class Preprocessing:
    """How a recording became the array a model sees. It travels with the store, the checkpoint and every prediction.

    Millivolts are kept: no record and no lead is rescaled to its own range, because voltage is diagnostic.

    Args:
        leads: Names of the leads, in order.
        sampling_rate: Hz.
        length: Samples per lead.
        band_pass: Lower and upper cut-off in Hz of a zero-phase Butterworth filter; ``None`` keeps the signal as it
            was recorded.
        crop: What is kept of a longer recording: its ``start``, its ``center``, or nothing (``reject``).
        pad: Where a shorter recording stands in the length: at the ``start``, in the ``center``, or nowhere
            (``reject``). What is left over is ``MISSING_SAMPLE``, not zero volts.
        scale: Millivolts per integer step of the stored int16 samples.
        version: Version of the preparing code, see ``PREPROCESSING_VERSION``.

    Raises:
        ConfigurationError: A value is impossible.
    """

    leads: tuple[str, ...] = LEADS
    sampling_rate: int = 100
    length: int = 1000
    band_pass: tuple[float, float] | None = None
    crop: Literal["start", "center", "reject"] = "start"
    pad: Literal["start", "center", "reject"] = "start"
    scale: float = 0.001
    version: int = PREPROCESSING_VERSION

    def __post_init__(self) -> None:
        """Refuse values no signal can have; lists, as YAML and JSON have them, become tuples."""
        object.__setattr__(self, "leads", tuple(self.leads))
        if self.band_pass is not None:
            object.__setattr__(self, "band_pass", (self.band_pass[0], self.band_pass[1]))
        if not self.leads or len(set(self.leads)) != len(self.leads):
            raise ConfigurationError(f"Preprocessing.leads is {self.leads}: expected at least one lead, none twice.")
        for name in ("sampling_rate", "length", "scale"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"Preprocessing.{name} is {getattr(self, name)}: expected a positive number.")
        for name in ("crop", "pad"):
            if getattr(self, name) not in ("start", "center", "reject"):
                raise ConfigurationError(
                    f"Preprocessing.{name} is {getattr(self, name)!r}: expected start, center or reject."
                )
        if self.band_pass is not None:
            low, high = self.band_pass
            if not 0 < low < high < self.sampling_rate / 2:
                raise ConfigurationError(
                    f"Preprocessing.band_pass is {low}-{high} Hz: expected 0 < low < high < "
                    f"{self.sampling_rate / 2} Hz, half the sampling rate."
                )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as they are written to JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Read what ``to_dict`` wrote.

        Raises:
            ConfigurationError: A field is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ConfigurationError(
                f"Preprocessing has the fields {sorted(values)}: expected {sorted(names)}. "
                "It was written by another version of ecgfair."
            )
        return cls(**values)

    def require_same(self, other: Preprocessing, mine: str, others: str) -> None:
        """Check that two preprocessings are equal.

        Args:
            other: The one to compare with.
            mine: What this one belongs to, for the message (``"checkpoint runs/a/encoder"``).
            others: What the other one belongs to.

        Raises:
            PreprocessingMismatchError: They differ; the message names each field and both values.
        """
        differences = [
            f"{field.name} is {getattr(self, field.name)!r} in {mine} but {getattr(other, field.name)!r} in {others}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]
        if differences:
            raise PreprocessingMismatchError(
                f"Preprocessing differs: {'; '.join(differences)}. Prepare the store with the preprocessing of the "
                "checkpoint, or train a checkpoint on this store."
            )


@dataclass(frozen=True)
class AttributeStatistics:
    """Mean and standard deviation of each attribute over the training records, which standardise ``attributes``.

    Sex keeps its 0 and 1 (mean 0, standard deviation 1 here), so that it can be a target of a classification.

    Args:
        mean: One value an attribute, in the order of ``ATTRIBUTES`` and in its unit.
        std: Likewise; positive.
    """

    mean: tuple[float, ...] = (0.0,) * len(ATTRIBUTES)
    std: tuple[float, ...] = (1.0,) * len(ATTRIBUTES)

    def __post_init__(self) -> None:
        """Refuse statistics that would divide by zero or belong to other attributes; lists become tuples."""
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if len(self.mean) != len(ATTRIBUTES) or len(self.std) != len(ATTRIBUTES):
            raise ConfigurationError(
                f"AttributeStatistics has {len(self.mean)} means and {len(self.std)} deviations: expected "
                f"{len(ATTRIBUTES)} of each, for {', '.join(ATTRIBUTES)}."
            )
        if not all(value > 0 for value in self.std):
            raise ConfigurationError(f"AttributeStatistics.std is {self.std}: expected positive numbers.")


class EcgBatch(TypedDict):
    """A batch as a module's step receives it; ``B`` records.

    ``index`` is the position in the store. It makes every metric exact under any sharding, because records seen twice
    can be told apart from two records.
    """

    signal: Tensor
    """(B, leads, time) float32 millivolts, 0 where nothing was recorded. On its way to the device it is int16, see
    ``Preprocessing.scale``."""
    recorded: Tensor
    """(B, leads, time) bool; False in a missing lead, in padding and where a sample was not a number. On its way to the
    device it is (B, 1, 1) where all samples of the batch were recorded."""
    beats: Tensor
    """(B, K) int64 sample index of each R peak, padded with -1."""
    attributes: Tensor
    """(B, A) float32, standardised, in the order of ``ATTRIBUTES``; NaN where missing."""
    age: Tensor
    """(B,) float32 years; NaN where missing."""
    sex: Tensor
    """(B,) int64; ``MALE``, ``FEMALE`` or ``UNKNOWN_SEX``."""
    labels: Tensor
    """(B, C) float32, 0 or 1."""
    index: Tensor
    """(B,) int64 position in the store."""
