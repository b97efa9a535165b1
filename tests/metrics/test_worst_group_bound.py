"""Best on average under a bound on the worst group, as one number."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.fairness_report import BOUNDED, FairnessReport
from ecgfair.metrics.worst_group_bound import bounded_macro
from tests.metrics.cases import random_predictions

auroc = st.floats(0, 1)


def report_of(bound, **more):
    return evaluate(random_predictions(attributes=("site", "device"), **more), FairnessConfig(bound=bound))


def worst_of(report):
    scalars = report.scalars("val")
    return [scalars[f"val/fair/{attribute}/worst_auroc"] for attribute in report.attributes]


@given(auroc, auroc, auroc, auroc, auroc)
def test_whatever_keeps_to_the_bound_is_above_all_that_does_not(macro, worst, other, other_worst, bound):
    kept, broken = bounded_macro(macro, [worst], bound), bounded_macro(other, [other_worst], bound)
    if worst >= bound:
        assert kept == macro
        if other_worst < bound:
            assert broken < 0 <= kept


def test_what_breaks_the_bound_is_ordered_by_its_worst_group_however_good_its_mean_is():
    values = [bounded_macro(macro, [worst, 0.9], 0.8) for macro, worst in ((0.99, 0.5), (0.9, 0.6), (0.7, 0.79))]
    assert all(before < after for before, after in pairwise(values))
    assert values == pytest.approx([-0.5, -0.4, -0.21])


def test_every_attribute_counts_and_a_worst_group_at_the_bound_keeps_to_it():
    assert bounded_macro(0.9, [0.8, 0.85], 0.8) == 0.9
    assert bounded_macro(0.9, [0.85, 0.79], 0.8) == pytest.approx(-0.21)


@pytest.mark.parametrize(("macro", "worst"), [(math.nan, [0.9]), (0.9, [0.9, math.nan]), (0.9, [])])
def test_what_was_not_measured_keeps_to_no_bound(macro, worst):
    assert math.isnan(bounded_macro(macro, worst, 0.5))


def test_the_report_has_the_value_of_its_own_macro_and_worst_groups_on_both_sides_of_the_bound():
    worst = worst_of(report_of(0.0))
    least = min(worst)
    macro = report_of(0.0).scalars("val")["val/auroc/macro"]
    assert report_of(least).scalars("val")["val/fair/bounded_macro"] == macro
    assert report_of(least + 1e-6).scalars("test")["test/fair/bounded_macro"] == pytest.approx(least - 1)


def test_the_row_names_the_groups_below_the_bound():
    report = report_of(1.0)
    (row,) = report.select("overall", "auroc", BOUNDED)
    for attribute in ("site", "device"):
        (worst,) = report.select(attribute, "auroc", "worst")
        assert f"{worst.group} of {attribute} has {worst.value:.3f}" in row.reason
    assert row.reason.endswith("below 1.0")


def test_an_attribute_without_groups_to_compare_leaves_it_undefined_and_says_which():
    predictions = random_predictions(attributes=("site",))
    unknown = predictions.groupings[0].names.index("unknown")
    predictions.groupings[0].codes.fill_(unknown)
    report = evaluate(predictions, FairnessConfig(bound=0.5))
    (row,) = report.select("overall", "auroc", BOUNDED)
    assert math.isnan(row.value)
    assert "worst group unknown of site" in row.reason
    assert math.isnan(report.scalars("val")["val/fair/bounded_macro"]), "the key is there nevertheless"


def test_the_key_is_logged_with_a_bound_alone_and_all_others_stay_the_same():
    without, bounded = report_of(None).scalars("val"), report_of(0.5).scalars("val")
    assert bounded.keys() - without.keys() == {"val/fair/bounded_macro"}
    assert torch.allclose(
        torch.tensor(list(without.values())), torch.tensor([bounded[key] for key in without]), equal_nan=True
    )


def test_it_survives_the_file_that_a_run_keeps_its_epochs_in():
    report = report_of(0.5)
    again = FairnessReport.from_frame(report.frame())
    assert again.scalars("val")["val/fair/bounded_macro"] == report.scalars("val")["val/fair/bounded_macro"]


@pytest.mark.parametrize("bound", [-0.1, 1.1, math.nan])
def test_a_bound_that_is_no_auroc_is_refused(bound):
    with pytest.raises(ConfigurationError, match="bound is"):
        FairnessConfig(bound=bound)


def test_a_bound_without_aurocs_is_refused():
    with pytest.raises(ConfigurationError, match="auroc among the statistics"):
        FairnessConfig(statistics=("tpr",), bound=0.5)
