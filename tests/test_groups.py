import numpy as np
import pandas as pd
import pytest
import torch

from ecgfair.ecg import FEMALE, MALE, UNKNOWN_SEX
from ecgfair.errors import ConfigurationError
from ecgfair.groups import (
    MOST_GROUPS,
    age_bands,
    age_strata,
    cross,
    group_by_age,
    group_by_column,
    group_by_demographics,
    group_by_sex,
)


def names_of(grouping):
    return [grouping.names[code] for code in grouping.codes.tolist()]


def test_sexes_are_named_and_a_missing_one_is_unknown():
    grouping = group_by_sex(torch.tensor([MALE, FEMALE, UNKNOWN_SEX, FEMALE]))
    assert names_of(grouping) == ["male", "female", "unknown", "female"]
    assert grouping.counts() == {"female": 2, "male": 1, "unknown": 1}


def test_an_age_band_begins_at_its_edge_and_ends_before_the_next():
    ages = [0.0, 39.9, 40.0, 64.9, 65.0, 79.0, 79.9, 80.0, 90.0, float("nan")]
    bands = ["<40", "<40", "40-64", "40-64", "65-79", "65-79", "65-79", "80+", "80+", "unknown"]
    assert names_of(group_by_age(torch.tensor(ages))) == bands


def test_the_groups_do_not_depend_on_the_records():
    for ages in ([], [30.0], [30.0, 85.0, float("nan")]):
        assert group_by_age(torch.tensor(ages)).names == ("<40", "40-64", "65-79", "80+", "unknown")
        assert list(group_by_age(torch.tensor(ages)).counts()) == ["<40", "40-64", "65-79", "80+", "unknown"]
    assert group_by_sex(torch.zeros(0, dtype=torch.int64)).counts() == {"female": 0, "male": 0, "unknown": 0}


def test_every_record_is_a_member_of_exactly_its_group():
    grouping = group_by_age(torch.tensor([10.0, 50.0, 85.0, float("nan"), 50.0]))
    membership = grouping.membership()
    assert membership.shape == (5, 5)
    assert membership.sum(0).tolist() == [1] * 5
    assert membership[1].tolist() == [False, True, False, False, True]
    assert membership.sum(1).tolist() == list(grouping.counts().values())


def test_bands_follow_the_edges_and_a_band_of_one_year_is_that_year():
    assert age_bands((18,)) == ("<18", "18+", "unknown")
    assert age_bands((1, 2, 18)) == ("<1", "1", "2-17", "18+", "unknown")
    assert names_of(group_by_age(torch.tensor([0.5, 1.5, 17.9, 18.0]), (1, 2, 18))) == ["<1", "1", "2-17", "18+"]


@pytest.mark.parametrize("edges", [(), (0, 40), (40, 40), (65, 40), (-5,)])
def test_edges_that_do_not_rise_from_above_0_are_refused(edges):
    with pytest.raises(ConfigurationError, match=r"age_edges is .*: expected rising ages"):
        age_bands(edges)


@pytest.mark.parametrize("age", [-1.0, float("inf"), -float("inf")])
def test_an_impossible_age_is_refused(age):
    with pytest.raises(ValueError, match="age is negative or infinite for 1 of 3 records"):
        group_by_age(torch.tensor([50.0, age, float("nan")]))


def test_an_unknown_code_of_sex_is_refused_by_its_value():
    with pytest.raises(ValueError, match=r"sex holds \[2, 9\]: expected 1 female, 0 male or -1 unknown"):
        group_by_sex(torch.tensor([0, 1, 2, 9, 2]))


def test_the_groups_of_a_column_are_its_values_in_order_and_what_is_missing_is_unknown():
    values = ["west", None, "east", float("nan"), pd.NA, "", "west", "unknown", np.nan, pd.NaT]
    grouping = group_by_column("site", values)
    assert (grouping.attribute, grouping.names) == ("site", ("east", "west", "unknown"))
    assert names_of(grouping) == ["west", "unknown", "east", *["unknown"] * 3, "west", *["unknown"] * 3]


def test_numbers_are_sorted_by_size_and_whole_ones_have_no_decimals():
    assert group_by_column("device", [10, 9, 100]).names == ("9", "10", "100", "unknown")
    with_gaps = pd.Series([3, None, 10, 2])
    assert names_of(group_by_column("device", with_gaps.tolist())) == ["3", "unknown", "10", "2"]
    assert group_by_column("device", with_gaps.tolist()).names == ("2", "3", "10", "unknown")
    assert group_by_column("device", list(with_gaps.to_numpy())).names == ("2", "3", "10", "unknown")
    assert group_by_column("device", [0.5, 10, "b", "a"]).names == ("0.5", "10", "a", "b", "unknown")


def test_truth_values_are_groups():
    assert group_by_column("pacemaker", [True, False, None]).names == ("False", "True", "unknown")
    assert group_by_column("pacemaker", list(np.array([True, False]))).names == ("False", "True", "unknown")


def test_a_column_without_a_known_value_has_the_unknown_group_alone():
    for values in ([], [None, None]):
        grouping = group_by_column("site", values)
        assert grouping.names == ("unknown",)
        assert grouping.codes.dtype == torch.int64
        assert len(grouping.codes) == len(values)


def test_a_measurement_is_no_group():
    assert len(group_by_column("site", list(range(MOST_GROUPS))).names) == MOST_GROUPS + 1
    with pytest.raises(
        ConfigurationError, match="column heart_rate has 101 values, such as 0, 1, 2: expected at most 100"
    ):
        group_by_column("heart_rate", list(range(MOST_GROUPS + 1)))


def test_an_intersection_has_every_combination_and_what_is_unknown_in_one_is_unknown():
    sex = group_by_sex(torch.tensor([FEMALE, MALE, UNKNOWN_SEX, FEMALE, MALE]))
    age = group_by_age(torch.tensor([30.0, 70.0, 30.0, float("nan"), 30.0]), (65,))
    both = cross([sex, age])
    assert both.attribute == "sex_x_age"
    assert both.names == ("female, <65", "female, 65+", "male, <65", "male, 65+", "unknown")
    assert names_of(both) == ["female, <65", "male, 65+", "unknown", "unknown", "male, <65"]


def test_intersections_go_to_any_depth():
    sex = group_by_sex(torch.tensor([FEMALE, MALE, FEMALE, UNKNOWN_SEX]))
    age = group_by_age(torch.tensor([30.0, 70.0, 70.0, 70.0]), (65,))
    site = group_by_column("site", ["a", "b", None, "a"])
    deep = cross([sex, age, site])
    assert deep.attribute == "sex_x_age_x_site"
    assert len(deep.names) == 2 * 2 * 2 + 1
    assert names_of(deep) == ["female, <65, a", "male, 65+, b", "unknown", "unknown"]
    stepwise = cross([cross([sex, age]), site])
    assert (stepwise.attribute, stepwise.names) == (deep.attribute, deep.names)
    assert torch.equal(stepwise.codes, deep.codes)


@pytest.mark.parametrize("attribute", ["sex", "age", "site", "sex_x_age", "site_x_sex", "sex_x_age_x_site"])
def test_an_attribute_is_named_by_its_parts(attribute):
    age, sex = torch.tensor([30.0, 50.0]), torch.tensor([FEMALE, MALE])
    grouping = group_by_demographics(attribute, age, sex, (40,), {"site": ["a", "b"]})
    assert grouping.attribute == attribute
    parts = {"sex": ["female", "male"], "age": ["<40", "40+"], "site": ["a", "b"]}
    of_parts = zip(*(parts[name] for name in attribute.split("_x_")), strict=True)
    assert names_of(grouping) == [", ".join(names) for names in of_parts]


def test_a_column_whose_name_looks_like_an_intersection_is_a_column():
    age, sex = torch.tensor([30.0, 50.0]), torch.tensor([FEMALE, MALE])
    columns = {"lead_x_gain": ["low", "high"], "lead": ["i", "ii"]}
    grouping = group_by_demographics("lead_x_gain", age, sex, columns=columns)
    assert names_of(grouping) == ["low", "high"]


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("gender", "'gender' is no attribute to group by. Valid: sex, age, site"),
        ("sex_x_sites", "'sites' is no attribute to group by. Did you mean 'site'"),
        ("sex_x_", "'' is no attribute to group by"),
    ],
)
def test_an_unknown_attribute_is_refused_by_its_name(attribute, message):
    with pytest.raises(ConfigurationError, match=message):
        group_by_demographics(attribute, torch.zeros(1), torch.zeros(1).long(), columns={"site": ["a"]})


def test_strata_of_age_leave_out_whom_they_do_not_know():
    ages = torch.tensor([20.0, 39.9, 40.0, 65.0, 79.0, 90.0, float("nan")])
    assert age_strata(ages).tolist() == [0, 0, 1, 3, 4, 5, -1]
