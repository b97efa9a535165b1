import copy

import pytest
import torch

from ecgfair.ecg import ATTRIBUTES
from ecgfair.models.adversary import DemographicAdversary, ramp, reverse_gradient


def test_features_pass_unchanged_and_their_gradient_comes_back_reversed():
    features = torch.randn(4, 3, requires_grad=True)
    passed = reverse_gradient(features, 0.5)
    assert torch.equal(passed, features)
    (passed * torch.arange(3.0)).sum().backward()
    torch.testing.assert_close(features.grad, -0.5 * torch.arange(3.0).expand(4, 3))


def case(**settings):
    torch.manual_seed(0)
    features = torch.randn(64, 5)
    target = torch.full((64, len(ATTRIBUTES)), torch.nan)
    target[:, 0] = features[:, 0] - features[:, 3]
    adversary = DemographicAdversary(5, ["age"], hidden=16, **settings)
    return adversary, features, lambda said: (said[:, 0] - target[:, 0]).square().mean()


def test_the_features_get_the_opposite_of_the_gradient_and_its_own_weights_get_none():
    adversary, features, loss = case()
    features.requires_grad_()
    loss(adversary(features, 2.0)).backward()
    against = features.grad.clone()
    assert all(weight.grad is None for weight in adversary.parameters())
    features.grad = None
    loss(adversary.head(features)).backward()
    torch.testing.assert_close(against, -2 * features.grad)


def test_it_learns_to_predict_by_itself_and_leaves_the_features_alone():
    adversary, features, loss = case(steps=100)
    features.requires_grad_()
    before = loss(adversary(features, 1.0)).item()
    adversary.learn(features, loss)
    assert loss(adversary(features, 1.0)).item() < 0.1 * before
    assert features.grad is None
    assert not any(weight.requires_grad for weight in adversary.parameters()), "the encoder's optimiser and DDP skip it"


def test_its_steps_are_those_of_adam():
    adversary, features, loss = case(steps=3, learning_rate=0.02)
    head = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    head.load_state_dict(adversary.head.state_dict())
    adam = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(3):
        adam.zero_grad()
        loss(head(features)).backward()
        adam.step()
    adversary.learn(features, loss)
    for found, expected in zip(adversary.head.parameters(), head.parameters(), strict=True):
        torch.testing.assert_close(found, torch.nn.Parameter(expected, requires_grad=False))


def test_it_goes_on_from_the_state_of_its_optimiser_as_if_it_had_not_stopped():
    adversary, features, loss = case(steps=4)
    adversary.learn(features, loss)
    resumed, _, _ = case(steps=4)
    resumed.load_state_dict(adversary.state_dict())
    resumed.go_on(copy.deepcopy(adversary.optimizer_state()))
    assert resumed.optimizer_state()["state"].keys() == adversary.optimizer_state()["state"].keys()
    for one in (adversary, resumed):
        one.learn(features, loss)
    for found, expected in zip(resumed.parameters(), adversary.parameters(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("attributes", [["sex"], ["age"], ["age", "sex"], ["sex", "age"]])
def test_it_predicts_the_attributes_asked_for_in_their_columns(attributes):
    adversary = DemographicAdversary(5, attributes)
    features = torch.randn(6, 5)
    predicted = adversary(features, 1.0)
    assert predicted.shape == (6, len(ATTRIBUTES))
    said = adversary.head(features)
    for column, name in enumerate(attributes):
        assert torch.equal(predicted[:, ATTRIBUTES.index(name)], said[:, column])
    others = [column for column, name in enumerate(ATTRIBUTES) if name not in attributes]
    assert not predicted[:, others].any()


def test_its_strength_rises_as_published():
    assert ramp(0) == 0
    assert ramp(0.1) == pytest.approx(0.4621, abs=1e-4)
    assert ramp(1) == pytest.approx(0.99991, abs=1e-5)
