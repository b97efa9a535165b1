"""Where and with what a run was made: versions, commit, hardware, command line."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch

import ecgfair

PACKAGES: Final = (
    "jsonargparse",
    "lightning",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "scipy",
    "torch",
    "torchmetrics",
    "wandb",
)
"""Packages whose versions can change what a run computes or writes."""


def environment() -> dict[str, Any]:
    """Describe this process's surroundings, as JSON can hold them."""
    return {
        "ecgfair": {"version": ecgfair.__version__, **_checkout()},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "hardware": _hardware(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "working_directory": str(Path.cwd()),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _checkout() -> dict[str, Any]:
    """Return the commit of the code that runs, and whether it was changed since; ``None`` outside a git checkout."""
    package = Path(ecgfair.__file__).parent
    # An installed copy may lie inside a repository of somebody else's, whose commit says nothing of it.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {"commit": None, "dirty": None}
    changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(package, "rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603  # fixed words, no shell
            [program, "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _hardware() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": _cores(),
        "memory_gib": _memory(),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _cores() -> int | None:
    """Return how many cores this process may use, which a scheduler can make fewer than there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        return os.cpu_count()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (ValueError, OSError):
        return None


def versions_changed(before: dict[str, Any], now: dict[str, Any]) -> Sequence[str]:
    """Name what differs between two environments and can change what is computed, as ``name: old → new``."""
    flat = [
        {"ecgfair": each["ecgfair"]["version"], "commit": each["ecgfair"]["commit"], "python": each["python"]}
        | each["packages"]
        for each in (before, now)
    ]
    names = dict.fromkeys([*flat[0], *flat[1]])
    return [
        f"{name}: {flat[0].get(name)} → {flat[1].get(name)}" for name in names if flat[0].get(name) != flat[1].get(name)
    ]
