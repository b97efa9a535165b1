"""Numbers that belong to records: good ones, the same in whatever company, and torch's own of a generator."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ecgfair.signals.draws import Draws, _bits_of, _finalised, copies_of, rand, randint, randn, rows_of, slots_of

INDEX = torch.tensor([7, 0, 3, 12, 4, 5, 99, 21798])
MASK = 2**64 - 1


def source(seed=1, step=2, index=INDEX):
    return Draws.of(seed, step, index)


def many(records=400):
    return source(index=torch.arange(records))


def drawn(draws):
    """A bit of everything, in one order."""
    return [
        draws.uniform(3, 5),
        draws.normal(7),
        draws.integers(-2, 9, 4),
        draws.chance(0.3, 2, 2),
        draws.slots(3).uniform(2).view(len(draws), 3, 2),
        draws.copies(2).normal(2).view(2, len(draws), 2).transpose(0, 1),
        draws.uniform(),
    ]


def assert_same(one, other):
    assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


# Whose they are -------------------------------------------------------------------------------------------------------


def test_a_record_draws_the_same_whoever_stands_beside_it_and_wherever():
    everyone = drawn(source())
    for rows in ([0, 1, 2, 3], [4, 5, 6, 7], [2], [6, 1, 7, 0, 3, 2, 5, 4]):
        assert_same(drawn(source(index=INDEX[rows])), [part[rows] for part in everyone])


def test_the_same_step_draws_the_same_again_and_another_seed_step_or_record_draws_others():
    assert_same(drawn(source()), drawn(source()))
    of_steps = [source(seed, step).uniform(50) for seed in (1, 2, 12) for step in (0, 1, 2, 12)]
    numbers = torch.stack(of_steps).flatten(0, 1)
    assert len(numbers.unique(dim=0)) == 12 * len(INDEX)


def test_the_first_numbers_of_a_longer_row_are_those_of_a_shorter_one():
    for kind in ("uniform", "normal"):
        longer, shorter = getattr(source(), kind)(31, 2), getattr(source(), kind)(6, 2)
        assert torch.equal(longer[:, :6], shorter)
    assert torch.equal(source().chance(0.5, 31)[:, :6], source().chance(0.5, 6))
    assert torch.equal(source().integers(0, 100, 31)[:, :6], source().integers(0, 100, 6))
    assert torch.equal(source().slots(9).uniform(4).view(8, 9, 4)[:, :5], source().slots(5).uniform(4).view(8, 5, 4))


def test_every_call_draws_others_and_a_copy_goes_on_from_where_it_was_made():
    draws = source()
    first, copy, second = draws.uniform(20), draws.again(), draws.uniform(20)
    assert not torch.isin(second, first).all()
    assert torch.equal(copy.uniform(20), second)


def test_some_rows_draw_numbers_of_their_own_that_do_not_depend_on_who_else_does():
    one, other, none = source(), source(), source()
    some = one.rows(torch.tensor([1, 4, 6])).uniform(10)
    mask = torch.zeros(len(INDEX), dtype=torch.bool)
    mask[[4, 5]] = True
    assert torch.equal(other.rows(mask).uniform(10)[0], some[1])
    none.rows(torch.zeros(len(INDEX), dtype=torch.bool))
    after = one.uniform(10)
    assert torch.equal(after, other.uniform(10))
    assert torch.equal(after, none.uniform(10))
    assert not torch.isin(some, after).any(), "nor are they drawn again by all"


def test_slots_copies_and_children_of_children_are_all_different():
    draws = source()
    children = [draws.slots(3), draws.copies(3), draws.rows(torch.arange(8)), draws.rows(torch.arange(8)), draws]
    children += [children[0].slots(2), children[0].copies(2)]
    numbers = torch.cat([child.integers(0, 2**31, 4).flatten() for child in children])
    assert len(numbers.unique()) == len(numbers)


def test_slots_stand_record_by_record_and_copies_batch_by_batch():
    assert torch.equal(source().slots(3).keys.view(8, 3).T, source().copies(3).keys.view(3, 8))


# How good they are ----------------------------------------------------------------------------------------------------


def test_it_is_splitmix64_as_published():
    # The reference outputs of its generator from state 1234567 (Vigna's splitmix64.c).
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    states = [(1234567 + number * 0x9E3779B97F4A7C15) & MASK for number in range(1, 6)]
    signed = torch.tensor([state - 2**64 if state >= 2**63 else state for state in states])
    assert [int(value) & MASK for value in _finalised(signed)] == expected


def uniform_columns():
    """Uniform numbers along each direction in which a weak function would show: records, steps, calls, columns."""
    yield "columns", many(1).uniform(40_000)[0]
    yield "records", many(40_000).uniform()
    yield "records, far column", many(20_000).uniform(60)[:, -1]
    yield "steps", torch.cat([source(1, step).uniform() for step in range(2500)])
    yield "seeds", torch.cat([source(seed, 1).uniform() for seed in range(2500)])
    calls = many(10)
    yield "calls", torch.cat([calls.uniform() for _ in range(2000)])
    yield "slots", many(10).slots(2000).uniform()
    yield "copies", many(10).copies(2000).uniform()
    grandchildren = many(200)
    yield "children", torch.cat([grandchildren.rows(torch.arange(200)).slots(2).uniform() for _ in range(50)])


@pytest.mark.parametrize("values", [pytest.param(values, id=name) for name, values in uniform_columns()])
def test_numbers_are_uniform_and_neighbours_know_nothing_of_each_other(values):
    values = values.double().numpy()
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    for distance in (1, 2, 3, 10):
        assert stats.pearsonr(values[:-distance], values[distance:]).pvalue > 1e-3, distance
    pairs, _, _ = np.histogram2d(values[:-1:2], values[1::2], bins=8)
    assert stats.chisquare(pairs.flatten()).pvalue > 1e-3


def test_each_of_the_24_bits_is_one_in_half_of_the_numbers_and_goes_its_own_way():
    whole = (many(300).uniform(300).flatten() * 2**24).long()
    bits = ((whole[:, None] >> torch.arange(24)) & 1).double()
    bound = 5 / math.sqrt(len(bits))
    assert (2 * bits.mean(dim=0) - 1).abs().max() < bound
    together = torch.corrcoef(bits.T) - torch.eye(24, dtype=torch.double)
    assert together.abs().max() < bound


def test_normal_numbers_are_normal_and_those_of_a_pair_independent():
    values = many(300).normal(301)
    assert values.abs().max() < 6
    flat = values.flatten().double().numpy()
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    assert flat.mean() == pytest.approx(0, abs=0.015)
    assert flat.std() == pytest.approx(1, abs=0.015)
    first, second = values[:, :300:2].flatten().double(), values[:, 1:300:2].flatten().double()
    for power in (1, 2):
        assert stats.pearsonr(first**power, second**power).pvalue > 1e-3
    assert values.isfinite().all()


def test_whole_numbers_are_uniform_over_the_asked_ones():
    values = many(500).integers(-3, 8, 100)
    counts = torch.bincount(values.flatten() + 3, minlength=11)
    assert len(counts) == 11
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert torch.equal(many().integers(5, 6, 3), torch.full((400, 3), 5))
    greatest = many(4000).integers(0, 2**31)
    assert greatest.min() >= 0
    assert 0.999 * 2**31 < greatest.max() < 2**31


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_chance_is_as_great_as_stated(share):
    happened = many(300).chance(share, 1000).double()
    assert happened.mean().item() == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 3e5) + 1e-9)
    if 0 < share < 1:
        for distance in (1, 2, 3, 4):  # four are made of one number
            one, other = happened[:, :-distance].flatten(), happened[:, distance:].flatten()
            assert stats.pearsonr(one, other).pvalue > 1e-3


@pytest.mark.parametrize(("low", "high"), [(3, 3), (4, 1), (0, 2**31 + 1)])
def test_no_or_too_many_whole_numbers_are_refused(low, high):
    with pytest.raises(ValueError, match=f"from {low} to below {high}: expected at least one"):
        source().integers(low, high)


def test_what_a_compiler_is_told_of_the_operations_is_what_they_do():
    torch.library.opcheck(_finalised, (source().keys,))
    for dtype in (torch.int16, torch.int32, torch.int64):
        torch.library.opcheck(_bits_of, (source().keys, 7, dtype))


# Beside torch's generator ---------------------------------------------------------------------------------------------


def seeded():
    return torch.Generator().manual_seed(3)


def test_a_generator_gives_the_numbers_that_torch_draws_of_it():
    assert torch.equal(rand((4, 3), seeded()), torch.rand(4, 3, generator=seeded()))
    assert torch.equal(randn((4, 3), seeded()), torch.randn(4, 3, generator=seeded()))
    assert torch.equal(randint(2, 9, (4, 3), seeded()), torch.randint(2, 9, (4, 3), generator=seeded()))
    torch.manual_seed(5)
    default = rand((4,)), randn((4,)), randint(0, 9, (4,))
    torch.manual_seed(5)
    assert_same(default, (torch.rand(4), torch.randn(4), torch.randint(9, (4,))))


def test_records_give_numbers_of_their_own_in_the_same_shapes_and_types():
    for draw in (rand, randn, lambda *arguments: randint(0, 9, *arguments)):
        for shape in ((8,), (8, 3), (8, 1, 1), (8, 0)):
            own, plain = draw(shape, source()), draw(shape, seeded())
            assert own.shape == plain.shape
            assert own.dtype == plain.dtype


def test_numbers_are_single_precision_in_a_training_in_double_precision():
    torch.set_default_dtype(torch.float64)
    try:
        for generator in (source(), seeded()):
            assert rand((8, 2), generator).dtype == randn((8, 2), generator).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_rows_that_are_not_the_records_are_refused():
    with pytest.raises(ValueError, match="has 7 rows, the source of random numbers is one of 8 records"):
        rand((7, 3), source())


def test_a_generator_is_the_source_of_all_parts_of_records():
    generator = seeded()
    assert rows_of(generator, torch.arange(2)) is slots_of(generator, 2) is copies_of(generator, 2) is generator
    assert rows_of(None, torch.arange(2)) is None
    assert len(rows_of(source(), torch.arange(2))) == 2
    assert len(slots_of(source(), 2)) == len(copies_of(source(), 2)) == 16


def test_no_records_draw_nothing():
    nobody = source(index=torch.empty(0, dtype=torch.long))
    assert nobody.uniform(3).shape == nobody.normal(3).shape == (0, 3)
    assert nobody.slots(4).chance(0.5, 2).shape == (0, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_draws_the_same():
    here, there = source(), source(index=INDEX.cuda())
    for kind, arguments in (("uniform", (7, 5)), ("integers", (0, 99, 5)), ("chance", (0.3, 9))):
        assert torch.equal(getattr(here, kind)(*arguments), getattr(there, kind)(*arguments).cpu())
    torch.testing.assert_close(here.normal(500), there.normal(500).cpu(), atol=1e-5, rtol=1e-5)
