"""Where preparing runs: the processes of this machine, or a dask or ray cluster that is there already, by joblib."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import joblib

from ecgfair.errors import ConfigurationError

Backend = Literal["processes", "threads", "dask", "ray"]


@dataclass(frozen=True)
class Workers:
    """What a joblib.Parallel inside ``workers`` needs to know.

    Args:
        count: Tasks that run at a time.
        streams: Whether results can be had as they come, rather than all at the end.
    """

    count: int
    streams: bool


@contextmanager
def workers(backend: Backend = "processes", jobs: int = 0, address: str | None = None) -> Iterator[Workers]:
    """Send what joblib runs inside to a backend.

    On a cluster every worker needs this package and the source's folder under the same path.

    Args:
        backend: ``processes`` or ``threads`` of this machine, or an existing ``dask`` or ``ray`` cluster.
        jobs: Tasks at a time; 0 takes every core, of the cluster if there is one.
        address: Of the dask scheduler (``tcp://host:8786``) or of the ray cluster (``auto`` if None).

    Raises:
        ConfigurationError: ``jobs`` is negative, the backend is not installed, or its cluster can't be reached.
    """
    if jobs < 0:
        raise ConfigurationError(f"jobs is {jobs}: expected 0 for every core, or a number of processes.")
    if backend in ("processes", "threads"):
        if address is not None:
            raise ConfigurationError(f"address is {address!r}: only the backends dask and ray have one.")
        name: Any = {"processes": "loky", "threads": "threading"}[backend]
        count = jobs or joblib.cpu_count()
        with joblib.parallel_config(backend=name, n_jobs=count):
            yield Workers(count, streams=True)
    elif backend == "dask":
        yield from _dask(jobs, address)
    elif backend == "ray":
        yield from _ray(jobs, address)
    else:
        raise ConfigurationError(f"backend is {backend!r}: expected processes, threads, dask or ray.")


@lru_cache(maxsize=1)
def end_with(main_process: int) -> None:
    """Have a worker process of this machine end when the one that started it is gone: killed, it can't tell them.

    Args:
        main_process: Number of the process that started the workers; nothing is done in it, nor on a cluster.
    """
    if os.getppid() != main_process:
        return

    def watch() -> None:
        while os.getppid() == main_process:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _dask(jobs: int, address: str | None) -> Iterator[Workers]:
    distributed: Any = _module("distributed", "dask")
    if address is None:
        raise ConfigurationError("backend is dask: name its scheduler with --address tcp://host:8786.")
    try:
        client = distributed.Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"No dask scheduler answers at {address} ({error}): start one, or correct it."
        ) from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise ConfigurationError(f"The dask cluster at {address} has no worker: start some.")
        count = min(jobs or threads, threads)
        with joblib.parallel_config(backend="dask", n_jobs=count):
            yield Workers(count, streams=True)


def _ray(jobs: int, address: str | None) -> Iterator[Workers]:
    ray: Any = _module("ray", "ray")
    try:
        ray.init(address=address or "auto", logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        raise ConfigurationError(
            f"No ray cluster answers at {address or 'auto'} ({error}): start one, or correct --address."
        ) from error
    try:
        importlib.import_module("ray.util.joblib").register_ray()
        cpus = int(ray.cluster_resources().get("CPU", 1))
        count = min(jobs or cpus, cpus)
        with joblib.parallel_config(backend="ray", n_jobs=count):
            yield Workers(count, streams=False)
    finally:
        ray.shutdown()


def _module(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"backend is {extra}, which is not installed: pip install 'ecgfair[{extra}]'."
        ) from error
