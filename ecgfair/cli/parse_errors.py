"""What jsonargparse says of a command line or a YAML that it can't read, in one line, with the nearest valid name."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Final

from ecgfair.errors import did_you_mean

Names = Callable[[], Iterable[str]]
"""Valid names of something; asked for only when one was not found."""

HELP: Final = "(`python -m ecgfair VERB --help` and `--print_config` show what can be set.)"

_UNKNOWN_FLAG: Final = re.compile(r"[Uu]nrecognized arguments: (?P<flags>.+)")
_UNKNOWN_KEY: Final = re.compile(r"does not accept (?:option|nested key|key) '(?P<key>[^']+)'")
_UNKNOWN_ARGUMENT: Final = re.compile(
    r"Problem with given class_path '(?P<path>[^']+)':\s+Option '(?P<option>[^']+)' is not accepted"
)
_UNKNOWN_CLASS: Final = re.compile(
    r"Expected a dot import path string: (?P<short>\S+)|module '(?P<module>\S+)' has no attribute '(?P<name>\S+)'"
)
_DENIED: Final = re.compile(r"Importing '(?P<path>[^']+)' is not allowed")
_PARSER_KEY: Final = re.compile(r'Parser key "(?P<key>[^"]+)"')
_GIVEN: Final = re.compile(r"Given value: (?P<value>(?!NestedArg|\{|\[).+)")


def in_one_line(parse_error: str, flags: Names = tuple, classes: Mapping[str, Names] | None = None) -> str:
    """Keep of jsonargparse's page on types the lines that say what is wrong, and add what was meant.

    Args:
        parse_error: The page.
        flags: Flags that the verb has, such as ``--trainer.max_epochs``.
        classes: Short names of the classes that a key takes, by key, such as ``trainer.callbacks``.
    """
    if "codec can't decode" in parse_error:
        return f"The file named by --config is no text ({parse_error}): expected YAML."
    keys = [match["key"] for match in _PARSER_KEY.finditer(parse_error)]
    for pattern, explain in (
        (_DENIED, _denied),
        (_UNKNOWN_ARGUMENT, lambda match: _unknown_argument(match, keys)),
        (_UNKNOWN_CLASS, lambda match: _unknown_class(match, keys, classes or {})),
        (_UNKNOWN_KEY, lambda match: _unknown_key(match, flags)),
        (_UNKNOWN_FLAG, lambda match: _unknown_flag(match, flags)),
    ):
        match = pattern.search(parse_error)
        if match is not None:
            return f"{explain(match)} {HELP}"
    return f"{_without_noise(parse_error)} {HELP}"


def _without_noise(parse_error: str) -> str:
    noise = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip() for line in parse_error.splitlines()]
    said = " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(noise))
    given = _GIVEN.search(parse_error)
    return said if given is None or given["value"] in said else f"{said}, got {given['value'].strip()!r}."


def _denied(match: re.Match[str]) -> str:
    path = match["path"]
    root = path.partition(".")[0]
    hint = "" if root in sys.stdlib_module_names else f" If you trust it, add `--trust {root}` to the command."
    return (
        f"The configuration names {path}, which is neither of ecgfair nor one of Lightning's parts of a trainer, so it "
        f"was not imported: that would run its code.{hint}"
    )


def _unknown_argument(match: re.Match[str], keys: list[str]) -> str:
    name, _, rest = match["option"].partition(".")
    where = ".".join([keys[0], "init_args", *keys[1:]]) if keys else "it"
    option = f"{name}.{rest}" if rest else name
    module, _, class_name = match["path"].rpartition(".")
    # It was imported already, by whom this error is of.
    hint = did_you_mean(name, arguments_of(getattr(import_module(module), class_name)))
    return f"Option {option!r} is not accepted by {class_name} ({where}).{hint}"


def arguments_of(found: type) -> list[str]:
    """Return the arguments of a class, those of its bases as well if it hands them on."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names: dict[str, None] = {}
    for base in inspect.getmro(found):
        if "__init__" in vars(base) and base is not object:
            parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            names |= dict.fromkeys(each.name for each in parameters if each.kind not in kinds)
            if not any(each.kind in kinds for each in parameters):
                break
    return list(names)


def _unknown_class(match: re.Match[str], keys: list[str], classes: Mapping[str, Names]) -> str:
    name = match["short"] or match["name"]
    where = f" for {keys[0]}" if keys else ""
    known = next((names for key, names in classes.items() if keys and keys[0].startswith(key)), None)
    return f"There is no class {name!r}{where}.{did_you_mean(name, sorted(known())) if known else ''}"


def _unknown_key(match: re.Match[str], flags: Names) -> str:
    key = match["key"]
    return (
        f"The configuration sets {key!r}, which there is not.{_nearest(key, [f.removeprefix('--') for f in flags()])}"
    )


def _unknown_flag(match: re.Match[str], flags: Names) -> str:
    said = match["flags"].strip()
    flag = said.split()[0].partition("=")[0]
    valid = list(flags())
    # Of `--model.init_args.los.name` jsonargparse says what follows the class: `--los.name`.
    hint = _nearest(flag, valid) or _nearest(flag.partition(".")[0], valid)
    return f"unrecognized arguments: {said}.{hint}"


def _nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint where one name is near; all names of a trainer would fill a page."""
    hint = did_you_mean(name, valid)
    return hint if "Did you mean" in hint else ""
