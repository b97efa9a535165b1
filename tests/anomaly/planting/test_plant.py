import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.measuring.measurement import measure_batch
from ecgfair.anomaly.planting.plant import PLANTED, Planted, plant, planted_benchmark
from ecgfair.anomaly.planting.subject import Planting
from ecgfair.ecg import LEADS
from ecgfair.errors import ConfigurationError
from tests.anomaly.planting.planted_cases import Drawn, dilated, drawn

OF_BEATS = ("missing_p", "widened_qrs", "st_elevation", "premature_beat")
REACH = {"missing_p": 0, "widened_qrs": 35, "st_elevation": 4, "premature_beat": 110, "lead_inversion": 0}
"""Samples at 100 Hz beyond the truth that a kind changes: the pressed ST segment, the pause, the end of the QRS."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(kind: str, ecg: Drawn, seed: int = 0, **options: object) -> Planted:
    return plant(kind, ecg.signal, ecg.beats, ecg.rate, LEADS, seeded(seed), **options)


def test_the_kinds_are_the_six_that_localisation_is_tested_with():
    assert PLANTED == (
        "missing_p", "widened_qrs", "st_elevation", "premature_beat", "lead_inversion", "noise_burst"
    )  # fmt: skip


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("rate", [100, 128, 250, 500])
def test_at_any_rate_the_signal_changes_inside_the_truth_and_keeps_its_bits_elsewhere(kind: str, rate: int):
    ecg = drawn(rate=rate)
    made = planted(kind, ecg)
    assert made.has.all()
    assert made.kind == (kind,) * 3
    different = made.signal != ecg.signal
    assert torch.equal(different, made.changed)
    assert (different & made.truth).any(dim=2)[made.truth.any(dim=2)].all()
    # A sample that is changed by exactly nothing is rare.
    assert (different & made.truth).sum() > 0.98 * made.truth.sum()
    if kind in REACH and kind != "missing_p":
        assert not (different & ~dilated(made.truth, round(REACH[kind] * rate / 100))).any()
    times = made.truth.any(dim=1, keepdim=True).expand_as(different)
    if kind in ("missing_p", "noise_burst"):  # in other leads by less than is seen
        assert not (different & ~times).any()


@pytest.mark.parametrize("kind", OF_BEATS)
@pytest.mark.parametrize("rate", [100, 500])
def test_what_is_planted_joins_without_a_step(kind: str, rate: int):
    ecg = drawn(rate=rate, noise=0.0)
    made = planted(kind, ecg)
    steps, before = made.signal.diff(dim=2).abs(), ecg.signal.diff(dim=2).abs()
    near = torch.nn.functional.max_pool1d(before, 9, stride=1, padding=4)
    joins = made.changed.any(dim=1).int().diff(dim=1).ne(0)[:, None].expand_as(steps)
    assert joins.any()
    assert (steps - near)[joins].max() < 0.02 * 100 / rate + 0.005
    # Nowhere is it steeper than a QRS complex is.
    assert steps.max() < 1.1 * before.max()


@pytest.mark.parametrize("kind", ["widened_qrs", "st_elevation"])
def test_what_ends_on_the_slope_of_a_t_wave_joins_it_without_a_step(kind: str):
    ecg = drawn(noise=0.0)
    intervals = torch.tensor([[torch.nan, torch.nan, 300.0]]).expand(3, 3)
    made = planted(kind, ecg, intervals=intervals)
    step = (made.signal - ecg.signal).diff(dim=2).abs()
    late = (made.changed[:, :, :-1] & ~made.changed[:, :, 1:]) & (ecg.signal.diff(dim=2).abs() > 0.02)
    assert late.any()
    assert step[late].max() < 0.05


@pytest.mark.parametrize("kind", PLANTED)
def test_the_same_generator_plants_the_same_and_another_seed_something_else(kind: str):
    ecg = drawn(6)
    first, again, other = planted(kind, ecg), planted(kind, ecg), planted(kind, ecg, seed=1)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in ("signal", "truth", "beats"))
    assert not torch.equal(first.truth, other.truth)


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_does_not_depend_on_the_other_records(kind: str):
    ecg = drawn(3)
    flat = ecg.signal.clone()
    flat[0] = 0
    alone = plant(kind, flat, ecg.beats, ecg.rate, LEADS, seeded())
    assert not alone.has[0]
    assert torch.equal(alone.signal[1:], planted(kind, ecg).signal[1:])


def test_inputs_are_left_as_they_were():
    ecg = drawn()
    signal, beats = ecg.signal.clone(), ecg.beats.clone()
    for kind in PLANTED:
        planted(kind, ecg)
    assert torch.equal(ecg.signal, signal)
    assert torch.equal(ecg.beats, beats)


@pytest.mark.parametrize("kind", OF_BEATS)
def test_records_without_beats_are_left_as_they_are_and_told(kind: str):
    ecg = drawn()
    beats = ecg.beats.clone()
    beats[1] = -1
    beats[2, 2:] = -1
    made = plant(kind, ecg.signal, beats, ecg.rate, LEADS, seeded())
    assert made.has.tolist() == [True, False, False]
    assert made.kind == (kind, "", "")
    assert made.why[0] == ""
    assert made.why[1] == "no R peak is known"
    assert "2 whole beats" in made.why[2] or "1 whole beats" in made.why[2]
    assert torch.equal(made.signal[1:], ecg.signal[1:])
    assert not made.truth[1:].any()
    assert torch.equal(made.beats[1:], beats[1:])


@pytest.mark.parametrize("kind", ["lead_inversion", "noise_burst"])
def test_records_without_beats_can_take_what_needs_none(kind: str):
    ecg = drawn()
    made = plant(kind, ecg.signal, torch.full((3, 5), -1), ecg.rate, LEADS, seeded())
    assert made.has.all()


def test_beats_may_come_in_any_order_and_twice():
    ecg = drawn()
    count = int((ecg.beats[0] >= 0).sum())
    mixed = torch.full((3, 40), -1)
    mixed[:, 3 : 3 + count] = ecg.beats[:, :count].flip(1)
    mixed[:, 30] = ecg.beats[:, 4]
    in_order = planted("premature_beat", ecg)
    made = plant("premature_beat", ecg.signal, mixed, ecg.rate, LEADS, seeded())
    assert torch.equal(made.signal, in_order.signal)
    assert torch.equal(made.beats[:, 3 : 3 + count].flip(1), in_order.beats[:, :count])


@pytest.mark.parametrize("kind", PLANTED)
def test_what_was_not_recorded_is_neither_changed_nor_truth(kind: str):
    ecg = drawn(4)
    recorded = torch.ones_like(ecg.signal, dtype=torch.bool)
    recorded[:, LEADS.index("V3")] = False
    recorded[:, :, 800:] = False
    signal = torch.where(recorded, ecg.signal, 0.0)
    signal[0, :, 900] = torch.nan
    made = plant(kind, signal, ecg.beats, ecg.rate, LEADS, seeded(), recorded=recorded)
    assert made.has.all()
    assert not (made.truth | made.changed)[~recorded].any()
    torch.testing.assert_close(made.signal[~recorded], signal[~recorded], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", OF_BEATS)
def test_a_single_lost_sample_anywhere_in_a_beat_does_no_harm(kind: str):
    ecg = drawn(1)
    signal = ecg.signal.expand(45, 12, 1000).clone()
    for row in range(45):  # each record lost its samples 20 ms later than the one before, in two of its beats
        signal[row, :, [360 + 2 * row, 630 + 2 * row]] = torch.nan
    every = Planting(beats_share=1.0)
    made = plant(kind, signal, ecg.beats.expand(45, 40), ecg.rate, LEADS, seeded(), planting=every)
    assert made.has.all()
    assert torch.equal(made.signal.isnan(), signal.isnan())
    assert not (made.truth | made.changed)[signal.isnan()].any()


def test_a_mask_of_one_for_all_samples_is_as_good_as_none():
    ecg = drawn()
    made = planted("st_elevation", ecg, recorded=torch.ones(3, 1, 1, dtype=torch.bool))
    assert torch.equal(made.signal, planted("st_elevation", ecg).signal)


def test_given_intervals_say_where_the_waves_are():
    ecg = drawn()
    intervals = torch.tensor([[torch.nan, 140.0, torch.nan]]).expand(3, 3)
    short, long = planted("widened_qrs", ecg), planted("widened_qrs", ecg, intervals=intervals)
    assert long.truth.sum() > 1.2 * short.truth.sum()


def test_an_unknown_kind_is_refused_with_the_nearest():
    ecg = drawn()
    with pytest.raises(ConfigurationError, match="Did you mean 'missing_p'"):
        planted("mising_p", ecg)
    with pytest.raises(ConfigurationError, match="Did you mean 'noise_burst'"):
        planted_benchmark(ecg.signal, ecg.beats, ecg.rate, LEADS, seeded(), kinds=("missing_p", "noise_brust"))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"st_leads": ("V7",)}, "st_leads"),
        ({"inverted_lead": "aVX"}, "inverted_lead"),
        ({"noise_electrode": "RL"}, "noise_electrode"),
    ],
)
def test_unknown_leads_and_electrodes_are_refused_by_name(wrong: dict[str, str], field: str):
    with pytest.raises(ConfigurationError, match=rf"Planting\.{field}"):
        planted("st_elevation", drawn(), planting=Planting(**wrong))


def test_inputs_that_do_not_fit_are_refused():
    ecg = drawn()
    with pytest.raises(ValueError, match="signal is"):
        plant("missing_p", ecg.signal[:, :3], ecg.beats, 100, LEADS, seeded())
    with pytest.raises(ValueError, match="beats is"):
        plant("missing_p", ecg.signal, ecg.beats[:2], 100, LEADS, seeded())
    with pytest.raises(ValueError, match="beats are from -1 to 1000"):
        plant("missing_p", ecg.signal, torch.where(ecg.beats == 945, 1000, ecg.beats), 100, LEADS, seeded())
    with pytest.raises(ValueError, match="sampling_rate is 20"):
        plant("missing_p", ecg.signal, ecg.beats, 20, LEADS, seeded())
    with pytest.raises(ValueError, match="intervals is"):
        planted("missing_p", ecg, intervals=torch.ones(3, 2))


def test_an_empty_batch_stays_empty():
    made = plant("missing_p", torch.zeros(0, 12, 1000), torch.zeros(0, 4, dtype=torch.int64), 100, LEADS, seeded())
    assert made.signal.shape == (0, 12, 1000)
    assert made.has.shape == (0,)


def test_a_benchmark_gives_each_record_one_kind_in_turn():
    ecg = drawn(8)
    made = planted_benchmark(ecg.signal, ecg.beats, ecg.rate, LEADS, seeded())
    assert made.kind == (*PLANTED, *PLANTED[:2])
    assert made.has.all()
    some = planted_benchmark(ecg.signal, ecg.beats, ecg.rate, LEADS, seeded(), kinds=("noise_burst", "missing_p"))
    assert some.kind == ("noise_burst", "missing_p") * 4
    with pytest.raises(ConfigurationError, match="kinds is empty"):
        planted_benchmark(ecg.signal, ecg.beats, ecg.rate, LEADS, seeded(), kinds=())


def test_a_record_that_can_not_take_its_kind_takes_the_next_and_says_so():
    ecg = drawn(8, p=0.0)
    beats = ecg.beats.clone()
    beats[1] = -1
    made = planted_benchmark(ecg.signal, beats, ecg.rate, LEADS, seeded())
    assert made.kind[:2] == ("widened_qrs", "lead_inversion")
    none = planted_benchmark(ecg.signal, beats, ecg.rate, LEADS, seeded(), kinds=("missing_p",))
    assert none.kind == ("",) * 8
    assert none.why[0] == "no P wave was found"
    assert none.why[1] == "no R peak is known"


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(PLANTED), rate=st.sampled_from([50, 73, 100, 200]))
@settings(max_examples=25, deadline=None)
def test_nothing_that_comes_in_makes_a_record_change_where_it_says_it_did_not(seed: int, kind: str, rate: int):
    random = torch.Generator().manual_seed(seed)
    signal = torch.randn(2, 3, 500, generator=random) * 10 ** (3 * torch.rand(2, 3, 1, generator=random) - 2)
    signal[torch.rand(signal.shape, generator=random) < 0.001] = torch.nan
    beats = torch.randint(-1, 500, (2, 12), generator=random)
    recorded = torch.rand(2, 3, 1, generator=random) > 0.2
    made = plant(kind, signal, beats, rate, ("I", "V2", "MCL1"), random, recorded=recorded)
    same = (made.signal == signal) | (made.signal.isnan() & signal.isnan())
    assert torch.equal(~same, made.changed)
    assert torch.equal(made.has, made.truth.flatten(1).any(dim=1))
    assert torch.equal(same.flatten(1).all(dim=1) | made.has, torch.ones(2, dtype=torch.bool))
    assert torch.isfinite(made.signal[torch.isfinite(signal)]).all()
    assert [bool(why) for why in made.why] == (~made.has).tolist()
    assert int(made.beats.max()) < 500
    assert torch.equal(made.beats == -1, beats == -1)


@pytest.mark.data
def test_planted_into_real_normal_records_the_measurements_show_it(ptbxl_source: Path):
    table = pd.read_csv(ptbxl_source / "ptbxl_database.csv")
    table = table[(table.strat_fold < 10)].sort_values("ecg_id")
    normal = [ast.literal_eval(text).get("NORM", 0) == 100 for text in table.scp_codes]
    names = table[normal].head(20).filename_lr
    signals = np.stack([wfdb.rdrecord(str(ptbxl_source / name)).p_signal.T for name in names]).astype(np.float32)
    before = measure_batch(signals, LEADS, 100)
    beats = torch.full((20, 40), -1)
    for row, record in enumerate(before):
        beats[row, : len(record.beats)] = torch.from_numpy(np.asarray(record.beats, dtype=np.int64))
    every = Planting(beats_share=1.0)
    for kind in PLANTED:
        made = plant(kind, torch.from_numpy(signals), beats, 100, LEADS, seeded(), planting=every)
        assert made.has.float().mean() >= 0.95, kind
        if kind not in ("missing_p", "widened_qrs"):
            continue
        after = measure_batch(made.signal.numpy(), LEADS, 100)
        if kind == "missing_p":
            assert np.mean([record.pr is None for record in after]) > 0.5
            assert np.mean([record.pr is None for record in before]) < 0.1
        else:
            wider = [new.qrs / old.qrs for new, old in zip(after, before, strict=True) if new.qrs and old.qrs]
            assert 1.2 < np.median(wider) < 1.8
