"""Parameters of a sweep in the format of Weights & Biases, as an embedded search asks for them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ecgfair.errors import ConfigurationError, did_you_mean

Scale = Literal["linear", "log"]

RANGES: Final[Mapping[str, Scale]] = {
    "int_uniform": "linear",
    "uniform": "linear",
    "q_uniform": "linear",
    "log_uniform": "log",
    "log_uniform_values": "log",
    "q_log_uniform_values": "log",
}
"""Distributions between ``min`` and ``max``. Of ``log_uniform`` the two are natural logarithms of the limits."""
DISTRIBUTIONS: Final = ("constant", "categorical", *RANGES)
KEYS: Final = ("value", "values", "distribution", "min", "max", "q")


@dataclass(frozen=True)
class Choice:
    """One of several values; a constant is one of one.

    Args:
        values: Whatever YAML can say.
    """

    values: tuple[Any, ...]

    def suggest(self, trial: Any, name: str) -> Any:
        """Ask a trial of Optuna for a value."""
        return json.loads(trial.suggest_categorical(name, self.kept))

    @property
    def kept(self) -> list[str]:
        """The values as a study keeps them: as JSON, so that lists can be chosen, and True is not 1."""
        return [json.dumps(value) for value in self.values]


@dataclass(frozen=True)
class Range:
    """A number between two others.

    Args:
        low: Least value.
        high: Greatest value.
        scale: Whether values or their logarithms are equally likely.
        step: What values are multiples of; 0 for any value.
        whole: Whether they are integers.
    """

    low: float
    high: float
    scale: Scale = "linear"
    step: float = 0.0
    whole: bool = False

    def suggest(self, trial: Any, name: str) -> float:
        """Ask a trial of Optuna for a value."""
        if self.whole and not self.step:
            return int(trial.suggest_int(name, int(self.low), int(self.high)))
        drawn = float(trial.suggest_float(name, self.low, self.high, log=self.scale == "log"))
        if not self.step:
            return drawn
        value = round(drawn / self.step) * self.step
        return round(value) if self.whole else float(f"{value:.12g}")  # 0.1 * 3 is 0.3 and a little


Parameter = Choice | Range


def parse_parameter(name: str, told: Any) -> Parameter:
    """Read one parameter of a sweep file.

    Args:
        name: Its key of the command line.
        told: What the file says of it: ``value``, ``values``, or ``min`` and ``max`` with or without ``distribution``.

    Raises:
        ConfigurationError: It is of a kind that an embedded sweep does not have, or contradicts itself.
    """
    if not isinstance(told, Mapping):
        raise _wrong(name, f"is {told!r}: expected value, values, or min and max")
    if "parameters" in told:
        raise _wrong(name, "is nested: name each parameter by its whole key of the command line, with dots")
    if unknown := [key for key in told if key not in KEYS]:
        raise _wrong(name, f"has {unknown[0]!r}.{did_you_mean(str(unknown[0]), KEYS)} No other is supported here")
    kind = told.get("distribution") or _kind(told)
    if kind not in DISTRIBUTIONS:
        raise _wrong(
            name, f"has the distribution {kind!r}, which is not supported here: expected {', '.join(DISTRIBUTIONS)}"
        )
    if kind in RANGES:
        return _range(name, kind, told)
    values = told.get("values", ()) if kind == "categorical" else (told.get("value"),)
    if not isinstance(values, list | tuple) or not values:
        raise _wrong(name, f"has the values {values!r}: expected a list of at least one")
    return Choice(tuple(values))


def _kind(told: Mapping[str, Any]) -> str:
    """Which distribution is meant where none is named: Weights & Biases goes by the keys and by the type of limits."""
    if "value" in told:
        return "constant"
    if "values" in told:
        return "categorical"
    is_whole = all(isinstance(told.get(end), int) for end in ("min", "max"))
    return "q_uniform" if "q" in told else "int_uniform" if is_whole else "uniform"


def _range(name: str, kind: str, told: Mapping[str, Any]) -> Range:
    step = told.get("q", 1) if kind.startswith("q_") else 0
    limits: list[Any] = [told.get(end) for end in ("min", "max")]
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in (*limits, step)):
        # YAML 1.1 reads 1e-3 as a text: it wants the dot of 1.0e-3.
        raise _wrong(name, f"has min {limits[0]!r} and max {limits[1]!r}: expected two numbers, such as 1.0e-3")
    low, high = (math.exp(limit) if kind == "log_uniform" else limit for limit in limits)
    if not low < high or not math.isfinite(high - low) or (RANGES[kind] == "log" and low <= 0) or step < 0:
        raise _wrong(name, f"goes from {low} to {high} by {kind}: expected min below max, above 0 for logarithms")
    is_whole = kind == "int_uniform" or (kind.startswith("q_") and all(isinstance(x, int) for x in (*limits, step)))
    return Range(low, high, RANGES[kind], step, is_whole)


def _wrong(name: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"The parameter {name} of the sweep {what}.")
