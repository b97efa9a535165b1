import math

import numpy as np
import pytest
import torch

from ecgfair.ecg import LEADS
from ecgfair.errors import ConfigurationError
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.disturbance import mains, wander, warped, warped_times

NOTHING = {"crop_seconds": None, "lead_dropout": 0, "scaling": 0, "noise": 0}
OFF = Augmentation(**NOTHING)
EVERYTHING = {
    "crop_seconds": 1.5,
    "lead_dropout": 0.2,
    "scaling": 0.1,
    "noise": 0.02,
    "baseline_wander": 0.3,
    "powerline": 0.05,
    "time_warp": 0.1,
}
ADDED = ["noise", "baseline_wander", "powerline"]


def signal() -> torch.Tensor:
    return torch.randn(64, 12, 1000, generator=torch.Generator().manual_seed(0))


def seeded(number=1) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def only(**strengths) -> Augmentation:
    return Augmentation(**NOTHING | strengths)


def partly_recorded() -> torch.Tensor:
    recorded = torch.ones(64, 12, 1000, dtype=torch.bool)
    recorded[:, 3] = False
    recorded[:32, :, 700:] = False
    return recorded


def test_with_every_strength_off_the_signal_is_unchanged():
    assert torch.equal(OFF(signal(), 100), signal())


def test_the_augmentations_of_later_versions_are_off_unless_asked_for():
    default = Augmentation()
    assert (default.baseline_wander, default.powerline, default.time_warp) == (0, 0, 0)


def test_a_crop_is_a_window_of_the_record_of_the_length_asked_for():
    ramp = torch.arange(1000).float().expand(64, 12, 1000)
    windows = only(crop_seconds=8)(ramp, 100)
    assert windows.shape == (64, 12, 800)
    assert (windows.diff(dim=-1) == 1).all()
    assert len(windows[:, 0, 0].unique()) > 10, "windows start at different places"


def test_a_crop_longer_than_the_record_keeps_the_record():
    assert only(crop_seconds=60)(signal(), 100).shape[-1] == 1000


def test_dropped_leads_are_zero_and_one_lead_always_stays():
    dropped = only(lead_dropout=0.95)(signal(), 100)
    alive = dropped.any(dim=-1).sum(dim=1)
    assert alive.min() >= 1
    assert alive.float().mean() < 3


def test_the_lead_that_stays_is_one_that_was_recorded():
    recorded = torch.zeros(64, 12, 1, dtype=torch.bool)
    recorded[:, [2, 7]] = True
    alive = only(lead_dropout=0.95)(signal(), 100, seeded(), recorded).any(dim=-1)
    assert alive.any(dim=1).all()
    assert not alive[:, [0, 1, 3, 4, 5, 6, 8, 9, 10, 11]].any()


def test_a_record_of_which_nothing_was_recorded_is_all_zero():
    nothing = torch.zeros(64, 1, 1, dtype=torch.bool)
    assert not Augmentation(**EVERYTHING)(signal(), 100, seeded(), nothing).any()


@pytest.mark.parametrize("name", ADDED)
def test_nothing_is_added_to_a_dropped_lead(name):
    alive = only(lead_dropout=0.5, **{name: 0.1})(signal(), 100, seeded()) != 0
    assert (alive.any(dim=-1) == (alive.float().mean(dim=-1) > 0.9)).all()
    assert 0.4 < alive.any(dim=-1).float().mean() < 0.6


@pytest.mark.parametrize("name", ADDED)
def test_nothing_is_added_where_nothing_was_recorded(name):
    recorded = partly_recorded()
    missing_is_nan = signal().masked_fill(~recorded, math.nan)
    augmented = only(**{name: 0.1})(missing_is_nan, 100, seeded(), recorded)
    assert (augmented[~recorded] == 0).all()
    assert torch.equal(augmented[recorded], only(**{name: 0.1})(signal(), 100, seeded())[recorded])


def test_what_was_recorded_is_cropped_and_warped_with_the_signal():
    recorded = partly_recorded()
    ones = torch.ones(64, 12, 1000)
    settings = only(crop_seconds=5, time_warp=0.4, noise=1)
    augmented = settings(ones.masked_fill(~recorded, math.nan), 100, seeded(), recorded)
    everywhere = settings(ones, 100, seeded())
    seen = augmented != 0
    assert torch.equal(augmented[seen], everywhere[seen]), "no sample is mixed with one that was not recorded"
    assert not seen[:, 3].any()
    generator = seeded()
    start = torch.randint(501, (64, 1), generator=generator)
    position = warped_times((64, 500), 0.4, 100, generator=generator)
    # Of the first 32 records sample 699 is the last that was recorded.
    expected = (position.ceil() + start <= 699) | (torch.arange(64) >= 32)[:, None]
    assert not expected.all()
    assert torch.equal(seen[:, [0, 1, 2, 4, 11]], expected[:, None].expand(-1, 5, -1))


def test_one_flag_for_all_leads_and_samples_says_what_was_recorded_too():
    flag = torch.ones(64, 1, 1, dtype=torch.bool)
    one, other = (Augmentation(**EVERYTHING)(signal(), 100, seeded(), recorded) for recorded in (flag, None))
    assert torch.equal(one, other)


def test_scaling_is_the_same_for_all_leads_of_a_record():
    factor = only(scaling=0.1)(signal(), 100) / signal()
    torch.testing.assert_close(factor, factor[:, :1, :1].expand_as(factor))
    assert 0.05 < factor[:, 0, 0].std() < 0.15


def test_noise_has_the_standard_deviation_asked_for():
    noise = only(noise=0.02)(signal(), 100) - signal()
    assert noise.std().item() == pytest.approx(0.02, rel=0.02)


def test_where_later_augmentations_are_off_the_draws_are_those_of_the_first_version():
    augmented, generator = Augmentation()(signal(), 100, seeded()), seeded()
    start = torch.randint(201, (64,), generator=generator)
    cropped = torch.stack([record[:, first : first + 800] for record, first in zip(signal(), start, strict=True)])
    chance = torch.rand(64, 12, 1, generator=generator)
    scaled = cropped * (1 + 0.1 * torch.randn(64, 1, 1, generator=generator))
    expected = scaled + 0.02 * torch.randn(64, 12, 800, generator=generator)
    assert torch.equal(augmented, expected * (chance >= 0.1))


@pytest.mark.parametrize("name", [*EVERYTHING, "all"])
def test_one_seed_gives_one_result_and_another_seed_another(name):
    settings = Augmentation(**EVERYTHING) if name == "all" else only(**{name: EVERYTHING[name]})
    torch.manual_seed(0)
    one = settings(signal(), 500, seeded(1), partly_recorded())
    torch.manual_seed(1)
    assert torch.equal(one, settings(signal(), 500, seeded(1), partly_recorded()))
    assert not torch.equal(one, settings(signal(), 500, seeded(2), partly_recorded()))


def test_the_type_of_the_signal_is_kept_and_the_signal_is_not_written_to():
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        given = signal().to(dtype)
        before = given.clone()
        assert Augmentation(**EVERYTHING)(given, 500, seeded()).dtype == dtype
        assert torch.equal(given, before)


def test_training_in_mixed_precision_augments_as_in_full_precision():
    full = Augmentation(**EVERYTHING)(signal(), 500, seeded(), partly_recorded())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = Augmentation(**EVERYTHING)(signal(), 500, seeded(), partly_recorded())
    assert torch.equal(full, mixed)


@pytest.mark.parametrize("draw", [wander, mains])
@pytest.mark.parametrize("leads", [1, 8, 12])
def test_the_strongest_lead_of_a_record_reaches_a_height_that_is_uniform_up_to_the_one_asked_for(draw, leads):
    # 10 kHz, so that a sample lies next to each crest.
    added = draw((400, leads, 5000), 0.3, 10_000 if draw is mains else 100, generator=seeded())
    height = added.abs().amax(dim=(1, 2))
    assert height.max() <= 0.3 + 1e-6
    # The mean of 400 uniform draws has a standard deviation of 0.3 / sqrt(12 * 400) = 0.0043.
    assert height.mean().item() == pytest.approx(0.15, abs=0.015)


@pytest.mark.parametrize("draw", [wander, mains])
def test_what_is_added_keeps_the_laws_of_the_limb_leads(draw):
    leads = dict(zip(LEADS, draw((16, 12, 1000), 1.0, 500, generator=seeded()).double().unbind(dim=1), strict=True))
    one, two = leads["I"], leads["II"]
    for name, expected in {
        "III": two - one,
        "aVR": -(one + two) / 2,
        "aVL": one - two / 2,
        "aVF": two - one / 2,
    }.items():
        torch.testing.assert_close(leads[name], expected, atol=1e-5, rtol=0)
    chest = torch.stack([leads[f"V{number}"].flatten() for number in range(1, 7)])
    assert torch.linalg.matrix_rank(chest) == 6, "each chest electrode is disturbed by itself"


def test_baseline_wander_is_slow_and_differs_between_records_and_leads():
    # 100 s, so that 0.05 to 0.5 Hz is the 5th to the 50th bin, and a window against leakage.
    drawn = wander((32, 12, 10_000), 1.0, 100, generator=seeded()).double().numpy()
    power = np.abs(np.fft.rfft(drawn * np.hanning(10_000))) ** 2
    within = power[..., 3:53].sum(axis=-1) / power.sum(axis=-1)
    assert within.min() > 0.999
    shapes = (drawn / np.abs(drawn).max(axis=-1, keepdims=True)).reshape(-1, 10_000)
    correlation = np.corrcoef(shapes[:, ::50])
    assert np.abs(correlation[~np.eye(len(correlation), dtype=bool)]).mean() < 0.5


def test_mains_hum_is_50_or_60_hz_each_in_half_of_the_records():
    drawn = mains((200, 12, 500), 1.0, 500, generator=seeded()).double().numpy()
    power = np.abs(np.fft.rfft(drawn)) ** 2
    bins = power.sum(axis=1).argmax(axis=-1)
    assert set(bins) == {50, 60}
    assert 0.35 < (bins == 50).mean() < 0.65
    # Whole periods fit into a second, so all of the power lies in one bin.
    assert (power.max(axis=-1) / power.sum(axis=-1)).min() > 1 - 1e-6


@pytest.mark.parametrize(("rate", "left"), [(250, {50, 60}), (110, {50}), (100, {50}), (99, set())])
def test_mains_hum_above_half_the_sampling_rate_is_left_out(rate, left):
    drawn = mains((64, 2, 10 * rate), 1.0, rate, generator=seeded()).double().numpy()
    power = (np.abs(np.fft.rfft(drawn)) ** 2).sum(axis=1)
    assert {int(record.argmax()) / 10 for record in power if record.any()} == left


def test_a_time_warp_of_no_strength_reads_every_sample_where_it_is():
    position = warped_times((64, 1000), 0.0, 100, generator=seeded())
    assert torch.equal(position, torch.arange(1000.0).expand(64, -1))
    assert torch.equal(warped(signal(), position).signal, signal())


@pytest.mark.parametrize("change", [0.05, 0.5])
@pytest.mark.parametrize(("time", "rate"), [(1000, 100), (5000, 500), (50, 100), (2, 100), (20_000, 1000)])
def test_time_goes_forward_by_no_more_and_no_less_than_asked_for_and_the_ends_stay(change, time, rate):
    position = warped_times((64, time), change, rate, generator=seeded())
    torch.testing.assert_close(position[:, 0], torch.zeros(64))
    torch.testing.assert_close(position[:, -1], torch.full((64,), time - 1.0))
    assert ((position >= 0) & (position <= time - 1)).all()
    # Positions are float32: at 20,000 they have a grain of 0.002.
    speed, grain = position.diff(dim=1), time * 2.0**-23
    assert (speed > 0).all()
    assert speed.min() >= 1 - change - 2 * grain
    assert speed.max() <= 1 + change + 2 * grain
    if time > 2:
        strongest = (speed - 1).abs().amax(dim=1)
        assert strongest.mean().item() == pytest.approx(change / 2, rel=0.3)


def test_the_speed_of_a_warp_changes_smoothly():
    speed = warped_times((64, 1000), 0.2, 100, generator=seeded()).diff(dim=1)
    # Five sines of at least 2 s from crest to trough, each at most of the full change: d/dt <= 5 * 0.2 * pi / 2 s.
    assert speed.diff(dim=1).abs().max() <= 5 * 0.2 * math.pi / 2 / 100 + 1e-3


def test_a_record_of_one_sample_is_not_warped():
    assert torch.equal(only(time_warp=0.5)(torch.ones(3, 12, 1), 100, seeded()), torch.ones(3, 12, 1))


def test_a_warped_record_is_read_by_straight_lines_as_numpy_reads_it():
    position = warped_times((64, 1000), 0.3, 100, generator=seeded())
    augmented = only(time_warp=0.3)(signal(), 100, seeded())
    sample = np.arange(1000)
    for record, at, result in list(zip(signal(), position, augmented, strict=True))[:8]:
        for lead, values in zip(record, result, strict=True):
            np.testing.assert_allclose(values, np.interp(at, sample, lead), atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lead_dropout": 1.0},
        {"noise": -1.0},
        {"noise": math.nan},
        {"scaling": -0.1},
        {"crop_seconds": 0.0},
        {"baseline_wander": -0.1},
        {"powerline": math.inf},
        {"time_warp": -0.1},
        {"time_warp": 0.6},
        {"time_warp": math.nan},
    ],
    ids=str,
)
def test_impossible_strengths_are_refused_by_name(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Augmentation(**wrong)
