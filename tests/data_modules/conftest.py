"""A small made source in the layout of PTB-XL, whole for reading or copied for breaking."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_modules.synthetic.writing.synthesize import synthesize

MADE_RECORDS = 20


@pytest.fixture(scope="session")
def whole_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty synthetic records, not to be changed."""
    folder = tmp_path_factory.mktemp("made") / "source"
    synthesize(str(folder), MADE_RECORDS)
    return folder


@pytest.fixture
def source(whole_source: Path, tmp_path: Path) -> Path:
    """A copy of the same records, to be broken."""
    return Path(shutil.copytree(whole_source, tmp_path / "source"))
