"""Write ``hashes/*.txt``: the SHA-256 of every file that may be installed, on any platform.

``make hashes`` runs it after a change of ``pyproject.toml`` or ``constraints.txt``. It asks the package index that uv
is set up with, and fails where a package is needed and not pinned, or pinned and not needed.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
# One version of PyTorch is another file for each kind of device, from other indexes: pinned without a hash. So is what
# its build for CUDA brings.
UNHASHED = re.compile(r"torch|triton|cuda-.*|nvidia-.*")
# `--editable` without build isolation needs these beside the build backend; pip installs everything.
TOOLS = ["editables", "pip"]


def normal(name: str) -> str:
    """Return a package's name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: Path) -> dict[str, str]:
    """Return name -> version of a file of pins, with or without hashes."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {normal(name): version for name, version in found}


def wanted() -> dict[str, list[str]]:
    """Return what each file of hashes is for: its name -> requirements.

    The extra ``ray`` is pinned and has no hashes: the tests do not install it.
    """
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = [*told["project"]["dependencies"], *told["build-system"]["requires"], *TOOLS]
    extras = dict(told["project"]["optional-dependencies"])
    audit, _ = extras.pop("audit"), extras.pop("ray")
    return {
        "runtime": runtime,
        "development": runtime + [requirement for listed in extras.values() for requirement in listed],
        "audit": audit,
    }


def resolved(requirements: list[str]) -> dict[str, str]:
    """Return name -> lines with hashes: all that the requirements need on any platform, at the pinned versions."""
    command = ["-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    told = ["--no-header", "--no-annotate", "--constraint", "constraints.txt", "-"]
    done = subprocess.run(  # noqa: S603  # the command is this file's own
        [sys.executable, *command, *told],
        input="\n".join(requirements),
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(
            f"uv can't resolve {len(requirements)} requirements at the versions of constraints.txt:\n{done.stderr}"
        )
    entries = re.split(r"^(?=\S)", done.stdout, flags=re.MULTILINE)
    return {normal(entry.split("==")[0]): entry for entry in entries if "==" in entry}


def main() -> int:
    """Write the files; return 1 where pins are missing or left over."""
    pinned = pins(ROOT / "constraints.txt")
    needed: set[str] = set()
    runtime: set[str] = set()
    for name, requirements in wanted().items():
        entries = resolved(requirements)
        needed |= entries.keys()
        hashed = {package: entry for package, entry in entries.items() if not UNHASHED.fullmatch(package)}
        if name == "runtime":
            runtime = set(hashed)
        elif name == "development":  # installed on top of the other
            hashed = {package: entry for package, entry in hashed.items() if package not in runtime}
        text = "# Made by `make hashes` from pyproject.toml and constraints.txt.\n" + "".join(hashed.values())
        (ROOT / "hashes" / f"{name}.txt").write_text(text, encoding="utf-8")
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed |= resolved(told["project"]["optional-dependencies"]["ray"]).keys()
    for package in sorted(needed - pinned.keys()):
        print(f"{package} is needed and not pinned: add it to constraints.txt")  # noqa: T201
    for package in sorted(pinned.keys() - needed):
        print(f"{package} is pinned and not needed: take it out of constraints.txt")  # noqa: T201
    return int(needed != pinned.keys())


if __name__ == "__main__":
    sys.exit(main())
