"""The top floor: composes readers, data modules, both stages and the callbacks into verbs of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

EXPERIMENTS: Final = ("fit", "validate", "test", "predict")
"""Verbs that a configuration of a trainer, a module and data belongs to; all others are plain functions."""


def run(verb: str, arguments: Sequence[str]) -> None:
    """Run one verb.

    Args:
        verb: One of ``ecgfair.__main__.VERBS``.
        arguments: The rest of the command line.

    Raises:
        EcgFairError: What the user can mend.
    """
    from ecgfair.cli.quiet import quiet, quiet_without_home

    # Before anything imports matplotlib. What one kind of verb needs is not imported for the other: it takes seconds.
    quiet_without_home()
    from ecgfair.cli import trust

    if verb not in EXPERIMENTS:
        from ecgfair.cli import plain_verbs

        trust.limit_imports([])
        plain_verbs.call(verb, arguments)
        return
    from ecgfair.cli.experiment import ExperimentCLI

    quiet()
    trusted, words, others = trust.split_trust(arguments)
    trust.limit_imports(trusted)
    ExperimentCLI(args=[verb, *others], trusting=words)
