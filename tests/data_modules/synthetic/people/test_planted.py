"""What is planted in a population appears in the project's fairness table at its true size, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from data_modules.synthetic.people.circumstances import CODES, GRADED, circumstances
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.oracle import expected_auroc, expected_prevalence
from data_modules.synthetic.people.person import TRAINING_FOLDS
from data_modules.synthetic.people.population import Disparity, Population
from data_modules.synthetic.people.truth import Truth
from data_modules.synthetic.signals.recording import record
from ecgfair.ecg import FEMALE, MALE
from tests.data_modules.synthetic.gaps import Gaps, Scored, gaps

RECORDS = 8_000
WOMEN, OLDER = "female", (65.0, 80.0)
ON_SCORES = {
    "STACH": Disparity("signs", 0.5, sex=WOMEN),
    "IMI": Disparity("label_errors", 0.3, sex=WOMEN),
    "LVH": Disparity("signs", 0.5, age=OLDER),
    "LAFB": Disparity("label_errors", 0.3, age=OLDER),
    "AFIB": Disparity("signs", 0.5, sex=WOMEN, age=OLDER),
    "STD_": Disparity("label_errors", 0.3, sex=WOMEN, age=OLDER),
}
"""Label -> what lowers its AUROC in a group. All are planted in one population, each on a label of its own."""
NOT_ON_SCORES = (
    Disparity("prevalence", 0.5, sex=WOMEN, labels=("SBRAD",)),
    Disparity("training_records", 0.5, sex=WOMEN),
    Disparity("noise", 1.0, sex=WOMEN),
)
UNTOUCHED = ("AMI", "SBRAD", "CLBBB", "PVC")
MEASURED = (*ON_SCORES, *UNTOUCHED)
WITH_NORMAL = (*ON_SCORES, "NORM", "SR")
# Often enough for narrow intervals.
PREVALENCE = {"STACH": 0.12, "LVH": 0.15, "LAFB": 0.15, "AFIB": 0.15, "STD_": 0.15, "SBRAD": 0.1}
PLAIN = Population(prevalence=PREVALENCE)
PLANTED = Population(
    prevalence=PREVALENCE,
    disparities=(*(replace(one, labels=(label,)) for label, one in ON_SCORES.items()), *NOT_ON_SCORES),
)

COMPARED = {"sex": ("female", "male"), "age": ("65-79", "40-64")}
GROUPS = {
    "female": {"sex": "female"},
    "male": {"sex": "male"},
    "65-79": {"age": OLDER},
    "40-64": {"age": (40.0, 65.0)},
}
TOUCHED = [(label, attribute) for label, one in ON_SCORES.items() for attribute in COMPARED if getattr(one, attribute)]
FAMILY = 1 - 0.05 / (len(MEASURED) * len(COMPARED))
"""Level of intervals that all hold the truth at once in 95 of 100 tables (Bonferroni)."""


def severity_as_it_shows(one: Truth, label: str) -> float:
    """Of signs that are there wholly or not at all, a reader sees no more than that."""
    place = CODES.index(label)
    if GRADED[place]:
        return 1 / (1 + np.exp(-one.severity[label]))
    return float(one.severity[label] > circumstances(PLAIN).plain_separation[place] / 2)


def oracle(one: Truth, label: str) -> float:
    return one.oracle[label]


def scored(truths: list[Truth], labels: tuple[str, ...], score: Callable[[Truth, str], float]) -> Scored:
    return Scored.of(truths, labels, np.array([[score(one, label) for label in labels] for one in truths]))


def true_gap(population: Population, label: str, attribute: str) -> float:
    first, second = (expected_auroc(population, label, **GROUPS[group]) for group in COMPARED[attribute])
    return first - second


def measure(table: Scored) -> dict[str, Gaps]:
    return {attribute: gaps(table, attribute, *groups) for attribute, groups in COMPARED.items()}


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    return [truth(number, 0, PLANTED) for number in range(1, RECORDS + 1)]


@pytest.fixture(scope="module")
def kept(truths: list[Truth]) -> list[Truth]:
    return [one for one in truths if not one.left_out]


@pytest.fixture(scope="module")
def plain() -> list[Truth]:
    return [truth(number, 0, PLAIN) for number in range(1, RECORDS + 1)]


@pytest.fixture(scope="module")
def found(truths: list[Truth]) -> dict[str, Gaps]:
    """Of all that is planted, read without a fault.

    Those left out are in, since a table is of test folds, from which nobody is left out; here all folds serve.
    """
    return measure(scored(truths, MEASURED, severity_as_it_shows))


@pytest.fixture(scope="module")
def best(truths: list[Truth]) -> Gaps:
    """Of all that is planted, by the best scores there are."""
    return gaps(scored(truths, WITH_NORMAL, oracle), "sex", *COMPARED["sex"])


@pytest.mark.parametrize(("label", "attribute"), TOUCHED)
def test_a_planted_disparity_appears_at_its_true_size(label: str, attribute: str, found: dict[str, Gaps]):
    true = true_gap(PLANTED, label, attribute)
    assert true < -0.03
    assert found[attribute].covers(label, true, FAMILY)
    assert not found[attribute].covers(label, 0.0, FAMILY), "it is told from none"
    assert not found[attribute].covers(label, 2 * true, FAMILY), "and from one of twice the size"


@pytest.mark.parametrize("attribute", COMPARED)
@pytest.mark.parametrize("label", UNTOUCHED)
def test_no_disparity_appears_on_labels_on_which_none_is_planted(label: str, attribute: str, found: dict[str, Gaps]):
    assert true_gap(PLANTED, label, attribute) == pytest.approx(0, abs=1e-12)
    assert found[attribute].covers(label, 0.0, FAMILY)
    assert abs(found[attribute].found[label]) < 0.01


@pytest.mark.parametrize("attribute", COMPARED)
def test_the_mean_gap_of_the_table_is_the_mean_of_the_true_gaps(attribute: str, found: dict[str, Gaps]):
    true = float(np.mean([true_gap(PLANTED, label, attribute) for label in MEASURED]))
    assert true < -0.03
    assert found[attribute].covers("macro", true, FAMILY)
    assert not found[attribute].covers("macro", 0.0, FAMILY)


@pytest.mark.parametrize("attribute", COMPARED)
def test_no_disparity_appears_where_none_is_planted(attribute: str, plain: list[Truth]):
    table = gaps(scored(plain, MEASURED, severity_as_it_shows), attribute, *COMPARED[attribute])
    assert [label for label in (*MEASURED, "macro") if not table.covers(label, 0.0, FAMILY)] == []
    assert max(abs(gap) for gap in table.found.values()) < 0.01


def test_intervals_of_95_percent_hold_the_true_gap_in_95_of_100_tables(truths: list[Truth]):
    """Ten tables of different patients, as the numbers of a patient's records are neighbours."""
    table = scored(truths, tuple(ON_SCORES), severity_as_it_shows)
    cuts = np.flatnonzero(np.diff(table.patients, prepend=0))[:: len(set(table.patients)) // 10 + 1]
    parts = [table.part(slice(*ends)) for ends in zip(cuts, [*cuts[1:], len(truths)], strict=True)]
    assert len(parts) == 10
    assert sum(len(set(part.patients)) for part in parts) == len(set(table.patients))
    held = [
        one.covers(label, true_gap(PLANTED, label, attribute))
        for part in parts
        for attribute, one in measure(part).items()
        for label in ON_SCORES
    ]
    low, high = binom.ppf([0.001, 0.999], len(held), 0.95)
    assert low <= sum(held) <= high, f"{sum(held)} of {len(held)}"


def promised(probabilities: np.ndarray) -> float:
    """AUROC to be expected where every record is positive with the probability that is its score."""
    positive = np.repeat([True, False], len(probabilities))
    weights = np.concatenate([probabilities, 1 - probabilities])
    return float(roc_auc_score(positive, np.tile(probabilities, 2), sample_weight=weights))


@pytest.mark.parametrize("planted", [True, False])
def test_the_oracle_has_the_gap_that_its_probabilities_promise(
    planted: bool, truths: list[Truth], plain: list[Truth], best: Gaps
):
    records = truths if planted else plain
    found = best if planted else gaps(scored(plain, WITH_NORMAL, oracle), "sex", *COMPARED["sex"])
    for label in WITH_NORMAL:
        women, men = ([oracle(one, label) for one in records if one.sex == sex] for sex in (FEMALE, MALE))
        true = promised(np.array(women)) - promised(np.array(men))
        assert found.covers(label, true, FAMILY)
        assert planted or abs(true) < 0.005


def test_the_gap_of_the_oracle_is_smaller_than_that_of_the_signs(best: Gaps):
    """It knows age, sex and other conditions, which tell something of those in whom nothing is to be seen."""
    for label in ("STACH", "IMI", "AFIB", "STD_"):
        assert true_gap(PLANTED, label, "sex") < best.found[label]
        assert best.interval(label)[1] < 0


def test_a_rarer_condition_has_less_support_and_no_gap(kept: list[Truth], plain: list[Truth], found: dict[str, Gaps]):
    for population, truths in ((PLANTED, kept), (PLAIN, plain)):
        women = np.array(["SBRAD" in one.stated for one in truths if one.sex == FEMALE])
        share = expected_prevalence(population, "SBRAD", sex="female")
        assert women.mean() == pytest.approx(share, abs=3.3 * np.sqrt(share / len(women)))
    fewer, usual = (expected_prevalence(one, "SBRAD", sex="female") for one in (PLANTED, PLAIN))
    # Women show tachycardia as often as before, but brady- and tachycardia exclude each other.
    assert fewer / usual == pytest.approx(0.5, abs=0.02)
    assert found["sex"].covers("SBRAD", 0.0)


def test_half_of_the_women_are_missing_where_models_learn_and_none_where_they_are_measured(
    truths: list[Truth], kept: list[Truth]
):
    learnt = {one.patient for one in kept if one.fold in TRAINING_FOLDS and one.sex == FEMALE}
    all_women = {one.patient for one in truths if one.fold in TRAINING_FOLDS and one.sex == FEMALE}
    assert len(learnt) / len(all_women) == pytest.approx(0.5, abs=3.3 * 0.5 / np.sqrt(len(all_women)))
    for group in ("men", "measured"):
        before, after = (
            [one for one in some if (one.sex == MALE if group == "men" else one.fold not in TRAINING_FOLDS)]
            for some in (truths, kept)
        )
        assert before == after


def test_disturbances_of_women_are_twice_as_large(truths: list[Truth], plain: list[Truth]):
    ratios: dict[int, list[float]] = {FEMALE: [], MALE: []}
    for usual, noisier in zip(plain[:60], truths[:60], strict=True):
        sizes = [
            np.std(record(one).signal.astype(float) - record(replace(one, noise=0.0)).signal)
            for one in (usual, noisier)
        ]
        ratios[usual.sex].append(sizes[1] / sizes[0])
    assert np.median(ratios[FEMALE]) == pytest.approx(2, abs=0.02)
    assert ratios[MALE] == pytest.approx(np.ones(len(ratios[MALE])), abs=0.02)
