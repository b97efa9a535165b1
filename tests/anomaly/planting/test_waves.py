import numpy as np
import pytest
from numpy.typing import NDArray

from ecgfair.anomaly.planting.waves import Waves, above_line, find_waves
from tests.anomaly.planting.planted_cases import P_WAVE, QRS, T_END, Drawn, drawn

UNKNOWN = (np.nan, np.nan, np.nan)


def found(ecg: Drawn, intervals: tuple[float, float, float] = UNKNOWN, row: int = 0) -> Waves | str:
    signal: NDArray[np.float64] = ecg.signal[row].double().numpy()
    peaks = ecg.beats[row][ecg.beats[row] >= 0].numpy()
    return find_waves(signal, np.ones(signal.shape, dtype=np.bool_), peaks, ecg.rate, intervals)


@pytest.mark.parametrize("rate", [100, 250, 500, 1000])
@pytest.mark.parametrize("rr", [0.7, 0.9, 1.3])
def test_waves_are_found_where_they_were_drawn_at_any_rate(rate: float, rr: float):
    waves = found(drawn(rate=rate, rr=rr))
    assert isinstance(waves, Waves)
    assert waves.p_onset is not None
    assert waves.p_end is not None
    assert waves.p_onset / rate == pytest.approx(P_WAVE[0], abs=0.025)
    assert waves.p_end / rate == pytest.approx(P_WAVE[1], abs=0.025)
    assert waves.qrs_onset / rate == pytest.approx(QRS[0], abs=0.015)
    assert waves.qrs_end / rate == pytest.approx(QRS[1], abs=0.02)
    assert waves.t_peak / rate == pytest.approx(0.26, abs=0.015)
    assert waves.t_end / rate == pytest.approx(T_END, abs=0.03)


def test_a_beat_without_a_p_wave_has_none():
    waves = found(drawn(p=0.0))
    assert isinstance(waves, Waves)
    assert waves.p_onset is None
    assert waves.p_end is None


@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_noise_between_beats_is_no_p_wave(noise: float):
    ecg = drawn(8, p=0.0, noise=noise)
    for row in range(8):
        waves = found(ecg, row=row)
        assert isinstance(waves, Waves)
        assert waves.p_onset is None


def test_intervals_that_are_given_are_taken():
    waves = found(drawn(rate=500), (150.0, 120.0, 380.0))
    assert isinstance(waves, Waves)
    assert waves.p_onset is not None
    assert (waves.qrs_onset - waves.p_onset) / 500 == pytest.approx(0.15, abs=0.003)
    assert (waves.qrs_end - waves.qrs_onset) / 500 == pytest.approx(0.12, abs=0.003)
    assert (waves.t_end - waves.qrs_onset) / 500 == pytest.approx(0.38, abs=0.003)


def test_too_few_beats_are_told():
    assert found(drawn(seconds=2.0)) == "2 whole beats, at least 3 are needed"


def test_what_is_above_a_line_is_zero_at_both_ends_and_for_any_line():
    rows = np.random.default_rng(0).normal(size=(3, 20))
    left = above_line(rows)
    np.testing.assert_allclose(left[:, [0, -1]], 0, atol=1e-12)
    ramp = np.linspace(2, -5, 20)
    np.testing.assert_allclose(above_line(rows + ramp), left, atol=1e-12)
