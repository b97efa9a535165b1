"""Where tests get records from: made ones for all, real ones for those that ask for them."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from data_modules.preparing.prepare import prepare
from data_modules.readers.ptbxl import PtbXlReader
from data_modules.synthetic.writing.synthesize import synthesize
from ecgfair.ecg import Preprocessing

# Tensors are small here, and processes of the distributed tests would fight for the cores.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

HOW = (
    "Download PTB-XL 1.0.3 from PhysioNet (see README.md), put its folder as `ptbxl` into one of your choice and name "
    "that one by the environment variable ECGFAIR_DATA or by --ecgfair-data."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ecgfair-data", default=os.environ.get("ECGFAIR_DATA"), help="Folder with real recordings.")


def missing_data(problem: str) -> None:
    """In CI the real data must be there; on a laptop its tests are skipped, and say so."""
    if os.environ.get("CI"):
        pytest.fail(f"{problem} {HOW}")
    pytest.skip(f"{problem} {HOW}")


@pytest.fixture(scope="session")
def real_data(pytestconfig: pytest.Config) -> Path:
    """The folder of real recordings."""
    named = pytestconfig.getoption("--ecgfair-data")
    if not named:
        missing_data("No folder of real recordings is named.")
    folder = Path(named).resolve()
    if not folder.is_dir():
        missing_data(f"The folder of real recordings, {folder}, is not there.")
    return folder


@pytest.fixture(scope="session")
def ptbxl_source(real_data: Path) -> Path:
    """The official folder of PTB-XL."""
    source = real_data / "ptbxl"
    if not (source / "ptbxl_database.csv").is_file():
        missing_data(f"There is no ptbxl_database.csv in {source}.")
    return source


@pytest.fixture(scope="session")
def synthetic_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic data set in the layout of PTB-XL."""
    source = tmp_path_factory.mktemp("synthetic") / "source"
    synthesize(str(source), records=200, seed=0)
    return source


@pytest.fixture(scope="session")
def synthetic_store(synthetic_source: Path) -> Path:
    """The store of the synthetic data set."""
    store = synthetic_source.with_name("store")
    prepare(PtbXlReader(synthetic_source), store, Preprocessing(), jobs=1, progress=False)
    return store


@pytest.fixture(scope="session")
def ptbxl_part(ptbxl_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 400 records of PTB-XL: the official layout, with its signals linked."""
    part = tmp_path_factory.mktemp("ptbxl")
    table = pd.read_csv(ptbxl_source / "ptbxl_database.csv", dtype=str)
    table.head(400).to_csv(part / "ptbxl_database.csv", index=False)
    for name in ("scp_statements.csv", "records100"):
        (part / name).symlink_to(ptbxl_source / name)
    return part


@pytest.fixture(scope="session")
def ptbxl_store(ptbxl_part: Path) -> Path:
    """The store of the first 400 records of PTB-XL."""
    store = ptbxl_part / "store"
    prepare(PtbXlReader(ptbxl_part), store, Preprocessing(), jobs=1, progress=False)
    return store
