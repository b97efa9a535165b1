import io
import json
import math

import numpy as np
import pytest
import torch
from fairlearn.metrics import MetricFrame, false_negative_rate, false_positive_rate, true_positive_rate
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_score, roc_curve

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels.operating_points import RULES, OperatingPoints, choose, rates

ALL_RULES = st.sampled_from([("youden", None), ("specificity", 0.9), ("specificity", 0.5), ("sensitivity", 0.8)])


def chosen(scores, targets, rule="youden", level=None, weights=None):
    """The threshold of one label."""
    scores, targets = (torch.as_tensor(np.asarray(part))[:, None] for part in (scores, targets))
    weights = None if weights is None else torch.as_tensor(np.asarray(weights))
    points = choose(scores, targets, rule, level, weights, label_names=["AFIB"], chosen_on="fold 9", folds=[9])
    return points.thresholds[0]


def best_by_hand(scores, targets, rule, level, weights):
    """Try every distinct score and infinity, in whole numbers."""
    positives, negatives = sum(weights[targets == 1]), sum(weights[targets == 0])
    if not positives or not negatives:
        return math.nan
    candidates = []
    for threshold in [*sorted(set(scores[weights > 0])), math.inf]:
        hits = sum(weights[(scores >= threshold) & (targets == 1)])
        rejected = sum(weights[(scores < threshold) & (targets == 0)])
        candidates.append((threshold, hits, rejected))
    if rule == "youden":
        best = max(hits * negatives + rejected * positives for _, hits, rejected in candidates)
        return next(t for t, hits, rejected in candidates if hits * negatives + rejected * positives == best)
    if rule == "specificity":
        return next(t for t, _, rejected in candidates if rejected / negatives >= level)
    return next(t for t, hits, _ in reversed(candidates) if hits / positives >= level)


@st.composite
def one_label(draw):
    """Records of one label with many ties, and whole-number weights of which some are 0."""
    records = draw(st.integers(1, 25))
    distinct = draw(st.sampled_from([1, 2, 5, 1000]))

    def vector(element):
        return np.array([draw(element) for _ in range(records)])

    return vector(st.integers(0, distinct)) / distinct, vector(st.integers(0, 1)), vector(st.integers(0, 3))


@settings(deadline=None, max_examples=80)
@given(one_label(), ALL_RULES)
def test_each_rule_finds_what_trying_every_threshold_finds(problem, rule):
    scores, targets, weights = problem
    ones = np.ones(len(scores), dtype=int)
    for weighting in (weights, ones):
        expected = best_by_hand(scores, targets, *rule, weighting)
        assert chosen(scores, targets, *rule, weighting) == pytest.approx(expected, abs=0, nan_ok=True)
    assert chosen(scores, targets, *rule) == pytest.approx(expected, abs=0, nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(one_label(), ALL_RULES)
def test_thresholds_are_as_good_as_the_best_of_scikit_learns_curve(problem, rule):
    scores, targets, _ = problem
    assume(0 < targets.sum() < len(targets))
    fpr, tpr, _ = roc_curve(targets, scores, drop_intermediate=False)
    positive = scores >= chosen(scores, targets, *rule)
    ours_tpr, ours_fpr = positive[targets == 1].mean(), positive[targets == 0].mean()
    name, level = rule
    if name == "youden":
        assert ours_tpr - ours_fpr == pytest.approx((tpr - fpr).max())
    elif name == "specificity":
        assert ours_tpr == pytest.approx(tpr[1 - fpr >= level - 1e-9].max())
    else:
        assert ours_fpr == pytest.approx(fpr[tpr >= level - 1e-9].min())


def test_of_equally_good_thresholds_youden_takes_the_most_sensitive():
    # At 0.8 sensitivity 1/2 and specificity 1; at 0.4 sensitivity 1 and specificity 1/2.
    assert chosen([0.8, 0.6, 0.4, 0.2], [1, 0, 1, 0]) == 0.4
    # Of no use: every threshold has 0.
    assert chosen([0.5, 0.5, 0.5], [1, 0, 1]) == 0.5


def test_a_level_that_is_met_exactly_counts_as_met():
    scores = np.arange(1, 101) / 100
    for share in (0.55, 0.7, 0.9, 0.95, 0.99):
        targets = np.zeros(101, dtype=int)
        targets[100] = 1
        negatives_below = round(share * 100)
        found = chosen(np.append(scores, 0.0), targets, "specificity", share)
        assert found == scores[negatives_below]
        assert chosen(np.append(scores, 0.0), 1 - targets, "sensitivity", share) == scores[100 - negatives_below]


def test_a_specificity_out_of_reach_makes_nothing_positive_and_says_so():
    points = choose(
        torch.tensor([[0.9], [0.9], [0.1]]), torch.tensor([[0], [1], [1]]), "specificity", 0.9,
        label_names=["AFIB"], chosen_on="fold 9",
    )  # fmt: skip
    assert points.thresholds == (math.inf,)
    assert "specificity of at least 0.9" in points.reasons[0]
    found = rates(*whole_group(points), torch.ones(1, 3))
    assert found["fpr"].item() == 0
    assert found["tpr"].item() == 0
    assert found["ppv"].isnan().all()


def whole_group(points):
    scores, targets = torch.tensor([[0.9], [1.0], [0.1]]), torch.tensor([[0], [1], [1]])
    return scores, targets, torch.tensor(points.thresholds), torch.zeros(3, dtype=torch.int64), 1


def test_a_label_without_both_classes_or_with_nan_has_no_threshold_and_a_reason():
    scores = torch.tensor([[0.1, 0.2, 0.3, 0.4]] * 3)
    scores[1, 2] = torch.nan
    scores[0, 3] = 0.9
    targets = torch.tensor([[0, 1, 0, 1], [0, 1, 1, 0], [0, 1, 0, 0]])
    points = choose(scores, targets, label_names=["A", "B", "C", "D"], chosen_on="fold 9", folds=[9])
    assert [math.isnan(value) for value in points.thresholds] == [True, True, True, False]
    assert points.thresholds[3] == pytest.approx(0.9)
    assert points.reasons == (
        "no positive validation record",
        "no negative validation record",
        "the probability is NaN for 1 of 3 validation records",
        "",
    )
    empty = choose(torch.zeros(0, 1), torch.zeros(0, 1), label_names=["A"], chosen_on="nothing")
    assert math.isnan(empty.thresholds[0])
    assert empty.reasons == ("no positive and no negative validation record",)


def test_a_threshold_chosen_in_single_precision_still_includes_its_own_record():
    scores, targets = torch.tensor([[0.1], [0.3], [0.7]]), torch.tensor([[0], [1], [1]])
    points = choose(scores, targets, "sensitivity", 0.9, label_names=["A"], chosen_on="fold 9")
    stored = OperatingPoints.from_dict(json.loads(json.dumps(points.to_dict())))
    found = rates(
        scores,
        targets,
        torch.tensor(stored.thresholds, dtype=torch.float64),
        torch.zeros(3).long(),
        1,
        torch.ones(1, 3),
    )
    assert found["tpr"].item() == 1
    assert found["fpr"].item() == 0


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_rates_equal_fairlearn_and_scikit_learn_in_every_group(data):
    records, groups = data.draw(st.integers(1, 15)), data.draw(st.integers(1, 3))

    def vector(element):
        return np.array([data.draw(element) for _ in range(records)])

    scores, targets = vector(st.integers(0, 4)) / 4, vector(st.integers(0, 1))
    codes, weights = vector(st.integers(0, groups - 1)), vector(st.sampled_from([1.0, 0.5, 2.0]))
    threshold = data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0, math.inf]))
    found = rates(
        torch.from_numpy(scores)[:, None], torch.from_numpy(targets)[:, None], torch.tensor([threshold]),
        torch.from_numpy(codes), groups, torch.from_numpy(np.stack([np.ones(records), weights])),
    )  # fmt: skip
    decided = (scores >= threshold).astype(int)
    for row, weighting in enumerate([np.ones(records), weights]):
        for group in range(groups):
            inside = codes == group
            y, d, w = targets[inside], decided[inside], weighting[inside]
            ours = {name: table[row, group, 0].item() for name, table in found.items()}
            theirs = dict.fromkeys(found, math.nan)
            if (y == 1).any():
                theirs["tpr"] = true_positive_rate(y, d, pos_label=1, sample_weight=w)
                theirs["fnr"] = false_negative_rate(y, d, pos_label=1, sample_weight=w)
            if (y == 0).any():
                theirs["fpr"] = false_positive_rate(y, d, pos_label=1, sample_weight=w)
            if (d == 1).any():
                theirs["ppv"] = precision_score(y, d, sample_weight=w)
            assert ours == pytest.approx(theirs, nan_ok=True)


def test_rates_by_group_equal_fairlearns_metric_frame_for_many_labels():
    generator = torch.Generator().manual_seed(0)
    scores, codes = torch.rand(400, 4, generator=generator), torch.randint(0, 3, (400,), generator=generator)
    targets = (torch.rand(400, 4, generator=generator) < scores).long()
    thresholds = torch.tensor([0.2, 0.5, torch.nan, 0.8])
    weights = torch.rand(2, 400, generator=generator, dtype=torch.float64)
    found = rates(scores, targets, thresholds, codes, 3, weights)
    measures = {"tpr": true_positive_rate, "fpr": false_positive_rate, "ppv": precision_score}
    for name, measure in measures.items():
        assert found[name].shape == (2, 3, 4)
        assert found[name][:, :, 2].isnan().all()
        for row, label in [(0, 0), (1, 1), (1, 3)]:
            frame = MetricFrame(
                metrics=measure,
                y_true=targets[:, label].numpy(),
                y_pred=(scores[:, label] >= thresholds[label]).long().numpy(),
                sensitive_features=codes.numpy(),
                sample_params={"sample_weight": weights[row].numpy()},
            )
            np.testing.assert_allclose(found[name][row, :, label], frame.by_group, rtol=1e-12)


def test_rates_of_an_empty_group_are_undefined_and_tpr_and_fnr_add_up_elsewhere():
    scores, targets = (
        torch.rand(50, 3, generator=torch.Generator().manual_seed(0)),
        torch.arange(150).reshape(50, 3) % 2,
    )
    found = rates(scores, targets, torch.full((3,), 0.5), torch.zeros(50).long(), 2, torch.ones(1, 50))
    assert all(table[:, 1].isnan().all() for table in found.values())
    torch.testing.assert_close(found["tpr"][:, 0] + found["fnr"][:, 0], torch.ones(1, 3, dtype=torch.float64))


def test_thresholds_that_are_not_one_a_label_are_refused():
    with pytest.raises(ValueError, match=r"thresholds have the shape \(3,\): expected \(2,\)"):
        rates(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(3), torch.zeros(4).long(), 1, torch.ones(1, 4))


def points(**change):
    fields = {
        "rule": "specificity",
        "level": 0.9,
        "label_names": ("AFIB", "LBBB", "WPW"),
        "thresholds": (0.1 + 0.2, math.inf, math.nan),
        "reasons": ("", "no threshold is so specific", "no positive validation record"),
        "chosen_on": "fold 9, epoch 3",
        "folds": (9,),
    }
    return OperatingPoints(**(fields | change))


def test_points_survive_strict_json_and_a_checkpoint_of_plain_values_unchanged():
    through_json = json.loads(json.dumps(points().to_dict(), allow_nan=False))
    assert OperatingPoints.from_dict(through_json) == points()
    file = io.BytesIO()
    torch.save(points().to_dict(), file)
    file.seek(0)
    assert OperatingPoints.from_dict(torch.load(file, weights_only=True)) == points()


def test_points_follow_labels_by_name():
    moved = points().for_labels(["WPW", "AFIB"])
    assert moved.label_names == ("WPW", "AFIB")
    assert math.isnan(moved.thresholds[0])
    assert moved.thresholds[1] == 0.1 + 0.2
    assert moved.reasons == ("no positive validation record", "")
    with pytest.raises(ConfigurationError, match=r"fold 9, epoch 3 have no threshold for AFI.*Did you mean 'AFIB'"):
        points().for_labels(["AFIB", "AFI"])
    with pytest.raises(ConfigurationError, match="more than once: AFIB"):
        points().for_labels(["AFIB", "AFIB"])


def test_points_refuse_the_folds_that_chose_them_and_unknown_ones():
    points().require_disjoint([10])
    with pytest.raises(ConfigurationError, match=r"chosen on fold 9, epoch 3, with the test folds \[9\]"):
        points().require_disjoint([9, 10])
    with pytest.raises(ConfigurationError, match="of unknown folds"):
        points(folds=()).require_disjoint([10])


def test_points_refuse_their_folds_of_the_same_data_alone():
    of_home = points(data=("home", "further"))
    of_home.require_disjoint([9], ["elsewhere"])
    points(folds=(), data=("home",)).require_disjoint([9], ["elsewhere"])
    of_home.require_disjoint([10], ["home"])
    for same in (["home"], ["elsewhere", "further"], []):
        with pytest.raises(ConfigurationError, match=r"with the test folds \[9\]"):
            of_home.require_disjoint([9], same)
    with pytest.raises(ConfigurationError, match=r"with the test folds \[9\]"):
        points().require_disjoint([9], ["elsewhere"])


def test_points_of_versions_that_kept_no_data_are_read_without():
    plain = {name: value for name, value in points(data=("home",)).to_dict().items() if name != "data"}
    assert OperatingPoints.from_dict(plain) == points()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "yuden"}, "'yuden'. Did you mean 'youden'"),
        ({"level": 1.0}, "level is 1.0: expected a specificity above 0 and below 1"),
        ({"level": math.nan}, "level is nan"),
        ({"level": None}, "level is None"),
        ({"rule": "youden"}, "Youden's rule has no level"),
        ({"reasons": ("",)}, "3 label_names, 3 thresholds, 1 reasons"),
        ({"label_names": ("A", "A", "B")}, "more than once: A"),
        ({"thresholds": (0.5, 1.5, 0.5)}, "threshold of LBBB is 1.5"),
        ({"thresholds": (0.5, -math.inf, 0.5)}, "threshold of LBBB is -inf"),
        ({"thresholds": (math.nan, 0.5, 0.5)}, "threshold of AFIB is nan without a reason"),
    ],
)
def test_points_that_contradict_themselves_are_refused(change, message):
    with pytest.raises(ConfigurationError, match=message):
        points(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": ["high", 1, 1]}, "cannot be read.*could not convert"),
        ({"thresholds": 0.5}, "cannot be read"),
        ({"level": "0.9"}, "cannot be read"),
        ({"rule": None}, "cannot be read"),
        ({"foldz": [9]}, "lack nothing and have unknown foldz"),
    ],
)
def test_damaged_points_are_refused_with_what_was_found(change, message):
    with pytest.raises(ConfigurationError, match=message):
        OperatingPoints.from_dict(points().to_dict() | change)


def test_points_without_a_field_are_refused():
    with pytest.raises(ConfigurationError, match="lack rule"):
        OperatingPoints.from_dict({name: value for name, value in points().to_dict().items() if name != "rule"})


def test_choosing_refuses_names_that_do_not_fit_and_inputs_without_a_meaning():
    scores, targets = torch.rand(4, 2), torch.tensor([[0, 1]] * 4)
    with pytest.raises(ConfigurationError, match="1 label names for 2 labels"):
        choose(scores, targets, label_names=["A"], chosen_on="fold 9")
    with pytest.raises(ConfigurationError, match="rule for thresholds is 'best'"):
        choose(scores, targets, "best", label_names=["A", "B"], chosen_on="fold 9")
    with pytest.raises(ValueError, match="outside"):
        choose(scores + 3, targets, label_names=["A", "B"], chosen_on="fold 9")
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        choose(scores, targets * 2, label_names=["A", "B"], chosen_on="fold 9")
    with pytest.raises(ValueError, match="weights"):
        choose(scores, targets, weights=-torch.ones(4), label_names=["A", "B"], chosen_on="fold 9")
    assert RULES == ("youden", "specificity", "sensitivity")
