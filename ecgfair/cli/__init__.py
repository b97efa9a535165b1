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
    from ecgfair.cli import plain_verbs, trust

    if plain_verbs.is_plain(verb):
        trust.limit_imports([])
        plain_verbs.call(verb, arguments)
        return
    from ecgfair.cli.experiment import ExperimentCLI
    from ecgfair.cli.quiet import quiet

    quiet()
    trusted, words, others = trust.split_trust(arguments)
    trust.limit_imports(trusted)
    ExperimentCLI(args=[verb, *others], trusting=words)
