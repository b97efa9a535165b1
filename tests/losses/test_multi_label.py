import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ecgfair.errors import ConfigurationError
from ecgfair.losses.multi_label import AsymmetricLoss, CrossEntropy, FocalLoss


def case():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(16, 5, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), (torch.rand(16, 5, generator=generator) < 0.2).double()


def test_without_focus_and_clip_it_is_binary_cross_entropy():
    logits, target = case()
    loss = AsymmetricLoss(0, 0, 0)(logits, target).value
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, target))


def test_it_equals_the_formula_written_out_for_two_values():
    logits, target = torch.tensor([[0.3, -1.2]]), torch.tensor([[1.0, 0.0]])
    p, q = logits.sigmoid()[0].tolist()
    shifted = max(q - 0.05, 0)
    expected = -((1 - p) ** 1 * torch.tensor(p).log() + shifted**4 * torch.tensor(1 - shifted).log()) / 2
    torch.testing.assert_close(AsymmetricLoss(1, 4, 0.05)(logits, target).value, expected)


def test_its_gradient_is_right():
    logits, target = case()
    assert torch.autograd.gradcheck(lambda x: AsymmetricLoss(1, 4, 0.05)(x, target).value, logits)


def test_a_positive_at_one_half_keeps_the_gradient_it_has_in_cross_entropy():
    logit = torch.zeros(1, 1, requires_grad=True)
    AsymmetricLoss()(logit, torch.ones(1, 1)).value.backward()
    assert logit.grad.item() == pytest.approx(-0.5)


def test_it_is_averaged_so_that_a_longer_batch_does_not_weigh_more():
    logits, target = case()
    loss = AsymmetricLoss()
    torch.testing.assert_close(loss(logits, target).value, loss(logits.repeat(3, 1), target.repeat(3, 1)).value)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_extreme_logits_keep_loss_and_gradient_finite(logit):
    logits = torch.full((1, 2), logit, requires_grad=True)
    loss = AsymmetricLoss(1, 4, 0.05)(logits, torch.tensor([[1.0, 0.0]])).value
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("wrong", [{"gamma_positive": 10.0}, {"gamma_negative": -1.0}, {"clip": 1.0}, {"clip": -0.1}])
def test_settings_that_stop_positives_from_learning_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="expected 0 <="):
        AsymmetricLoss(**wrong)


@pytest.mark.parametrize("loss", [CrossEntropy(), AsymmetricLoss(1, 4, 0.05), FocalLoss()])
def test_the_loss_is_the_mean_of_those_of_each_record_and_label(loss):
    logits, target = case()
    each = loss.each(logits, target)
    assert each.shape == logits.shape
    torch.testing.assert_close(loss(logits, target).value, each.mean())
    torch.testing.assert_close(loss(logits[3:4, 2:3], target[3:4, 2:3]).value, each[3, 2])


def test_cross_entropy_is_bit_for_bit_that_of_torch_with_its_gradient():
    logits, target = (values.float().detach() for values in case())
    found, expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    own, torchs = CrossEntropy()(found, target).value, torch.nn.BCEWithLogitsLoss()(expected, target)
    own.backward()
    torchs.backward()
    assert torch.equal(own, torchs)
    assert torch.equal(found.grad, expected.grad)


def test_a_root_as_focus_has_a_finite_gradient_where_probabilities_are_rounded_to_0_and_1():
    logits = torch.tensor([[-200.0, -100.0, 100.0, 200.0]], requires_grad=True)
    for target in (torch.zeros(1, 4), torch.ones(1, 4)):
        for clip in (0, 0.05):
            (gradient,) = torch.autograd.grad(AsymmetricLoss(0.5, 0.5, clip)(logits, target).value, logits)
            assert torch.isfinite(gradient).all()


def test_focal_loss_of_a_probability_is_that_of_its_definition():
    # p = 1/4: a positive costs (3/4)^2 log 4, a negative (1/4)^2 log(4/3).
    logits = torch.full((1, 2), -np.log(3.0), dtype=torch.float64)
    each = FocalLoss(2)(logits[:, :1], torch.ones(1, 1)), FocalLoss(2)(logits[:, 1:], torch.zeros(1, 1))
    assert [loss.value.item() for loss in each] == pytest.approx([9 / 16 * np.log(4), 1 / 16 * np.log(4 / 3)])


@pytest.mark.parametrize("gamma", [0.5, 1, 2, 3.7])
def test_focal_loss_equals_a_plain_reference_and_has_the_right_gradient(gamma):
    logits, target = case()
    p = 1 / (1 + np.exp(-logits.detach().numpy()))
    true = np.where(target.numpy() > 0, p, 1 - p)
    np.testing.assert_allclose(
        FocalLoss(gamma).each(logits, target).detach(), -((1 - true) ** gamma) * np.log(true), rtol=1e-9
    )
    assert torch.autograd.gradcheck(lambda x: FocalLoss(gamma)(x, target).value, logits)


def test_focal_and_asymmetric_loss_without_focus_are_cross_entropy():
    logits, target = case()
    expected = CrossEntropy().each(logits, target)
    torch.testing.assert_close(FocalLoss(0).each(logits, target), expected)
    torch.testing.assert_close(AsymmetricLoss(0, 0, 0).each(logits, target), expected)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
def test_focal_loss_of_extreme_logits_is_finite_and_moves_those_that_are_wrong(gamma):
    logits = torch.tensor([[-100.0, 100.0, -100.0, 100.0]], requires_grad=True)
    loss = FocalLoss(gamma)(logits, torch.tensor([[1.0, 0.0, 0.0, 1.0]])).value
    loss.backward()
    assert loss.item() == pytest.approx(50)
    assert logits.grad[0].tolist() == pytest.approx([-0.25, 0.25, 0, 0])


@pytest.mark.parametrize("gamma", [-0.1, float("nan"), float("inf")])
def test_a_focus_that_can_not_be_is_refused(gamma):
    with pytest.raises(ConfigurationError, match=r"FocalLoss has gamma .*: expected 0 or more"):
        FocalLoss(gamma)


def test_progress_changes_nothing_for_losses_that_do_not_ask_for_it():
    logits, target = case()
    for loss in (CrossEntropy(), AsymmetricLoss(), FocalLoss()):
        before = loss.each(logits, target)
        loss.set_progress(1.0)
        assert torch.equal(loss.each(logits, target), before)
