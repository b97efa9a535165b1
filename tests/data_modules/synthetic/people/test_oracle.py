"""The oracle is exact, calibrated and the best there is, and the AUROCs expected of it are those that are found."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from data_modules.synthetic.people.circumstances import CODES
from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.oracle import (
    ARRANGEMENTS,
    HIDDEN_BY,
    LABELS,
    Arrangements,
    best_auroc,
    expected_auroc,
    expected_prevalence,
    unstated,
)
from data_modules.synthetic.people.population import PLAIN, Disparity, Population
from data_modules.synthetic.people.truth import Truth
from ecgfair.ecg import FEMALE, MALE
from ecgfair.errors import ConfigurationError

RECORDS = 12_000
HARD = Population(
    separation={"AMI": 1.5, "IMI": 1.5, "LVH": 1.0, "LAFB": 1.5, "STD_": 1.0, "CRBBB": 2.0, "AFIB": 4.0, "PVC": 4.0},
    disparities=(
        Disparity("signs", 0.6, sex="female", labels=("AMI", "AFIB")),
        Disparity("label_errors", 0.3, sex="female", labels=("IMI",)),
        Disparity("label_errors", 0.2, age=(70, 200), labels=("LVH", "PVC")),
        Disparity("prevalence", 0.5, age=(18, 60), labels=("LAFB",)),
    ),
)
"""Hard to tell, so that scores differ from each other."""
SCORED = ("AMI", "IMI", "LVH", "LAFB", "STD_", "CRBBB", "AFIB", "PVC")


@pytest.fixture(scope="module")
def many() -> list[Truth]:
    return [truth(number, 0, HARD) for number in range(1, RECORDS + 1)]


def target(many: list[Truth], code: str) -> NDArray[np.bool_]:
    return np.array([code in one.stated for one in many])


def seen(many: list[Truth], code: str) -> NDArray[np.float64]:
    """The severity as far as it shows."""
    values = np.array([one.severity[code] for one in many])
    plain = HARD.separation.get(code, CONDITIONS[code].separation)
    return values if CONDITIONS[code].graded else (values > plain / 2).astype(float)


def area_and_error(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[float, float]:
    """AUROC and its standard error after DeLong, by definition."""
    ours, theirs = score[positive], np.sort(score[~positive])
    lower, upper = np.searchsorted(theirs, ours, "left"), np.searchsorted(theirs, ours, "right")
    won = (lower + upper) / 2 / len(theirs)
    ours = np.sort(ours)
    lost = 1 - (np.searchsorted(ours, theirs, "left") + np.searchsorted(ours, theirs, "right")) / 2 / len(ours)
    area = roc_auc_score(positive, score)
    assert won.mean() == pytest.approx(area)
    return area, float(np.sqrt(won.var() / len(won) + lost.var() / len(lost)))


def brute_force(
    hidden_by: NDArray[np.bool_],
    prior: NDArray[np.float64],
    ratio: NDArray[np.float64],
    missed: NDArray[np.float64],
    invented: NDArray[np.float64],
    sets: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Sum over all conditions that may have been drawn, and what is stated of each."""
    total, stated, none = 0.0, np.zeros(len(prior)), np.zeros(len(sets))
    for drawn in product([False, True], repeat=len(prior)):
        present = np.zeros(len(prior), dtype=bool)
        hidden = np.zeros(len(prior), dtype=bool)
        for one, is_drawn in enumerate(drawn):
            hidden[one] = (hidden_by[one] & present).any()
            present[one] = is_drawn and not hidden[one]
        weight = np.where(drawn, prior, 1 - prior).prod() * np.where(present, ratio, 1).prod()
        chance = np.where(present, 1 - missed, np.where(hidden, 0, invented))
        total += weight
        stated += weight * chance
        none += weight * np.array([(1 - chance[of]).prod() for of in sets])
    return np.concatenate([stated, none]) / total


@pytest.mark.parametrize("seed", range(10))
def test_it_is_the_sum_over_all_that_may_be_true(seed: int):
    rng = np.random.default_rng(seed)
    hidden_by = np.tril(rng.random((6, 6)) < 0.4, -1)
    prior, ratio = rng.uniform(0.01, 0.6, 6), np.exp(rng.normal(0, 3, 6))
    missed = rng.uniform(0, 0.5, 6) * (rng.random(6) < 0.5)
    invented = missed * prior / (1 - prior)
    sets = rng.random((2, 6)) < 0.6
    log_present, log_absent = unstated(prior, missed, invented, sets)
    found = Arrangements(hidden_by).stated(log_present + np.log(ratio), log_absent, missed, invented)
    assert found == pytest.approx(brute_force(hidden_by, prior, ratio, missed, invented, sets), rel=1e-9)


def test_without_other_conditions_it_is_bayes_rule():
    log_present, log_absent = unstated(np.array([0.1]), np.zeros(1), np.zeros(1), np.ones((1, 1), dtype=bool))
    found = Arrangements(np.zeros((1, 1), dtype=bool)).stated(log_present + 2.0, log_absent, np.zeros(1), np.zeros(1))
    posterior = 0.1 * np.exp(2) / (0.1 * np.exp(2) + 0.9)
    assert found == pytest.approx([posterior, 1 - posterior])


def test_the_arrangements_of_the_catalogue_are_all_that_are_lawful():
    hides = np.flatnonzero(HIDDEN_BY.any(axis=0))
    among = HIDDEN_BY[np.ix_(hides, hides)]
    flags = np.array(list(product([0, 1], repeat=len(hides))))
    lawful = ~((flags @ among.T > 0) & (flags > 0)).any(axis=1)
    log_zero = np.zeros(len(CODES))
    assert ARRANGEMENTS.weights(log_zero, log_zero).shape == (lawful.sum(),)


def test_each_condition_is_hidden_by_earlier_ones_alone():
    assert not np.triu(HIDDEN_BY).any()


def test_the_label_is_stated_as_often_as_the_oracle_says(many: list[Truth]):
    for code in (*SCORED, "NORM", "SR"):
        said, was = np.array([one.oracle[code] for one in many]), target(many, code)
        order = np.argsort(said)
        for part in np.array_split(order, 8):
            error = np.sqrt((said[part] * (1 - said[part])).mean() / len(part))
            # Records of one patient are alike, so that the true error is a little larger.
            assert abs(said[part].mean() - was[part].mean()) < 4.5 * error + 1e-9, code


def test_no_other_score_of_the_same_knowledge_is_better(many: list[Truth]):
    age, male = np.array([one.age for one in many]), np.array([one.sex == MALE for one in many])
    for code in SCORED:
        positive, oracle = target(many, code), np.array([one.oracle[code] for one in many])
        area = roc_auc_score(positive, oracle)
        others = seen(many, code)
        mixes = [others, others + 0.02 * age, others + 0.3 * male, others + 0.02 * age + 0.3 * male]
        hiders = [seen(many, hider) for hider in CONDITIONS[code].hidden_by if hider in SCORED]
        mixes += [others - 0.3 * hider for hider in hiders]
        assert all(area > roc_auc_score(positive, mix) - 0.002 for mix in mixes), code
        if code != "PVC":  # of which severity tells nearly all
            assert area > roc_auc_score(positive, others) + 0.005, code


def test_the_oracle_of_normal_beats_the_product_of_the_single_ones(many: list[Truth]):
    positive = target(many, "NORM")
    single = np.prod(
        [[1 - one.oracle[code] for code in CODES if code not in ("STACH", "SBRAD")] for one in many], axis=1
    )
    assert roc_auc_score(positive, [one.oracle["NORM"] for one in many]) > roc_auc_score(positive, single) - 1e-3


def test_the_oracle_gives_probabilities_of_all_labels(many: list[Truth]):
    scores = np.array([list(one.oracle.values()) for one in many])
    assert tuple(many[0].oracle) == LABELS
    assert scores.min() >= 0
    assert scores.max() <= 1


@pytest.mark.parametrize("graded", [True, False])
@pytest.mark.parametrize("missed", [0.0, 0.3])
@pytest.mark.parametrize("plain", [None, 3.0])
def test_the_closed_form_is_what_severity_reaches(graded: bool, missed: float, plain: float | None):
    rng, records, prevalence, separation = np.random.default_rng(0), 400_000, 0.2, 1.5
    present = rng.random(records) < prevalence
    severity = rng.standard_normal(records) + separation * present
    chance = rng.random(records)
    stated = np.where(present, chance >= missed, chance < missed * prevalence / (1 - prevalence))
    score = severity if graded else (severity > (separation if plain is None else plain) / 2).astype(float)
    area, error = area_and_error(stated, score)
    assert abs(area - best_auroc(separation, graded, missed, prevalence, plain)) < 4 * error


def test_the_closed_form_needs_the_prevalence_where_labels_are_missed():
    assert best_auroc(0.0, True) == 0.5
    assert best_auroc(4.0, True) == pytest.approx(0.99766, abs=1e-5)
    with pytest.raises(ConfigurationError, match=r"missed is 0\.1 without prevalence"):
        best_auroc(2.0, True, missed=0.1)


@pytest.mark.parametrize(
    ("sex", "age"), [(None, None), ("female", None), ("male", None), (None, (70, 200)), ("female", (50, 70))]
)
def test_the_expected_values_of_a_group_are_found_in_it(many: list[Truth], sex, age):
    group = np.array(
        [
            (sex is None or one.sex == {"female": FEMALE, "male": MALE}[sex])
            and (age is None or age[0] <= one.age < age[1])
            for one in many
        ]
    )
    for code in SCORED:
        positive = target(many, code)[group]
        area, error = area_and_error(positive, seen(many, code)[group])
        assert abs(area - expected_auroc(HARD, code, sex, age)) < 4 * error, code
        share = expected_prevalence(HARD, code, sex, age)
        assert abs(positive.mean() - share) < 4.5 * np.sqrt(share * (1 - share) / group.sum()), code


def test_where_all_people_are_alike_the_mixture_is_the_closed_form():
    for code, one in CONDITIONS.items():
        if one.graded:
            assert expected_auroc(PLAIN, code, "female", (40, 60)) == pytest.approx(best_auroc(one.separation, True))
    assert expected_auroc(HARD, "AMI", "female") == pytest.approx(best_auroc(1.5 * 0.4, True))
    assert expected_auroc(HARD, "AMI", "male") == pytest.approx(best_auroc(1.5, True))
    assert expected_auroc(HARD, "AFIB", "female") == pytest.approx(best_auroc(1.6, False, plain_separation=4.0))
    by_errors = best_auroc(1.5, True, 0.3, expected_prevalence(HARD, "IMI", "female"))
    assert expected_auroc(HARD, "IMI", "female") == pytest.approx(by_errors, abs=0.002)


def test_label_errors_leave_the_expected_prevalence_as_it_is():
    errors = Population(disparities=(Disparity("label_errors", 0.4, sex="female"),))
    for code in CODES:
        assert expected_prevalence(errors, code, "female") == pytest.approx(expected_prevalence(PLAIN, code, "female"))


def test_what_is_undefined_is_nan_and_unknown_codes_are_refused():
    assert np.isnan(expected_auroc(PLAIN, "AMI", age=(0, 5)))
    assert np.isnan(expected_prevalence(PLAIN, "AMI", age=(0, 5)))
    assert np.isnan(expected_auroc(Population(prevalence={"AMI": 0.0}), "AMI"))
    for code, told in (("AMY", "Did you mean 'AMI'"), ("NORM", "'NORM' is no condition")):
        with pytest.raises(ConfigurationError, match=told):
            expected_auroc(PLAIN, code)
