import torch
from torch.distributions import Normal

from ecgfair.losses.restoration import trend_restoration_loss, uncertain_restoration_loss


def case(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    restored, v, target = (torch.randn(4, 12, 100, generator=generator) for _ in range(3))
    mask = torch.rand(4, 12, 100, generator=generator) < 0.3
    return restored.requires_grad_(), v.requires_grad_(), target, mask


def test_the_loss_is_twice_the_gaussian_negative_log_likelihood_without_its_constant():
    restored, v, target, mask = case()
    likelihood = Normal(restored, (v / 2).exp()).log_prob(target)[mask]
    expected = -2 * likelihood.mean() - torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(uncertain_restoration_loss(restored, v, target, mask).value, expected)


def test_visible_samples_have_no_gradient():
    restored, v, target, mask = case()
    (
        uncertain_restoration_loss(restored, v, target, mask).value
        + trend_restoration_loss(restored, target, mask).value
    ).backward()
    assert not restored.grad[~mask].any()
    assert not v.grad[~mask].any()
    assert restored.grad[mask].all()


def test_the_log_variance_of_one_lead_leaves_the_others_alone():
    restored, v, target, mask = case()
    uncertain_restoration_loss(restored, v, target, mask & (torch.arange(12) == 3)[:, None]).value.backward()
    assert v.grad[:, 3].any()
    assert not v.grad[:, [0, 1, 2, *range(4, 12)]].any()


def test_an_absurd_log_variance_stays_finite():
    restored, _, target, mask = case()
    for value in (-1e4, 1e4):
        assert torch.isfinite(uncertain_restoration_loss(restored, torch.full_like(target, value), target, mask).value)


def test_with_nothing_hidden_the_loss_is_zero_and_has_a_zero_gradient():
    restored, v, target, mask = case()
    loss = uncertain_restoration_loss(restored, v, target, torch.zeros_like(mask)).value
    loss.backward()
    assert loss == 0
    assert not restored.grad.any()
