from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.errors import ConfigurationError
from ecgfair.signals.alteration import Alteration, close_gaps
from ecgfair.signals.alteration_kinds import KINDS

NEEDS_NO_BEAT = tuple(name for name, kind in KINDS.items() if not kind.least_beats)


def batch(count: int = 64, leads: int = 12, time: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    """Records of noise with a beat each 0.8 s at 100 Hz."""
    signal = 0.5 * torch.randn(count, leads, time, generator=torch.Generator().manual_seed(0))
    beats = torch.arange(40, time - 20, 80).expand(count, -1)
    return signal, torch.nn.functional.pad(beats, (0, 3), value=-1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaps_closed_one_by_one(changed: np.ndarray, longest: int) -> np.ndarray:
    closed = changed.copy()
    at = np.flatnonzero(changed)
    for before, after in pairwise(at):
        if after - before - 1 <= longest:
            closed[before:after] = True
    return closed


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_gaps_are_closed_as_one_by_one(changed, longest):
    found = close_gaps(torch.tensor(changed)[None, None], longest)[0, 0]
    assert found.tolist() == gaps_closed_one_by_one(np.array(changed), longest).tolist()


@pytest.mark.parametrize("rate", [100, 250])
def test_changed_is_where_the_signal_differs_by_more_than_the_least_change_with_short_gaps_closed(rate):
    signal, beats = batch(16)
    altered, changed = Alteration(least_change=0.1)(signal, beats, rate, seeded())
    expected = ((altered - signal).abs() > 0.1).numpy()
    for record in range(16):
        for lead in range(12):
            one = gaps_closed_one_by_one(expected[record, lead], round(0.04 * rate))
            assert np.array_equal(changed[record, lead].numpy(), one)


def test_the_same_generator_gives_the_same_alterations_and_another_one_others():
    signal, beats = batch()
    first, again, other = (Alteration()(signal, beats, 100, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.signal, again.signal)
    assert torch.equal(first.changed, again.changed)
    assert not torch.equal(first.signal, other.signal)


def test_the_records_given_are_left_as_they_were():
    signal, beats = batch()
    copies = signal.clone(), beats.clone()
    Alteration()(signal, beats, 100, seeded())
    assert torch.equal(signal, copies[0])
    assert torch.equal(beats, copies[1])


def test_nearly_every_record_is_changed_somewhere():
    signal, beats = batch()
    assert Alteration()(signal, beats, 100, seeded()).changed.any(dim=-1).any(dim=-1).float().mean() > 0.9


def test_records_without_a_beat_are_altered_in_a_kind_that_needs_none():
    signal, beats = batch()
    without = torch.full_like(beats, -1)
    # By the same draws, so that it is the same alterations if those of beats are never drawn.
    default = Alteration(twice=0)(signal, without, 100, seeded())
    same = Alteration(kinds=dict.fromkeys(NEEDS_NO_BEAT, 1.0), twice=0)(signal, without, 100, seeded())
    assert default.changed.any(dim=-1).any(dim=-1).all()
    torch.testing.assert_close(default.signal, same.signal)


@pytest.mark.parametrize("name", sorted(set(KINDS) - set(NEEDS_NO_BEAT)))
def test_a_record_that_none_of_the_kinds_can_be_had_of_is_left_and_says_so(name):
    signal, _ = batch(4)
    for beats in (torch.full((4, 5), -1), torch.zeros(4, 0, dtype=torch.int64)):
        altered, changed = Alteration(kinds={name: 1})(signal, beats, 100, seeded())
        assert torch.equal(altered, signal)
        assert not changed.any()


@pytest.mark.parametrize("name", ["rhythm", "jitter", "rate"])
def test_kinds_of_intervals_need_three_beats(name):
    signal, _ = batch(8)
    two, three = torch.tensor([[100, 200, -1]]).expand(8, -1), torch.tensor([[100, 200, 300]]).expand(8, -1)
    alteration = Alteration(kinds={name: 1})
    assert not alteration(signal, two, 100, seeded()).changed.any()
    assert alteration(signal, three, 100, seeded()).changed.any(dim=-1).any(dim=-1).all()


def test_kinds_occur_as_often_as_is_asked_for():
    signal, beats = batch(600, leads=2, time=200)
    # Amplitude changes a record all along, and a plateau nothing that lies a second from the only beat.
    beats = torch.full_like(beats[:, :1], 30)
    altered, _ = Alteration(kinds={"amplitude": 3, "plateau": 1}, twice=0)(signal, beats, 100, seeded())
    scaled = (altered[..., 150:] != signal[..., 150:]).any(dim=-1).any(dim=-1)
    assert scaled.float().mean().item() == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize("twice", [0.0, 0.4, 1.0])
def test_the_share_asked_for_is_altered_in_two_kinds_that_differ(twice):
    signal, _ = batch(600, leads=2, time=200)
    beats = torch.full((600, 1), 30)
    altered, _ = Alteration(kinds={"amplitude": 1, "plateau": 1}, twice=twice)(signal, beats, 100, seeded())
    scaled = (altered[..., 150:] != signal[..., 150:]).any(dim=-1).any(dim=-1)
    # The ratio to the original is constant along the record if nothing but the amplitude was altered.
    ratio = altered / signal
    deflected = (ratio - ratio[..., 150:151]).abs().amax(dim=(1, 2)) > 1e-3
    assert (scaled | deflected).all()
    assert (scaled & deflected).float().mean().item() == pytest.approx(twice, abs=0.07)


def test_one_kind_alone_is_not_applied_twice():
    signal, beats = batch(200)
    altered, _ = Alteration(kinds={"leads": 1}, twice=1)(signal, beats, 100, seeded())
    once, _ = Alteration(kinds={"leads": 1}, twice=0)(signal, beats, 100, seeded())
    assert torch.equal(altered, once)


def beats_altered(some_beats: float) -> torch.Tensor:
    """The share of the beats of each record that a plateau is added to."""
    signal, beats = batch(400, leads=2)
    flat = torch.zeros_like(signal)
    altered, _ = Alteration(kinds={"plateau": 1}, some_beats=some_beats)(flat, beats, 100, seeded())
    at_beat = torch.stack([altered[..., b - 30 : b + 50].abs().amax(dim=(1, 2)) > 0.04 for b in range(40, 580, 80)])
    return at_beat.float().mean(dim=0)


def test_all_beats_are_altered_unless_some_are_asked_for():
    # A deflection may end within the next beat's stretch, so a beat may count that was not chosen, but not the reverse.
    assert (beats_altered(0.0) == 1).all()
    share = beats_altered(1.0)
    assert (share > 0).all(), "at least one beat always is"
    assert share.mean() < 0.75
    assert (beats_altered(0.3) < 1).float().mean().item() == pytest.approx(0.3, abs=0.1)


def test_rows_keep_their_place_and_do_not_depend_on_the_kinds_of_the_others():
    signal, beats = batch()
    marked = signal + 100 * torch.arange(64)[:, None, None]
    altered, _ = Alteration(kinds={"noise": 1, "bump": 1})(marked, beats, 100, seeded())
    torch.testing.assert_close((altered.mean(dim=(1, 2)) / 100).round(), torch.arange(64.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_number_type_of_the_signal_is_kept(dtype):
    signal, beats = batch(32)
    assert Alteration()(signal.to(dtype), beats, 100, seeded()).signal.dtype == dtype


def test_an_empty_batch_stays_empty():
    altered, changed = Alteration()(torch.zeros(0, 12, 100), torch.zeros(0, 4, dtype=torch.int64), 100)
    assert altered.shape == changed.shape == (0, 12, 100)


def test_an_unknown_kind_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigurationError, match=r"kinds has 'ryhthm'.* Did you mean 'rhythm'\?"):
        Alteration(kinds={"ryhthm": 1.0})


@pytest.mark.parametrize(
    "wrong",
    [
        {"kinds": {}},
        {"kinds": {"bump": 0.0}},
        {"kinds": {"bump": -1.0}},
        {"kinds": {"bump": float("nan")}},
        {"kinds": {"bump": float("inf")}},
        {"twice": 1.5},
        {"some_beats": -0.1},
        {"least_change": 0.0},
        {"least_change": float("nan")},
    ],
)
def test_impossible_values_are_refused_by_name(wrong):
    with pytest.raises(ConfigurationError, match=rf"Alteration\.{next(iter(wrong))}"):
        Alteration(**wrong)


@given(
    leads=st.sampled_from([1, 3, 12]),
    time=st.integers(2, 400),
    rate=st.sampled_from([50.0, 100.0, 500.0]),
    beats=st.lists(st.integers(-5, 450), max_size=20),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_whatever_beats_length_and_rate_the_result_is_finite_and_says_what_changed(leads, time, rate, beats, seed):
    generator = seeded(seed)
    signal = torch.randn(8, leads, time, generator=generator)
    peaks = torch.tensor([beats] * 8, dtype=torch.int64).reshape(8, -1)
    altered, changed = Alteration(twice=0.5)(signal, peaks, rate, generator)
    assert altered.shape == changed.shape == signal.shape
    assert torch.isfinite(altered).all()
    assert changed[(altered - signal).abs() > 0.05].all()


@pytest.mark.parametrize("twice", [0.0, 1.0])
def test_a_kind_of_frequency_0_never_occurs(twice):
    signal, beats = batch(100)
    none = dict.fromkeys(KINDS, 0.0)
    altered, _ = Alteration(kinds=none | {"amplitude": 1}, twice=twice)(signal, beats, 100, seeded())
    # One factor a lead and nothing else.
    factor = (altered * signal).sum(dim=-1, keepdim=True) / signal.square().sum(dim=-1, keepdim=True)
    torch.testing.assert_close(altered, factor * signal)
    assert ((factor - 1).abs() > 0.1).any(dim=1).all()


@pytest.mark.parametrize("twice", [0.0, 1.0])
def test_kinds_that_are_not_named_are_as_those_of_frequency_0(twice):
    signal, beats = batch(40)
    named = {"turn": 2.0, "rhythm": 1.0, "noise": 0.5}
    some = Alteration(kinds=named, twice=twice)(signal, beats, 100, seeded())
    rest = Alteration(kinds=dict.fromkeys(KINDS, 0.0) | named, twice=twice)(signal, beats, 100, seeded())
    assert torch.equal(some.signal, rest.signal)


def test_frequencies_are_relative():
    signal, beats = batch(40)
    one, thousand = (
        Alteration(kinds={"turn": of * 2.0, "leads": of * 1.0})(signal, beats, 100, seeded()) for of in (1, 1000)
    )
    assert torch.equal(one.signal, thousand.signal)


def test_the_order_in_which_beats_are_given_does_not_matter():
    signal, beats = batch(40)
    shuffled = beats[:, torch.randperm(beats.shape[1], generator=seeded(3))]
    assert torch.equal(
        Alteration()(signal, beats, 100, seeded()).signal, Alteration()(signal, shuffled, 100, seeded()).signal
    )


def test_with_a_generator_of_its_own_the_default_one_is_not_drawn_from():
    signal, beats = batch(40)
    state = torch.get_rng_state()
    Alteration()(signal, beats, 100, seeded())
    assert torch.equal(torch.get_rng_state(), state)


def test_kinds_of_the_heart_obey_einthoven_and_goldberger_also_two_at_a_time():
    signal, beats = batch(40)
    one, two = signal[:, 0], signal[:, 1]
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    signal = torch.cat([torch.stack(limb, dim=1), signal[:, 6:]], dim=1)
    alteration = Alteration(kinds=dict.fromkeys(("bump", "plateau", "turn", "warp"), 1.0), twice=1)
    altered = alteration(signal, beats, 100, seeded()).signal
    one, two = altered[:, 0], altered[:, 1]
    follows = torch.stack([two - one, -(one + two) / 2, one - two / 2, two - one / 2], dim=1)
    torch.testing.assert_close(altered[:, 2:6], follows, atol=1e-4, rtol=0)


@given(st.integers(3, 9), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_beats_that_are_not_altered_are_left_to_the_last_bit(step, seed):
    # Intervals of 1.5 s or more: a plateau ends at most 0.78 s after its beat and begins at most 0.33 s before it.
    interval = 50 * step
    beats = torch.arange(50, 50 + 6 * interval, interval).expand(20, -1)
    signal = torch.randn(20, 3, 50 + 6 * interval, generator=seeded(seed))
    altered = Alteration(kinds={"plateau": 1}, some_beats=1, twice=0)(signal, beats, 100, seeded(seed)).signal
    different = (altered != signal).any(dim=1)
    near = torch.stack([different[:, max(int(b) - 33, 0) : int(b) + 79].any(dim=1) for b in beats[0]], dim=1)
    assert near.any(dim=1).all()
    assert not near.all()
    far = torch.stack([different[:, int(b) + 79 : int(b) + interval - 33].any(dim=1) for b in beats[0]], dim=1)
    assert not far.any()


def test_each_beat_has_one_chance_of_a_tenth_to_a_half_where_only_some_are_altered():
    beats = torch.arange(50, 950, 150).expand(500, -1)
    signal = torch.randn(500, 1, 950, generator=seeded())
    altered = Alteration(kinds={"plateau": 1}, some_beats=1, twice=0)(signal, beats, 100, seeded()).signal
    different = (altered != signal)[:, 0]
    chosen = torch.stack([different[:, int(b) - 33 : int(b) + 79].any(dim=1) for b in beats[0]], dim=1)
    # With a chance of p, uniform from 0.1 to 0.5, and one of the six beats where none had luck.
    none = (0.9**7 - 0.5**7) / 7 / 0.4
    assert chosen.float().mean().item() == pytest.approx(0.3 + none / 6, abs=0.03)
    assert (chosen.sum(dim=1) > 2).float().mean() > 0.1
