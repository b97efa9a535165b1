"""Whose code a configuration may name: this project's and Lightning's, unless the command line says more.

A YAML is text that people send each other. Naming a class there imports its module and calls it, which is running code;
so what may be named is a list, and ``--trust`` adds to it. Only the command line can say it, never a configuration.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Sequence
from typing import Final

import jsonargparse

from ecgfair.errors import ConfigurationError

FLAG: Final = "--trust"

_PARTS: Final = ("accelerators", "callbacks", "loggers", "plugins", "profilers", "strategies")
_LIGHTNING: Final = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")
ALLOWED: Final = ("ecgfair", "data_modules", *(f"{name}.{part}" for name in _LIGHTNING for part in _PARTS))
"""What any configuration may name, and everything under it."""

_granted: set[str] = set()


def split_trust(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Take ``--trust`` and ``--trust PACKAGE`` out of a command line.

    Args:
        arguments: What follows the verb.

    Returns:
        The packages, the words that named them, and the other arguments.

    Raises:
        ConfigurationError: A name is none of a package.
    """
    packages: list[str] = []
    words: list[str] = []
    others: list[str] = []
    given = list(arguments)
    while given:
        word = given.pop(0)
        if word == FLAG and given and not given[0].startswith("-"):
            word = f"{FLAG}={given.pop(0)}"
        if word == FLAG:
            words.append(word)
            packages += _installed()
        elif word.startswith(f"{FLAG}="):
            words.append(word)
            packages += [_checked(name) for name in word.removeprefix(f"{FLAG}=").split(",")]
        else:
            others.append(word)
    return packages, words, others


def limit_imports(trusted: Sequence[str]) -> None:
    """Have jsonargparse refuse to import what is not on the list, by whatever name it is reached.

    Args:
        trusted: Packages beside those of ``ALLOWED``, until the next call.
    """
    jsonargparse.set_parsing_settings(
        import_path_denylist=["*", *sorted(_granted)],
        import_path_allowlist=[*ALLOWED, *trusted],
        # Lightning allows configurations to be fetched from anywhere: https, s3, github.
        config_read_mode_fsspec_enabled=False,
        config_read_mode_urls_enabled=False,
        # An argument of any type takes a class for what it is: a mapping with `class_path`.
        instantiate_subclass_spec_in_any=False,
    )
    _granted.clear()
    _granted.update(set(trusted) - set(ALLOWED))


def _installed() -> list[str]:
    """Return every package that is there but Python's own, which no configuration needs and which can do anything."""
    names = {module.name for module in pkgutil.iter_modules()} - {"jsonargparse"} - set(sys.stdlib_module_names)
    return sorted(name for name in names if name.isidentifier())


def _checked(name: str) -> str:
    root = name.partition(".")[0]
    if not all(part.isidentifier() for part in name.split(".")) or root == "jsonargparse":
        raise ConfigurationError(
            f"{FLAG} names {name!r}: expected a package whose classes a configuration may name, such as mypackage."
        )
    return name
