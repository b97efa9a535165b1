"""The whole path of `make demo`, by its own configurations, on fewer records and with more epochs."""

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
