"""Encoders: what stage 1 trains, the checkpoint holds and stage 2 starts from."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, Final

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.models.encoder_base import Encoder, Latents
from ecgfair.models.mcf import McfEncoder
from ecgfair.models.residual import ResidualEncoder
from ecgfair.models.two_scale import TwoScaleEncoder
from ecgfair.models.xresnet import XResNetEncoder

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderSpec",
    "Latents",
    "McfEncoder",
    "ResidualEncoder",
    "TwoScaleEncoder",
    "XResNetEncoder",
]


ENCODERS: Final[dict[str, type[Encoder]]] = {
    "ResidualEncoder": ResidualEncoder,
    "TwoScaleEncoder": TwoScaleEncoder,
    "McfEncoder": McfEncoder,
    "XResNetEncoder": XResNetEncoder,
}
"""Every class an encoder checkpoint may name. Nothing else is ever built from one."""


@dataclass
class EncoderSpec:
    """An encoder by name, with the arguments of its constructor: plain values that fit into YAML and JSON.

    Args:
        name: One of ``ENCODERS``.
        arguments: Arguments of its constructor but for ``leads``, which the Preprocessing gives.
    """

    name: str = "ResidualEncoder"
    arguments: dict[str, Any] = field(default_factory=dict)

    def check_name(self) -> None:
        """Refuse a name that is not an encoder of this project.

        Raises:
            ConfigurationError: The name is not one of ``ENCODERS``.
        """
        if self.name not in ENCODERS:
            raise ConfigurationError(
                f"There is no encoder {self.name!r} in ecgfair.{did_you_mean(self.name, ENCODERS)}"
            )

    def build(self, leads: int) -> Encoder:
        """Return such an encoder with random weights.

        Raises:
            ConfigurationError: The name or an argument is unknown, or an argument has an impossible value.
        """
        self.check_name()
        known = set(inspect.signature(ENCODERS[self.name]).parameters) - {"leads"}
        for argument in self.arguments:
            if argument not in known:
                raise ConfigurationError(
                    f"{self.name} takes no argument {argument!r}.{did_you_mean(argument, sorted(known))}"
                )
        try:
            return ENCODERS[self.name](leads=leads, **self.arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigurationError(f"{self.name} can't be built from {self.arguments}: {error}") from error
