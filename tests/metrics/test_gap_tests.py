import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ecgfair.errors import ConfigurationError
from ecgfair.groups import Grouping
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.fairness_frame import FairnessFrame
from ecgfair.metrics.gap_tests import COLUMNS, gap_tests
from tests.metrics.cases import GROUPS, names, points_at, random_predictions

CONFIG = FairnessConfig(details=True)
FEW = 100


@pytest.fixture(scope="module")
def predictions():
    return random_predictions(attributes=("site", "ward"))


@pytest.fixture(scope="module")
def table(predictions):
    return gap_tests(predictions, CONFIG, FEW)


def line(frame, **wanted):
    rows = frame[np.logical_and.reduce([frame[name] == value for name, value in wanted.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


def test_there_is_a_line_for_every_attribute_statistic_and_label_and_for_their_mean(table):
    assert tuple(table.columns) == COLUMNS
    assert not table.duplicated(["attribute", "statistic", "label"]).any()
    assert len(table) == 2 * 3 * 5
    assert set(table["label"]) == {*names(4), "macro"}
    assert set(table["statistic"]) == {"auroc", "tpr", "fpr"}


def test_the_gap_and_its_groups_are_those_of_the_report(predictions, table):
    frame = FairnessFrame(evaluate(predictions, CONFIG))
    lowest, highest = frame.group_min(), frame.group_max()
    for row in table[table["label"] != "macro"].itertuples():
        at = (row.attribute, row.label)
        assert row.gap == pytest.approx(highest.loc[at, row.statistic] - lowest.loc[at, row.statistic], abs=1e-9)
        by_group = frame.by_group[row.statistic]
        assert by_group.loc[row.attribute, row.lowest, row.label] == pytest.approx(lowest.loc[at, row.statistic])
        assert by_group.loc[row.attribute, row.highest, row.label] == pytest.approx(highest.loc[at, row.statistic])


@pytest.mark.parametrize("statistic", ["auroc", "tpr", "fpr"])
def test_the_gap_of_the_mean_is_the_spread_that_is_logged(statistic):
    # Group c lacks support in most labels, and one label has no threshold: neither may set the two apart.
    predictions = random_predictions(operating_points=points_at(0.5, math.nan, 0.5, 0.5))
    predictions.targets[predictions.groupings[0].codes == GROUPS.index("c"), 1:] = 0
    tested = line(gap_tests(predictions, CONFIG, FEW), statistic=statistic, label="macro")
    (spread,) = evaluate(predictions, CONFIG).select("site", statistic, "spread")
    assert tested["gap"] == pytest.approx(abs(spread.value))
    assert {tested["lowest"], tested["highest"]} == {spread.group, spread.reference}
    assert tested["groups"] == 2
    assert spread.reason == "without c: too few labels with support"


def test_p_values_are_adjusted_over_the_labels_of_an_attribute_and_statistic(table):
    for _, family in table[table["label"] != "macro"].groupby(["attribute", "statistic"]):
        p = family["p"].to_numpy()
        order = p.argsort()
        holm = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(4, 0, -1)))
        hochberg = np.minimum.accumulate((p[order] * 4 / np.arange(1, 5))[::-1])[::-1]
        np.testing.assert_allclose(family["p_holm"].to_numpy()[order], holm)
        np.testing.assert_allclose(family["p_bh"].to_numpy()[order], np.minimum(1, hochberg))


def test_the_mean_over_labels_is_one_test_and_says_how_many_labels_it_has(table):
    means = table[table["label"] == "macro"]
    assert (means["p"] == means["p_holm"]).all()
    assert (means["p"] == means["p_bh"]).all()
    assert (means["reason"] == "4 of 4 labels").all()
    assert (means["groups"] == 3).all()


def test_p_values_are_never_0_and_the_expected_gap_is_above_0(table):
    assert table["p"].between(1 / (1 + FEW), 1).all()
    assert (table["expected"] > 0).all()
    assert (table["upper"] >= table["expected"]).all()


def test_a_planted_disparity_is_found_and_its_groups_are_named(predictions):
    at = predictions.groupings[0].codes == GROUPS.index("c")
    bad = predictions.probabilities.clone()
    bad[at, 0] = 1 - predictions.targets[at, 0]
    found = gap_tests(replace(predictions, probabilities=bad), CONFIG, FEW)
    planted = line(found, attribute="site", label="label0", statistic="auroc")
    assert planted["p_holm"] < 0.05
    assert planted["gap"] > planted["upper"]
    assert planted["lowest"] == "c"


def test_the_unknown_group_takes_no_part(predictions, table):
    at = predictions.groupings[0].codes == GROUPS.index("unknown")
    bad = predictions.probabilities.clone()
    bad[at] = 1 - predictions.targets[at]
    found = gap_tests(replace(predictions, probabilities=bad, groupings=predictions.groupings[:1]), CONFIG, FEW)
    of_site = table[table["attribute"] == "site"].reset_index(drop=True)
    pd.testing.assert_series_equal(found["gap"], of_site["gap"])
    assert "unknown" not in {*found["lowest"], *found["highest"]}


def test_without_thresholds_the_auroc_alone_is_tested(predictions, table):
    found = gap_tests(replace(predictions, operating_points=None), CONFIG, FEW)
    pd.testing.assert_frame_equal(found, table[table["statistic"] == "auroc"].reset_index(drop=True))


def test_a_label_without_a_threshold_has_no_test_of_its_rates(predictions, table):
    points = points_at(0.5, math.nan, 0.5, 0.5)
    found = gap_tests(replace(predictions, operating_points=points), CONFIG, FEW)
    rate = line(found, attribute="site", label="label1", statistic="tpr")
    assert rate[["gap", "expected", "upper", "p", "p_holm", "p_bh"]].isna().all()
    assert (rate["lowest"], rate["highest"], rate["reason"]) == ("", "", "no threshold")
    assert line(found, attribute="site", label="macro", statistic="tpr")["reason"] == "3 of 4 labels"
    assert line(found, attribute="site", label="macro", statistic="auroc")["reason"] == "4 of 4 labels"
    score = {"attribute": "site", "label": "label1", "statistic": "auroc"}
    assert line(found, **score)["gap"] == line(table, **score)["gap"]


def test_a_label_with_support_in_fewer_than_two_known_groups_has_no_test_and_is_not_counted(predictions):
    targets, probabilities = predictions.targets.clone(), predictions.probabilities.clone()
    in_one = predictions.groupings[0].codes == 0
    targets[~in_one, 1] = 0
    probabilities[9, 2] = math.nan
    changed = replace(predictions, targets=targets, probabilities=probabilities, groupings=predictions.groupings[:1])
    found = gap_tests(changed, CONFIG, FEW)
    for label, groups in (("label1", 1), ("label2", 0)):
        row = line(found, attribute="site", label=label, statistic="auroc")
        assert row[["gap", "expected", "upper", "p", "p_holm", "p_bh"]].isna().all()
        assert row["groups"] == groups
    assert line(found, label="label1", statistic="auroc")["reason"] == "fewer than two known groups have the support"
    assert line(found, label="label2", statistic="auroc")["reason"] == "a probability is NaN"
    assert line(found, label="macro", statistic="auroc")["reason"] == "2 of 4 labels"
    tested = found[(found["statistic"] == "auroc") & found["label"].isin(["label0", "label3"])]
    assert tested["p_holm"].max() <= 2 * tested["p"].max()


def test_where_no_two_groups_share_a_label_there_is_no_test_of_the_mean(predictions):
    alone = replace(predictions, groupings=[Grouping("site", GROUPS, torch.zeros(300, dtype=torch.int64))])
    found = gap_tests(alone, CONFIG, FEW)
    assert found["p"].isna().all()
    means = found[found["label"] == "macro"]
    assert (means["reason"] == "no two groups share a label with support").all()


def test_without_groups_nothing_is_tested(predictions):
    found = gap_tests(replace(predictions, groupings=[]), CONFIG, FEW)
    assert tuple(found.columns) == COLUMNS
    assert found.empty


def test_the_seed_alone_decides_the_permutations(predictions, table):
    pd.testing.assert_frame_equal(gap_tests(predictions, CONFIG, FEW), table)
    assert not gap_tests(predictions, replace(CONFIG, seed=1), FEW)["p"].equals(table["p"])


def test_too_few_permutations_are_refused(predictions):
    with pytest.raises(ConfigurationError, match="permutations is 99: expected at least 100"):
        gap_tests(predictions, CONFIG, 99)


def test_logits_are_refused(predictions):
    with pytest.raises(ValueError, match="apply the sigmoid to logits"):
        gap_tests(replace(predictions, probabilities=4 * predictions.probabilities), CONFIG, FEW)
