"""Predictions for the tests of the engine."""

import math

import torch
from hypothesis import strategies as st

from ecgfair.groups import Grouping
from ecgfair.metrics.kernels.operating_points import OperatingPoints
from ecgfair.metrics.predictions import Predictions

GROUPS = ("a", "b", "c", "unknown")


def names(labels):
    return [f"label{position}" for position in range(labels)]


def points_at(*thresholds):
    """Operating points with these thresholds; NaN is none."""
    reasons = tuple("" if math.isfinite(value) else "as the test has it" for value in thresholds)
    return OperatingPoints("youden", None, tuple(names(len(thresholds))), thresholds, reasons, "fold 9", (9,))


def random_predictions(records=300, labels=4, seed=0, skill=1.0, attributes=("site",), **more):
    """Records of two patients each, half of whose scores is the patient's; groups a to c, and some unknown."""
    generator = torch.Generator().manual_seed(seed)
    patients = torch.arange(records) // 2
    targets = (torch.rand(records, labels, generator=generator) < 0.3).float()
    noise = (
        torch.randn(records, labels, generator=generator) + torch.randn(records, labels, generator=generator)[patients]
    )
    groupings = [
        Grouping(name, GROUPS, torch.randint(0, len(GROUPS), (records,), generator=generator)[patients])
        for name in attributes
    ]
    settings = {
        "groupings": groupings,
        "patients": patients,
        "label_prevalence": [0.2, 0.05, 0.005, 0.0][:labels] + [0.2] * max(0, labels - 4),
        "operating_points": points_at(*[0.5] * labels),
        "strata": torch.randint(0, 3, (records,), generator=generator),
    }
    return Predictions(torch.sigmoid(noise + skill * targets), targets, names(labels), **{**settings, **more})


@st.composite
def small_predictions(draw, labels=2):
    """Few records with few distinct scores: ties, constant scores, groups of one class, of one record, of none."""
    records = draw(st.integers(1, 24))
    distinct = draw(st.sampled_from([1, 2, 5, 1000]))

    def column(element, width=labels):
        return [[draw(element) for _ in range(width)] for _ in range(records)]

    probabilities = torch.tensor(column(st.integers(0, distinct)), dtype=torch.float64) / distinct
    targets = torch.tensor(column(st.integers(0, 1)))
    codes = torch.tensor(column(st.integers(0, len(GROUPS) - 1), 1))[:, 0]
    return Predictions(
        probabilities,
        targets,
        names(labels),
        [Grouping("site", GROUPS, codes)],
        operating_points=points_at(*[0.5] * labels),
    )
