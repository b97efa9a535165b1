import math

import pytest

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.long_tail import LongTail


def test_a_label_at_a_threshold_belongs_to_the_more_common_band():
    prevalence = [1.0, 0.1, 0.0999, 0.01, 0.0099]
    assert LongTail().bands(prevalence) == ("head", "head", "medium", "medium", "tail")


def test_a_label_without_a_positive_in_training_is_tail():
    assert LongTail().bands([0.0]) == ("tail",)


def test_thresholds_move_the_bands_and_may_leave_no_medium():
    assert LongTail(head=0.5, tail=0.2).bands([0.5, 0.3, 0.1]) == ("head", "medium", "tail")
    assert LongTail(head=0.05, tail=0.05).bands([0.05, 0.049]) == ("head", "tail")


@pytest.mark.parametrize(("head", "tail"), [(0.01, 0.1), (0.1, 0.0), (1.5, 0.1), (0.1, -0.1), (math.nan, 0.1)])
def test_thresholds_that_do_not_cut_are_refused(head, tail):
    with pytest.raises(ConfigurationError, match="0 < tail <= head <= 1"):
        LongTail(head, tail)


@pytest.mark.parametrize("share", [12.0, -0.1, math.nan])
def test_a_prevalence_that_is_no_share_is_refused(share):
    with pytest.raises(ConfigurationError, match=r"prevalence of 1 labels is not in \[0, 1\]"):
        LongTail().bands([0.5, share])
