"""The tiny trainings that these tests do harm to."""

import os
from pathlib import Path

import numpy as np
import pytest

from ecgfair.ecg import Preprocessing
from tests.data_modules.streamed_store import stream_store
from tests.faults.cases import Cases

if not hasattr(os, "fork"):
    collect_ignore_glob = ["test_*.py"]  # Windows: nothing else starts a process in milliseconds


@pytest.fixture(scope="session")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    count = 60
    generator = np.random.default_rng(0)
    store = stream_store(
        folder / "store",
        count,
        preprocessing=Preprocessing(leads=("I", "II", "V1"), length=200),
        beats=[[30, 80, 130]] * count,
        # Two thirds are trained on, and among the others every label has positives and negatives of both sexes.
        fold=[9 if position % 3 == 2 else 1 for position in range(count)],
        sex=generator.integers(0, 2, count).tolist(),
        codes=[["often"] if draw < 0.6 else ["rarely"] for draw in generator.random(count)],
    )
    return Cases(folder, Path(store))
