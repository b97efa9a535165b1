import math

import pytest
import torch
from torch import nn

from ecgfair.models.beat_network import BeatNetwork
from ecgfair.signals.aligned_beats import POINTS
from ecgfair.training import beat_task
from ecgfair.training.beat_task import ALTERATIONS, altered_beat_loss
from tests.signals.heart_cases import heart, peaks


def hearts(count=6, rr=0.8):
    """A batch of hearts, each a little taller than the one before, with noise."""
    noise = 0.01 * torch.randn(count, 3, 1000, generator=torch.Generator().manual_seed(0))
    signal = heart(rr) * torch.linspace(0.8, 1.2, count)[:, None, None] + noise
    return {
        "signal": signal,
        "recorded": torch.ones(signal.shape, dtype=torch.bool),
        "beats": peaks(rr).expand(count, -1).clone(),
    }


def network():
    torch.manual_seed(0)
    return BeatNetwork(leads=3)


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


class Spy(nn.Module):
    """Keeps what it is shown, and is sure that nothing was altered."""

    def forward(self, shapes):
        self.seen = shapes
        return torch.full((len(shapes),), -20.0)


def test_it_learns_to_tell_altered_beats():
    net, batch, generator = network(), hearts(), seeded()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = altered_beat_loss(net, batch, 100.0, generator).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0.6
    assert sum(losses[-5:]) / 5 < 0.35


def test_half_of_what_the_network_sees_is_as_it_was_and_the_rest_is_not():
    spy, batch = Spy(), hearts()
    loss = altered_beat_loss(spy, batch, 100.0, seeded()).value
    seen = spy.seen.view(2, ALTERATIONS, 6, 3, POINTS)
    assert torch.equal(seen[0, 0], seen[0, 1]), "the unaltered beats are the same in each repetition"
    altered = (seen[1] - seen[0]).abs().amax((-1, -2)) > 1e-3
    assert altered.float().mean() > 0.8
    assert not torch.equal(seen[1, 0], seen[1, 1]), "each repetition is altered in a way of its own"
    # Being sure that none was altered costs 20 for each altered one, half of all at most.
    assert 8 < loss.item() <= 10 + math.log1p(math.exp(-20))


def test_the_generator_decides_everything():
    net, batch = network().eval(), hearts()
    first, again, other = (altered_beat_loss(net, batch, 100.0, seeded(seed)).value for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_is_stored_where_nothing_was_recorded_is_not_looked_at():
    net, batch = network().eval(), hearts()
    batch["recorded"][:, 1] = False
    expected = altered_beat_loss(net, batch, 100.0, seeded()).value
    for filler in (torch.nan, 1e6, 0.0):
        stored = {**batch, "signal": batch["signal"].masked_fill(~batch["recorded"], filler)}
        assert torch.equal(altered_beat_loss(net, stored, 100.0, seeded()).value, expected)
    spy = Spy()
    altered_beat_loss(spy, batch, 100.0, seeded())
    assert not spy.seen[:, 1].any(), "a missing lead is silent, in altered beats as well"


def test_records_without_a_beat_are_left_out_and_a_batch_of_them_costs_nothing():
    net, batch, spy = network(), hearts(), Spy()
    batch["beats"][2:] = -1
    altered_beat_loss(spy, batch, 100.0, seeded())
    assert len(spy.seen) == 2 * ALTERATIONS * 2
    batch["beats"][:] = -1
    loss = altered_beat_loss(net, batch, 100.0, seeded()).value
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in net.parameters())


@pytest.mark.parametrize("kind", beat_task.ALTERATION.kinds)
def test_every_kind_of_alteration_can_be_had_of_a_median_beat(kind):
    assert beat_task.ALTERATION.kinds[kind] > 0
    alone = beat_task.Alteration({kind: 1.0}, some_beats=0.0, least_change=0.03)
    beat = heart(1.0)[..., 60 - 28 : 60 + 50].repeat(40, 1, 1)
    _, changed = alone(beat, torch.full((40, 1), 28), 100.0, seeded())
    assert changed.flatten(1).any(dim=1).float().mean() > 0.5
