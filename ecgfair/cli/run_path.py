"""The run folder as a command line names it: variables of the environment become their values."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from ecgfair.errors import ConfigurationError

VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
"""``$NAME`` or ``${NAME}``, as in a shell."""


def run_path(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Expand ``$NAME`` and ``${NAME}``, so that one command has a run folder of its own for each trial of a sweep.

    A sweep's agent starts commands without a shell, and tells the name of the trial by ``WANDB_RUN_ID``. Every process
    of a run inherits it, so that all of them mean the same folder.

    Args:
        text: Of ``--run``, for example ``runs/sweeps/pretrain/$WANDB_RUN_ID``.
        environment: The variables; those of the process if None.

    Returns:
        The path, without variables.

    Raises:
        ConfigurationError: A variable is not set or is empty: two runs would share a folder.
    """
    known = os.environ if environment is None else environment

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not known.get(name):
            # No ValueError: of that argparse would say that the value is invalid, and no more.
            raise ConfigurationError(
                f"{text} names the environment variable {name}, which is not set: set it, or name a folder without it. "
                "Sweeps set WANDB_RUN_ID for each trial."
            )
        return known[name]

    return VARIABLE.sub(value, text)
