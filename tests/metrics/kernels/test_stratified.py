import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ecgfair.metrics.kernels import stratified as module
from ecgfair.metrics.kernels.auroc import RankedScores
from ecgfair.metrics.kernels.stratified import stratified_auroc


def random_problem(records=300, labels=3, groups=2, strata=4, resamples=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.rand(records, labels, generator=generator) * 20).round()
    targets = (torch.rand(records, labels, generator=generator) < 0.3).long()
    codes, stratum = (torch.randint(0, count, (records,), generator=generator) for count in (groups, strata))
    weights = torch.ones(1 + resamples, records, dtype=torch.float64)
    weights[1:].exponential_(generator=generator)
    return scores, targets, codes, groups, stratum, weights


def by_scikit_learn(scores, targets, strata, weights):
    """One label of one group: each stratum's AUROC, weighted by its pairs."""
    won, pairs = 0.0, 0.0
    for stratum in set(strata.tolist()) - {-1}:
        members = (strata == stratum) & (weights > 0)
        truth, weight = targets[members], weights[members]
        here = weight[truth == 1].sum() * weight[truth == 0].sum()
        if here:
            won += here * roc_auc_score(truth, scores[members], sample_weight=weight)
            pairs += here
    return won / pairs if pairs else np.nan


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 25), st.integers(1, 5), st.sampled_from([0.3, 1.0]))
def test_it_is_the_auroc_of_each_stratum_by_scikit_learn_weighted_by_pairs(seed, records, strata, kept):
    scores, targets, codes, groups, stratum, weights = random_problem(records, 2, 2, strata, 1, seed)
    weights[1][torch.rand(records, generator=torch.Generator().manual_seed(seed)) > kept] = 0
    stratum = stratum - 1  # some have none
    found = stratified_auroc(scores, targets, codes, groups, stratum, weights).auroc
    for group in range(groups):
        members = codes == group
        for label in range(2):
            for resample in range(2):
                one = (scores[members, label], targets[members, label], stratum[members], weights[resample, members])
                expected = by_scikit_learn(*(part.numpy() for part in one))
                np.testing.assert_allclose(found[resample, group, label], expected, atol=1e-9)


def test_a_score_that_knows_age_alone_is_worth_nothing_among_people_of_the_same_age():
    generator = torch.Generator().manual_seed(3)
    age = 20 + 70 * torch.rand(6000, generator=generator)
    ill = (torch.rand(6000, generator=generator) < ((age - 20) / 90) ** 2).long()[:, None]
    one_group, weights = torch.zeros(6000, dtype=torch.int64), torch.ones(1, 6000)
    plain = RankedScores.of(age[:, None], ill, one_group, 1).auroc(weights).item()
    by_year = stratified_auroc(age[:, None], ill, one_group, 1, age.long(), weights).auroc.item()
    assert plain > 0.7
    assert abs(by_year - 0.5) < 0.05


def test_a_disease_that_shows_at_every_age_is_still_seen_within_strata():
    generator = torch.Generator().manual_seed(4)
    age = 20 + 70 * torch.rand(6000, generator=generator)
    ill = torch.rand(6000, generator=generator) < (age - 20) / 90
    score = torch.randn(6000, generator=generator) + 1.5 * ill  # AUROC of 0.856 at every age
    one_group = torch.zeros(6000, dtype=torch.int64)
    by_year = stratified_auroc(score[:, None], ill[:, None], one_group, 1, age.long(), torch.ones(1, 6000)).auroc
    assert abs(by_year.item() - 0.856) < 0.02


def test_one_stratum_gives_the_plain_auroc():
    scores, targets, codes, groups, _, weights = random_problem()
    plain = RankedScores.of(scores, targets, codes, groups).measure(weights)
    found = stratified_auroc(scores, targets, codes, groups, torch.full_like(codes, 7), weights)
    assert torch.equal(found.auroc, plain.auroc)
    assert torch.equal(found.pairs, plain.positives * plain.negatives)
    assert not found.positives_left_out.any()
    assert not found.negatives_left_out.any()


def test_what_has_no_partner_in_its_stratum_is_counted_as_left_out():
    strata = torch.tensor([0, 0, 1, 1, 1, 2, -1, -1])
    targets = torch.tensor([1, 0, 1, 1, 1, 0, 1, 0])[:, None]
    weights = torch.tensor([[1.0] * 8, [1, 2, 3, 4, 5, 6, 7, 8]])
    found = stratified_auroc(torch.rand(8, 1), targets, torch.zeros(8, dtype=torch.int64), 1, strata, weights)
    assert found.positives_left_out.flatten().tolist() == [4, 3 + 4 + 5 + 7]
    assert found.negatives_left_out.flatten().tolist() == [2, 6 + 8]
    assert found.pairs.flatten().tolist() == [1, 2]


def test_it_is_undefined_where_no_stratum_has_both_classes():
    strata, targets = torch.tensor([0, 0, 1, 1]), torch.tensor([[1], [1], [0], [0]])
    no_groups = torch.zeros(4, dtype=torch.int64)
    for some in (strata, torch.full_like(strata, -1)):
        found = stratified_auroc(torch.rand(4, 1), targets, no_groups, 1, some, torch.ones(1, 4))
        assert found.auroc.isnan().all()
        assert found.pairs.item() == 0
        assert found.positives_left_out.item() == found.negatives_left_out.item() == 2


def test_the_numbers_of_strata_and_the_chunks_of_weights_make_no_difference(monkeypatch):
    *problem, strata, weights = random_problem()
    expected = stratified_auroc(*problem, strata, weights).auroc
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 1)
    assert torch.equal(stratified_auroc(*problem, strata * 1000 + 3, weights).auroc, expected)


@pytest.mark.parametrize(("records", "labels", "resamples"), [(0, 3, 2), (4, 0, 2), (4, 3, 0)])
def test_a_problem_without_records_labels_or_resamples_has_a_table_of_that_shape(records, labels, resamples):
    nothing, codes = torch.zeros(records, labels), torch.zeros(records, dtype=torch.int64)
    found = stratified_auroc(nothing, nothing, codes, 2, codes, torch.ones(resamples, records))
    for part in vars(found).values():
        assert part.shape == (resamples, 2, labels)
    assert found.auroc.isnan().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strata": torch.tensor([0, -2, 1])}, "1 of 3 strata are below -1"),
        ({"strata": torch.tensor([0, 1])}, r"strata have the shape \(2,\)"),
        ({"strata": torch.tensor([0.5, 1.0, 2.0])}, "expected one whole number"),
        ({"codes": torch.tensor([0, 0, 9])}, "1 of 3 codes are no group"),
        ({"weights": torch.ones(1, 2)}, r"weights have the shape \(1, 2\)"),
        ({"scores": torch.full((3, 1), torch.nan)}, "3 of 3 scores are NaN"),
    ],
)
def test_inputs_without_a_meaning_are_refused(change, message):
    codes = torch.zeros(3, dtype=torch.int64)
    inputs = {"scores": torch.zeros(3, 1), "targets": torch.zeros(3, 1), "codes": codes, "groups": 1, "strata": codes}
    with pytest.raises(ValueError, match=message):
        stratified_auroc(**(inputs | {"weights": torch.ones(1, 3)} | change))
