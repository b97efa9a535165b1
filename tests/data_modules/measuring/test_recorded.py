from __future__ import annotations

import numpy as np
import pytest

from data_modules.measuring.recorded import median_of_rows, recorded_part


def test_what_is_wholly_recorded_is_returned_as_it_is():
    signal = np.random.default_rng(0).normal(size=(3, 200)).astype(np.float32)
    part = recorded_part(signal, 100)
    assert np.array_equal(part.rows, signal)
    assert part.leads == [0, 1, 2]
    assert part.start == 0
    assert not part.gaps.any()
    assert not part.silence.any()


def test_padding_is_cut_off_and_missing_leads_are_left_out():
    signal = np.ones((3, 200))
    signal[:, :20] = signal[:, 170:] = signal[1] = np.nan
    part = recorded_part(signal, 100)
    assert part.start == 20
    assert part.leads == [0, 2]
    assert part.rows.shape == (2, 150)
    assert not part.gaps.any()


def test_a_dropout_is_bridged_by_a_straight_line_and_told():
    ramp = np.arange(200.0)
    signal = np.stack((ramp, ramp))
    signal[0, 50:60] = np.nan
    part = recorded_part(signal, 100)
    assert np.allclose(part.rows, ramp)
    assert np.flatnonzero(part.gaps).tolist() == list(range(50, 60))
    assert not part.silence.any()


def test_a_dropout_of_all_leads_is_silence():
    signal = np.zeros((2, 200))
    signal[0, 50:60] = signal[1, 55:70] = np.inf
    assert np.flatnonzero(recorded_part(signal, 100).silence).tolist() == list(range(55, 60))


def test_single_lost_samples_are_no_gap():
    signal = np.zeros((2, 200))
    signal[0, [30, 90, 91]] = np.nan
    part = recorded_part(signal, 100)
    assert np.isfinite(part.rows).all()
    assert not part.gaps.any()


def test_a_lead_that_fell_off_is_left_out_instead_of_the_beats():
    signal = np.zeros((3, 200))
    signal[2, 80:] = np.nan
    part = recorded_part(signal, 100)
    assert part.leads == [0, 1]
    assert not part.gaps.any()


@pytest.mark.parametrize("shape", [(2, 0), (0, 100), (2, 100)])
def test_nothing_recorded_has_no_leads(shape):
    part = recorded_part(np.full(shape, np.nan), 100)
    assert part.leads == []
    assert part.rows.size == 0


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_the_median_of_rows_is_numpys(count):
    rows = np.random.default_rng(count).normal(size=(count, 3, 4))
    assert np.array_equal(median_of_rows(rows), np.median(rows, axis=0))
