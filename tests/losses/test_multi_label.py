import pytest
import torch
import torch.nn.functional as F

from ecgfair.errors import ConfigurationError
from ecgfair.losses.multi_label import AsymmetricLoss, multi_label_loss


def case():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(16, 5, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), (torch.rand(16, 5, generator=generator) < 0.2).double()


def test_without_focus_and_clip_it_is_binary_cross_entropy():
    logits, target = case()
    loss = AsymmetricLoss(0, 0, 0)(logits, target)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, target))


def test_it_equals_the_formula_written_out_for_two_values():
    logits, target = torch.tensor([[0.3, -1.2]]), torch.tensor([[1.0, 0.0]])
    p, q = logits.sigmoid()[0].tolist()
    shifted = max(q - 0.05, 0)
    expected = -((1 - p) ** 1 * torch.tensor(p).log() + shifted**4 * torch.tensor(1 - shifted).log()) / 2
    torch.testing.assert_close(AsymmetricLoss(1, 4, 0.05)(logits, target), expected)


def test_its_gradient_is_right():
    logits, target = case()
    assert torch.autograd.gradcheck(lambda x: AsymmetricLoss(1, 4, 0.05)(x, target), logits)


def test_a_positive_at_one_half_keeps_the_gradient_it_has_in_cross_entropy():
    logit = torch.zeros(1, 1, requires_grad=True)
    AsymmetricLoss()(logit, torch.ones(1, 1)).backward()
    assert logit.grad.item() == pytest.approx(-0.5)


def test_it_is_averaged_so_that_a_longer_batch_does_not_weigh_more():
    logits, target = case()
    loss = AsymmetricLoss()
    torch.testing.assert_close(loss(logits, target), loss(logits.repeat(3, 1), target.repeat(3, 1)))


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_extreme_logits_keep_loss_and_gradient_finite(logit):
    logits = torch.full((1, 2), logit, requires_grad=True)
    loss = AsymmetricLoss(1, 4, 0.05)(logits, torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("wrong", [{"gamma_positive": 10.0}, {"gamma_negative": -1.0}, {"clip": 1.0}, {"clip": -0.1}])
def test_settings_that_stop_positives_from_learning_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="expected 0 <="):
        AsymmetricLoss(**wrong)


def test_an_unknown_loss_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="focal"):
        multi_label_loss("focal", AsymmetricLoss())


@pytest.mark.parametrize("loss", [multi_label_loss("bce", AsymmetricLoss()), AsymmetricLoss(1, 4, 0.05)])
def test_the_loss_is_the_mean_of_those_of_each_record_and_label(loss):
    logits, target = case()
    each = loss.each(logits, target)
    assert each.shape == logits.shape
    torch.testing.assert_close(loss(logits, target), each.mean())
    torch.testing.assert_close(loss(logits[3:4, 2:3], target[3:4, 2:3]), each[3, 2])


def test_cross_entropy_is_bit_for_bit_that_of_torch_with_its_gradient():
    logits, target = (values.float().detach() for values in case())
    found, expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    own, torchs = (
        multi_label_loss("bce", AsymmetricLoss())(found, target),
        torch.nn.BCEWithLogitsLoss()(expected, target),
    )
    own.backward()
    torchs.backward()
    assert torch.equal(own, torchs)
    assert torch.equal(found.grad, expected.grad)
