"""A sweep in the format of Weights & Biases: what is searched, by which method, and the command of a trial."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ecgfair.cli.sweep_parameters import Choice, Parameter, parse_parameter
from ecgfair.errors import ConfigurationError, did_you_mean

METHODS: Final = ("grid", "random", "bayes")
GOALS: Final = {"minimize": "min", "maximize": "max"}
KEYS: Final = (
    "name",
    "description",
    "project",
    "method",
    "metric",
    "parameters",
    "command",
    "run_cap",
    "early_terminate",
)
ARGS: Final = "${args}"
ENVIRONMENT: Final = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934), which a sweep file calls ``hyperband``.

    Args:
        first: Measurement at which a trial may be ended for the first time.
        factor: One of so many goes on there, and again at ``first * factor``, ``first * factor ** 2`` and so on.
    """

    first: int
    factor: int


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says.

    Args:
        name: Of the sweep.
        method: ``grid``, ``random`` or ``bayes``.
        metric: Key of the metric in metrics.csv.
        goal: ``minimize`` or ``maximize``.
        parameters: By their keys of the command line.
        command: Of a trial, with macros.
        run_cap: Trials at most; ``None`` if the file does not say.
        halving: When bad trials are ended early; ``None`` for never.
    """

    name: str
    method: str
    metric: str
    goal: str
    parameters: Mapping[str, Parameter]
    command: tuple[str, ...]
    run_cap: int | None = None
    halving: Halving | None = None

    def words(self, values: Mapping[str, Any]) -> list[str]:
        """Return the command of a trial, macros expanded as the agent of Weights & Biases does.

        Args:
            values: Of all parameters, by their keys.
        """
        # See `create_sweep_command`, `create_sweep_command_args` and `Agent._command_run` in wandb 0.31. The agent
        # takes the first `python` of the path; here it is the one that runs this.
        macros = {
            "${env}": ["/usr/bin/env"] if os.name == "posix" else [],
            "${interpreter}": [sys.executable],
            ARGS: [f"--{name}={value}" for name, value in values.items()],
        }
        filled = [ENVIRONMENT.sub(lambda found: os.environ.get(found[1], found[1]), word) for word in self.command]
        return [part for word in filled for part in macros.get(word, [word])]


def read_sweep(path: Path, append: Sequence[str] = ()) -> Sweep:
    """Read a sweep file.

    Args:
        path: The YAML file.
        append: Words that go behind every trial's command.

    Raises:
        ConfigurationError: It can't be read, asks for what an embedded sweep does not have, or its trials would share
            a run folder.
    """
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} can't be read as a sweep: {' '.join(str(error).split())}.") from error
    if not isinstance(told, Mapping):
        raise ConfigurationError(f"{path} is no sweep: expected method, metric, parameters and command.")
    if unknown := [key for key in told if key not in KEYS]:
        raise ConfigurationError(f"{path} has the key {unknown[0]!r}.{did_you_mean(str(unknown[0]), KEYS)}")
    metric, parameters = told.get("metric"), told.get("parameters")
    if told.get("method") not in METHODS:
        raise ConfigurationError(f"method of {path} is {told.get('method')!r}: expected {', '.join(METHODS)}.")
    if not isinstance(metric, Mapping) or metric.get("goal", "minimize") not in GOALS or not metric.get("name"):
        raise ConfigurationError(f"metric of {path} is {metric!r}: expected a name, and the goal minimize or maximize.")
    if not isinstance(parameters, Mapping) or not parameters:
        raise ConfigurationError(f"parameters of {path} are {parameters!r}: expected at least one.")
    cap = told.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        raise ConfigurationError(f"run_cap of {path} is {cap!r}: expected a number of trials.")
    found = {name: parse_parameter(name, kind) for name, kind in parameters.items()}
    if told["method"] == "grid" and (uneven := [name for name, one in found.items() if not isinstance(one, Choice)]):
        raise ConfigurationError(f"The parameter {uneven[0]} of {path} has no values: a grid is made of values.")
    return Sweep(
        str(told.get("name") or path.stem),
        told["method"],
        str(metric["name"]),
        metric.get("goal", "minimize"),
        found,
        (*_command(path, told.get("command")), *append),
        cap,
        _halving(path, told.get("early_terminate")),
    )


def _command(path: Path, told: Any) -> list[str]:
    if not isinstance(told, list) or ARGS not in told:
        raise ConfigurationError(
            f"command of {path} is {told!r}: expected a list such as [${{env}}, ${{interpreter}}, -m, ecgfair, fit, …, "
            f"{ARGS}]."
        )
    for word in map(str, told):
        is_macro = word.startswith("${") and word.endswith("}") and not ENVIRONMENT.fullmatch(word)
        if is_macro and word not in ("${env}", "${interpreter}", ARGS):
            raise ConfigurationError(
                f"command of {path} has {word}, which is not supported: expected {ARGS}, which gives every parameter "
                "as --key=value."
            )
    return [str(word) for word in told]


def _halving(path: Path, told: Any) -> Halving | None:
    if told is None:
        return None
    known = ("type", "min_iter", "max_iter", "s", "eta")
    if not isinstance(told, Mapping) or told.get("type") != "hyperband" or any(key not in known for key in told):
        raise ConfigurationError(
            f"early_terminate of {path} is {told!r}: expected type hyperband, with {', '.join(known[1:])}."
        )
    eta = told.get("eta", 3)
    if "min_iter" in told:
        first = told["min_iter"]
    elif "max_iter" in told and "s" in told and isinstance(eta, int):
        first = told["max_iter"] // eta ** told["s"]
    else:
        raise ConfigurationError(f"early_terminate of {path} lacks min_iter, or max_iter and s.")
    if not isinstance(first, int) or not isinstance(eta, int) or first < 1 or eta < 2:
        raise ConfigurationError(
            f"early_terminate of {path} begins at {first} by {eta}: expected whole numbers, eta 2 or more."
        )
    return Halving(first, eta)
