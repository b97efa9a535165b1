"""The path of `make demo`, by its own configurations, on fewer records: what it finds, and what it does without."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ecgfair.__main__ import main


@pytest.mark.slow
def test_the_demo_learns_and_ends_with_a_table_by_sex_and_age(tmp_path, monkeypatch, capsys):
    experiments = Path("experiments/smoke").resolve()
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["synthesize", "demo/source", "--records", "1500", "--config", f"{experiments}/population.yaml"],
        ["prepare", "ptbxl", "demo/source", "demo/store"],
        ["fit", "--config", f"{experiments}/pretrain.yaml"],
        ["fit", "--config", f"{experiments}/finetune.yaml", "--trainer.max_epochs", "8"],
        ["test", "--config", f"{experiments}/finetune.yaml"],
    ):
        assert main(arguments) == 0
    printed = capsys.readouterr().out
    table = printed[printed.rindex("Test at epoch") :]
    for word in ("all records", "head", "tail", "common-rare gap", "sex", "female", "male", "age", "80+", "worst"):
        assert word in table
    assert table.rstrip().endswith("Run folder: demo/runs/finetune/test")
    rows = pd.read_parquet("demo/runs/finetune/test/fairness.parquet")
    macro = rows.query("group == 'all' and label == 'macro' and statistic == 'auroc' and aggregate == 'value'")[
        "value"
    ].item()
    assert macro > 0.9, "synthetic diseases are easy to learn"
    worst = rows.query("attribute == 'sex' and statistic == 'auroc' and aggregate == 'worst'")["group"].item()
    assert worst == "female", "what is planted in women is found"


ROOT = Path(__file__).parents[1]
# In namespaces of its own: no network but a loopback that is down, and a home that nobody can write to, root neither.
BARE = 'mount -t tmpfs -o ro,mode=0555 none "$HOME" && exec taskset --cpu-list "$CORE" "$@"'
UNSHARE = [shutil.which("unshare") or "unshare", "--map-root-user", "--mount", "--net", "sh", "-c", BARE, "sh"]


def commands_of_the_demo() -> list[list[str]]:
    """Return what `make demo` runs, with this interpreter and a third of the records."""
    lines = (ROOT / "Makefile").read_text().split("\ndemo:")[1].split("\n\n")[0].splitlines()
    words = [shlex.split(line.replace("$(DEMO)", "demo")) for line in lines if line.startswith("\t$(ECGFAIR)")]
    found = [[sys.executable, "-m", "ecgfair", *rest] for _, *rest in words]
    return [["800" if word == "2500" else word for word in command] for command in found]


@pytest.fixture
def bare(tmp_path):
    """The environment of someone whose home is read-only, who has no network, no account anywhere, and one core."""
    (tmp_path / "home").mkdir()
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")}
    core = str(min(os.sched_getaffinity(0)))
    environment = kept | {"HOME": str(tmp_path / "home"), "CORE": core, "PYTHONPATH": str(ROOT)}
    if subprocess.run([*UNSHARE, "true"], env=environment, capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody make namespaces (unshare)")
    return environment


def in_bare(command, environment, folder):
    return subprocess.run(
        [*UNSHARE, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_needs_no_home_no_network_no_account_and_no_second_core(tmp_path, bare):
    for proof in ("touch ~/x", "getent hosts example.org"):
        assert in_bare(["sh", "-c", proof], bare, tmp_path).returncode != 0
    assert in_bare(["nproc"], bare, tmp_path).stdout == "1\n"
    commands = commands_of_the_demo()
    assert len(commands) == 5
    for command in commands:
        done = in_bare(command, bare, tmp_path)
        assert done.returncode == 0, done.stderr
        assert not re.search(r"warning|traceback|wandb", done.stdout + done.stderr, flags=re.IGNORECASE), done.stderr
    assert done.stdout.rstrip().endswith("Run folder: demo/runs/finetune/test")
    assert list((tmp_path / "home").iterdir()) == []
