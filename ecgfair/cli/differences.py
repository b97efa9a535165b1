"""What a configuration changes of another, told a line each: nothing that a run goes on with changes unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from ecgfair.errors import RunFolderError

NO_SETTINGS: Final = ("run", "ckpt_path", "overwrite", "config")
"""What says where a run lies and what to do with it, not how it is made."""

ABSENT: Final = "(not there)"


def read_config(path: Path) -> dict[str, Any]:
    """Read the ``config.yaml`` of a run.

    Raises:
        RunFolderError: It is damaged.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RunFolderError(
            f"{path} can't be read: {str(error).splitlines()[0]}. Start anew in another --run."
        ) from error
    if not isinstance(config, dict):
        raise RunFolderError(f"{path} holds no configuration: expected that of a run. Start anew in another --run.")
    return config


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Compare two configurations.

    Args:
        before: As in ``config.yaml``.
        now: Likewise.

    Returns:
        A line for every setting that differs, ``key: old → new``, in the order of the new one.
    """
    old, new = (_flat({key: value for key, value in each.items() if key not in NO_SETTINGS}) for each in (before, now))
    return [
        f"{key}: {_shown(old.get(key, ABSENT))} → {_shown(new.get(key, ABSENT))}"
        for key in dict.fromkeys([*new, *old])
        if old.get(key, ABSENT) != new.get(key, ABSENT)
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings and of lists of mappings by their dotted key, as flags name them."""
    if isinstance(value, Mapping) and value:
        inner = {str(key): part for key, part in value.items()}
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        inner = {str(place): part for place, part in enumerate(value)}
    else:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, part in inner.items():
        leaves |= _flat(part, f"{prefix}.{key}" if prefix else key)
    return leaves


def _shown(value: Any) -> str:
    if value == ABSENT:
        return ABSENT
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
