"""Synthetic conditions show: a small classifier learns them, nearly as well as they can be told."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.truth import Truth
from data_modules.synthetic.signals.recording import Recording, record

RECORDS = 2000
LEARNED = 1400
"""The first so many records teach, the others test: no patient is on both sides but perhaps one."""


def median_beat(made: Recording) -> NDArray[np.float64]:
    """(12, 75) millivolts from 300 ms before R to 450 ms after."""
    starts = np.rint(made.beats * 100).astype(int) - 30
    inside = starts[(starts >= 0) & (starts <= 925)]
    return np.median([made.signal[:, start : start + 75] for start in inside], axis=0) / 1000


def features(made: Recording) -> NDArray[np.float64]:
    """The median beat, how fast the heart beats, and how irregularly."""
    intervals = np.diff(made.beats)
    rate = 60 / np.mean(intervals)  # and how far it is from a usual one
    rhythm = [rate, (rate - 80) ** 2, np.std(intervals), np.ptp(intervals), np.abs(np.diff(intervals)).mean()]
    return np.concatenate([median_beat(made)[:, ::3].ravel(), rhythm])


@pytest.fixture(scope="module")
def people() -> tuple[list[Truth], NDArray[np.float64]]:
    truths = [truth(number) for number in range(1, RECORDS + 1)]
    return truths, np.stack([features(record(one)) for one in truths])


@pytest.mark.parametrize("code", ["NORM", "SR", "AMI", "IMI", "LVH", "CLBBB", "CRBBB", "AFIB", "STACH"])
def test_a_condition_is_learned_from_the_beat_and_the_rhythm(
    people: tuple[list[Truth], NDArray[np.float64]], code: str
):
    truths, seen = people
    stated = np.array([code in one.stated for one in truths])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    scores = model.fit(seen[:LEARNED], stated[:LEARNED]).predict_proba(seen[LEARNED:])[:, 1]
    best = roc_auc_score(stated[LEARNED:], [one.oracle[code] for one in truths[LEARNED:]])
    assert 0.95 < roc_auc_score(stated[LEARNED:], scores) <= best + 0.002
