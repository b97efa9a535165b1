"""The tiny trainings that these tests do harm to."""

import os
from pathlib import Path

import pytest

from ecgfair.ecg import Preprocessing
from tests.data_modules.streamed_store import stream_store
from tests.faults.cases import Cases

if not hasattr(os, "fork"):
    collect_ignore_glob = ["test_*.py"]  # Windows: nothing else starts a process in milliseconds


@pytest.fixture(scope="session")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    beats = [[30, 80, 130]] * 50
    # Leads of full length: what is measured here is the same whatever the signals are.
    store = stream_store(
        folder / "store", preprocessing=Preprocessing(leads=("I", "II", "V1"), length=200), beats=beats
    )
    return Cases(folder, Path(store))
