import numpy as np
import pytest
import torch

from ecgfair.metrics.kernels.weighted import bag_sums, group_sums, patients_with


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_sums_of_groups_are_those_of_their_records(generator):
    values, weights = (torch.rand(*shape, dtype=torch.float64, generator=generator) for shape in ((30, 3), (4, 30)))
    codes = torch.randint(0, 3, (30,), generator=generator)
    sums = group_sums(values, codes, 5, weights)
    for group in range(5):
        members = codes == group
        expected = (weights[:, members, None] * values[members]).sum(1)
        torch.testing.assert_close(sums[:, group], expected)
    assert (sums[:, 3:] == 0).all()  # groups without records


@pytest.mark.parametrize("weightings", [1, 6])
def test_sums_of_bags_are_those_of_the_records_in_them(generator, weightings):
    bags = torch.stack([torch.randint(low, high, (20,), generator=generator) for low, high in ((0, 4), (4, 7))], 1)
    weights = torch.rand(20, weightings, dtype=torch.float64, generator=generator)
    expected = np.zeros((8, weightings))
    for label in range(2):
        np.add.at(expected, bags[:, label].numpy(), weights.numpy())
    np.testing.assert_allclose(bag_sums(bags, 8, weights), expected, atol=1e-12)


def test_a_table_without_records_or_weightings_has_sums_of_0():
    nobody = torch.zeros(0, 2, dtype=torch.int64)
    assert bag_sums(nobody, 3, torch.zeros(0, 4, dtype=torch.float64)).tolist() == [[0.0] * 4] * 3
    assert bag_sums(torch.zeros(5, 1, dtype=torch.int64), 1, torch.zeros(5, 0, dtype=torch.float64)).shape == (1, 0)


def test_patients_count_once_however_many_records_they_have(generator):
    flags = torch.rand(40, 3, generator=generator) < 0.4
    patients = torch.randint(-5, 12, (40,), generator=generator)
    members = torch.randperm(40, generator=generator)[:25]
    counts = patients_with(flags, patients, members)
    for label in range(3):
        having = {int(patients[record]) for record in members.tolist() if flags[record, label]}
        assert counts[label] == len(having)
    assert patients_with(flags, patients, members[:0]).tolist() == [0.0] * 3
