import pytest
import torch
import torch.nn.functional as F

from ecgfair.ecg import ATTRIBUTES, SEX_COLUMN
from ecgfair.errors import ConfigurationError
from ecgfair.losses.attributes import attribute_losses
from ecgfair.losses.mean import Mean

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
    torch.testing.assert_close(losses.measures.value, F.smooth_l1_loss(predicted[:, OTHERS], target[:, OTHERS]))
    expected = F.binary_cross_entropy_with_logits(predicted[:, SEX_COLUMN], target[:, SEX_COLUMN])
    torch.testing.assert_close(losses.sex.value, expected)


def test_a_missing_attribute_costs_nothing_and_moves_nothing():
    predicted, target = case()
    target[2, 0] = float("nan")
    target[:, 4] = float("nan")
    target[1, SEX_COLUMN] = float("nan")
    losses = attribute_losses(predicted, target)
    (losses.measures.value + losses.sex.value).backward()
    missing = ~torch.isfinite(target)
    assert torch.isfinite(predicted.grad).all()
    assert not predicted.grad[missing].any()
    assert predicted.grad[~missing].all()
    known = torch.isfinite(target[:, OTHERS])
    expected = F.smooth_l1_loss(predicted[:, OTHERS][known], target[:, OTHERS][known])
    torch.testing.assert_close(losses.measures.value, expected)


@pytest.mark.parametrize("column", [0, SEX_COLUMN])
def test_a_batch_without_any_attribute_costs_zero(column):
    predicted, target = case()
    losses = attribute_losses(predicted, torch.full_like(target, float("nan")))
    (losses.measures.value + losses.sex.value).backward()
    assert losses.measures.value == losses.sex.value == 0
    assert not predicted.grad[:, column].any()


def test_the_published_form_is_the_squared_error_of_everything():
    predicted, target = case()
    losses = attribute_losses(predicted, target, sex="squared_error", measures="squared_error")
    torch.testing.assert_close(losses.measures.value, (predicted - target)[:, OTHERS].square().mean())
    torch.testing.assert_close(losses.sex.value, (predicted - target)[:, SEX_COLUMN].square().mean())


@pytest.mark.parametrize("sex", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("measures", ["smooth_l1", "squared_error"])
def test_in_either_form_a_missing_attribute_moves_nothing_and_a_known_one_does(sex, measures):
    predicted, target = case()
    target[2, 0] = target[:, 4] = target[1, SEX_COLUMN] = float("nan")
    Mean.sum_of(attribute_losses(predicted, target, sex=sex, measures=measures)).value.backward()
    assert torch.equal(predicted.grad != 0, torch.isfinite(target))


def test_each_form_is_chosen_by_itself():
    predicted, target = case()
    neither, both = (
        attribute_losses(predicted, target),
        attribute_losses(predicted, target, sex="squared_error", measures="squared_error"),
    )
    of_sex = attribute_losses(predicted, target, sex="squared_error")
    assert (of_sex.measures.value, of_sex.sex.value) == (neither.measures.value, both.sex.value)
    of_measures = attribute_losses(predicted, target, measures="squared_error")
    assert (of_measures.measures.value, of_measures.sex.value) == (both.measures.value, neither.sex.value)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"sex": "squared_eror"}, "loss of sex is 'squared_eror'.*Did you mean 'squared_error'"),
        ({"measures": "cross_entropy"}, "loss of measures is 'cross_entropy': expected smooth_l1 or squared_error"),
        ({"sex": "smooth_l1"}, "loss of sex is 'smooth_l1'"),
    ],
)
def test_a_loss_that_is_not_offered_is_refused_by_name(chosen, message):
    with pytest.raises(ConfigurationError, match=message):
        attribute_losses(*case(), **chosen)
