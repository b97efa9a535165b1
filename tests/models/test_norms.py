"""Batch norm by itself and on two processes, which run this file as a program, see ``main``."""

from datetime import timedelta

import pytest
import torch
from torch import distributed, nn
from torch.utils.checkpoint import checkpoint

from ecgfair.models.norms import BatchNorm, statistics_kept
from tests.gloo_processes import TIMEOUT, on_processes
from tests.models.beat_cases import settled

CHANNELS = 4
SHARES = {
    "even": (6, 6),
    "uneven": (9, 2),
    "one without a row": (0, 5),
    "one row each": (1, 1),
    "one row in all": (1, 0),
    "no row at all": (0, 0),
}
SHAPES = {"rows": (), "rows over time": (5,)}
CASES = [(share, shape) for share in SHARES for shape in SHAPES]


def statistics(module):
    return {name: value.clone() for name, value in module.named_buffers()}


@pytest.mark.parametrize("shape", [(7, CHANNELS), (3, CHANNELS, 5), (1, CHANNELS, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_in_one_process_it_is_torchs_to_the_bit(shape, training):
    found, expected = (settled(norm).train(training) for norm in (BatchNorm(CHANNELS), nn.BatchNorm1d(CHANNELS)))
    assert found.state_dict().keys() == expected.state_dict().keys()
    told = []
    for norm in (found, expected):
        torch.manual_seed(0)
        values = torch.randn(shape).requires_grad_()
        normed = norm(values)
        (normed * torch.randn(shape)).sum().backward()
        told.append([normed, values.grad, norm.weight.grad, norm.bias.grad, *statistics(norm).values()])
    for one, other in zip(*told, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rows", [0, 1])
def test_one_value_or_none_is_normalised_by_the_statistics_so_far(rows):
    norm = settled(BatchNorm(CHANNELS))
    values = 3 * torch.randn(rows, CHANNELS)
    expected, before = norm(values), statistics(norm)
    assert torch.equal(norm.train()(values), expected)
    assert all(torch.equal(value, before[name]) for name, value in statistics(norm).items())


def test_a_repeated_pass_gives_the_same_and_moves_no_statistics():
    torch.manual_seed(0)
    values = torch.randn(6, CHANNELS, 5)
    plain, repeated = (nn.Sequential(settled(BatchNorm(CHANNELS)), nn.SiLU()).train() for _ in range(2))
    expected, shown = plain(values.requires_grad_()), values.detach().clone().requires_grad_()
    expected.square().sum().backward()
    contexts = lambda: (torch.enable_grad(), statistics_kept(repeated))  # noqa: E731
    found = checkpoint(repeated, shown, use_reentrant=False, context_fn=contexts)
    found.square().sum().backward()
    assert torch.equal(found, expected)
    assert torch.equal(shown.grad, values.grad)
    assert all(torch.equal(value, statistics(plain)[name]) for name, value in statistics(repeated).items())
    before = statistics(repeated)
    repeated(shown)
    assert not torch.equal(statistics(repeated)["0.running_mean"], before["0.running_mean"]), "moves again"


def rows_of(share, shape):
    """All rows, far from 0 against their spread, and what is made of each."""
    generator = torch.Generator().manual_seed(sum(share))
    size = (sum(share), CHANNELS, *SHAPES[shape])
    return 100 + torch.randn(size, generator=generator), torch.randn(size, generator=generator)


def passed(share, shape, rows=slice(None), dtype=torch.float32):
    """What a norm makes of some of the rows, the gradient, and the statistics."""
    norm = settled(BatchNorm(CHANNELS)).train().to(dtype)
    norm.running_mean += 100
    values, factors = (part[rows].to(dtype) for part in rows_of(SHARES[share], shape))
    values.requires_grad_()
    normed = norm(values)
    (normed * factors).sum().backward()
    gradients = {"weight": norm.weight.grad, "bias": norm.bias.grad}
    return {"normed": normed.detach(), "values": values.grad}, gradients, statistics(norm)


def main(folder):
    """Normalise as one of two processes."""
    distributed.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT // 2))
    rank = distributed.get_rank()
    told = {}
    for share, shape in CASES:
        first, second = SHARES[share]
        rows = slice(0, first) if rank == 0 else slice(first, first + second)
        for dtype in (torch.float32, torch.float64):
            told[share, shape, dtype] = passed(share, shape, rows, dtype)
    half = settled(BatchNorm(CHANNELS)).train()
    with torch.autocast("cpu", torch.bfloat16):
        values = torch.randn(5, CHANNELS).bfloat16().requires_grad_()
        normed = half(values)
    normed.float().sum().backward()
    told["half"] = normed.dtype, values.grad.dtype, half.weight.grad.dtype, half.running_mean.dtype
    torch.save(told, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("norms")
    on_processes(main, folder)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize(("share", "shape"), CASES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-11)], ids=["single", "double"])
def test_two_processes_have_the_values_gradients_and_statistics_of_one_with_all_rows(ranks, share, shape, dtype, bound):
    (first, own, so_far), (second, others, theirs) = (rank[share, shape, dtype] for rank in ranks)
    together, gradients, expected = passed(share, shape, dtype=torch.float64)
    # At 100 with a spread of 1, single precision has five digits left.
    near = {"atol": bound, "rtol": bound, "check_dtype": False}
    for name, value in together.items():
        torch.testing.assert_close(torch.cat([first[name], second[name]]), value, **near)
    for name, value in gradients.items():
        torch.testing.assert_close(own[name] + others[name], value, **near)
    for name, value in expected.items():
        assert torch.equal(so_far[name], theirs[name]), f"{name} is the same in both processes"
        torch.testing.assert_close(so_far[name], value, **near)


def test_half_precision_stays_so_and_statistics_are_single(ranks):
    assert ranks[0]["half"] == (torch.bfloat16, torch.bfloat16, torch.float32, torch.float32)
