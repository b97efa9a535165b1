"""Print the lowest versions that ``pyproject.toml`` admits, as constraints for pip: ``make lowest`` tests with them."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def floors() -> dict[str, str]:
    """Return name -> lowest version of what a user or a test needs; linters and audits come in one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    listed = project["dependencies"] + [
        line for name in extras if name not in ("lint", "audit") for line in extras[name]
    ]
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([^,;\s]+)", "\n".join(listed), flags=re.MULTILINE))


if __name__ == "__main__":
    for package, version in floors().items():
        print(f"{package}=={version}")  # noqa: T201
