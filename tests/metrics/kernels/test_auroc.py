import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import multilabel_auroc, multilabel_average_precision

from ecgfair.metrics.kernels import auroc as module
from ecgfair.metrics.kernels.auroc import RankedScores, auroc


def by_scikit_learn(scores, targets, weights, statistic=roc_auc_score):
    """(G, C) by one call a label and group, NaN where a class is absent."""
    table = np.full((len(weights), scores.shape[1]), np.nan)
    for group, weight in enumerate(np.asarray(weights, dtype=float)):
        for label in range(scores.shape[1]):
            present = weight > 0
            if len(np.unique(targets[present, label])) == 2:
                table[group, label] = statistic(
                    targets[present, label], scores[present, label], sample_weight=weight[present]
                )
    return table


COUNTS = st.integers(0, 3)


@st.composite
def problems(draw, weight=COUNTS):
    """Few records and fewer distinct scores, so that ties, constant scores and absent classes are common."""
    records, labels, groups = draw(st.integers(0, 12)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    distinct = draw(st.sampled_from([1, 2, 5, 1000]))

    def matrix(rows, columns, element):
        return np.array([[draw(element) for _ in range(columns)] for _ in range(rows)]).reshape(rows, columns)

    scores = matrix(records, labels, st.integers(0, distinct)) / distinct
    targets = matrix(records, labels, st.integers(0, 1))
    return scores, targets, matrix(groups, records, weight)


def tensors(*arrays):
    return tuple(torch.from_numpy(np.asarray(array)) for array in arrays)


@settings(deadline=None, max_examples=150)
@given(problems())
def test_it_equals_scikit_learn_for_each_label_and_group(problem):
    table = auroc(*tensors(*problem))
    np.testing.assert_allclose(table.auroc, by_scikit_learn(*problem), atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(problems(weight=st.sampled_from([0.0, 0.1, 1 / 3, 1e-9, 7.5])))
def test_fractional_weights_equal_the_sample_weights_of_scikit_learn(problem):
    table = auroc(*tensors(*problem)).auroc
    np.testing.assert_allclose(table, by_scikit_learn(*problem), atol=1e-6)
    assert not ((table < 0) | (table > 1)).any()


@settings(deadline=None, max_examples=50)
@given(problems())
def test_a_whole_number_as_weight_is_that_many_copies_of_the_record(problem):
    scores, targets, weights = problem
    together = auroc(*tensors(*problem))
    for group, copies in enumerate(weights.astype(int)):
        repeated = auroc(*tensors(scores.repeat(copies, 0), targets.repeat(copies, 0)))
        assert torch.equal(together.auroc[group].nan_to_num(-1), repeated.auroc[0].nan_to_num(-1))
        assert torch.equal(together.positives[group], repeated.positives[0])
        assert torch.equal(together.negatives[group], repeated.negatives[0])


def random_problem(records=500, labels=7, groups=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(records, labels, generator=generator)
    targets = (torch.rand(records, labels, generator=generator) < torch.linspace(0.01, 0.5, labels)).long()
    weights = torch.randint(0, 3, (groups, records), generator=generator)
    return scores, targets, weights


def test_it_equals_torchmetrics_where_every_label_has_both_classes():
    scores, targets, _ = random_problem()
    theirs = multilabel_auroc(scores, targets, num_labels=7, average=None, thresholds=None)
    torch.testing.assert_close(auroc(scores, targets).auroc[0], theirs.double(), atol=1e-6, rtol=0)


def test_chunks_of_weights_give_the_same_bits_as_all_weights_at_once():
    scores, targets, weights = random_problem()
    at_once = auroc(scores, targets, weights)
    for chunk_elements in (1, 500, 1700):
        chunked = auroc(scores, targets, weights, chunk_elements=chunk_elements)
        assert torch.equal(chunked.auroc, at_once.auroc)
        assert torch.equal(chunked.positives, at_once.positives)


def test_the_order_of_the_records_does_not_change_a_bit():
    scores, targets, weights = random_problem()
    scores = (scores * 20).round()  # ties
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(1))
    moved = auroc(scores[order], targets[order], weights[:, order])
    assert torch.equal(moved.auroc, auroc(scores, targets, weights).auroc)


def test_a_membership_mask_selects_records():
    scores, targets, weights = random_problem()
    mask = weights > 1
    table = auroc(scores, targets, mask)
    for group, members in enumerate(mask[:5]):
        alone = auroc(scores[members], targets[members]).auroc[0]
        assert torch.equal(table.auroc[group].nan_to_num(-1), alone.nan_to_num(-1))
        assert torch.equal(table.negatives[group], (targets[members] == 0).sum(0).double())


def test_equal_scores_in_single_precision_stay_ties_in_double():
    scores = torch.tensor([[0.1], [0.1], [0.7], [0.7]])
    assert auroc(scores, torch.tensor([[0], [1], [0], [1]])).auroc.item() == 0.5


def test_a_class_without_weight_is_undefined_and_states_its_support():
    scores, targets = torch.tensor([[0.2], [0.9], [0.4]]), torch.tensor([[0], [1], [0]])
    table = auroc(scores, targets, torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0]]))
    assert table.auroc.isnan().all()
    assert table.positives.flatten().tolist() == [0, 1, 0]
    assert table.negatives.flatten().tolist() == [2, 0, 0]


def test_a_problem_without_records_labels_or_groups_has_a_table_of_that_shape():
    assert auroc(torch.zeros(0, 3), torch.zeros(0, 3)).auroc.isnan().all()
    assert auroc(torch.zeros(4, 0), torch.zeros(4, 0)).auroc.shape == (1, 0)
    assert auroc(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(0, 4)).auroc.shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.zeros(3)}, r"scores have the shape \(3,\)"),
        ({"targets": torch.zeros(3, 1)}, r"targets \(3, 1\): expected both to be \(records, labels\)"),
        ({"weights": torch.ones(3)}, r"weights have the shape \(3,\): expected \(weightings, 3\)"),
        ({"weights": torch.ones(1, 4)}, r"expected \(weightings, 3\)"),
        ({"scores": torch.tensor([[0.0, torch.nan]] * 3)}, "3 of 6 scores are NaN"),
        ({"targets": torch.full((3, 2), 0.5)}, "6 of 6 targets are neither 0 nor 1"),
        ({"targets": torch.full((3, 2), torch.nan)}, "targets are neither 0 nor 1"),
        ({"weights": torch.tensor([[1.0, -1.0, 1.0]])}, "1 of 3 weights are negative or not finite"),
        ({"weights": torch.tensor([[1.0, torch.inf, torch.nan]])}, "2 of 3 weights"),
        ({"scores": torch.full((3, 2), 1.5), "probabilities": True}, r"outside \[0, 1\].*sigmoid"),
    ],
)
def test_inputs_without_a_meaning_are_refused_with_what_was_found(change, message):
    inputs = {"scores": torch.zeros(3, 2), "targets": torch.zeros(3, 2), "weights": torch.ones(1, 3)} | change
    with pytest.raises(ValueError, match=message):
        auroc(**inputs)


def test_logits_are_scores_like_any_other_unless_probabilities_are_asked_for():
    logits, targets = torch.tensor([[-3.0], [5.0]]), torch.tensor([[0], [1]])
    assert auroc(logits, targets).auroc.item() == 1.0


@st.composite
def grouped(draw, weight=COUNTS):
    """The records of ``problems``, each in one of some groups, of which some may be empty."""
    scores, targets, weights = draw(problems(weight))
    groups = draw(st.integers(1, 4))
    codes = np.array([draw(st.integers(0, groups - 1)) for _ in scores], dtype=np.int64)
    return scores, targets, codes, groups, weights


def by_group(problem, statistic):
    """(R, G, C) by scikit-learn: a group's records are those that keep their weight."""
    scores, targets, codes, groups, weights = problem
    tables = [by_scikit_learn(scores, targets, weights * (codes == group), statistic) for group in range(groups)]
    return np.stack(tables, axis=1)


def ranked(scores, targets, codes, groups):
    return RankedScores.of(*tensors(scores, targets, codes), groups)


@settings(deadline=None, max_examples=100)
@given(grouped())
def test_every_group_and_resample_equals_scikit_learn(problem):
    table = ranked(*problem[:4]).measure(torch.from_numpy(problem[4]))
    np.testing.assert_allclose(table.auroc, by_group(problem, roc_auc_score), atol=1e-12)
    np.testing.assert_allclose(table.average_precision, by_group(problem, average_precision_score), atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(grouped(weight=st.sampled_from([0.0, 0.1, 1 / 3, 1e-9, 7.5, 1e6])))
def test_every_group_and_resample_equals_scikit_learn_with_fractional_weights(problem):
    table = ranked(*problem[:4]).measure(torch.from_numpy(problem[4]))
    np.testing.assert_allclose(table.auroc, by_group(problem, roc_auc_score), atol=1e-12)
    np.testing.assert_allclose(table.average_precision, by_group(problem, average_precision_score), atol=1e-12)
    for values in (table.auroc, table.average_precision):
        assert not ((values < 0) | (values > 1)).any()


@settings(deadline=None, max_examples=60)
@given(grouped(weight=st.sampled_from([0.0, 1e-9, 0.1, 7.5, 1e6])))
def test_weights_of_any_size_give_the_share_of_pairs_won(problem):
    scores, targets, codes, groups, weights = problem
    table = ranked(*problem[:4]).measure(torch.from_numpy(weights))
    for group in range(groups):
        for label in range(scores.shape[1]):
            members = codes == group
            positive, negative = (members & (targets[:, label] == truth) for truth in (1, 0))
            higher = np.subtract.outer(scores[positive, label], scores[negative, label])
            for resample, weight in enumerate(weights):
                pairs = np.multiply.outer(weight[positive], weight[negative])
                total = pairs.sum()
                share = (pairs * (np.sign(higher) + 1) / 2).sum() / total if total else np.nan
                np.testing.assert_allclose(table.auroc[resample, group, label], share, atol=1e-12)
                assert table.positives[resample, group, label] == pytest.approx(weight[positive].sum())
                assert table.negatives[resample, group, label] == pytest.approx(weight[negative].sum())


def grouped_random(records=400, labels=7, groups=3, resamples=20):
    scores, targets, _ = random_problem(records, labels)
    generator = torch.Generator().manual_seed(5)
    weights = torch.empty(resamples, records, dtype=torch.float64).exponential_(generator=generator)
    return (scores * 50).round(), targets, torch.randint(0, groups, (records,), generator=generator), groups, weights


def same_bits(table, other):
    pairs = zip(vars(table).values(), vars(other).values(), strict=True)
    return all(torch.equal(one.nan_to_num(-1), two.nan_to_num(-1)) for one, two in pairs)


def test_a_group_is_measured_as_if_its_records_were_all_there_are():
    scores, targets, codes, groups, weights = grouped_random()
    together = RankedScores.of(scores, targets, codes, groups).measure(weights)
    for group in range(groups):
        members = codes == group
        alone = RankedScores.of(scores[members], targets[members], codes[members] * 0, 1).measure(weights[:, members])
        assert torch.equal(together.auroc[:, group].nan_to_num(-1), alone.auroc[:, 0].nan_to_num(-1))
        assert torch.equal(
            together.average_precision[:, group].nan_to_num(-1), alone.average_precision[:, 0].nan_to_num(-1)
        )


def test_average_precision_equals_torchmetrics_where_every_label_has_both_classes():
    scores, targets, _ = random_problem()
    theirs = multilabel_average_precision(scores, targets, num_labels=7, average=None, thresholds=None)
    ours = ranked(scores, targets, np.zeros(len(scores), dtype=np.int64), 1).average_precision(torch.ones(1, 500))
    torch.testing.assert_close(ours[0, 0], theirs.double(), atol=1e-6, rtol=0)


def test_resamples_taken_some_at_a_time_give_the_same_bits_as_all_at_once():
    *problem, weights = grouped_random()
    table = RankedScores.of(*problem)
    at_once = table.measure(weights)
    for chunk_elements in (1, 4_000, 40_000):
        assert same_bits(table.measure(weights, chunk_elements=chunk_elements), at_once)


def test_labels_sorted_one_at_a_time_give_the_same_bits_as_all_at_once(monkeypatch):
    *problem, weights = grouped_random()
    at_once = RankedScores.of(*problem).measure(weights)
    for scores_at_once in (1, 900):
        monkeypatch.setattr(module, "SORTED_AT_ONCE", scores_at_once)
        assert same_bits(RankedScores.of(*problem).measure(weights), at_once)


def test_attributes_ranked_together_equal_each_by_itself():
    scores, targets, codes, groups, weights = grouped_random()
    groupings = [(codes, groups), (codes * 0, 1), (codes + 1, groups + 2)]
    for together, grouping in zip(RankedScores.of_each(scores, targets, groupings), groupings, strict=True):
        assert same_bits(together.measure(weights), RankedScores.of(scores, targets, *grouping).measure(weights))


def test_a_constant_score_has_one_half_and_the_prevalence():
    targets = torch.tensor([[1], [0], [0], [0]])
    table = RankedScores.of(torch.ones(4, 1), targets, torch.zeros(4, dtype=torch.int64), 1).measure(torch.ones(1, 4))
    assert table.auroc.item() == 0.5
    assert table.average_precision.item() == 0.25


def test_infinite_scores_and_signed_zeros_are_ranked_by_size():
    scores = torch.tensor([[torch.inf], [-torch.inf], [torch.inf], [0.0], [-0.0]])
    targets = torch.tensor([[1], [0], [0], [1], [0]])
    one_group = torch.zeros(5, dtype=torch.int64)
    # Pairs: inf over -inf and -0, tied with inf; 0 over -inf, below inf, tied with -0.
    assert RankedScores.of(scores, targets, one_group, 1).auroc(torch.ones(1, 5)).item() == pytest.approx(4 / 6)


def test_neither_statistic_is_defined_without_negatives_or_without_positives():
    targets = torch.tensor([[1, 0], [1, 0]])
    table = RankedScores.of(torch.rand(2, 2), targets, torch.zeros(2, dtype=torch.int64), 1).measure(torch.ones(1, 2))
    assert table.auroc.isnan().all()
    assert table.average_precision.isnan().all()


@pytest.mark.parametrize(("records", "labels", "resamples"), [(0, 3, 2), (4, 0, 2), (4, 3, 0)])
def test_groups_without_records_labels_or_resamples_have_a_table_of_that_shape(records, labels, resamples):
    nothing = torch.zeros(records, labels)
    table = RankedScores.of(nothing, nothing, torch.zeros(records, dtype=torch.int64), 2)
    measured = table.measure(torch.ones(resamples, records))
    assert measured.auroc.shape == measured.average_precision.shape == (resamples, 2, labels)
    assert measured.auroc.isnan().all()


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.tensor([0, 1, 2]), r"1 of 3 codes are no group: expected 0 to 1"),
        (torch.tensor([0, -1, -1]), r"2 of 3 codes are no group"),
        (torch.tensor([0, 1]), r"codes have the shape \(2,\).*expected \(3,\), one whole number a record"),
        (torch.tensor([0.0, 1.0, 1.0]), r"type torch.float32: expected \(3,\), one whole number a record"),
    ],
)
def test_codes_that_are_no_groups_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        RankedScores.of(torch.zeros(3, 2), torch.zeros(3, 2), codes, 2)


def test_weights_of_other_records_are_refused():
    table = RankedScores.of(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match=r"weights have the shape \(1, 4\): expected \(weightings, 3\)"):
        table.measure(torch.ones(1, 4))
    with pytest.raises(ValueError, match="1 of 3 weights are negative or not finite"):
        table.auroc(torch.tensor([[1.0, torch.nan, 0.0]]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gives_the_numbers_of_the_processor():
    *problem, groups, weights = grouped_random()
    here = RankedScores.of(*problem, groups).measure(weights)
    there = RankedScores.of(*(part.cuda() for part in problem), groups).measure(weights.cuda())
    for one, two in zip(vars(here).values(), vars(there).values(), strict=True):
        torch.testing.assert_close(two.cpu(), one, atol=1e-12, rtol=1e-12, equal_nan=True)
