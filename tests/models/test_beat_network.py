import torch

from ecgfair.models.beat_network import BeatNetwork
from ecgfair.signals.aligned_beats import POINTS


def test_every_beat_gets_one_logit_that_does_not_depend_on_the_others():
    torch.manual_seed(0)
    network = BeatNetwork(leads=3).eval()
    shapes = torch.randn(4, 3, POINTS)
    logits = network(shapes)
    assert logits.shape == (4,)
    torch.testing.assert_close(torch.cat([network(one[None]) for one in shapes]), logits)


def test_a_wave_means_something_else_at_another_place_of_the_beat():
    torch.manual_seed(0)
    network = BeatNetwork(leads=1).eval()
    wave = torch.zeros(1, 1, POINTS)
    wave[..., 30:38] = 1
    assert not torch.allclose(network(wave), network(wave.roll(16, dims=-1)), atol=1e-4)


def test_gradients_reach_every_weight():
    torch.manual_seed(0)
    network = BeatNetwork(leads=2)
    network(torch.randn(8, 2, POINTS)).square().sum().backward()
    reached = {name for name, weight in network.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert {name for name, _ in network.named_parameters()} == reached
