"""Adjusted p-values against their definitions, textbook numbers and scipy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from torch import Tensor

from ecgfair.metrics.chance.multiplicity import benjamini_hochberg, holm

P_VALUES = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.05, 1.0])), min_size=1, max_size=12).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


def _rejected_by_holm(p: Tensor, level: float) -> Tensor:
    """The procedure itself: the smallest first, each at its share of the level, until one is not rejected."""
    rejected = torch.zeros(len(p), dtype=torch.bool)
    for done, at in enumerate(p.argsort(stable=True).tolist()):
        if p[at] > level / (len(p) - done):
            break
        rejected[at] = True
    return rejected


def test_holm_gives_the_numbers_of_a_worked_example() -> None:
    """0.01, 0.04, 0.03 and 0.005 become 0.03, 0.06, 0.06 and 0.02."""
    adjusted = holm(torch.tensor([0.01, 0.04, 0.03, 0.005], dtype=torch.float64))
    torch.testing.assert_close(adjusted, torch.tensor([0.03, 0.06, 0.06, 0.02], dtype=torch.float64))


def test_benjamini_hochberg_rejects_what_the_authors_rejected() -> None:
    """The fifteen p-values of the paper of 1995: four hypotheses are rejected at 0.05, three by Bonferroni."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528]
    adjusted = benjamini_hochberg(torch.tensor([*p, 0.7590, 1.0], dtype=torch.float64))
    assert (adjusted <= 0.05).nonzero()[:, 0].tolist() == [0, 1, 2, 3]


@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_rejects_exactly_what_the_stepwise_procedure_rejects(p: Tensor, level: float) -> None:
    """At any level, save where rounding decides."""
    adjusted = holm(p)
    clear = (adjusted - level).abs() > 1e-12
    assert torch.equal((adjusted <= level)[clear], _rejected_by_holm(p, level)[clear])


@given(P_VALUES)
def test_benjamini_hochberg_equals_scipy(p: Tensor) -> None:
    """An independent implementation agrees."""
    expected = torch.from_numpy(false_discovery_control(p.numpy(), method="bh"))
    torch.testing.assert_close(benjamini_hochberg(p), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_labels_without_a_test_stay_undefined_and_are_not_counted(adjust: Callable[[Tensor], Tensor]) -> None:
    """NaN is no test: the others are adjusted as if it were not there."""
    p = torch.tensor([torch.nan, 0.03, torch.nan, 0.01, 0.2], dtype=torch.float64)
    adjusted = adjust(p)
    assert adjusted.isnan().tolist() == [True, False, True, False, False]
    assert torch.equal(adjusted[[1, 3, 4]], adjust(p[[1, 3, 4]]))


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_no_test_at_all_is_no_error(adjust: Callable[[Tensor], Tensor]) -> None:
    """Neither no label, nor labels that are all undefined; one test alone is not adjusted."""
    assert adjust(torch.empty(0)).shape == (0,)
    assert adjust(torch.tensor([torch.nan, torch.nan])).isnan().all()
    assert adjust(torch.tensor([0.25])).tolist() == [0.25]


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_numbers_that_are_no_probabilities_are_refused(adjust: Callable[[Tensor], Tensor]) -> None:
    """So that a statistic is not taken for its p-value."""
    with pytest.raises(ValueError, match=r"1 of 2 p-values lie outside \[0, 1\]"):
        adjust(torch.tensor([0.5, 1.5]))
    with pytest.raises(ValueError, match="expected \\(labels,\\)"):
        adjust(torch.ones(2, 2))
