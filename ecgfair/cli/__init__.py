"""The top floor: composes readers, data modules, both stages and the callbacks into verbs of the command line."""

from __future__ import annotations

from collections.abc import Sequence


def run(verb: str, arguments: Sequence[str]) -> None:
    """Run one verb.

    Args:
        verb: One of ``ecgfair.__main__.VERBS``.
        arguments: The rest of the command line.

    Raises:
        EcgFairError: What the user can mend.
    """
    from ecgfair.cli.quiet import quiet_without_home

    quiet_without_home()
    from ecgfair.cli import plain_verbs

    if plain_verbs.is_plain(verb):
        plain_verbs.call(verb, arguments)
        return
    from ecgfair.cli.experiment import ExperimentCLI
    from ecgfair.cli.quiet import quiet

    quiet()
    ExperimentCLI(args=[verb, *arguments])
