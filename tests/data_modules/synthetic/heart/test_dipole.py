"""Waves of the heart's dipole, and the leads that see them."""

from __future__ import annotations

import numpy as np
import pytest

from data_modules.synthetic.heart.dipole import FRONTAL_MATRIX, LEAD_MATRIX, Waves, moving_dipole

INVERSE_DOWER = np.array(
    [  # I, II, V1 to V6
        [0.156, -0.010, -0.172, -0.074, 0.122, 0.231, 0.239, 0.194],
        [-0.227, 0.887, 0.057, -0.019, -0.106, -0.022, 0.041, 0.048],
        [0.022, 0.102, -0.229, -0.310, -0.246, -0.063, 0.055, 0.108],
    ]
)
"""Edenbrandt & Pahlm, J. Electrocardiol. 21:361, 1988: from the leads back to X, Y and Z."""


def some_waves(rng: np.random.Generator, first: float, last: float) -> Waves:
    """Waves about as wide and as far from their onset as those of a beat."""
    onsets = np.sort(rng.uniform(first, last, 12))
    return Waves(
        onsets, rng.uniform(0.06, 0.6, (12, 5)), rng.uniform(0.003, 0.025, (12, 5)), rng.standard_normal((12, 5, 3))
    )


def dense_sum(groups: list[Waves], samples: int, rate: float) -> np.ndarray:
    """Every wave at every sample."""
    seconds, dipole = np.arange(samples) / rate, np.zeros((3, samples))
    for waves in groups:
        for onset, centres, widths, vectors in zip(
            waves.onsets, waves.centres, waves.widths, waves.vectors, strict=True
        ):
            for centre, width, vector in zip(centres, widths, vectors, strict=True):
                dipole += np.outer(vector, np.exp(-0.5 * ((seconds - onset - centre) / width) ** 2))
    return dipole


@pytest.mark.parametrize("rate", [100, 250, 500])
def test_the_dipole_is_the_sum_of_its_gaussian_waves(rate: int):
    rng = np.random.default_rng(0)
    groups = [some_waves(rng, 1.0, 8.5), some_waves(rng, 0.5, 8.5)]
    assert np.abs(moving_dipole(groups, 10 * rate, rate) - dense_sum(groups, 10 * rate, rate)).max() < 1e-6


@pytest.mark.parametrize("rate", [100, 500])
def test_waves_at_the_edges_are_drawn_as_far_as_they_reach_into_the_recording(rate: int):
    rng = np.random.default_rng(1)
    groups = [some_waves(rng, -1.5, 0.2), some_waves(rng, 9.5, 11.5)]
    drawn = moving_dipole(groups, 10 * rate, rate)
    assert np.abs(drawn - dense_sum(groups, 10 * rate, rate)).max() < 1e-6
    assert np.abs(drawn[:, 0]).max() > 0.1
    assert np.abs(drawn[:, -1]).max() > 0.1


def test_waves_far_outside_the_recording_leave_no_trace():
    far = Waves(np.array([-50.0, 80.0]), np.zeros((2, 1)), np.full((2, 1), 0.01), np.ones((2, 1, 3)))
    assert not moving_dipole([far], 1000, 100).any()


def test_samples_at_the_same_time_are_the_same_at_every_sampling_rate():
    waves = some_waves(np.random.default_rng(2), -1, 11)
    assert np.abs(moving_dipole([waves], 1000, 100) - moving_dipole([waves], 5000, 500)[:, ::5]).max() < 1e-9


def test_the_leads_are_those_of_dower_whose_inverse_was_published_by_others():
    assert np.abs(np.linalg.pinv(LEAD_MATRIX) - INVERSE_DOWER).max() < 0.0015


def test_the_limb_leads_see_an_axis_in_the_frontal_plane():
    dipole = np.array([np.cos(0.3), np.sin(0.3), 0.1])
    first, second = LEAD_MATRIX[:2] @ dipole
    foot = second - first / 2
    assert np.allclose(FRONTAL_MATRIX @ dipole, [first, 2 * foot / np.sqrt(3)])
