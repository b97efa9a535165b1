from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.fairness import FairnessConfig, blocks_of, estimates_of, evaluate
from ecgfair.metrics.fairness_report import COMMON_RARE_GAP
from ecgfair.metrics.paired import GAP_REDUCTION, compare, compare_estimates
from ecgfair.metrics.seeds import mean_over_seeds
from tests.metrics.cases import random_predictions

CONFIG = FairnessConfig(statistics=("auroc",), resamples=100)
FIRST = random_predictions()


def again(seed, size=0.5):
    """The same records, judged by a network of another seed."""
    noise = size * torch.randn(FIRST.probabilities.shape, generator=torch.Generator().manual_seed(seed))
    return replace(FIRST, probabilities=torch.sigmoid(torch.logit(FIRST.probabilities) + noise))


def reported(estimates, config=CONFIG):
    return [row for one in estimates for block in blocks_of(one, FIRST, config) for row in block.finished()]


def test_the_mean_over_seeds_is_that_of_the_aurocs_and_not_the_auroc_of_mean_probabilities():
    models = [FIRST, again(1), again(2)]
    rows = reported(mean_over_seeds(models, CONFIG))
    for column, name in enumerate(FIRST.label_names):
        (value,) = [row.value for row in rows if (row.attribute, row.label) == ("overall", name)]
        aurocs = [roc_auc_score(FIRST.targets[:, column], model.probabilities[:, column]) for model in models]
        assert value == pytest.approx(np.mean(aurocs), abs=1e-12)


def test_one_seed_is_reported_as_it_would_be_without_averaging():
    rows = reported(mean_over_seeds([FIRST], CONFIG))
    assert repr(rows) == repr(list(evaluate(FIRST, CONFIG).rows))


def test_an_interval_of_seeds_is_made_of_means_under_the_same_resamples():
    models = [FIRST, again(1)]
    mean = next(mean_over_seeds(models, CONFIG)).cells["auroc"].values
    each = [next(estimates_of(model, CONFIG)).cells["auroc"].values for model in models]
    torch.testing.assert_close(mean, (each[0] + each[1]) / 2)


def test_where_one_seed_has_no_value_the_mean_has_none_and_says_why():
    probabilities = FIRST.probabilities.clone()
    probabilities[0, 1] = torch.nan
    mean = next(mean_over_seeds([FIRST, replace(FIRST, probabilities=probabilities)], CONFIG)).cells["auroc"]
    assert mean.values[0, 0].isnan().tolist() == [False, True, False, False]
    assert mean.reasons[0][1] == "the probability is NaN for 1 of 300 records"


def test_within_strata_no_pair_of_records_of_two_networks_is_compared():
    shifted = replace(FIRST, probabilities=(FIRST.probabilities + FIRST.strata[:, None]) / 4)
    plain, moved = (reported(mean_over_seeds([model], CONFIG, within_strata=True)) for model in (FIRST, shifted))
    np.testing.assert_allclose([row.value for row in plain], [row.value for row in moved], atol=1e-12)
    (gap,) = [row for row in plain if row.aggregate == COMMON_RARE_GAP]
    assert (gap.statistic, gap.low < gap.value < gap.high) == ("auroc", True)


def test_trainings_are_compared_by_their_means_and_the_gap_reduction_is_of_the_mean_gaps():
    rare_is_hard = torch.tensor([4.0, 0.0, 0.0, 0.0]) * FIRST.targets
    first = [replace(m, probabilities=torch.sigmoid(torch.logit(m.probabilities) + rare_is_hard)) for m in (FIRST,)]
    second = [FIRST, again(1)]
    config = replace(CONFIG, resamples=0)
    of_each = [list(mean_over_seeds(models, config)) for models in (first, second)]
    found = compare_estimates(*of_each, first[0], second[0], config)
    gaps = [
        np.mean([next(evaluate(m, config).select("overall", "auroc", COMMON_RARE_GAP)).value for m in models])
        for models in (first, second)
    ]
    assert found.iloc[-1]["aggregate"] == GAP_REDUCTION
    assert found.iloc[-1]["value"] == pytest.approx(1 - gaps[1] / gaps[0])
    assert list(found.columns) == list(compare(first[0], FIRST, config).columns)
    assert len(found) == len(compare(first[0], FIRST, config))


def test_seeds_measured_on_other_records_are_refused():
    shorter = random_predictions(299)
    with pytest.raises(ConfigurationError, match="299 records"):
        list(mean_over_seeds([FIRST, shorter], CONFIG))
    with pytest.raises(ConfigurationError, match="no model to average"):
        list(mean_over_seeds([], CONFIG))
