"""Made populations for the tests of protocols and of the evaluation of scores, and what is expected of them."""

import math

import torch
from hypothesis import strategies as st

from ecgfair.anomaly.evaluation.evaluate import evaluate_anomaly

NAMES = ("NORM", "MI", "STTC", "CD", "HYP")


def rows(*texts, names=NAMES):
    """(N, C) labels from texts such as ``"NORM+STTC"``; an empty one has none."""
    return torch.tensor([[int(name in text.split("+")) for name in names] for text in texts])


def population(records=400, seed=0, skill=1.0, of_age=0.0):
    """Scores that know the disease, or the age, or both; the old are ill more often, some twice."""
    generator = torch.Generator().manual_seed(seed)

    def uniform():
        return torch.rand(records, generator=generator, dtype=torch.float64)

    age = 20 + 70 * uniform()
    abnormal = uniform() < (age - 10) / 90
    labels = torch.zeros(records, len(NAMES), dtype=torch.int64)
    labels[~abnormal, 0] = 1
    kind = 1 + (uniform() * 4).long().clamp(max=3)
    labels[abnormal, kind[abnormal]] = 1
    noise = torch.randn(records, generator=generator, dtype=torch.float64)
    return {
        "score": noise + skill * abnormal + of_age * age,
        "abnormal": abnormal,
        "patients": torch.arange(records) // 2,
        "age": age,
        "sex": (uniform() < 0.5).long(),
        "labels": labels,
        "label_names": NAMES,
    }


@st.composite
def scored(draw, largest=30):
    """A few scores with ties, and which of them are abnormal: possibly all or none."""
    records = draw(st.integers(1, largest))
    distinct = draw(st.sampled_from([1, 3, 1000]))
    score = draw(st.lists(st.integers(-distinct, distinct), min_size=records, max_size=records))
    abnormal = draw(st.lists(st.booleans(), min_size=records, max_size=records))
    return torch.tensor(score, dtype=torch.float64) / 7, torch.tensor(abnormal)


def evaluated(case, **more):
    """The report of a population, without intervals unless they are asked for."""
    return evaluate_anomaly(**{"resamples": 0, **case, **more})


def brute_stratified(score, abnormal, strata):
    """The share of pairs of the same stratum in which the abnormal record scores higher, pair by pair."""
    won = pairs = 0.0
    for one in abnormal.nonzero()[:, 0].tolist():
        for other in (~abnormal).nonzero()[:, 0].tolist():
            if strata[one] == strata[other] != -1:
                pairs += 1
                won += float(score[one] > score[other]) + 0.5 * float(score[one] == score[other])
    return won / pairs if pairs else math.nan
