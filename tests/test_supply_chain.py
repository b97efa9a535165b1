"""What is installed is what was tested: pins, hashes, floors and the workflow agree. Nothing is downloaded."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FLOORS = [
    Requirement(line)
    for lines in [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    for line in lines
]
RAY = {
    "ray",
    "jsonschema",
    "jsonschema-specifications",
    "referencing",
    "rpds-py",
}  # pinned; the tests do not install it
HASHES = runpy.run_path(str(ROOT / ".ci" / "hashes.py"))
PINS: dict[str, str] = HASHES["pins"](ROOT / "constraints.txt")
FILES = {file.stem: file for file in sorted((ROOT / "hashes").glob("*.txt"))}


def normal(name: str) -> str:
    return HASHES["normal"](name)


def workflow() -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())


def test_every_pin_has_hashes_but_pytorch_what_comes_with_it_and_ray():
    hashed = {name for file in FILES.values() for name in HASHES["pins"](file)}
    without = {name for name in PINS if name not in hashed and not HASHES["UNHASHED"].fullmatch(name)}
    assert without == RAY
    assert PINS["torch"]


def test_hashes_are_of_the_pinned_versions_and_of_nothing_else():
    for file in FILES.values():
        for name, version in HASHES["pins"](file).items():
            assert PINS.get(name) == version, f"{name} in {file.name}: run `make hashes`"


def test_every_package_in_the_files_of_hashes_has_at_least_one_sha256():
    for file in FILES.values():
        for entry in re.split(r"^(?=[A-Za-z])", file.read_text(), flags=re.MULTILINE)[1:]:
            assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry.split("\n")[0]


def test_what_is_asked_for_is_in_the_file_of_hashes_that_installs_it():
    wanted = HASHES["wanted"]()
    assert wanted.keys() == FILES.keys()
    listed = {name: HASHES["pins"](file).keys() for name, file in FILES.items()}
    listed["development"] |= listed["runtime"]
    for name, requirements in wanted.items():
        asked = {normal(Requirement(line).name) for line in requirements} - {"torch"}
        assert asked <= listed[name], name


@pytest.mark.parametrize("requirement", FLOORS, ids=str)
def test_every_requirement_has_a_floor_that_its_pin_satisfies(requirement):
    floors = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    assert len(floors) == 1
    assert requirement.specifier.contains(PINS[normal(requirement.name)])


def test_every_dependency_says_why_its_floor_is_there():
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("\ndependencies = [") : text.index("[project.optional-dependencies]")]
    lines = [line for line in block.splitlines() if line.startswith('  "')]
    assert len(lines) == len(PROJECT["project"]["dependencies"])
    assert all("# " in line for line in lines)


def test_malicious_and_unsafe_releases_are_out_of_reach():
    allowed = {requirement.name: requirement.specifier for requirement in FLOORS}
    assert not allowed["lightning"].contains("2.6.2")
    assert not allowed["lightning"].contains("2.6.3")
    assert not allowed["torch"].contains("2.9.1")


def test_the_lowest_versions_are_the_floors_of_what_users_and_tests_need():
    lowest = runpy.run_path(str(ROOT / ".ci" / "lowest.py"))["floors"]()
    for requirement in FLOORS:
        floor = next(part.version for part in requirement.specifier if part.operator == ">=")
        if requirement.name in lowest:
            assert lowest[requirement.name] == floor
    assert {Requirement(line).name for line in PROJECT["project"]["dependencies"]} <= lowest.keys()
    assert "fairlearn" in lowest
    assert "ruff" not in lowest


def test_make_installs_by_hash_and_builds_with_pinned_tools():
    makefile = (ROOT / "Makefile").read_text()
    assert "HASHED := -m pip install --quiet --require-hashes --no-deps --requirement" in makefile
    for name in FILES:
        assert f"$(HASHED) hashes/{name}.txt" in makefile
    assert "--no-deps --no-build-isolation --editable ." in makefile
    runtime = HASHES["pins"](FILES["runtime"])
    assert {"hatchling", "editables", "pip"} <= runtime.keys()


def test_actions_of_the_workflow_are_pinned_by_commit():
    text = "\n".join(file.read_text() for file in (ROOT / ".github" / "workflows").iterdir())
    uses = re.findall(r"uses: (\S+)", text)
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action


def test_the_workflow_may_read_and_nothing_else():
    assert workflow()["permissions"] == {"contents": "read"}


def test_the_workflow_runs_bandit_and_pip_audit_and_slow_tests_and_both_ends_of_the_version_ranges():
    jobs, makefile = workflow()["jobs"], (ROOT / "Makefile").read_text()
    targets = dict(re.findall(r"^([a-z]+):.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE))
    commands = {name: [step.get("run", "") for step in job["steps"]] for name, job in jobs.items()}
    assert ".ci/run" in commands["check"]
    assert "make lint" in (ROOT / ".ci" / "run").read_text()
    assert "/bandit" in targets["lint"]
    assert "make audit" in commands["audit"]
    assert "/pip-audit" in targets["audit"]
    assert "make test-slow" in commands["slow"]
    legs = {leg["versions"] for leg in jobs["versions"]["strategy"]["matrix"]["include"]}
    assert legs == {"lowest", "latest"} <= targets.keys()


def test_bandit_skips_no_check_without_a_reason():
    text = (ROOT / "pyproject.toml").read_text()
    for check in PROJECT["tool"]["bandit"]["skips"]:
        assert re.search(rf'"{check}", # \S', text), check
