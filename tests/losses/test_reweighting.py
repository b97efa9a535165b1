import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ecgfair.errors import ConfigurationError
from ecgfair.losses.reweighting import LabelReweighting, independence_weights


def test_the_weights_are_those_of_the_papers_job_applicants():
    # Table 1 of Kamiran and Calders: of 5 women 2 get the job, of 5 men 4; the paper's weights are 1.5, 0.67, 0.75, 2.
    women, men = independence_weights(torch.tensor([5, 5]), torch.tensor([[2], [4]]), cap=10)[:, 0].tolist()
    assert women == pytest.approx([0.4 * 0.5 / 0.3, 0.6 * 0.5 / 0.2])
    assert men == pytest.approx([0.4 * 0.5 / 0.1, 0.6 * 0.5 / 0.4])


@st.composite
def counts(draw):
    groups, labels = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    records = draw(arrays(np.int64, groups, elements=st.integers(0, 50)))
    share = draw(arrays(np.float64, (groups, labels), elements=st.floats(0, 1)))
    records[0] += 1
    return records, np.floor(share * records[:, None]).astype(np.int64)


@given(counts())
def test_under_the_weights_every_group_has_the_same_prevalence_where_it_has_both_classes(given_counts):
    records, positives = given_counts
    weights = independence_weights(torch.tensor(records), torch.tensor(positives), cap=1e12).numpy()
    negatives = records[:, None] - positives
    weighted = weights[..., 1] * positives
    both = (positives > 0) & (negatives > 0)
    prevalence = positives.sum(0) / records.sum()
    share = weighted / np.maximum(weighted + weights[..., 0] * negatives, 1e-300)
    np.testing.assert_allclose(share[both], np.broadcast_to(prevalence, share.shape)[both], rtol=1e-9)
    # And a group weighs as much as before.
    weight = weighted + weights[..., 0] * negatives
    np.testing.assert_allclose(weight[both], np.broadcast_to(records[:, None], weight.shape)[both], rtol=1e-9)
    assert (weights[..., 1][positives == 0] == 1).all()
    assert (weights[..., 0][negatives == 0] == 1).all()


def test_no_weight_is_above_the_cap():
    weights = independence_weights(torch.tensor([1000, 1000]), torch.tensor([[1], [999]]), cap=3)
    assert weights.max().item() == 3
    assert weights[0, 0, 0].item() == pytest.approx(1000 * 1000 / 2000 / 999)


def test_labels_that_do_not_depend_on_the_group_get_no_weight_but_one():
    weights = independence_weights(torch.tensor([10, 30]), torch.tensor([[2, 0], [6, 0]]), cap=10)
    torch.testing.assert_close(weights, torch.ones_like(weights))


def test_losses_are_weighed_by_group_label_and_class():
    reweighting = LabelReweighting(2, 2)
    reweighting.count(torch.tensor([5, 5]), torch.tensor([[2, 3], [4, 3]]))
    losses = torch.ones(3, 2, requires_grad=True)
    found = reweighting(losses, torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1, 1]))
    torch.testing.assert_close(found, torch.tensor([[1.5, 1.0], [2.0, 1.0], [0.75, 1.0]]))
    found.sum().backward()
    torch.testing.assert_close(losses.grad, found.detach())


def test_before_the_data_are_counted_and_in_a_checkpoint_there_are_no_weights():
    reweighting = LabelReweighting(2, 1)
    assert reweighting(torch.tensor([[0.3]]), torch.tensor([[1.0]]), torch.tensor([1])).item() == pytest.approx(0.3)
    assert reweighting.state_dict() == {}


@pytest.mark.parametrize("cap", [0.5, 0, -1, float("inf"), float("nan")])
def test_an_impossible_cap_is_refused(cap):
    with pytest.raises(ConfigurationError, match="cap of the label weights"):
        LabelReweighting(2, 1, cap)


@pytest.mark.parametrize(
    ("records", "positives", "message"),
    [
        ([1, 2], [[2], [0]], "contradict"),
        ([1, 2], [[-1], [0]], "contradict"),
        ([0, 0], [[0], [0]], "at least one record"),
        ([1, 2], [1, 2], r"expected \(G,\) and \(G, C\)"),
        ([1, 2, 3], [[1], [1], [1]], r"expected \(2, 1\)"),
    ],
)
def test_impossible_counts_are_refused(records, positives, message):
    with pytest.raises(ConfigurationError, match=message):
        LabelReweighting(2, 1).count(torch.tensor(records), torch.tensor(positives))
