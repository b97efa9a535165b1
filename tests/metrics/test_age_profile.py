import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.age_profile import COLUMNS, AgeWindows, age_profile
from ecgfair.metrics.fairness_report import MACRO
from ecgfair.metrics.predictions import Predictions

LABELS = ("common", "of_the_old")


def made(records=600, seed=0):
    """Two labels, the second without a positive below 60; the first is found worse the older the patient."""
    generator = torch.Generator().manual_seed(seed)
    age = 20 + 70 * torch.rand(records, generator=generator)
    targets = (torch.rand(records, 2, generator=generator) < 0.3).float()
    targets[:, 1] *= age >= 60
    noise = torch.randn(records, 2, generator=generator) * (0.2 + (age[:, None] - 20) / 70)
    scores = torch.sigmoid(targets - 0.5 + noise)
    return Predictions(scores, targets, LABELS, patients=torch.arange(records) // 2), age


def value(profile, start, label):
    return profile[(profile["from_age"] == start) & (profile["label"] == label)].iloc[0]


def test_each_window_has_the_auroc_of_its_records():
    predictions, age = made()
    profile = age_profile(predictions, age, AgeWindows(20, 90, 30, 10), resamples=0)
    assert tuple(profile.columns) == COLUMNS
    for start in (20, 30, 60):
        members = ((age >= start) & (age < start + 30)).numpy()
        expected = roc_auc_score(predictions.targets[members, 0], predictions.probabilities[members, 0])
        found = value(profile, start, "common")
        assert found["value"] == pytest.approx(expected)
        assert found["positives"] + found["negatives"] == members.sum()
        assert found["to_age"] == start + 30
    assert profile["low"].isna().all()


def test_a_label_without_support_in_a_window_is_undefined_there_and_says_so():
    predictions, age = made()
    found = value(age_profile(predictions, age, resamples=0), 20, "of_the_old")
    assert math.isnan(found["value"])
    assert found["reason"] == "0 positives, 5 needed"


def test_the_mean_is_over_the_same_labels_in_every_window_it_is_given_for():
    predictions, age = made()
    profile = age_profile(predictions, age, AgeWindows(20, 90, 20, 10), resamples=0)
    means = profile[profile["label"] == MACRO]
    given = means.dropna(subset="value")
    assert len(set(given["labels"])) == 1
    assert (means["value"].isna() == (means["reason"] != "")).all()
    common = profile[profile["label"] == "common"].set_index("from_age")["value"]
    if given["labels"].iloc[0] == 1:
        assert given.set_index("from_age")["value"].to_dict() == pytest.approx(common[given["from_age"]].to_dict())


def test_intervals_hold_the_value_and_narrow_with_more_patients():
    small, large = (age_profile(*made(records), resamples=200) for records in (600, 6000))
    for profile in (small, large):
        found = profile.dropna(subset="value")
        assert (found["low"] <= found["value"]).all()
        assert (found["value"] <= found["high"]).all()
    width = [(profile["high"] - profile["low"])[profile["label"] == "common"].mean() for profile in (small, large)]
    assert width[1] < width[0] / 2


def test_records_without_an_age_are_in_no_window():
    predictions, age = made()
    age[::3] = torch.nan
    known = ~age.isnan()
    part = Predictions(
        predictions.probabilities[known], predictions.targets[known], LABELS, patients=predictions.patients[known]
    )
    found, expected = (
        age_profile(one, of, resamples=0)["value"] for one, of in ((predictions, age), (part, age[known]))
    )
    np.testing.assert_array_equal(found, expected)


def test_a_label_the_model_failed_on_is_undefined_in_every_window():
    predictions, age = made()
    predictions.probabilities[7, 0] = torch.nan
    profile = age_profile(predictions, age, resamples=0)
    of_common = profile[profile["label"] == "common"]
    assert of_common["value"].isna().all()
    assert set(of_common["reason"]) == {"the probability is NaN for some record"}


@pytest.mark.parametrize("windows", [{"width": 0.0}, {"low": 90.0}, {"step": -1.0}])
def test_windows_that_can_not_be_are_refused_before_any_record_is_seen(windows):
    with pytest.raises(ConfigurationError, match="age windows"):
        AgeWindows(**windows)


def test_a_support_below_one_is_refused():
    with pytest.raises(ConfigurationError, match="min_support is 0"):
        age_profile(*made(), min_support=0)
