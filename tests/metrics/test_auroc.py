import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import multilabel_auroc

from ecgfair.metrics.auroc import auroc


def by_scikit_learn(scores, targets, weights):
    """(G, C) by one call a label and group, NaN where a class is absent."""
    table = np.full((len(weights), scores.shape[1]), np.nan)
    for group, weight in enumerate(np.asarray(weights, dtype=float)):
        for label in range(scores.shape[1]):
            present = weight > 0
            if len(np.unique(targets[present, label])) == 2:
                table[group, label] = roc_auc_score(
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
        ({"weights": torch.ones(3)}, r"weights have the shape \(3,\): expected \(groups, 3\)"),
        ({"weights": torch.ones(1, 4)}, r"expected \(groups, 3\)"),
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
