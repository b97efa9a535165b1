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


def test_its_own_weights_learn_as_usual_while_the_features_get_the_opposite():
    torch.manual_seed(0)
    adversary = DemographicAdversary(5, ["age"], hidden=4)
    features = torch.randn(6, 5, requires_grad=True)
    adversary(features, 2.0).sum().backward()
    against = features.grad.clone()
    own = [parameter.grad.clone() for parameter in adversary.parameters()]
    adversary.zero_grad()
    features.grad = None
    adversary.head(features).sum().backward()
    torch.testing.assert_close(against, -2 * features.grad)
    for found, parameter in zip(own, adversary.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)


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
