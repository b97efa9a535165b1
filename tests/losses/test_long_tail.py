import numpy as np
import pytest
import torch

from ecgfair.errors import ConfigurationError
from ecgfair.losses.long_tail import DistributionBalancedLoss, LdamLoss, LogitAdjusted, prevalence_logits
from ecgfair.losses.multi_label import AsymmetricLoss, CrossEntropy, FocalLoss

RECORDS = 1000
POSITIVES = [500, 100, 16, 0, RECORDS]  # the last two labels have one class only
PREVALENCE = [count / RECORDS for count in POSITIVES]


def case():
    """Return logits and targets, the first record without any label."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(16, 5, generator=generator, dtype=torch.float64)
    target = (torch.rand(16, 5, generator=generator) < 0.3).double()
    target[0] = 0
    return logits.requires_grad_(), target


def weighed(loss):
    loss.set_progress(1.0)
    return loss


LOSSES = {
    "bce": CrossEntropy,
    "asymmetric": lambda: AsymmetricLoss(1, 2, 0),
    "focal": lambda: FocalLoss(2),
    "ldam": lambda: LdamLoss(POSITIVES, RECORDS),
    "ldam, weighed": lambda: weighed(LdamLoss(POSITIVES, RECORDS)),
    "balanced": lambda: DistributionBalancedLoss(POSITIVES, RECORDS),
    "balanced, no focus": lambda: DistributionBalancedLoss(POSITIVES, RECORDS, focal_gamma=0),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
adjusted_or_not = pytest.mark.parametrize("tau", [0, 1.0])


def made(name, tau):
    return LogitAdjusted(LOSSES[name](), PREVALENCE, tau) if tau else LOSSES[name]()


def softplus(x):
    return np.logaddexp(0, x)


@every_loss
@adjusted_or_not
def test_the_gradient_is_right(name, tau):
    logits, target = case()
    assert torch.autograd.gradcheck(lambda x: made(name, tau)(x, target).value, logits)


@every_loss
@adjusted_or_not
def test_the_loss_is_the_mean_over_records_and_labels(name, tau):
    logits, target = case()
    loss = made(name, tau)
    each = loss.each(logits, target)
    assert each.shape == (16, 5)
    torch.testing.assert_close(loss(logits, target).value, each.mean())


@every_loss
@adjusted_or_not
def test_extreme_logits_and_labels_of_one_class_keep_loss_and_gradient_finite(name, tau):
    for value in (0.0, 1.0):
        logits = torch.tensor([[-100.0], [0.0], [100.0]]).repeat(1, 5).requires_grad_()
        loss = made(name, tau)(logits, torch.full((3, 5), value)).value
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()
        assert bool(logits.grad.any())


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"asymmetric"}))  # which computes as its logits are
@adjusted_or_not
def test_in_mixed_precision_the_loss_is_that_of_full_precision_with_a_gradient(name, tau):
    logits, target = case()
    rounded = logits.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = made(name, tau)(rounded, target.float()).value
    loss.backward()
    expected = made(name, tau)(rounded.detach().double(), target).value
    assert torch.isfinite(rounded.grad).all()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@every_loss
def test_a_checkpoint_holds_nothing_of_the_loss(name):
    assert not made(name, 1.0).state_dict()


def test_ldam_without_margin_is_cross_entropy_exactly():
    logits, target = case()
    plain = LdamLoss(POSITIVES, RECORDS, max_margin=0, scale=1, deferred=1)
    plain.set_progress(1.0)
    found, expected = plain.each(logits, target), CrossEntropy().each(logits, target)
    assert torch.equal(found, expected)
    assert torch.equal(
        torch.autograd.grad(found.sum(), logits, retain_graph=True)[0], torch.autograd.grad(expected.sum(), logits)[0]
    )


def test_margins_go_by_the_fourth_root_of_the_records_of_a_class():
    # 16 positives are the fewest: (16 / 256)^(1/4) = 1/2 of their margin for 256 records.
    margins = LdamLoss([16, 256], 10_256, max_margin=0.8).margins
    expected = [[0.8 * (16 / 10_240) ** 0.25, 0.8], [0.8 * (16 / 10_000) ** 0.25, 0.4]]
    np.testing.assert_allclose(margins, expected, rtol=1e-6)


def test_ldam_equals_the_formula_for_two_values():
    loss = LdamLoss([16, 256], 10_256, max_margin=0.8, scale=3)
    each = loss.each(torch.tensor([[0.3, -1.2]], dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    expected = softplus(-3 * (0.3 - 0.8)), softplus(3 * (-1.2 + 0.8 * (16 / 10_000) ** 0.25))
    np.testing.assert_allclose(each[0], expected, rtol=1e-6)


def test_a_margin_pushes_a_positive_up_and_a_negative_down():
    logits = torch.zeros(1, 2, requires_grad=True)
    target = torch.tensor([[1.0, 0.0]])
    gradients = [
        torch.autograd.grad(LdamLoss([20, 20], 40, margin).each(logits, target).sum(), logits)[0] for margin in (0, 1)
    ]
    assert gradients[1][0, 0] < gradients[0][0, 0] < 0 < gradients[0][0, 1] < gradients[1][0, 1]


def reference_weights(positives, records, beta):
    counts = np.array([[records - n, n] for n in positives], dtype=float)
    weights = (1 - beta) / (1 - beta**counts)
    share = counts / (records * len(positives))
    return weights / (share * weights).sum()


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.9999])
def test_weights_are_the_inverse_effective_numbers_with_a_mean_of_1_over_training_records(beta):
    weights = LdamLoss([500, 100, 16], RECORDS, beta=beta).weights
    np.testing.assert_allclose(weights, reference_weights([500, 100, 16], RECORDS, beta), rtol=1e-6)
    target = torch.zeros(RECORDS, 3)
    for label, count in enumerate([500, 100, 16]):
        target[:count, label] = 1
    assert torch.where(target > 0, weights[:, 1], weights[:, 0]).mean().item() == pytest.approx(1, rel=1e-5)


def test_without_effective_numbers_all_weights_are_1():
    torch.testing.assert_close(LdamLoss(POSITIVES, RECORDS, beta=0).weights, torch.ones(5, 2))


def test_weights_come_exactly_at_the_share_of_the_training_that_was_asked_for():
    logits, target = case()
    loss = LdamLoss([500, 100, 16, 30, 970], RECORDS, deferred=0.6)
    before = loss.each(logits, target)
    weights = reference_weights([500, 100, 16, 30, 970], RECORDS, 0.9999)
    after = before.detach().numpy() * np.where(target.numpy() > 0, weights[:, 1], weights[:, 0])
    for share, expected in ((0.0, before.detach()), (0.5999999, before.detach()), (0.6, after), (1.0, after)):
        loss.set_progress(share)
        np.testing.assert_allclose(loss.each(logits, target).detach(), expected, rtol=1e-6)


def test_weights_are_for_training_only_so_that_validation_stays_comparable():
    logits, target = case()
    loss = LdamLoss(POSITIVES, RECORDS)
    before = loss.each(logits, target)
    loss.set_progress(1.0)
    assert not torch.equal(loss.each(logits, target), before)
    assert torch.equal(loss.eval().each(logits, target), before)


def test_weights_may_be_there_from_the_first_step_or_never():
    logits, target = case()
    never, always = (LdamLoss(POSITIVES, RECORDS, deferred=share) for share in (1, 0))
    first = always.each(logits, target)
    assert torch.equal(weighed(always).each(logits, target), first)
    unweighed = never.each(logits, target)
    assert torch.equal(weighed(never).each(logits, target), unweighed)
    assert not torch.equal(first, unweighed)


def test_a_class_without_records_counts_as_the_rarest_that_there_is():
    loss = LdamLoss([16, 0, RECORDS], RECORDS)
    torch.testing.assert_close(loss.margins[1], loss.margins[0].new_tensor([loss.margins[2, 1], 0.5]))
    assert loss.margins[2, 0] == loss.margins[1, 1] == loss.margins[0, 1]
    assert loss.weights[2, 0] == loss.weights[1, 1] == loss.weights[0, 1]


def reference_balanced(logits, target, floor, steepness, centre, scale, bias, gamma):
    """The loss of one record and label after the other, from the definitions."""
    losses = np.zeros(logits.shape)
    for record in range(len(logits)):
        own = sum(1 / max(POSITIVES[label], 1) for label in range(5) if target[record, label])
        for label in range(5):
            rate = 1 / max(POSITIVES[label], 1)
            weight = floor + (1 / (1 + np.exp(-steepness * (rate / own - centre))) if own else 1)
            p = min(max(PREVALENCE[label], 1e-3), 1 - 1e-3)
            moved = logits[record, label] - bias / scale * np.log(1 / p - 1)
            if target[record, label]:
                loss, true = softplus(-moved), 1 / (1 + np.exp(-moved))
            else:
                loss, true = softplus(scale * moved) / scale, 1 / (1 + np.exp(scale * moved))
            losses[record, label] = weight * (1 - true) ** gamma * loss
    return losses


@pytest.mark.parametrize("settings", [(0.1, 10, 0.2, 2, 0.05, 2), (0.3, 4, 0.3, 5, 0.5, 0), (0, 1, 0, 1, 0, 1)])
def test_distribution_balanced_loss_equals_a_plain_reference(settings):
    logits, target = case()
    found = DistributionBalancedLoss(POSITIVES, RECORDS, *settings).each(logits, target).detach()
    np.testing.assert_allclose(
        found, reference_balanced(logits.detach().numpy(), target.numpy(), *settings), rtol=1e-5, atol=1e-12
    )


def test_the_defaults_are_those_published_for_many_labels():
    logits, target = case()
    published = DistributionBalancedLoss(POSITIVES, RECORDS, 0.1, 10.0, 0.2, 2.0, 0.05, 2.0)
    assert torch.equal(
        DistributionBalancedLoss(POSITIVES, RECORDS).each(logits, target), published.each(logits, target)
    )


def test_a_common_label_weighs_less_in_a_record_that_has_a_rare_one_too():
    loss = DistributionBalancedLoss([500, 10], RECORDS, negative_scale=1, label_bias=0, focal_gamma=0)
    alone, beside = loss.each(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    # r is 1, and 2 thousandths over 102 thousandths.
    sigmoid = 1 / (1 + np.exp(-10 * (2 / 102 - 0.2)))
    assert (beside[0] / alone[0]).item() == pytest.approx((0.1 + sigmoid) / (0.1 + 1 / (1 + np.exp(-8))), rel=1e-5)


def test_negatives_that_are_told_well_have_less_gradient_than_without_tolerance():
    logits = torch.full((1, 2), -2.0, requires_grad=True)
    gradients = [
        torch.autograd.grad(
            DistributionBalancedLoss([9, 9], 18, negative_scale=scale, focal_gamma=0)(logits, torch.zeros(1, 2)).value,
            logits,
        )[0][0, 0].item()
        for scale in (1, 5)
    ]
    assert 0 < gradients[1] < 0.01 * gradients[0]


def test_adjustment_is_that_of_the_logits_by_hand_for_every_loss():
    logits, target = case()
    shift = torch.tensor([np.log(p / (1 - p)) for p in (0.5, 0.1, 0.016, 0.001, 0.999)])
    for make in LOSSES.values():
        adjusted = LogitAdjusted(make(), PREVALENCE, 0.7)
        expected = make().each(logits + 0.7 * shift, target)
        torch.testing.assert_close(adjusted.each(logits, target), expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(adjusted(logits, target).value, expected.mean(), rtol=1e-5, atol=1e-7)


def test_adjusted_logits_are_for_training_only():
    logits, target = case()
    adjusted = LogitAdjusted(CrossEntropy(), PREVALENCE)
    assert not torch.equal(adjusted(logits, target).value, CrossEntropy()(logits, target).value)
    assert torch.equal(adjusted.eval()(logits, target).value, CrossEntropy()(logits, target).value)


def test_a_network_that_knows_nothing_learns_the_prevalence_with_cross_entropy_and_one_half_with_full_adjustment():
    target = torch.zeros(100, 1)
    target[:10] = 1
    learned = []
    for tau in (0.0, 0.5, 1.0):
        logit = torch.zeros(1, requires_grad=True)
        loss = LogitAdjusted(CrossEntropy(), [0.1], tau)
        optimizer = torch.optim.LBFGS([logit], max_iter=50, line_search_fn="strong_wolfe")

        def closure(logit=logit, loss=loss, optimizer=optimizer):
            optimizer.zero_grad()
            value = loss(logit.expand(100, 1), target).value
            value.backward()
            return value

        optimizer.step(closure)
        learned.append(logit.item())
    assert learned == pytest.approx([(1 - tau) * np.log(0.1 / 0.9) for tau in (0, 0.5, 1)], abs=1e-3)


def test_progress_reaches_the_loss_behind_the_adjustment():
    logits, target = case()
    found, expected = LogitAdjusted(LdamLoss(POSITIVES, RECORDS), PREVALENCE), LdamLoss(POSITIVES, RECORDS)
    found.set_progress(0.9)
    expected.set_progress(0.9)
    shifted = logits + found.shift
    assert torch.equal(found.each(logits, target), expected.each(shifted, target))
    found.set_progress(0.1)
    assert not torch.equal(found.each(logits, target), expected.each(shifted, target))


def test_prevalences_are_held_where_the_heads_hold_them():
    expected = [np.log(0.001 / 0.999), 0, -np.log(0.001 / 0.999)]
    np.testing.assert_allclose(prevalence_logits([0, 0.5, 1]), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LdamLoss([1], 2, max_margin=-1), "max_margin -1: expected 0 or more"),
        (lambda: LdamLoss([1], 2, scale=0), "scale 0: expected a positive number"),
        (lambda: LdamLoss([1], 2, deferred=1.1), "deferred 1.1: expected a share from 0 to 1"),
        (lambda: LdamLoss([1], 2, beta=1), "beta 1: expected 0 <= beta < 1"),
        (lambda: LdamLoss([3], 2), r"positives \[3\]: expected a number from 0 to 2"),
        (lambda: LdamLoss([float("nan")], 2), r"positives \[nan\]: expected a number"),
        (lambda: LdamLoss([], 2), r"positives \[\]: expected a number"),
        (lambda: LdamLoss([0], 0), "0 training records: expected at least one"),
        (lambda: DistributionBalancedLoss([-1], 2), r"positives \[-1\]: expected a number from 0 to 2"),
        (lambda: DistributionBalancedLoss([1], 2, floor=-0.1), "floor -0.1: expected 0 or more"),
        (lambda: DistributionBalancedLoss([1], 2, steepness=0), "steepness 0: expected a positive number"),
        (lambda: DistributionBalancedLoss([1], 2, centre=float("inf")), "centre inf: expected 0 or more"),
        (lambda: DistributionBalancedLoss([1], 2, negative_scale=0.5), "negative_scale 0.5: expected 1 or more"),
        (lambda: DistributionBalancedLoss([1], 2, label_bias=-1), "label_bias -1: expected 0 or more"),
        (lambda: DistributionBalancedLoss([1], 2, focal_gamma=-1), "gamma -1: expected 0 or more"),
        (lambda: LogitAdjusted(CrossEntropy(), [0.5], -1), "tau -1: expected 0"),
        (lambda: LogitAdjusted(CrossEntropy(), [1.5]), r"prevalences \[1.5\]: expected a share from 0 to 1"),
        (lambda: LogitAdjusted(CrossEntropy(), []), r"prevalences \[\]: expected a share"),
    ],
)
def test_what_can_not_be_is_refused_by_name_and_value(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize(
    "loss",
    [
        LdamLoss([50, 20, 5], 100),
        LdamLoss([50, 20, 5], 100, deferred=0.0, beta=0.99),
        DistributionBalancedLoss([50, 20, 5], 100),
    ],
)
def test_a_label_that_is_hardly_there_costs_hardly_more_than_none(loss):
    logits = torch.zeros(1, 3)
    nothing = torch.tensor([[1.0, 0.0, 0.0]])
    hardly = torch.tensor([[1.0, 1e-4, 1e-4]])
    torch.testing.assert_close(loss.each(logits, hardly), loss.each(logits, nothing), atol=2e-3, rtol=0)
