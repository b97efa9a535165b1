"""Workers: the same store, byte by byte, whoever prepares it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_modules.preparing.prepare import prepare
from data_modules.preparing.workers import workers
from data_modules.readers.ptbxl import PtbXlReader
from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError
from tests.data_modules.made_store import contents


@pytest.fixture(scope="module")
def dask_address() -> Iterator[str]:
    """A dask cluster of two worker processes on this machine."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def local(whole_source: Path, tmp_path: Path) -> dict[str, bytes]:
    """The store as this process alone prepares it."""
    prepare(PtbXlReader(whole_source), tmp_path / "local", Preprocessing(), jobs=1, progress=False)
    return contents(tmp_path / "local")


def test_a_dask_cluster_of_two_workers_prepares_the_same_bytes(
    whole_source: Path, tmp_path: Path, local: dict[str, bytes], dask_address: str, monkeypatch: pytest.MonkeyPatch
):
    import distributed

    from data_modules.preparing import prepare as module

    monkeypatch.setattr(module, "CHUNK", 4)
    reader = PtbXlReader(whole_source)
    prepare(reader, tmp_path / "store", Preprocessing(), backend="dask", address=dask_address, progress=False)
    assert contents(tmp_path / "store") == local
    with distributed.Client(dask_address) as client:
        worked = client.run(lambda dask_worker: dask_worker.state.executed_count)
    assert len(worked) == 2
    assert all(count > 0 for count in worked.values())


def test_threads_prepare_the_same_bytes(whole_source: Path, tmp_path: Path, local: dict[str, bytes]):
    reader = PtbXlReader(whole_source)
    prepare(reader, tmp_path / "store", Preprocessing(), backend="threads", jobs=2, progress=False)
    assert contents(tmp_path / "store") == local


@pytest.mark.slow
def test_a_ray_cluster_prepares_the_same_bytes(whole_source: Path, tmp_path: Path, local: dict[str, bytes]):
    pytest.importorskip("ray")
    ray = str(Path(sys.executable).with_name("ray"))
    start = [ray, "start", "--head", "--num-cpus=2", "--port=0", "--include-dashboard=false", "--disable-usage-stats"]
    subprocess.run(start, check=True, capture_output=True)
    try:
        prepare(PtbXlReader(whole_source), tmp_path / "store", Preprocessing(), backend="ray", progress=False)
    finally:
        subprocess.run([ray, "stop", "--force"], check=True, capture_output=True)
    assert contents(tmp_path / "store") == local


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jobs": -1}, "jobs is -1: expected 0"),
        ({"backend": "spark"}, "backend is 'spark': expected processes, threads, dask or ray"),
        ({"backend": "dask"}, "name its scheduler with --address"),
        ({"backend": "dask", "address": "tcp://127.0.0.1:1"}, "No dask scheduler answers at tcp://127.0.0.1:1"),
        ({"address": "tcp://127.0.0.1:8786"}, "only the backends dask and ray have one"),
    ],
)
def test_workers_that_can_not_be_had_are_refused_with_what_to_do(settings: dict, message: str):
    with pytest.raises(ConfigurationError, match=message), workers(**settings):
        pass


def test_a_backend_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigurationError, match=r"not installed: pip install 'ecgfair\[dask\]'"), workers("dask"):
        pass
