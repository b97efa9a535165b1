import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.signals.alteration_kinds import KINDS
from ecgfair.signals.alteration_records import FAR, Records, ordered_peaks
from tests.signals.altered_cases import ecg

OF_BEATS = ("bump", "plateau", "scale", "turn", "warp")


def with_chosen(records: Records, chosen: torch.Tensor) -> Records:
    return Records(records.signal, records.peaks, chosen, records.sampling_rate, records.generator)


def valid_peaks(records: Records, row: int) -> torch.Tensor:
    return records.peaks[row][records.peaks[row] < FAR]


def r_peaks_found(signal: torch.Tensor, at: torch.Tensor) -> bool:
    """Whether lead II has its own greatest value within 250 ms at each of these samples, but for at most a sample."""
    around = [signal[max(int(p) - 12, 0) : int(p) + 13].argmax() + max(int(p) - 12, 0) - p for p in at]
    return all(abs(int(off)) <= 1 for off in around)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_alters_nearly_every_record_and_keeps_shape_and_number_type(name):
    before = ecg()
    after = KINDS[name].alter(before)
    assert after.signal.shape == before.signal.shape
    assert after.signal.dtype == torch.float32
    assert torch.isfinite(after.signal).all()
    different = (after.signal - before.signal).abs().amax(dim=(1, 2)) > 0.05
    assert different.float().mean() > 0.7


@pytest.mark.parametrize("name", KINDS)
def test_no_kind_writes_into_the_signal_it_was_given(name):
    before = ecg()
    signal, peaks = before.signal.clone(), before.peaks.clone()
    KINDS[name].alter(before)
    assert torch.equal(before.signal, signal)
    assert torch.equal(before.peaks, peaks)


@pytest.mark.parametrize("name", OF_BEATS)
def test_beats_that_are_not_chosen_are_left_to_the_last_bit(name):
    before = ecg()
    chosen = torch.zeros_like(before.chosen)
    chosen[:, 3] = True
    after = KINDS[name].alter(with_chosen(before, chosen))
    since = (torch.arange(1000) - before.peaks[:, 3:4]) / 100
    # The widest window of all: 0.55 s after the R peak, and four deviations of 0.12 s.
    far = ((since < -0.9) | (since > 1.1))[:, None].expand_as(before.signal)
    assert torch.equal(after.signal[far], before.signal[far])
    assert not torch.equal(after.signal, before.signal)


@pytest.mark.parametrize("name", OF_BEATS)
def test_without_a_chosen_beat_nothing_is_altered(name):
    before = ecg()
    after = KINDS[name].alter(with_chosen(before, torch.zeros_like(before.chosen)))
    assert torch.equal(after.signal, before.signal)


@pytest.mark.parametrize("name", ["bump", "plateau", "turn", "warp", "rhythm", "jitter", "rate"])
def test_what_happens_in_the_heart_obeys_einthoven_and_goldberger(name):
    one, two, three, avr, avl, avf = KINDS[name].alter(ecg()).signal[:, :6].unbind(dim=1)
    for lead, follows in (
        (three, two - one),
        (avr, -(one + two) / 2),
        (avl, (one - three) / 2),
        (avf, (two + three) / 2),
    ):
        torch.testing.assert_close(lead, follows, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["bump", "plateau"])
def test_a_wave_is_added_alike_to_every_beat_and_is_the_same_in_all_leads_but_for_its_size(name):
    before = ecg()
    added = KINDS[name].alter(before).signal - before.signal
    for row in range(10):
        assert torch.linalg.svdvals(added[row])[1] < 1e-4, "one wave, times one weight a lead"
        # The second beat's wave, laid over the fourth's: both have half a second of room on either side.
        lead = added[row].abs().amax(dim=1).argmax()
        second, fourth = (added[row, lead, int(p) - 25 : int(p) + 45] for p in valid_peaks(before, row)[[1, 3]])
        torch.testing.assert_close(second, fourth, atol=1e-4, rtol=0)


def test_bumps_and_plateaus_are_as_large_as_is_said():
    for name, least, most in (("bump", 0.06, 0.7), ("plateau", 0.05, 0.5)):
        before = ecg(batch=150)
        greatest = (KINDS[name].alter(before).signal - before.signal).abs().amax(dim=(1, 2))
        assert greatest.max() <= most + 1e-4
        assert greatest.quantile(0.1) < 3 * least, "faint ones are common"
        assert greatest.min() > 0.8 * least, "the top of a narrow bump may lie between two samples"


def test_scaling_is_by_one_factor_and_leaves_the_baseline_where_it_is():
    before = ecg()
    flat = Records(torch.full_like(before.signal, -0.7), before.peaks, before.chosen, 100.0, before.generator)
    torch.testing.assert_close(KINDS["scale"].alter(flat).signal, flat.signal, atol=1e-5, rtol=0)
    after = KINDS["scale"].alter(before).signal
    untouched = (after == before.signal).all(dim=-1)
    assert untouched.any(dim=1).any(), "in some records only some leads"
    assert not untouched.all(dim=1).any()


@pytest.mark.parametrize("name", ["warp", "rhythm", "jitter"])
def test_warped_time_shows_no_voltage_that_was_not_there(name):
    before = ecg()
    after = KINDS[name].alter(before).signal
    room = 0.1 if name == "jitter" else 0.0  # the ripple
    assert (after.amax(dim=-1) <= before.signal.amax(dim=-1) + room + 1e-5).all()
    assert (after.amin(dim=-1) >= before.signal.amin(dim=-1) - room - 1e-5).all()


def test_one_beat_is_moved_between_its_neighbours_and_all_others_stay():
    before = ecg()
    after = KINDS["rhythm"].alter(before)
    moved = after.peaks != before.peaks
    assert moved.sum(dim=1).tolist() == [1] * 60
    for row in range(60):
        old, new = valid_peaks(before, row), valid_peaks(after, row)
        assert (new.diff() > 0).all()
        assert not moved[row, 0]
        assert not moved[row, len(old) - 1]
        assert r_peaks_found(after.signal[row, 1], new)
        share = (new - old)[moved[row, : len(old)]].abs() / 100
        assert 0.1 < share.item() < 0.6
        beat = int(moved[row].long().argmax())
        outside = torch.cat([torch.arange(int(old[beat - 1]) + 1), torch.arange(int(old[beat + 1]), 1000)])
        assert torch.equal(after.signal[row][:, outside], before.signal[row][:, outside])
    earlier = (after.peaks < before.peaks).any(dim=1).float().mean()
    assert 0.5 < earlier < 0.9


def test_the_form_of_a_moved_qrs_is_kept_to_the_last_bit():
    before = ecg()
    after = KINDS["rhythm"].alter(before)
    for row in range(60):
        beat = int((after.peaks != before.peaks)[row].long().argmax())
        old, new = int(before.peaks[row, beat]), int(after.peaks[row, beat])
        assert torch.equal(after.signal[row, :, new - 6 : new + 9], before.signal[row, :, old - 6 : old + 9])


def test_jitter_makes_intervals_irregular_between_the_first_and_the_last_beat():
    before = ecg()
    after = KINDS["jitter"].alter(before)
    for row in range(60):
        old, new = valid_peaks(before, row), valid_peaks(after, row)
        assert old[0] == new[0]
        assert old[-1] == new[-1]
        assert (new.diff() > 40).all()
        assert r_peaks_found(after.signal[row, 1], new)
    spread = [valid_peaks(after, row).diff().float().std() for row in range(60)]
    assert sum(spread) / 60 > 12, "the intervals of the made signal have a spread of 6 samples"


def test_jitter_takes_away_the_p_wave():
    before = ecg()
    flattened = [KINDS["jitter"].alter(before) for _ in range(5)]
    area = []
    for after in flattened:
        for row in range(60):
            for peak in valid_peaks(after, row)[1:-1]:
                p_wave = after.signal[row, 1, int(peak) - 20 : int(peak) - 13]
                area.append((p_wave.amax() - p_wave.amin()).item())
    # 0.1 mV from the foot to the top of the made P wave; what is left is the ripple.
    assert sorted(area)[len(area) // 5] < 0.01


def test_a_faster_record_has_more_beats_and_a_slower_one_fewer():
    before = ecg(batch=200)
    after = KINDS["rate"].alter(before).signal[:, 1]
    high = after > 0.6
    beats = (high[:, 1:] & ~high[:, :-1]).sum(dim=1) / (before.peaks < FAR).sum(dim=1)
    assert ((beats < 0.95) | (beats > 1.05)).float().mean() > 0.9
    assert (beats > 1.05).float().mean().item() == pytest.approx(0.5, abs=0.15)
    assert beats.min() > 0.35
    assert beats.max() < 2.4


def test_the_seam_of_a_repeated_record_is_no_jump():
    before = ecg(batch=200)
    drifting = before.signal + torch.linspace(0, 2, 1000)
    after = KINDS["rate"].alter(Records(drifting, before.peaks, before.chosen, 100.0, before.generator)).signal
    # Twice the speed at most, and the drift of 2 mV taken back within 80 ms (at least 4 samples of the faster record).
    steepest = 2 * drifting.diff(dim=-1).abs().amax() + 1.5 * 2 / 4
    assert after.diff(dim=-1).abs().amax() < steepest
    quiet = after[:, 6].diff(dim=-1).abs()
    assert quiet.amax() < 1.5, "a seam without a passage would be a step of almost 2 mV in a lead without tall waves"


def test_exchanged_leads_are_the_same_leads_in_another_order():
    before = ecg(batch=200)
    after = KINDS["leads"].alter(before).signal
    seen = {"exchanged": 0, "inverted": 0, "attenuated": 0}
    for old, new in zip(before.signal, after, strict=True):
        different = [lead for lead in range(12) if not torch.equal(old[lead], new[lead])]
        assert different
        if len(different) == 2 and torch.equal(old[different], new[different[::-1]]):
            seen["exchanged"] += 1
        elif len(different) == 1 and torch.equal(old[different], -new[different]):
            seen["inverted"] += 1
        else:
            factors = new[different].abs().amax(dim=1) / old[different].abs().amax(dim=1)
            torch.testing.assert_close(factors, factors[:1].expand_as(factors))
            assert 0.1 <= factors[0] <= 0.5
            seen["attenuated"] += 1
    assert min(seen.values()) > 60


def test_one_lead_alone_is_inverted_or_attenuated():
    before = ecg(leads=1)
    factor = KINDS["leads"].alter(before).signal.amin(dim=-1) / before.signal.amin(dim=-1)
    assert (factor != 1).all()


def test_amplitude_scales_the_record_or_its_limb_or_its_chest_leads():
    before = ecg(batch=200)
    after = KINDS["amplitude"].alter(before).signal
    factor = (after.abs().amax(dim=-1) / before.signal.abs().amax(dim=-1)).double()
    limb, chest = factor[:, :6], factor[:, 6:]
    torch.testing.assert_close(limb, limb[:, :1].expand_as(limb), atol=1e-4, rtol=0)
    torch.testing.assert_close(chest, chest[:, :1].expand_as(chest), atol=1e-4, rtol=0)
    same, only_limb, only_chest = (
        (limb[:, 0] - chest[:, 0]).abs() < 1e-4,
        (chest[:, 0] - 1).abs() < 1e-4,
        (limb[:, 0] - 1).abs() < 1e-4,
    )
    assert (same | only_limb | only_chest).all()
    assert min(same.sum(), only_limb.sum(), only_chest.sum()) > 40
    greatest = torch.where(only_limb, limb[:, 0], chest[:, 0])
    assert (((greatest > 0.29) & (greatest < 0.61)) | ((greatest > 1.59) & (greatest < 3.01))).all()


def test_noise_is_one_burst_and_the_same_stretch_of_time_in_all_leads_that_have_it():
    before = ecg(batch=200)
    added = KINDS["noise"].alter(before).signal - before.signal
    noisy = added.abs() > 1e-6
    assert noisy.any(dim=-1).any(dim=-1).all()
    assert noisy.any(dim=-1).float().mean() < 0.9, "in some leads only"
    for row in noisy:
        at = row.any(dim=0).nonzero()[:, 0]
        length = (at[-1] - at[0]).item() / 100
        assert 0.15 < length < 3.1
    assert added.std(dim=-1).amax() < 0.3


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("rate", "time", "leads"), [(50, 300, 1), (250, 2500, 3), (500, 2000, 12)])
def test_other_rates_lengths_and_leads_are_served(name, rate, time, leads):
    before = ecg(batch=6, leads=leads, rate=rate, time=time)
    after = KINDS[name].alter(before).signal
    assert after.shape == before.signal.shape
    assert torch.isfinite(after).all()


@pytest.mark.parametrize("name", ["bump", "plateau", "scale", "turn"])
def test_the_same_seconds_are_altered_at_any_sampling_rate(name):
    slow, fast = ecg(batch=20, rate=100, time=1000), ecg(batch=20, rate=500, time=5000)
    # The same beats in both, so that the same draws mean the same record.
    fast = Records(fast.signal, torch.where(slow.peaks < FAR, slow.peaks * 5, FAR), slow.chosen, 500, slow.generator)
    state = slow.generator.get_state()
    at_slow = (KINDS[name].alter(slow).signal != slow.signal).any(dim=1).float().mean(dim=1)
    fast.generator.set_state(state)
    at_fast = (KINDS[name].alter(fast).signal != fast.signal).any(dim=1).float().mean(dim=1)
    torch.testing.assert_close(at_slow, at_fast, atol=0.03, rtol=0)


@pytest.mark.parametrize("name", OF_BEATS)
def test_a_lead_without_signal_gets_none_from_kinds_that_only_change_what_is_there(name):
    at = ecg()
    signal = at.signal.clone()
    signal[:, 8] = 0
    after = KINDS[name].alter(Records(signal, at.peaks, at.chosen, 100.0, at.generator)).signal
    if name in {"bump", "plateau"}:
        assert after[:, 8].abs().amax() > 0.05, "these add something"
    else:
        assert after[:, 8].abs().amax() < 1e-6


@pytest.mark.parametrize("leads", [2, 5])
def test_any_number_of_leads_are_exchanged_inverted_or_attenuated(leads):
    before = ecg(batch=200, leads=leads)
    after = KINDS["leads"].alter(before).signal
    exchanged = 0
    for old, new in zip(before.signal, after, strict=True):
        different = [lead for lead in range(leads) if not torch.equal(old[lead], new[lead])]
        if len(different) == 2 and torch.equal(old[different], new[different[::-1]]):
            exchanged += 1
            continue
        factors = (new * old).sum(dim=1) / old.square().sum(dim=1)
        torch.testing.assert_close(factors[:, None] * old, new)
        assert [f for f in factors[different].tolist() if not 0.09 < f < 0.51] in ([], [pytest.approx(-1)])
    assert exchanged / 200 == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize("name", ["rhythm", "jitter"])
def test_beats_are_moved_by_the_same_seconds_at_any_sampling_rate(name):
    slow = ecg(batch=30)
    peaks = torch.where(slow.peaks < FAR, 5 * slow.peaks, FAR)
    fast = Records(torch.zeros(30, 12, 5000), peaks, slow.chosen, 500.0, torch.Generator().manual_seed(1))
    at_slow, at_fast = KINDS[name].alter(slow).peaks, KINDS[name].alter(fast).peaks
    off = torch.where(at_slow < FAR, at_fast - 5 * at_slow, 0)
    assert not torch.equal(at_slow, slow.peaks)
    assert off.abs().max() <= 3, "half a sample of the slower one, and one of the faster"


@given(
    name=st.sampled_from(["warp", "rhythm", "jitter"]),
    intervals=st.lists(st.integers(8, 120), min_size=3, max_size=20),
    rate=st.sampled_from([50.0, 100.0, 360.5]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=80, deadline=None)
def test_time_never_turns_back(name, intervals, rate, seed):
    # What jitter flattens lies within the record, where a straight line doesn't change a ramp.
    first = round(0.3 * rate)
    time = first + sum(intervals) + 60
    peaks = ordered_peaks((first + torch.tensor(intervals).cumsum(0)).expand(3, -1), time)
    # A ramp shows which time is read at each time; it is steep, so that the ripple of jitter is nothing to it.
    ramp = (1000.0 * torch.arange(time, dtype=torch.float64)).expand(3, 1, -1)
    generator = torch.Generator().manual_seed(seed)
    shown = KINDS[name].alter(Records(ramp, peaks, peaks < FAR, rate, generator)).signal / 1000
    # Before its first and after its last sample a record stands still.
    inside = (shown > 0.001) & (shown < time - 1.001)
    assert (shown.diff(dim=-1) > -1e-3).all()
    assert (shown.diff(dim=-1)[inside[..., 1:] & inside[..., :-1]] > 0.05).all()


@given(
    name=st.sampled_from(sorted(KINDS)),
    beats=st.lists(st.integers(0, 299), min_size=3, max_size=20, unique=True),
    rate=st.sampled_from([25.0, 100.0, 360.5, 1000.0]),
    leads=st.sampled_from([1, 2, 12]),
    millivolts=st.sampled_from([0.0, 1e-6, 1.0, 30.0]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_any_beats_rate_and_voltage_give_finite_signals_and_peaks_in_order(name, beats, rate, leads, millivolts, seed):
    generator = torch.Generator().manual_seed(seed)
    signal = millivolts * torch.randn(2, leads, 300, generator=generator)
    peaks = ordered_peaks(torch.tensor([beats, beats]), 300)
    after = KINDS[name].alter(Records(signal, peaks, peaks < FAR, rate, generator))
    assert torch.isfinite(after.signal).all()
    assert after.signal.shape == signal.shape
    assert (after.peaks.diff(dim=1) >= 0).all()
    assert ((after.peaks < FAR) == (peaks < FAR)).all()
