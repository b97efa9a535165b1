"""What disturbs a synthetic ECG, and whether it says so."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from scipy import signal

from data_modules.measuring.quality import assess
from data_modules.synthetic.people.streams import Purpose, stream
from data_modules.synthetic.signals import disturbances
from data_modules.synthetic.signals.disturbances import VISIBLE_BURST, VISIBLE_DRIFT, VISIBLE_NOISE, Problems, disturb
from data_modules.synthetic.signals.electrodes import ELECTRODES, quantise, to_leads, to_potentials
from ecgfair.ecg import LEADS
from ecgfair.errors import ConfigurationError

BEATS = np.arange(0.5, 10, 0.8)
KINDS = ("drift", "breathing", "mains", "muscle")


def heart(rate: float = 100, seconds: float = 10) -> np.ndarray:
    """Potentials of one wave and a slower one a beat, of another size in each lead."""
    after = np.arange(round(seconds * rate)) / rate - BEATS[:, None]
    beats = (np.exp(-0.5 * (after / 0.02) ** 2) + 0.3 * np.exp(-0.5 * ((after - 0.25) / 0.05) ** 2)).sum(axis=0)
    return to_potentials(np.linspace(0.5, 1.5, 8)[:, None] * beats)


def nothing(rate: float = 100, seconds: float = 10) -> np.ndarray:
    return np.zeros((len(ELECTRODES), round(seconds * rate)))


def rng(number: int) -> np.random.Generator:
    return stream(0, Purpose.DISTURBANCES, number)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Returns what leaves no disturbance but those named."""

    usual = dict(disturbances._LEVELS)

    def leave(*kinds: str) -> None:
        for kind in KINDS:
            monkeypatch.setitem(disturbances._LEVELS, kind, usual[kind] if kind in kinds else (0.0, 0.5))
        for kind, share in (("motion", "MOTION"), ("bursts", "BURSTS"), ("lead off", "LEAD_OFF")):
            monkeypatch.setattr(disturbances, share, float(kind in kinds))
        monkeypatch.setattr(disturbances, "MOST_LEAD_OFF", 1.0)

    return leave


def power(potentials: np.ndarray, rate: float, low: float, high: float) -> np.ndarray:
    """(9,) share of each electrode's power between two frequencies."""
    frequencies, density = signal.periodogram(potentials, rate, window="hann", detrend=False)
    return density[:, (frequencies >= low) & (frequencies <= high)].sum(axis=1) / density.sum(axis=1)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("drift", 0, 0.1), ("breathing", 0.14, 0.36), ("mains", 49.5, 50.5), ("muscle", 9.9, 150.1)],
)
def test_each_disturbance_is_in_its_band(only, kind: str, low: float, high: float):
    only(kind)
    added = disturb(nothing(500, 200), rng(1), 500).potentials
    assert added.std(axis=1).min() > 0
    assert power(added, 500, low, high).min() > 0.999


def test_muscle_noise_is_even_over_its_band(only):
    only("muscle")
    added = disturb(nothing(500, 200), rng(1), 500).potentials
    assert np.allclose(power(added, 500, 10, 45), 35 / 140, rtol=0.05)
    assert np.allclose(power(added, 500, 80, 115), 35 / 140, rtol=0.05)


def test_muscle_noise_is_the_same_at_a_higher_sampling_rate_but_for_what_is_beyond_the_lower_one(only):
    only("muscle")
    low, high = (disturb(nothing(rate), rng(3), rate).potentials for rate in (100, 500))
    spectrum = np.fft.rfft(high)[:, :501] / 5
    spectrum[:, 451:] = 0
    assert np.allclose(np.fft.irfft(spectrum, 1000), low, rtol=0, atol=1e-12)
    assert high.std() > 1.5 * low.std()


@pytest.mark.parametrize("kind", ["drift", "breathing", "mains", "motion"])
def test_other_disturbances_are_the_same_samples_at_a_higher_sampling_rate(only, kind: str):
    only(kind)
    low, high = (disturb(nothing(rate), rng(3), rate).potentials for rate in (100, 500))
    assert np.allclose(high[:, ::5], low, rtol=0, atol=1e-9)
    assert low.any()


def test_at_100_hz_mains_alternate_from_sample_to_sample(only):
    only("mains")
    added = disturb(nothing(), rng(1), 100).potentials
    assert np.all(added[:, 1:] * added[:, :-1] < 0, axis=1).any()


def test_below_100_hz_there_are_no_mains(only):
    only("mains")
    assert not disturb(nothing(99.0), rng(1), 99.0).potentials.any()


def test_bursts_are_louder_for_a_moment_and_in_the_band_of_muscles(only):
    only("bursts")
    added = disturb(nothing(500), rng(1), 500).potentials
    assert power(added, 500, 8, 152).min() > 0.999
    loudness = np.square(added).mean(axis=0).reshape(50, -1).mean(axis=1)
    assert loudness.max() > 3 * loudness.mean()


def test_an_electrode_that_moves_is_alone_and_comes_back_to_rest(only):
    only("motion")
    for number in range(20):
        added = disturb(nothing(100, 30), rng(number), 100).potentials
        moved = np.flatnonzero(added.any(axis=1))
        assert len(moved) == 1
        path = added[moved[0]]
        top = np.abs(path).argmax()
        # It rises to its height within 0.2 s, and if it moved early enough, it has come back at the end.
        assert top < 20 or np.abs(path[top] - path[top - 20 : top + 1]).max() > 0.5 * abs(path[top])
        last = np.flatnonzero(np.diff(np.abs(path)) > 0)[-1]
        assert last > 2000 or abs(path[-1]) < 0.001


def test_nothing_changes_at_factor_0():
    for number in range(50):
        result = disturb(heart(), rng(number), 100, 0)
        assert np.array_equal(result.potentials, heart())
        assert result.problems == Problems()


def test_twice_the_factor_is_twice_the_disturbance():
    compared = 0
    for number in range(50):
        once, twice = (disturb(heart(), rng(number), 100, factor) for factor in (1, 2))
        if not twice.problems.electrodes_problems:
            assert np.allclose(twice.potentials - heart(), 2 * (once.potentials - heart()), rtol=0, atol=1e-12)
            compared += 1
    assert compared > 40


def test_disturbances_do_not_depend_on_the_heart(only):
    only(*KINDS, "motion", "bursts")
    for number in range(10):
        alone, beside = (disturb(potentials, rng(number), 100).potentials for potentials in (nothing(), heart()))
        assert np.allclose(beside - heart(), alone, rtol=0, atol=1e-12)


def test_the_same_generator_gives_the_same_bytes_and_another_one_others():
    first, again, other = (quantise(disturb(heart(), rng(number), 100).potentials).tobytes() for number in (7, 7, 8))
    assert first == again
    assert first != other


def test_as_many_numbers_are_drawn_whatever_happens(monkeypatch):
    after = set()
    for share in (0.0, 1.0):
        for name in ("MOTION", "BURSTS", "LEAD_OFF", "MOST_LEAD_OFF"):
            monkeypatch.setattr(disturbances, name, share)
        for factor in (0, 1, 7.5):
            generator = rng(1)
            disturb(heart(), generator, 100, factor)
            after.add(generator.random())
    assert len(after) == 1


def test_an_electrode_without_contact_shows_nothing_of_the_heart_and_the_others_all_of_it(only):
    only(*KINDS, "lead off")
    whole = 0
    names = set()
    expected = {
        "RA": ("I", "II", "aVR", "aVL", "aVF"),
        "LA": ("I", "III", "aVR", "aVL", "aVF"),
        "LL": ("II", "III", "aVR", "aVL", "aVF"),
    }
    for number in range(60):
        with_heart = disturb(nothing() + 1, rng(number), 100)
        seen = np.rint(with_heart.potentials - disturb(nothing(), rng(number), 100).potentials).astype(int)
        (row,) = np.flatnonzero((seen == 0).any(axis=1))
        off = np.flatnonzero(seen[row] == 0)
        assert np.array_equal(off, np.arange(off[0], off[-1] + 1))
        assert set(np.unique(seen)) <= {0, 1}
        assert with_heart.problems.electrodes_problems == expected.get(ELECTRODES[row], (ELECTRODES[row],))
        whole += len(off) == 1000
        names.add(ELECTRODES[row])
    assert 15 < whole < 45
    assert names == set(ELECTRODES)


@pytest.mark.parametrize(("kind", "stays"), [(kind, kind in ("drift", "mains")) for kind in (*KINDS, "bursts")])
def test_an_electrode_without_contact_keeps_its_drift_and_mains_alone(only, kind: str, stays: bool):
    only("lead off")
    off = disturb(nothing() + 1, rng(1), 100).potentials == 0
    only(kind, "lead off")
    added = disturb(nothing(), rng(1), 100).potentials
    assert off.sum() > 100
    assert bool(added[off].any()) == stays
    assert added[~off].any()


def test_a_chest_lead_without_contact_is_found_flat_by_the_quality_measure(only):
    only("drift", "lead off")
    beats = np.rint(BEATS * 100).astype(int)
    found = 0
    for number in range(40):
        result = disturb(heart(), rng(number), 100)
        quality = assess(to_leads(result.potentials).astype(np.float32), LEADS, 100, beats)
        (*others, last) = result.problems.electrodes_problems
        if not others and np.ptp(result.potentials[ELECTRODES.index(last)]) < 0.05:
            assert set(quality.flat_leads + quality.interrupted_leads) <= {last}
            found += last in quality.flat_leads
    assert found > 0


@pytest.mark.parametrize(("factor", "low", "high"), [(1, 0.005, 0.016), (10, 0.08, 0.12), (1000, 0.18, 0.22)])
def test_lost_contact_grows_with_the_factor_up_to_its_limit(factor: float, low: float, high: float):
    heart_alone = nothing(50, 1)
    lost = [disturb(heart_alone, rng(number), 50, factor).problems.electrodes_problems for number in range(3000)]
    assert low < np.mean([bool(leads) for leads in lost]) < high


def test_more_noise_never_restores_a_contact():
    for number in range(200):
        lost = [disturb(nothing(50, 1), rng(number), 50, factor).problems.electrodes_problems for factor in (2, 20)]
        assert not lost[0] or lost[0] == lost[1]


@pytest.mark.parametrize(
    ("kinds", "named", "threshold", "size"),
    [
        (("drift", "breathing"), "baseline_drift", VISIBLE_DRIFT, lambda lead: np.ptp(lead)),
        (("mains", "muscle"), "static_noise", VISIBLE_NOISE, lambda lead: np.sqrt(np.mean(lead**2))),
        (("motion",), "burst_noise", VISIBLE_BURST, lambda lead: np.abs(lead).max()),
        (("bursts",), "burst_noise", VISIBLE_BURST, lambda lead: np.abs(lead).max()),
    ],
)
def test_a_disturbance_is_named_in_just_those_leads_in_which_it_is_visible(only, kinds, named, threshold, size):
    only(*kinds)
    answers = set()
    for number in range(60):
        result = disturb(nothing(), rng(number), 100, 3)
        for name, lead in zip(LEADS, to_leads(result.potentials), strict=True):
            if abs(size(lead) / threshold - 1) > 0.02:  # wander is looked at every tenth of a second
                assert (name in getattr(result.problems, named)) == (size(lead) > threshold)
                answers.add(name in getattr(result.problems, named))
        assert [kind for kind in vars(result.problems) if getattr(result.problems, kind)] in ([], [named])
    assert answers == {True, False}


def test_most_records_have_no_visible_problem_but_each_kind_is_there():
    found = [disturb(nothing(), rng(number), 100).problems for number in range(1500)]
    shares = np.mean([[bool(leads) for leads in astuple(problems)] for problems in found], axis=0)
    assert np.all((shares > 0.005) & (shares < 0.12))
    assert 0.7 < np.mean([problems == Problems() for problems in found]) < 0.95


def test_laws_hold_on_disk_whatever_disturbs(only):
    only(*KINDS, "motion", "bursts", "lead off")
    for number in range(20):
        one, two, three, avr, avl, avf = quantise(disturb(heart(), rng(number), 100, 4).potentials)[:6].astype(np.int64)
        assert np.array_equal(three, two - one)
        assert np.array_equal(2 * avr, -one - two)
        assert np.array_equal(2 * avl, one - three)
        assert np.array_equal(2 * avf, two + three)


def test_the_quality_measure_falls_as_the_factor_grows():
    beats = np.rint(BEATS * 100).astype(int)
    means = []
    for factor in (0, 1, 5, 20):
        made = [to_leads(disturb(heart(), rng(number), 100, factor).potentials) for number in range(40)]
        means.append(np.mean([assess(leads.astype(np.float32), LEADS, 100, beats).score for leads in made]))
    assert means[1] > 0.95
    assert np.diff(means)[0] < 0
    assert np.all(np.diff(means)[1:] < -0.1)


@pytest.mark.parametrize(("rate", "samples"), [(100, 1000), (500, 5000), (50, 500), (360, 1297), (257.5, 3), (100, 1)])
def test_any_rate_and_length_will_do(rate: float, samples: int):
    for number in range(5):
        result = disturb(np.zeros((9, samples)), rng(number), rate)
        assert result.potentials.shape == (9, samples)
        assert np.isfinite(result.potentials).all()


def test_the_given_potentials_are_left_as_they_are(only):
    only(*KINDS, "motion", "bursts", "lead off")
    potentials = heart()
    disturb(potentials, rng(1), 100)
    assert np.array_equal(potentials, heart())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nothing(), 100, -1), "factor is -1"),
        ((nothing(), 100, float("nan")), "factor is nan"),
        ((nothing(), 100, float("inf")), "factor is inf"),
        ((nothing(), 49, 1), "sampling_rate is 49 Hz: expected at least 50 Hz"),
        ((nothing(), float("nan"), 1), "sampling_rate is nan"),
        ((np.zeros((12, 1000)), 100, 1), r"shape \(12, 1000\): expected \(9, time\)"),
        ((np.zeros((9, 0)), 100, 1), r"shape \(9, 0\)"),
        ((np.zeros(9), 100, 1), r"shape \(9,\)"),
    ],
)
def test_what_can_not_be_disturbed_is_refused(arguments, message: str):
    potentials, rate, factor = arguments
    with pytest.raises(ConfigurationError, match=message):
        disturb(potentials, rng(1), rate, factor)
