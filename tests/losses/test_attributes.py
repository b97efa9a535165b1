import pytest
import torch
import torch.nn.functional as F

from ecgfair.ecg import ATTRIBUTES, SEX_COLUMN
from ecgfair.losses.attributes import attribute_losses

OTHERS = [column for column in range(len(ATTRIBUTES)) if column != SEX_COLUMN]


def case():
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(6, len(ATTRIBUTES), generator=generator).requires_grad_()
    target = torch.randn(6, len(ATTRIBUTES), generator=generator)
    target[:, SEX_COLUMN] = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    return predicted, target


def test_complete_attributes_cost_smooth_l1_and_cross_entropy():
    predicted, target = case()
    losses = attribute_losses(predicted, target)
    torch.testing.assert_close(losses.measures, F.smooth_l1_loss(predicted[:, OTHERS], target[:, OTHERS]))
    expected = F.binary_cross_entropy_with_logits(predicted[:, SEX_COLUMN], target[:, SEX_COLUMN])
    torch.testing.assert_close(losses.sex, expected)


def test_a_missing_attribute_costs_nothing_and_moves_nothing():
    predicted, target = case()
    target[2, 0] = float("nan")
    target[:, 4] = float("nan")
    target[1, SEX_COLUMN] = float("nan")
    losses = attribute_losses(predicted, target)
    (losses.measures + losses.sex).backward()
    missing = ~torch.isfinite(target)
    assert torch.isfinite(predicted.grad).all()
    assert not predicted.grad[missing].any()
    assert predicted.grad[~missing].all()
    known = torch.isfinite(target[:, OTHERS])
    expected = F.smooth_l1_loss(predicted[:, OTHERS][known], target[:, OTHERS][known])
    torch.testing.assert_close(losses.measures, expected)


@pytest.mark.parametrize("column", [0, SEX_COLUMN])
def test_a_batch_without_any_attribute_costs_zero(column):
    predicted, target = case()
    losses = attribute_losses(predicted, torch.full_like(target, float("nan")))
    (losses.measures + losses.sex).backward()
    assert losses.measures == losses.sex == 0
    assert not predicted.grad[:, column].any()
