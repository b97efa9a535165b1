import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels.age_window import age_windows, auroc_by_age


def random_problem(records=600, labels=3, resamples=4):
    generator = torch.Generator().manual_seed(0)
    scores = (torch.rand(records, labels, generator=generator) * 30).round()
    targets = (torch.rand(records, labels, generator=generator) < 0.2).long()
    age = (90 * torch.rand(records, generator=generator)).round()
    age[::10] = torch.nan
    weights = torch.ones(1 + resamples, records, dtype=torch.float64)
    weights[1:].exponential_(generator=generator)
    return scores, targets, age, weights


def test_windows_lie_within_the_interval_and_reach_both_ends():
    assert age_windows(20, 90).tolist() == [30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80]
    assert age_windows(0, 20).tolist() == [10]
    assert age_windows(0, 1, width=0.1, step=0.1).tolist() == pytest.approx(np.arange(0.05, 1, 0.1).tolist())
    assert age_windows(20, 50, width=20, step=7).tolist() == [30, 37]


def test_a_window_equals_scikit_learn_on_the_records_within():
    scores, targets, age, weights = random_problem()
    centres = age_windows(0, 90, width=20, step=10)
    found = auroc_by_age(scores, targets, age, centres, 20, weights)
    assert found.auroc.shape == (5, len(centres), 3)
    for position, centre in enumerate(centres.tolist()):
        within = (age >= centre - 10) & (age < centre + 10)
        assert torch.equal(found.positives[position], (targets[within] == 1).sum(0))
        assert torch.equal(found.negatives[position], (targets[within] == 0).sum(0))
        for label in range(3):
            for resample in range(5):
                expected = roc_auc_score(
                    targets[within, label], scores[within, label], sample_weight=weights[resample, within]
                )
                assert found.auroc[resample, position, label].item() == pytest.approx(expected, abs=1e-12)


def test_a_window_begins_at_its_lower_edge_and_ends_before_its_upper_one():
    age = torch.tensor([39.9, 40.0, 59.9, 60.0, torch.nan])
    found = auroc_by_age(torch.rand(5, 1), torch.zeros(5, 1), age, torch.tensor([50.0, 60.0]), 20, torch.ones(1, 5))
    assert found.negatives.flatten().tolist() == [2, 2]


def test_a_window_without_a_class_is_undefined_and_states_its_support():
    age = torch.tensor([30.0, 31, 70, 71])
    targets = torch.tensor([[1], [0], [1], [1]])
    scores = torch.tensor([[2.0], [1], [0], [0]])
    found = auroc_by_age(scores, targets, age, torch.tensor([30.0, 50.0, 70.0]), 10, torch.ones(1, 4))
    assert found.auroc.flatten().nan_to_num(-1).tolist() == [1, -1, -1]
    assert found.positives.flatten().tolist() == [1, 0, 2]
    assert found.negatives.flatten().tolist() == [1, 0, 0]


def test_a_model_that_fails_the_old_shows_it_along_age():
    generator = torch.Generator().manual_seed(1)
    age = 20 + 70 * torch.rand(8000, generator=generator)
    ill = torch.rand(8000, generator=generator) < 0.3
    score = torch.randn(8000, generator=generator) + 2 * ill * (age < 60)
    centres = age_windows(20, 90)
    found = auroc_by_age(score[:, None], ill[:, None], age, centres, 20, torch.ones(1, 8000)).auroc[0, :, 0]
    assert (found[centres <= 50] > 0.9).all()
    assert ((found[centres >= 70] - 0.5).abs() < 0.06).all()
    assert (found.diff()[(centres[1:] > 50) & (centres[1:] <= 70)] < 0).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((20, 30), "20 years wide and go from 20 to 30: none fits"),
        ((20, 90, 0.0), "width of the age windows is 0.0"),
        ((20, 90, 20, -1.0), "step of the age windows is -1.0"),
        ((20, 90, 20, float("nan")), "step of the age windows is nan"),
        ((20, float("inf")), "high of the age windows is inf"),
    ],
)
def test_windows_that_cannot_be_are_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        age_windows(*values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": torch.tensor([50.0, -1.0, torch.inf])}, "age is negative or infinite for 2 of 3 records"),
        ({"age": torch.tensor([50.0])}, r"age has the shape \(1,\): expected \(3,\)"),
        ({"centres": torch.zeros(0)}, "expected one or more ages"),
        ({"width": 0.0}, "width of the age windows is 0.0"),
        ({"weights": torch.ones(1, 4)}, r"weights have the shape \(1, 4\)"),
        ({"scores": torch.tensor([[torch.nan], [0.0], [0.0]])}, "1 of 3 scores are NaN"),
    ],
)
def test_inputs_without_a_meaning_are_refused_even_where_no_window_holds_them(change, message):
    inputs = {"scores": torch.zeros(3, 1), "targets": torch.zeros(3, 1), "age": torch.full((3,), torch.nan)}
    inputs |= {"centres": torch.tensor([50.0]), "width": 20.0, "weights": torch.ones(1, 3)}
    with pytest.raises((ValueError, ConfigurationError), match=message):
        auroc_by_age(**(inputs | change))
