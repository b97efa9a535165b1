import pytest
import torch
from torch import nn

from ecgfair.anomaly import restored_terms
from ecgfair.anomaly.evaluated import evaluated
from tests.anomaly.scoring_cases import (
    ALL,
    ALL_MAPPED,
    BEATS,
    COVERS,
    FAMILIES,
    LEADS,
    LENGTH,
    close,
    full,
    network,
    records,
    rows_of,
    same,
    scorer,
    take,
)

# The company a record keeps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cover", COVERS)
def test_scores_are_the_same_for_any_batch_size_and_order_of_records(family, cover):
    made = full(family, cover)
    batch = records()
    together = made(*batch, maps=True)
    assert together.score.std() > 0.01
    for size in (1, 2, 3):
        for rows in torch.arange(len(BEATS)).split(size):
            for one, other in zip(
                rows_of(together, rows), rows_of(made(*take(batch, rows), maps=True), slice(None)), strict=True
            ):
                close(one, other)
    order = torch.tensor([3, 0, 4, 2, 1])
    for one, other in zip(
        rows_of(together, order), rows_of(made(*take(batch, order), maps=True), slice(None)), strict=True
    ):
        close(one, other)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("own", [0, 2, 4])
def test_the_score_of_a_record_does_not_depend_on_its_neighbours(family, own):
    made = full(family)
    signal, recorded, beats = take(records(), slice(own, own + 1))
    beats = torch.nn.functional.pad(beats, (0, 34), value=-1)
    alone = made(signal, recorded, beats, maps=True)
    garbage = torch.randn(1, LEADS, LENGTH) * 1e4
    nothing = torch.zeros(1, LEADS, LENGTH)
    crowd = torch.arange(0, LENGTH, 10)[None]
    neighbours = {
        "garbage with many beats": (garbage, crowd, torch.ones_like(recorded)),
        "garbage without beats": (garbage, torch.full_like(crowd, -1), torch.ones_like(recorded)),
        "beyond what the network can compute": (garbage * 1e30, crowd, torch.ones_like(recorded)),
        "silence": (nothing, torch.full_like(crowd, -1), torch.ones_like(recorded)),
        "nothing recorded, NaN stored": (nothing + torch.nan, crowd, torch.zeros_like(recorded)),
    }
    for name, (other, peaks, known) in neighbours.items():
        for place in (0, 1):
            parts = [(other, signal), (known, recorded), (peaks, beats)]
            batch = [torch.cat(pair if place else pair[::-1]) for pair in parts]
            found = made(*batch, maps=True)
            for one, expected in zip(rows_of(found, slice(place, place + 1)), rows_of(alone, slice(None)), strict=True):
                torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-4, equal_nan=True, msg=name)


def test_beats_in_many_small_portions_give_what_they_give_together(monkeypatch):
    made, batch = full(), records()
    together = made(*batch, maps=True)
    for at_once in (1, 7, 12):
        monkeypatch.setattr(restored_terms, "BEATS_AT_ONCE", at_once)
        for one, other in zip(
            rows_of(together, slice(None)), rows_of(made(*batch, maps=True), slice(None)), strict=True
        ):
            close(one, other)


# Repeatable, and without traces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_two_calls_give_equal_results_and_draw_no_random_numbers(family):
    net = network(family).train()
    made = scorer(net, terms=ALL, map_terms=ALL_MAPPED)
    batch = records()
    state = torch.get_rng_state()
    first = made(*batch, maps=True)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    for one, other in zip(rows_of(first, slice(None)), rows_of(made(*batch, maps=True), slice(None)), strict=True):
        same(one, other)
    without_map = made(*batch)
    same(without_map.score, first.score)
    for name, part in without_map.parts.items():
        same(part, first.parts[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_scoring_leaves_the_network_and_the_records_as_they_were(family):
    net = network(family).train()
    net.encoder.signal_branch.eval()
    modes = [module.training for module in net.modules()]
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    batch = records()
    batch[1][:, 1] = False
    copies = [part.clone() for part in batch]
    scorer(net, terms=ALL, map_terms=ALL_MAPPED)(*batch, maps=True)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert all(map(torch.equal, batch, copies))
    assert all(weight.requires_grad and weight.grad is None for weight in net.parameters())


def test_the_modes_come_back_after_an_error_as_well():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Linear(1, 1)))
    net[1].eval()
    modes = [module.training for module in net.modules()]

    def fail():
        with evaluated(net):
            assert not any(module.training for module in net.modules())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert [module.training for module in net.modules()] == modes
