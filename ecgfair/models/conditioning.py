"""What is known of a patient, as an input of the head: age, sex or what was measured on the ECG.

What counts as normal depends on age and sex. Whether a network should be told them is a choice with two sides: it can
read an interval against the right norm, and it can rate a label by how frequent it is in a group. So it is off unless
it is asked for, and results with and without it are to be compared, by group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecgfair.ecg import ATTRIBUTES, FEMALE, MALE, SEX_COLUMN, UNKNOWN_SEX
from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.models.dropout import own_source
from ecgfair.signals.draws import rand

SCALES: Final[dict[str, tuple[float, float]]] = {
    "age": (60.0, 20.0),
    "sex": ((MALE + FEMALE) / 2, (FEMALE - MALE) / 2),
    "heart_rate": (70.0, 20.0),
    "pr": (160.0, 30.0),
    "qrs": (95.0, 20.0),
    "qt": (390.0, 40.0),
    "qtc": (410.0, 30.0),
}
"""What is subtracted from an attribute and what it is then divided by, in its unit: usual values of adults.

They are constants, not statistics of the training data, so that a value means the same in every hospital. Sex becomes
-1 for male and +1 for female."""

FURTHEST: Final = 4.0
"""Scaled values are clamped to plus and minus this: a measurement gone wrong must not drown the rest."""


@dataclass
class Conditioning:
    """Which attributes the head is told, and how.

    Args:
        inputs: Names out of ``ATTRIBUTES``; none switches it off.
        how: ``concatenate`` puts a code of them beside the features; ``modulate`` scales and shifts each feature
            depending on them (Perez et al. 2018, arXiv 1709.07871), which can change what a finding means.
        dropout: In training, the probability that all inputs of a record are hidden and, independently, that each
            single one is, so that the network learns to do without.
        hidden: Units of the layer that reads them; the width of the code under ``concatenate``.

    Raises:
        ConfigurationError: A value is impossible.
    """

    inputs: tuple[str, ...] = ()
    how: Literal["concatenate", "modulate"] = "concatenate"
    dropout: float = 0.1
    hidden: int = 32

    def __post_init__(self) -> None:
        """Refuse what can't be an input; a list becomes a tuple."""
        self.inputs = tuple(self.inputs)
        for name in self.inputs:
            if name not in ATTRIBUTES:
                raise ConfigurationError(
                    f"conditioning.inputs names {name!r}: expected names out of {', '.join(ATTRIBUTES)}."
                    f"{did_you_mean(name, ATTRIBUTES)}"
                )
        if len(set(self.inputs)) != len(self.inputs):
            raise ConfigurationError(f"conditioning.inputs is {', '.join(self.inputs)}: expected no name twice.")
        if self.how not in ("concatenate", "modulate"):
            raise ConfigurationError(f"conditioning.how is {self.how!r}: expected concatenate or modulate.")
        if not 0 <= self.dropout < 1:
            raise ConfigurationError(f"conditioning.dropout is {self.dropout}: expected 0 or more and less than 1.")
        if self.hidden < 1:
            raise ConfigurationError(f"conditioning.hidden is {self.hidden}: expected 1 or more.")


class DemographicInput(nn.Module):
    """Tells features what is known of the patient.

    Every input is two numbers: its scaled value, 0 if it is missing, and whether it is known. So a missing value is
    told apart from an average one.

    Args:
        settings: Which inputs, and how.
        features: Number of features that come in.

    Attributes:
        width: Number of features that go out.

    Raises:
        ConfigurationError: The settings name no input.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, settings: Conditioning, features: int) -> None:
        super().__init__()
        if not settings.inputs:
            raise ConfigurationError(
                f"conditioning.inputs is empty: expected at least one of {', '.join(ATTRIBUTES)}, or no conditioning."
            )
        self.columns = [ATTRIBUTES.index(name) for name in settings.inputs]
        self.dropout = settings.dropout
        self.read = nn.Linear(2 * len(self.columns), settings.hidden)
        self.modulate = nn.Linear(settings.hidden, 2 * features) if settings.how == "modulate" else None
        self.width = features + (settings.hidden if self.modulate is None else 0)
        if self.modulate is not None:
            # Factors of 1 and shifts of 0: training starts from the network that is told nothing.
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)
        # Constants of the code, not weights: a checkpoint holds neither.
        scales = torch.tensor([SCALES[name] for name in settings.inputs])
        self.register_buffer("centre", scales[:, 0], persistent=False)
        self.register_buffer("scale", scales[:, 1], persistent=False)

    def forward(self, features: Tensor, attributes: Tensor | None = None) -> Tensor:
        """Tell the features of each record what is known of it.

        Args:
            features: (B, D).
            attributes: (B, A) in the order of ``ATTRIBUTES`` and as measured, not standardised: years, 0 male and 1
                female, beats per minute, milliseconds. NaN where missing; None if nothing is known of any record.

        Returns:
            (B, ``width``).

        Raises:
            ValueError: ``attributes`` has another shape.
        """
        code = F.silu(self.read(self._inputs(features, attributes)))
        if self.modulate is None:
            return torch.cat([features, code], dim=1)
        factor, shift = self.modulate(code).chunk(2, dim=1)
        told: Tensor = features * (1 + factor) + shift
        return told

    def _inputs(self, features: Tensor, attributes: Tensor | None) -> Tensor:
        """Return (B, 2 * inputs): scaled values, 0 where missing or hidden, then 1 where known and 0 elsewhere."""
        if attributes is None:
            return self.read.weight.new_zeros(len(features), self.read.in_features)
        expected = (len(features), len(ATTRIBUTES))
        if attributes.shape != expected:
            raise ValueError(
                f"The attributes have the shape {tuple(attributes.shape)}: expected {expected}, a row for each record "
                f"and a column for each of {', '.join(ATTRIBUTES)}."
            )
        known = torch.isfinite(attributes)
        known[:, SEX_COLUMN] &= attributes[:, SEX_COLUMN] != UNKNOWN_SEX
        known = known[:, self.columns]
        if self.training and self.dropout > 0:
            known = known & self._kept(known)
        scaled = ((attributes[:, self.columns] - self.centre) / self.scale).clamp(-FURTHEST, FURTHEST)
        # NaN times 0 is NaN: a missing value is replaced, not multiplied away.
        return torch.cat([torch.where(known, scaled, 0.0), known], dim=1).to(self.read.weight.dtype)

    def _kept(self, known: Tensor) -> Tensor:
        """Draw which inputs (B, inputs) training does not hide."""
        source = own_source()
        everything = rand((len(known), 1), source, known.device)
        each = rand(known.shape, source, known.device)
        return (everything >= self.dropout) & (each >= self.dropout)
