from __future__ import annotations

import numpy as np
import pytest

from data_modules.measuring import vectors


def test_two_milliseconds_are_one_sample():
    assert vectors.samples(100) == 50
    assert vectors.samples(100) * vectors.MILLISECONDS == 100


def test_length_is_the_euclidean_norm_over_leads():
    rows = np.random.default_rng(0).normal(size=(2, 4, 5, 7))
    assert np.allclose(vectors.length(rows), np.linalg.norm(rows, axis=2))


def test_take_and_at_pick_by_record():
    rows = np.arange(24.0).reshape(2, 3, 4)
    assert vectors.take(rows, np.array([[3, 0], [1, 1]])).tolist() == [
        [[3, 0], [7, 4], [11, 8]],
        [[13, 13], [17, 17], [21, 21]],
    ]
    assert vectors.at(rows[:, 0], np.array([2, 1])).tolist() == [2, 13]


def test_first_and_last_true_places():
    found = np.array([[False, True, True, False], [False, False, False, False]])
    assert vectors.first_true(found).tolist() == [1, 0]
    assert vectors.last_true(found).tolist() == [2, 3]


def test_smoothing_keeps_a_line_and_derives_its_slope():
    line = np.tile(0.5 * np.arange(100.0), (2, 3, 1))
    assert np.allclose(vectors.smooth(line, 3)[..., 20:-20], line[..., 20:-20])
    assert np.allclose(vectors.smooth(line, 3, order=1)[..., 20:-20], 0.5, atol=0.001)


def test_noise_counts_only_the_times_asked_for():
    halves = np.zeros((1, 2, 2, 10))
    halves[0, 0, 0, :5], halves[0, 1, 1, :5] = 3, 4
    assert vectors.noise_between(halves, np.arange(10)[None] < 5) == pytest.approx(2.5)
    assert vectors.noise_between(halves, np.ones((1, 10), dtype=bool)) == pytest.approx(1.25)
    assert vectors.noise_between(halves, np.zeros((1, 10), dtype=bool)) == 0
