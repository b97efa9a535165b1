"""Verbs that are plain functions: their command line follows from their type hints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jsonargparse

from data_modules.benchmark import benchmark_data
from data_modules.inspection import print_description
from data_modules.large_store import benchmark_store
from data_modules.preparing.sources import SOURCES
from data_modules.record_page import record_page
from data_modules.stores.publish import publish
from data_modules.stores.store import RecordStore
from data_modules.synthetic.writing.synthesize import synthesize
from ecgfair.cli.parse_errors import in_one_line
from ecgfair.errors import ConfigurationError
from ecgfair.report.audit import audit
from ecgfair.report.ecg_page import draw_page, save_page


def inspect(
    store: str, record: str | None = None, output: str | None = None, verify: bool = False, labels: str | None = None
) -> None:
    """Print what a RecordStore holds, or draw the 12-lead page of one of its records.

    Args:
        store: Folder or URI (s3://…, gs://…, https://…) of the store.
        record: Id of a record, as in records.parquet: draws its page, true to scale at 25 mm/s and 10 mm/mV.
        output: File of the page, .png or .svg; ecg-RECORD.png if left out.
        verify: Read every file first and compare its checksum with the manifest's.
        labels: Label set to count; the store's usual one if left out.
    """
    opened = RecordStore(store)
    if verify:
        opened.verify()
        print(f"Every file of {opened.location} is as its manifest says.")  # noqa: T201  # what was asked for
    if record is None:
        if output is not None:
            raise ConfigurationError(f"output is {output}: name a record too, whose page is to be drawn.")
        print_description(opened, label_set=labels)
        return
    path = output or f"ecg-{re.sub(r'[^A-Za-z0-9._-]+', '_', record)}.png"
    save_page(draw_page(**vars(record_page(opened, record))), path)
    print(path)  # noqa: T201  # where the page is


def _inspect_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """Read the command line of ``inspect``: auto_cli has no optional positional and no flag without a value."""
    parser = jsonargparse.ArgumentParser(
        prog="python -m ecgfair inspect",
        description="Print what a RecordStore holds, or draw the 12-lead page of one of its records.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_function_arguments(inspect, skip={"record", "verify"}, as_positional=True)
    parser.add_argument("record", nargs="?", help="Id of a record, as in records.parquet, whose page is to be drawn.")
    parser.add_argument(
        "--verify", action="store_true", help="Compare every file's checksum with the manifest's first."
    )
    try:
        return vars(parser.parse_args(list(arguments)))
    except (jsonargparse.ArgumentError, UnicodeDecodeError) as error:
        raise ConfigurationError(in_one_line(str(error))) from error


PLAIN_VERBS: Final[Mapping[str, Any]] = {
    "prepare": dict(SOURCES),
    "publish": publish,
    "benchmark": {"data": benchmark_data, "store": benchmark_store},
    "synthesize": synthesize,
    "audit": audit,
}
"""Verbs that are plain functions, or one a subcommand."""


def is_plain(verb: str) -> bool:
    """Whether a verb is a function, not an experiment."""
    return verb == "inspect" or verb in PLAIN_VERBS


def call(verb: str, arguments: Sequence[str]) -> None:
    """Call a plain function, or one of several by its name, with what the command line says.

    Raises:
        EcgFairError: What the user can mend.
    """
    if verb == "inspect":
        inspect(**_inspect_arguments(arguments))
        return
    try:
        jsonargparse.auto_cli(
            PLAIN_VERBS[verb],
            args=list(arguments),
            prog=f"python -m ecgfair {verb}",
            exit_on_error=False,
            allow_abbrev=False,
            as_positional=True,
        )
    except (jsonargparse.ArgumentError, UnicodeDecodeError) as error:
        raise ConfigurationError(in_one_line(str(error), lambda: _flags(verb, arguments))) from error


def _flags(verb: str, arguments: Sequence[str]) -> list[str]:
    """Return the flags of a function, or of the one of several that the first argument names."""
    function = PLAIN_VERBS[verb]
    if isinstance(function, dict):
        function = function.get(arguments[0]) if arguments else None
    if function is None:
        return []
    parser = jsonargparse.auto_parser(function, as_positional=True)
    return [flag for action in parser._actions for flag in action.option_strings]  # noqa: SLF001  # argparse has no other list
