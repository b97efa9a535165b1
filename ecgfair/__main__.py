"""The door: ``python -m ecgfair VERB …``. It knows the verbs and their errors; ``cli`` does the work.

Nothing heavy is imported before a verb is known, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from ecgfair import __version__
from ecgfair.errors import EcgFairError, did_you_mean

VERBS: Final = {
    "prepare": "make a RecordStore of a source (ptbxl, code15, wfdb, records): `prepare ptbxl SOURCE STORE`",
    "inspect": "print what a store holds, or draw the 12-lead page of a record: `inspect STORE [RECORD]`",
    "publish": "copy a store behind a URI: `publish STORE s3://bucket/store`",
    "benchmark": "measure how fast records come: `benchmark data SOURCE`",
    "synthesize": "write a synthetic population whose truth is known, as PTB-XL or as a store: `synthesize OUT`",
    "fit": "train stage 1 or stage 2 from a YAML: `fit --config experiments/…/pretrain.yaml`",
    "validate": "measure a checkpoint on the validation folds",
    "test": "measure a checkpoint on the test folds, which nothing else reads",
    "predict": "write a checkpoint's predictions for all but the test folds",
    "audit": "measure how well any model serves each group, from its predictions: `audit predictions.parquet`",
}

INTERRUPTED: Final = 130
"""What a shell expects of a program that Ctrl-C ended."""


def usage() -> str:
    """Return the help of the top level."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())
    return (
        "usage: python -m ecgfair [--help] [--version] VERB …\n\n"
        "ECG pretraining without diagnoses, fine-tuning on a long tail of them, and how well each group is served.\n\n"
        f"verbs:\n{verbs}\n\n"
        "`python -m ecgfair VERB --help` explains a verb; experiments/ holds configurations to start\n"
        "from. The same `fit` goes on with a run that was not finished."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: The command line without the program's name; that of the process if None.

    Returns:
        The exit status: 0; 2 with one line on standard error for what the user can mend; 75 for a training that was
        asked to stop and goes on by the same command; 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(usage())  # noqa: T201  # this is what --help is for
        return 0
    if arguments[0] == "--version":
        print(f"ecgfair {__version__}")  # noqa: T201  # likewise
        return 0
    verb, *rest = arguments
    try:
        _check(verb)
        from ecgfair import cli

        cli.run(verb, rest)
    except EcgFairError as error:
        print(f"ecgfair: {error}", file=sys.stderr)  # noqa: T201  # one clear line in place of a traceback
        return error.exit_status
    except KeyboardInterrupt as interruption:
        print(": ".join(["ecgfair: interrupted", *map(str, interruption.args)]), file=sys.stderr)  # noqa: T201  # likewise
        return INTERRUPTED
    return 0


def _check(verb: str) -> None:
    if verb not in VERBS:
        raise EcgFairError(f"There is no verb {verb!r}.{did_you_mean(verb, VERBS)} See `python -m ecgfair --help`.")


if __name__ == "__main__":
    sys.exit(main())
