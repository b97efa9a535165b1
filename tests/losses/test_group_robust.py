"""The loss by itself and on two processes, which run this file as a program, see ``main``."""

import json
import math
from datetime import timedelta

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from ecgfair.errors import ConfigurationError
from ecgfair.losses.group_robust import GroupRobustLoss
from tests.gloo_processes import TIMEOUT, on_processes


def test_one_step_is_what_the_paper_says_by_hand():
    robust = GroupRobustLoss(2, step=0.5)
    losses, codes = torch.tensor([1.0, 3.0, 4.0]), torch.tensor([0, 0, 1])
    # Means 2 and 4; weights from 1/2 each to shares of exp(1) and exp(2).
    first = math.exp(1) / (math.exp(1) + math.exp(2))
    assert robust(losses, codes).item() == pytest.approx(first * 2 + (1 - first) * 4, rel=1e-6)
    assert robust.weights.tolist() == pytest.approx([first, 1 - first], rel=1e-6)


def test_the_gradient_of_a_record_is_its_groups_weight_over_the_size_of_the_group_in_the_batch():
    robust = GroupRobustLoss(3, step=0.1)
    losses = torch.tensor([1.0, 3.0, 4.0, 0.5], requires_grad=True)
    robust(losses, torch.tensor([0, 0, 2, 2])).backward()
    first, _, last = robust.weights.tolist()
    assert losses.grad.tolist() == pytest.approx([first / 2, first / 2, last / 2, last / 2])


def test_the_weight_moves_to_the_group_with_the_larger_loss_and_comes_back():
    robust = GroupRobustLoss(2, step=1.0)
    codes = torch.tensor([0, 1])
    for _ in range(300):
        robust(torch.tensor([0.0, 1.0]), codes)
    assert robust.weights.tolist() == pytest.approx([0, 1], abs=1e-6)
    for _ in range(310):
        robust(torch.tensor([1.0, 0.0]), codes)
    assert robust.weights.tolist() == pytest.approx([1, 0], abs=1e-3), "no weight is lost for good"


def test_a_group_that_a_batch_lacks_keeps_its_weight():
    robust = GroupRobustLoss(3, step=1.0)
    robust(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0, 1, 2]))
    before = robust.weights.tolist()
    for _ in range(50):
        robust(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))
    after = robust.weights.tolist()
    assert after[2] == pytest.approx(before[2], rel=1e-4)
    assert after[1] > before[1]
    assert sum(after) == pytest.approx(1)


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 50)), min_size=1, max_size=6), min_size=1, max_size=20),
    st.floats(0.001, 5),
)
def test_weights_stay_a_distribution_whatever_comes(batches, step):
    robust = GroupRobustLoss(4, step=step, adjustment=1.0)
    for batch in batches:
        codes, losses = zip(*batch, strict=True)
        assert torch.isfinite(robust(torch.tensor(losses), torch.tensor(codes)))
    assert robust.weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert (robust.weights >= 0).all()


def test_equal_losses_leave_the_weights_equal_and_the_loss_that_of_balanced_groups():
    robust = GroupRobustLoss(2, step=1.0)
    codes = torch.tensor([0, 0, 0, 1])
    assert robust(torch.full((4,), 0.7), codes).item() == pytest.approx(0.7)
    assert robust.weights.tolist() == pytest.approx([0.5, 0.5])


def test_the_adjustment_favours_small_groups_by_one_over_the_root_of_their_size_and_is_no_part_of_the_loss():
    robust = GroupRobustLoss(2, step=1.0, adjustment=2.0)
    robust.count(torch.tensor([100, 4]))
    value = robust(torch.tensor([0.3, 0.3]), torch.tensor([0, 1])).item()
    # 2 / sqrt(100) = 0.2 and 2 / sqrt(4) = 1.
    expected = math.exp(0.2) / (math.exp(0.2) + math.exp(1.0))
    assert robust.weights.tolist() == pytest.approx([expected, 1 - expected])
    assert value == pytest.approx(0.3)


def test_a_group_without_training_records_takes_no_weight():
    robust = GroupRobustLoss(3)
    robust.count(torch.tensor([10, 30, 0]))
    assert robust.weights.tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_evaluation_leaves_the_weights_alone():
    robust = GroupRobustLoss(2, step=1.0).eval()
    robust(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]))
    assert robust.weights.tolist() == [0.5, 0.5]


def test_a_checkpoint_keeps_the_weights_but_not_the_counts():
    robust = GroupRobustLoss(2, step=1.0)
    robust.count(torch.tensor([3, 4]))
    robust(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]))
    state = robust.state_dict()
    assert list(state) == ["log_weights"]
    other = GroupRobustLoss(2, step=1.0)
    other.load_state_dict(state)
    assert torch.equal(other.weights, robust.weights)


@pytest.mark.parametrize("wrong", [{"step": 0.0}, {"step": math.inf}, {"step": -1.0}, {"adjustment": -0.1}])
def test_settings_that_can_not_work_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        GroupRobustLoss(2, **wrong)


@pytest.mark.parametrize("records", [[1, 2, 3], [0, 0]])
def test_counts_of_other_groups_and_of_nobody_are_refused(records):
    with pytest.raises(ConfigurationError, match="expected 2 numbers, not all 0"):
        GroupRobustLoss(2).count(torch.tensor(records))


STEPS, RECORDS, GROUPS = 5, 8, 4


def records_of(step):
    """Eight records; the third group is on the second process alone, and in the last batch the fourth is nowhere."""
    generator = torch.Generator().manual_seed(step)
    codes = torch.tensor([0, 0, 0, 1, 2, 2, 1, 3 if step < STEPS - 1 else 2])
    return torch.randn(RECORDS, 3, generator=generator), torch.randn(RECORDS, generator=generator), codes


def learn(network, robust, share):
    """Train a few steps on a share of the records; return gradients, weights of the groups and losses of every step."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    told = []
    for step in range(STEPS):
        signal, target, codes = (value[share] for value in records_of(step))
        optimizer.zero_grad()
        loss = robust((network(signal)[:, 0] - target).square(), codes)
        loss.backward()
        told.append([*(p.grad.flatten().tolist() for p in network.parameters()), robust.weights.tolist(), loss.item()])
        optimizer.step()
    return told


def network():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 1)


def main(folder):
    """Learn as one of two processes."""
    distributed.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT // 2))
    rank = distributed.get_rank()
    half = slice(0, 4) if rank == 0 else slice(4, 8)
    told = learn(DistributedDataParallel(network()), GroupRobustLoss(GROUPS, step=0.3, adjustment=1.0), half)
    (folder / f"rank{rank}.json").write_text(json.dumps(told))
    distributed.destroy_process_group()


def test_two_processes_have_the_weights_and_gradients_of_one_with_all_records(tmp_path):
    on_processes(main, tmp_path)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    one = learn(network(), GroupRobustLoss(GROUPS, step=0.3, adjustment=1.0), slice(None))
    for step in range(STEPS):
        *expected, loss = one[step]
        for found in (ranks[0][step], ranks[1][step]):
            for value, wanted in zip(found[:-1], expected, strict=True):
                assert value == pytest.approx(wanted, abs=1e-6)
        assert (ranks[0][step][-1] + ranks[1][step][-1]) / 2 == pytest.approx(loss, rel=1e-5)
    assert one[-1][2] != pytest.approx([0.25] * 4, abs=0.01), "the weights have moved"
