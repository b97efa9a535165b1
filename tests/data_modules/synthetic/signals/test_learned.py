"""A small classifier learns the diseases from the signals, and its fairness table shows what is planted, and no more.

It is the mean of a logistic regression and boosted trees, of the median beat and the rhythm, trained on records without
anything planted. So what it misses of the planted ones is what is not there to be seen: its true gap is that of
severity, ``expected_auroc``, as far as it finds a condition wherever it shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import find_peaks
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.oracle import expected_auroc
from data_modules.synthetic.people.person import TRAINING_FOLDS, person
from data_modules.synthetic.people.population import Disparity, Population
from data_modules.synthetic.people.truth import Truth
from data_modules.synthetic.signals.recording import to_signal
from ecgfair.ecg import LEADS
from ecgfair.metrics.kernels.auroc import auroc
from tests.data_modules.synthetic.gaps import Gaps, Scored, gaps

TRAINING = range(1, 4001)
"""Numbers of the records of which those of folds 1 to 8 train."""
TEST = range(1, 12_001)
"""Likewise of folds 9 and 10, which test: more of them, for narrow intervals."""
HEAD = ("NORM", "SR", "AMI", "IMI")
LABELS = (*HEAD, "AFIB")
PLAIN = Population(prevalence={"AFIB": 0.15})
UNSEEN = Disparity("signs", 0.5, sex="female", labels=("AFIB",))
"""Half of the women with it show nothing; the others show all of it, so nobody has to tell how plain the signs are."""
MISSTATED = Disparity("label_errors", 0.3, sex="female", labels=("IMI",))
FAMILY = 1 - 0.05 / (len(LABELS) + 1)
"""Level of intervals that all hold the truth at once in 95 of 100 tables (Bonferroni)."""

# Of 100 Hz.
_BEFORE, _AFTER = 35, 49
_INDEPENDENT = [LEADS.index(lead) for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]


def features(signal: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return the median beat of eight leads at 50 Hz, the height of its waves, and what tells of the rhythm."""
    rows = signal[_INDEPENDENT] / 1000.0
    slope = np.abs(rows[:, 2:] - rows[:, :-2]).sum(axis=0)
    activity = ndimage.uniform_filter1d(np.pad(slope, 1), 9)
    peaks, _ = find_peaks(activity, height=0.35 * np.percentile(activity, 98), distance=25)
    whole = peaks[(peaks >= _BEFORE) & (peaks < rows.shape[1] - _AFTER)]
    if len(whole) < 3:
        return np.zeros(len(_INDEPENDENT) * ((_BEFORE + _AFTER) // 2 + 1) + 8)
    beats = rows[:, whole[:, None] + np.arange(-_BEFORE, _AFTER)]
    beats -= np.median(beats, axis=2, keepdims=True)
    median = np.median(beats, axis=1)
    others = np.sqrt(((beats - median[:, None]) ** 2).mean(axis=(0, 2)))
    rr = np.diff(peaks) / 100
    usual, change = np.median(rr), np.abs(np.diff(rr))
    rhythm = [usual, rr.std() / usual, rr.min() / usual, rr.max() / usual, np.median(change) / usual]
    beatwise = [others.max(), np.median(others), len(peaks)]
    halved = (median[:, ::2] + median[:, 1::2]) / 2
    return np.concatenate([halved.ravel(), np.ptp(median, axis=1), rhythm, beatwise])


def drawn(numbers: Iterable[int], training: bool, population: Population) -> list[Truth]:
    return [truth(n, 0, population) for n in numbers if (person(n, 0).fold in TRAINING_FOLDS) == training]


def seen(truths: Iterable[Truth], known: dict[int, tuple[Truth, NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Return the features of records; of those that show the same as before, the ones known."""
    rows = []
    for one in truths:
        before, row = known.get(one.number, (None, None))
        if before is None or before.strength != one.strength:
            row = features(to_signal(one))
        known.setdefault(one.number, (one, row))
        rows.append(row)
    return np.stack(rows)


class Learned:
    """A classifier for each label, and how it scores the same test patients drawn from any population."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Truth, NDArray[np.float64]]] = {}
        truths = drawn(TRAINING, True, PLAIN)
        rows = seen(truths, {})
        self.models = {}
        for label in LABELS:
            line = make_pipeline(
                StandardScaler(),
                FunctionTransformer(np.clip, kw_args={"a_min": -8, "a_max": 8}),
                LogisticRegression(C=0.03, max_iter=500),
            )
            trees = HistGradientBoostingClassifier(max_iter=80, max_leaf_nodes=8, random_state=0)
            both = VotingClassifier([("line", line), ("trees", trees)], voting="soft")
            self.models[label] = both.fit(rows, [label in one.stated for one in truths])

    def on(self, population: Population) -> Scored:
        truths = drawn(TEST, False, population)
        rows = seen(truths, self._known)
        scores = np.stack([self.models[label].predict_proba(rows)[:, 1] for label in LABELS], axis=1)
        return Scored.of(truths, LABELS, scores)

    def gap(self, *disparities: Disparity) -> Gaps:
        return gaps(self.on(replace(PLAIN, disparities=disparities)), "sex", "female", "male")


@pytest.fixture(scope="module")
def learned() -> Learned:
    return Learned()


@pytest.mark.slow
def test_diseases_are_learned_from_their_signs(learned: Learned):
    table = learned.on(PLAIN)
    areas = auroc(torch.from_numpy(table.scores), torch.from_numpy(table.stated)).auroc[0].tolist()
    found = dict(zip(LABELS, areas, strict=True))
    assert [label for label in HEAD if found[label] <= 0.95] == [], found
    assert found["AFIB"] > 0.99, "the tests below rest on it"


@pytest.mark.slow
def test_no_disparity_appears_where_none_is_planted(learned: Learned):
    found = learned.gap()
    assert [label for label in (*LABELS, "macro") if not found.covers(label, 0.0, FAMILY)] == [], found
    assert abs(found.found["macro"]) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("disparity", [UNSEEN, MISSTATED], ids=lambda one: one.kind)
def test_a_planted_disparity_appears_at_its_true_size(disparity: Disparity, learned: Learned):
    population = replace(PLAIN, disparities=(disparity,))
    (label,) = disparity.labels
    true = expected_auroc(population, label, "female") - expected_auroc(population, label, "male")
    assert true < -0.15
    found = learned.gap(disparity)
    assert found.covers(label, true)
    assert not found.covers(label, 0.0, FAMILY)
    assert found.covers("AMI", 0.0, FAMILY), "which has nothing to do with it"


def test_of_records_that_show_the_same_the_signals_are_the_same():
    """So it is enough to draw those again that are changed."""
    numbers = [n for n in range(1, 200) if truth(n, 0, PLAIN).present != ()][:20]
    planted = replace(PLAIN, disparities=(UNSEEN, MISSTATED))
    for number in numbers:
        plain, changed = truth(number, 0, PLAIN), truth(number, 0, planted)
        if plain.strength == changed.strength:
            assert np.array_equal(to_signal(plain), to_signal(changed))
