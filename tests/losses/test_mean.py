"""The mean by itself and on two processes, which run this file as a program, see ``main``."""

import json
from datetime import timedelta

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from ecgfair.losses.mean import Mean
from tests.gloo_processes import TIMEOUT, on_processes


def test_it_is_over_the_masked_values_whatever_the_batch_size():
    values = torch.tensor([[1.0, 2.0], [3.0, 100.0]])
    mask = torch.tensor([[True, False], [True, False]])
    assert Mean.of(values, mask).value == 2.0
    assert Mean.of(values.repeat(5, 1), mask.repeat(5, 1)).value == 2.0
    assert Mean.of(values, mask[:, :1]).value == values.mean(), "a mask may be broadcast"


@pytest.mark.parametrize("values", [torch.ones(3, requires_grad=True), torch.ones(0, requires_grad=True)])
def test_of_nothing_it_is_0_with_a_gradient_of_0(values):
    mean = Mean.of(values, torch.zeros(len(values), dtype=torch.bool))
    mean.value.backward()
    assert mean.value == mean.counts == 0
    assert not values.grad.any()


def test_a_weighted_sum_of_means_keeps_what_each_is_over():
    one, two = Mean.of(torch.tensor([1.0, 3.0])), Mean.of(torch.tensor([5.0]))
    both = one + 0.5 * (two + one)
    assert both.value == 2 + 0.5 * (5 + 2)
    assert both.counts.tolist() == [2, 1, 2]
    assert torch.equal(Mean.sum_of([one, two, one]).terms, torch.tensor([2.0, 5.0, 2.0]))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_in_half_precision_many_values_neither_overflow_nor_stop_counting(half):
    mean = Mean.of(torch.full((300, 300), 3.0, dtype=half))
    assert mean.value == 3
    assert mean.counts == 90000
    assert Mean.of(torch.ones(2, dtype=torch.float64)).terms.dtype == torch.float64


def test_in_one_process_what_is_minimised_is_the_mean():
    mean = Mean.of(torch.tensor([1.0, 3.0])) + Mean.of(torch.tensor([5.0]))
    assert mean.over_processes() == mean.value


VALUES = torch.tensor([[0.3, -1.2], [2.0, 0.1], [0.7, 0.7], [-0.4, 1.5]])
KNOWN = torch.tensor([True, False, False, False])


def learned(network, rows):
    """The gradient of a sum of two means, the second over a record that only the first process has."""
    said = network(VALUES[rows])[:, 0]
    loss = (Mean.of(said.square()) + 3 * Mean.of(said, KNOWN[rows])).over_processes()
    loss.backward()
    return loss.item(), network.weight.grad.tolist() if hasattr(
        network, "weight"
    ) else network.module.weight.grad.tolist()


def network():
    torch.manual_seed(0)
    return torch.nn.Linear(2, 1, bias=False)


def main(folder):
    """Minimise as one of two processes, of which the one has three records and the other has one."""
    distributed.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT // 2))
    rank = distributed.get_rank()
    rows = slice(0, 3) if rank == 0 else slice(3, 4)
    (folder / f"rank{rank}.json").write_text(json.dumps(learned(DistributedDataParallel(network()), rows)))
    distributed.destroy_process_group()


def test_processes_of_unlike_size_minimise_the_mean_over_all_of_their_records(tmp_path):
    on_processes(main, tmp_path)
    (first, gradient), (second, other) = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    loss, expected = learned(network(), slice(None))
    assert gradient == other
    assert gradient[0] == pytest.approx(expected[0], abs=1e-6)
    assert (first + second) / 2 == pytest.approx(loss, abs=1e-6)
