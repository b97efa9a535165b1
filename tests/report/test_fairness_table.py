import io
import math

import pytest
import torch
from rich.console import Console

from ecgfair.groups import group_by_age, group_by_sex
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.gap_tests import gap_tests
from ecgfair.metrics.predictions import Predictions
from ecgfair.report.fairness_table import PLAIN_WIDTH, console, render, render_tests


def report(records=300, config=None):
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(records, 4, generator=generator)
    sex = torch.arange(records) % 2
    noise = torch.rand(records, 4, generator=generator) * (1 + sex[:, None])  # women, 1, are served worse
    targets = (probabilities + noise > 1.2).float()
    age = 20 + 59 * torch.rand(records, generator=generator)
    groupings = [group_by_sex(sex), group_by_age(age)]
    prevalence = [0.5, 0.2, 0.05, 0.001]
    return evaluate(
        Predictions(probabilities, targets, ["a", "b", "c", "d"], groupings, label_prevalence=prevalence), config
    )


def printed(found, width=PLAIN_WIDTH):
    stream = io.StringIO()
    Console(file=stream, width=width).print(render(found, "Validation [1]"))
    return stream.getvalue()


def line_of(text, group):
    return next(line for line in text.splitlines() if line.strip().startswith(group))


def test_it_fits_its_width_and_has_no_escape_codes_where_there_is_no_terminal():
    for found in (report(), report(0)):
        text = printed(found)
        assert "\x1b" not in text
        assert max(len(line) for line in text.splitlines()) <= PLAIN_WIDTH


def test_every_mean_and_group_has_its_line_in_order():
    starts = [line.strip().split("  ")[0] for line in printed(report()).splitlines() if line.strip()]
    overall = ["all records", "head", "medium", "tail", "common-rare gap"]
    sexes, bands = ["sex", "female", "male", "unknown"], ["age", "<40", "40-64", "65-79", "80+", "unknown"]
    assert starts[0] == "Validation [1]"
    assert starts[3:] == [*overall, *sexes, *bands]


def test_values_gaps_and_marks_are_those_of_the_report():
    found = report(config=FairnessConfig(reference={"sex": "male"}))
    text = printed(found)
    gap = next(found.select("sex", "auroc", "gap", group="female"))
    assert gap.value < 0
    level = next(found.select("sex", "auroc", group="female")).value
    assert line_of(text, "female").split() == ["female", "150", "4", f"{level:.3f}", f"{gap.value:.3f}", "(4)", "worst"]
    assert line_of(text, "male").split()[-1] == "reference"
    scalars = found.scalars("val")
    summary = (
        f"auroc_gap {scalars['val/fair/sex/auroc_gap']:.3f}, worst_auroc {scalars['val/fair/sex/worst_auroc']:.3f}"
    )
    assert summary in line_of(text, "sex")


def test_a_worst_reference_carries_both_marks():
    text = printed(report(config=FairnessConfig(reference={"sex": "female"})))
    assert line_of(text, "female").rstrip().endswith("reference; worst")
    assert "worst" not in line_of(text, "male")


def test_what_is_undefined_says_why_and_shows_no_number():
    found = report(20)
    text = printed(found, width=200)
    assert line_of(text, "80+").split() == ["80+", "0", "0", "n/a", "no", "records"]
    undefined = [
        row for row in found.rows if row.label == "macro" and row.statistic == "auroc" and math.isnan(row.value)
    ]
    assert undefined
    for row in undefined:
        assert row.reason
        assert row.reason in text


@pytest.mark.parametrize("columns", ["40", "200"])
def test_output_to_a_file_has_the_same_width_whatever_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert console().width == PLAIN_WIDTH


def test_without_training_prevalences_there_is_no_long_tail_to_show():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(50, 2, generator=generator)
    found = evaluate(Predictions(probabilities, (probabilities > 0.5).float(), ["a", "b"]))
    text = printed(found)
    assert "all records" in text
    for word in ("head", "tail", "prevalence"):
        assert word not in text


def test_the_largest_gaps_stand_beside_what_chance_makes_of_them():
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(400, 3, generator=generator) < 0.4).float()
    sex = torch.arange(400) % 2
    noise = torch.randn(400, 3, generator=generator) * (0.2 + 3 * sex[:, None])  # women are served far worse
    table = Predictions(torch.sigmoid(targets + noise), targets, ["a", "b", "c"], [group_by_sex(sex)])
    tests = gap_tests(table, FairnessConfig(), 100)
    stream = io.StringIO()
    Console(file=stream, width=PLAIN_WIDTH).print(render_tests(tests))
    line = line_of(stream.getvalue(), "sex")
    macro = tests[tests["label"] == "macro"].iloc[0]
    assert line.split()[:7] == [
        "sex",
        "auroc",
        *(f"{macro[name]:.3f}" for name in ("gap", "expected", "upper", "p")),
        "2",
    ]
    assert "female < male" in line
    assert "3 of 3 (a, b, c)" in line
