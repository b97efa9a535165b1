"""The door: verbs, help and version."""

import subprocess
import sys

import pytest

import ecgfair
from ecgfair.__main__ import VERBS, main
from tests.cli.driving import error_line


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], ["fti"]], ids=str)
def test_nothing_heavy_is_imported_before_a_verb_is_known(arguments):
    """So the top level answers at once, on a slow disk too."""
    heavy = ["torch", "lightning", "jsonargparse", "pandas", "numpy", "pyarrow", "yaml"]
    code = (
        f"import sys; from ecgfair.__main__ import main; main({arguments}); "
        f"print(*(name for name in {heavy} if name in sys.modules), file=sys.stderr); print(len(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "", done.stderr
    # Python itself starts with about fifty.
    assert int(done.stdout.splitlines()[-1]) < 250


def test_help_lists_every_verb(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {verb} " in printed for verb in VERBS)


def test_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ecgfair {ecgfair.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert "usage: python -m ecgfair" in capsys.readouterr().out


def test_an_unknown_verb_gets_the_nearest_one(capsys):
    assert main(["fti"]) == 2
    assert "Did you mean 'fit'" in error_line(capsys)
