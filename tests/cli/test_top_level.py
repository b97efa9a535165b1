"""The door: verbs, help and version."""

import subprocess
import sys

import pytest

import ecgfair
from ecgfair.__main__ import VERBS, main
from tests.cli.driving import error_line


def test_help_lists_every_verb_and_imports_nothing_heavy():
    code = "import sys; from ecgfair.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, "torch was imported"
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)


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
