from __future__ import annotations

import numpy as np
import pytest

from data_modules.measuring.axis import angle_between, qrs_axis

ONSET, OFFSET = np.array([230]), np.array([275])


def limb(degrees: float, baseline: float = 0.0):
    """I and aVF of a QRS complex that points to one direction, by Einthoven's triangle; (1, 2, time)."""
    wave = np.exp(-0.5 * ((np.arange(600) - 252) / 6) ** 2)
    lead_i, lead_ii = np.cos(np.radians(degrees)) * wave, np.cos(np.radians(degrees - 60)) * wave
    return np.stack((lead_i, lead_ii - lead_i / 2))[None] + baseline


@pytest.mark.parametrize("degrees", [-170, -120, -90, -45, 0, 15, 60, 90, 135, 180])
@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_the_axis_is_the_direction_in_einthovens_triangle(degrees, baseline):
    assert angle_between(qrs_axis(limb(degrees, baseline), ONSET, OFFSET), degrees) == pytest.approx(0, abs=0.1)


def test_a_missing_lead_leaves_no_axis():
    signal = limb(30)
    signal[:, 1] = np.nan
    assert np.isnan(qrs_axis(signal, ONSET, OFFSET)).all()


def test_a_complex_that_balances_has_no_axis():
    wave = np.diff(np.exp(-0.5 * ((np.arange(601) - 252.5) / 6) ** 2))
    assert np.isnan(qrs_axis(np.stack((wave, wave))[None], ONSET, OFFSET)).all()


def test_a_flat_line_has_no_axis():
    assert np.isnan(qrs_axis(np.zeros((1, 2, 600)), ONSET, OFFSET)).all()


def test_records_do_not_mix():
    together = np.concatenate((limb(-60), limb(100)))
    assert qrs_axis(together, ONSET.repeat(2), OFFSET.repeat(2)).tolist() == pytest.approx([-60, 100], abs=0.1)


def test_angles_are_compared_around_the_circle():
    first, second = np.array([170.0, -10.0, 0.0]), np.array([-170.0, 10.0, 180.0])
    assert angle_between(first, second).tolist() == [20, 20, 180]
