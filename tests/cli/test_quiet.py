"""What the command line keeps to itself, and what it does not."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecgfair.cli.quiet import HOME_NOTICES, quiet_without_home

ROOT = Path(__file__).parents[2]


def test_a_home_that_is_not_there_costs_no_line_of_output():
    kept = {name: value for name, value in os.environ.items() if name not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME")}
    without = kept | {"HOME": "/dev/null/nobody", "XDG_CACHE_HOME": "/dev/null/nobody"}
    done = subprocess.run(
        [sys.executable, "-m", "ecgfair", "inspect", "--help"],
        cwd=ROOT,
        env=without,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage: python -m ecgfair inspect" in done.stdout
    assert done.stderr == ""


@pytest.fixture
def matplotlib_log():
    log = logging.getLogger("matplotlib")
    before = list(log.filters)
    yield log
    log.filters = before


def test_everything_else_that_matplotlib_says_is_heard(matplotlib_log, caplog):
    quiet_without_home()
    for notice in HOME_NOTICES:
        matplotlib_log.warning("%s, as its own logger says", notice)
    matplotlib_log.warning("a font is missing")
    assert [record.getMessage() for record in caplog.records] == ["a font is missing"]
