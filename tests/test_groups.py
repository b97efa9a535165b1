import pytest
import torch

from ecgfair.ecg import FEMALE, MALE, UNKNOWN_SEX
from ecgfair.errors import ConfigurationError
from ecgfair.groups import age_bands, group_by_age, group_by_sex


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
