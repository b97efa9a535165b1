"""What jsonargparse says of a command line or a YAML that it can't read, in one line."""

from __future__ import annotations


def in_one_line(parse_error: str) -> str:
    """Keep of jsonargparse's page on types the lines that say what is wrong."""
    if "codec can't decode" in parse_error:
        return f"The file named by --config is no text ({parse_error}): expected YAML."
    noise = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip() for line in parse_error.splitlines()]
    said = " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(noise))
    return f"{said} (`python -m ecgfair VERB --help` and `--print_config` show what can be set.)"
