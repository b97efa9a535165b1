import math

import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.metrics import MetricFrame
from sklearn.metrics import roc_auc_score

from ecgfair.ecg import FEMALE, MALE, UNKNOWN_SEX
from ecgfair.errors import ConfigurationError
from ecgfair.groups import group_by_demographics
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.long_tail import LongTail
from ecgfair.metrics.predictions import Predictions

LOOSE = FairnessConfig(min_support=1)


def random_records(records=400, labels=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(records, labels, generator=generator)
    targets = (torch.rand(records, labels, generator=generator) < probabilities * 0.6).float()
    age = 18 + 75 * torch.rand(records, generator=generator)
    sex = torch.randint(-1, 2, (records,), generator=generator)
    return probabilities, targets, age, sex


def names(labels):
    return [f"label{position}" for position in range(labels)]


def predicted(probabilities, targets, age, sex, prevalence=None, attributes=("sex", "age"), **more):
    labels = probabilities.shape[1]
    groupings = [group_by_demographics(name, age, sex) for name in attributes]
    return Predictions(
        probabilities, targets, names(labels), groupings, label_prevalence=prevalence or [0.2] * labels, **more
    )


def measured(probabilities, targets, age, sex, prevalence=None, config=LOOSE):
    return evaluate(predicted(probabilities, targets, age, sex, prevalence), config)


def row(report, attribute, aggregate="value", group=None, label="macro", statistic="auroc"):
    found = list(report.select(attribute, statistic, aggregate, label=label, group=group))
    assert len(found) == 1
    return found[0]


def pairs(*groups):
    """Records of one label a column: for each (sex, [(AUROC in tenths or None), ...]) ten positives and one negative.

    The negative scores such that the given number of the ten positives score higher; None leaves the label negative.
    """
    probabilities, targets, sexes = [], [], []
    for sex, tenths in groups:
        for step in range(11):
            positive = [step < 10 and won is not None for won in tenths]
            score = [(step + 0.5) / 10 if step < 10 else 1 - (won or 0) / 10 for won in tenths]
            probabilities.append([min(value, 1.0) for value in score])
            targets.append([float(value) for value in positive])
            sexes.append(sex)
    return torch.tensor(probabilities), torch.tensor(targets), torch.full((len(sexes),), 50.0), torch.tensor(sexes)


def test_the_group_table_equals_fairlearn():
    probabilities, targets, age, sex = random_records()
    report = measured(probabilities, targets, age, sex)
    named = np.array(["male", "female", "unknown"])[sex.numpy()]
    bands = pd.cut(age.numpy(), [0, 40, 65, 80, 200], right=False, labels=["<40", "40-64", "65-79", "80+"]).astype(str)
    for attribute, groups in (("sex", named), ("age", bands)):
        for position, label in enumerate(names(5)):
            truth, score = targets[:, position].numpy(), probabilities[:, position].numpy()
            theirs = MetricFrame(metrics=roc_auc_score, y_true=truth, y_pred=score, sensitive_features=groups)
            assert row(report, "overall", "value", label=label).value == pytest.approx(theirs.overall)
            for group, value in theirs.by_group.items():
                ours = row(report, attribute, "value", group, label)
                assert ours.value == pytest.approx(value)
                assert ours.records == (groups == group).sum()
                assert (ours.positives, ours.negatives) == (
                    truth[groups == group].sum(),
                    (1 - truth)[groups == group].sum(),
                )


def test_overall_means_are_over_every_label_with_both_classes_and_say_what_is_left_out():
    probabilities, targets, age, sex = random_records(labels=6)
    targets[:, 1] = 0
    targets[:, 2] = 1
    prevalence = [0.5, 0.2, 0.05, 0.02, 0.001, 0.0]
    report = measured(probabilities, targets, age, sex, prevalence)
    single = {position: roc_auc_score(targets[:, position], probabilities[:, position]) for position in (0, 3, 4, 5)}
    scalars = report.scalars("val")
    assert scalars["val/auroc/macro"] == pytest.approx(np.mean(list(single.values())))
    assert scalars["val/auroc/head"] == pytest.approx(single[0])
    assert scalars["val/auroc/medium"] == pytest.approx(single[3])
    assert scalars["val/auroc/tail"] == pytest.approx((single[4] + single[5]) / 2)
    assert scalars["val/auroc/common_rare_gap"] == pytest.approx(single[0] - (single[4] + single[5]) / 2)
    assert row(report, "overall", "value").reason == "2 of 6 labels undefined"
    assert row(report, "overall", "value").labels == 4
    assert row(report, "overall", "value", label="label1").reason == "0 positives, 1 needed"
    assert row(report, "overall", "value", label="label2").reason == "0 negatives, 1 needed"
    assert row(report, "overall", "value", label="label5").reason == "no positive in training"


def test_an_empty_band_is_undefined_with_its_definition_and_so_is_the_common_rare_gap():
    report = measured(*random_records(labels=2), prevalence=[0.5, 0.05])
    assert math.isnan(report.scalars("val")["val/auroc/tail"])
    assert math.isnan(report.scalars("val")["val/auroc/common_rare_gap"])
    reason = row(report, "overall", "value", label="tail").reason
    assert reason == "no label is positive in less than 1 % of the training records"
    assert row(report, "overall", "common_rare_gap").reason == "tail undefined"


@pytest.mark.parametrize(
    ("positives", "negatives", "reason"),
    [
        (4, 9, "4 positives, 5 needed"),
        (9, 1, "1 negative, 5 needed"),
        (1, 0, "1 positive and 0 negatives, 5 of each needed"),
        (5, 5, ""),
    ],
)
def test_a_label_below_the_support_of_a_group_is_undefined_there_with_the_reason(positives, negatives, reason):
    count = positives + negatives
    targets = (torch.arange(count) < positives).float()[:, None]
    sex = torch.full((count,), FEMALE)
    report = measured(torch.rand(count, 1), targets, torch.full((count,), 50.0), sex, config=FairnessConfig())
    found = row(report, "sex", "value", "female", "label0")
    assert found.reason == reason
    assert math.isnan(found.value) == bool(reason)
    assert math.isnan(row(report, "sex", "value", "female").value) == bool(reason)
    assert row(report, "sex", "value", "male", "label0").reason == "no records"


def test_a_gap_is_signed_and_over_the_labels_defined_in_both_groups():
    # The third label is defined among men only, the fourth among women only: neither may enter their difference.
    report = measured(*pairs((MALE, [9, 7, 2, None]), (MALE, [9, 7, 2, None]), (FEMALE, [8, 9, None, 10])))
    gap = row(report, "sex", "gap", "female")
    assert gap.value == pytest.approx(((0.8 - 0.9) + (0.9 - 0.7)) / 2)
    assert (gap.labels, gap.reference) == (2, "male")
    assert row(report, "sex", "value", "female").value == pytest.approx((0.8 + 0.9 + 1.0) / 3)
    assert row(report, "sex", "value", "female").labels == 3
    assert row(report, "sex", "shared", "female").value == pytest.approx((0.8 + 0.9) / 2)
    assert row(report, "sex", "gap", "male").value == 0.0


def test_a_group_behind_the_reference_is_the_worst():
    report = measured(*pairs((MALE, [9, 9]), (MALE, [9, 9]), (FEMALE, [6, None])))
    assert row(report, "sex", "spread").value == pytest.approx(0.6 - 0.9)
    assert row(report, "sex", "spread").group == "female"
    assert row(report, "sex", "worst").value == pytest.approx(0.6)
    assert row(report, "sex", "worst").labels == 1


def test_a_reference_behind_the_others_is_the_worst_and_the_gap_is_not_0():
    report = measured(*pairs((MALE, [6, 1]), (MALE, [6, 1]), (FEMALE, [8, None])))
    worst = row(report, "sex", "worst")
    assert (worst.group, worst.reference, worst.labels) == ("male", "female", 1)
    assert worst.value == pytest.approx(0.6)  # over the one label shared with the women, not the other
    assert row(report, "sex", "spread").value == pytest.approx(0.6 - 0.8)


def test_with_two_groups_the_scalars_do_not_depend_on_the_reference():
    records = pairs((MALE, [9, 5]), (FEMALE, [6, None]))
    first, second = (
        measured(*records, config=FairnessConfig(min_support=1, reference={"sex": sex})).scalars("val")
        for sex in ("male", "female")
    )
    for statistic in ("auroc_gap", "worst_auroc"):
        assert first[f"val/fair/sex/{statistic}"] == pytest.approx(second[f"val/fair/sex/{statistic}"])


def test_among_several_groups_the_gap_runs_from_the_worst_to_the_best():
    probabilities, targets, _, sex = pairs((MALE, [7]), (MALE, [9]), (MALE, [4]))
    age = torch.tensor([50.0] * 11 + [30.0] * 11 + [70.0] * 11)
    config = FairnessConfig(min_support=1, reference={"age": "40-64"})
    report = measured(probabilities, targets, age, sex, config=config)
    gap = row(report, "age", "spread")
    assert (gap.group, gap.reference) == ("65-79", "<40")
    assert gap.value == pytest.approx(0.4 - 0.9)
    assert row(report, "age", "gap", "<40").value == pytest.approx(0.2)
    assert row(report, "age", "gap", "65-79").value == pytest.approx(-0.3)


def test_equal_groups_have_no_gap():
    report = measured(*pairs((MALE, [7, 8]), (FEMALE, [7, 8])))
    assert report.scalars("val")["val/fair/sex/auroc_gap"] == 0.0
    assert report.scalars("val")["val/fair/sex/worst_auroc"] == pytest.approx(0.75)


def test_the_default_reference_is_the_largest_known_group_and_the_first_of_equals():
    larger = measured(*pairs((MALE, [7]), (FEMALE, [7]), (MALE, [7]), *[(UNKNOWN_SEX, [7])] * 3))
    assert row(larger, "sex", "gap", "female").reference == "male"
    equal = measured(*pairs((MALE, [7]), (FEMALE, [7]), *[(UNKNOWN_SEX, [7])] * 3))
    assert row(equal, "sex", "gap", "male").reference == "female"


def test_unknown_has_a_gap_but_is_never_the_worst():
    report = measured(*pairs((MALE, [8]), (MALE, [8]), (FEMALE, [7]), (UNKNOWN_SEX, [1])))
    assert row(report, "sex", "gap", "unknown").value == pytest.approx(0.1 - 0.8)
    assert row(report, "sex", "worst").group == "female"


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        ([(MALE, [8]), (UNKNOWN_SEX, [3])], "no two known groups share a label with support"),
        ([(MALE, [8, None]), (FEMALE, [None, 8])], "no two known groups share a label with support"),
        ([(UNKNOWN_SEX, [8])], "no record has a known sex"),
    ],
)
def test_fewer_than_two_comparable_groups_leave_the_scalars_undefined_with_a_reason(groups, reason):
    report = measured(*pairs(*groups))
    for aggregate in ("spread", "worst"):
        found = row(report, "sex", aggregate)
        assert math.isnan(found.value)
        assert found.group == ""
        assert found.reason.startswith(reason)


def test_rates_without_thresholds_are_told_so_even_where_some_groups_lack_support():
    probabilities, targets, age, sex = random_records()
    targets[sex == UNKNOWN_SEX] = 0
    targets[age < 40, 0] = 0
    report = measured(probabilities, targets, age, sex)
    for attribute in ("sex", "age"):
        for statistic in ("tpr", "fpr"):
            found = row(report, attribute, "spread", statistic=statistic)
            assert math.isnan(found.value)
            assert found.reason == "no thresholds, which validation records choose"


def test_the_keys_are_the_same_whichever_groups_and_labels_are_defined():
    everything = random_records()
    men_only = (*everything[:3], torch.zeros_like(everything[3]))
    none = tuple(column[:0] for column in everything)
    keys = [list(measured(*records).scalars("test")) for records in (everything, men_only, none)]
    assert keys[0] == keys[1] == keys[2]
    assert set(keys[0]) == {
        *(f"test/auroc/{name}" for name in ("macro", "head", "medium", "tail", "common_rare_gap")),
        *(
            f"test/fair/{attribute}/{name}"
            for attribute in ("sex", "age")
            for name in ("auroc_gap", "tpr_gap", "fpr_gap", "ece_gap", "worst_auroc")
        ),
    }
    assert all(math.isnan(value) for value in measured(*none).scalars("test").values())


def test_a_probability_that_is_nan_leaves_its_label_undefined_and_the_others_as_they_are():
    probabilities, targets, age, sex = random_records()
    whole = measured(probabilities, targets, age, sex)
    probabilities[3, 1] = torch.nan
    report = measured(probabilities, targets, age, sex)
    for attribute, group in (("overall", "all"), ("sex", "male"), ("age", "<40")):
        found = row(report, attribute, "value", group, "label1")
        assert math.isnan(found.value)
        assert found.reason == "the probability is NaN for 1 of 400 records"
        assert row(report, attribute, "value", group, "label0") == row(whole, attribute, "value", group, "label0")


def test_logits_are_refused():
    probabilities, targets, age, sex = random_records()
    with pytest.raises(ValueError, match="apply the sigmoid to logits"):
        measured(probabilities * 8 - 4, targets, age, sex)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_support": 0}, "min_support is 0: expected at least 1"),
        ({"min_support_overall": -1}, "min_support_overall is -1"),
        ({"bins": 0}, "bins is 0"),
        ({"resamples": 3}, "resamples is 3: expected 0 for no intervals, or at least 100"),
        ({"statistics": ("aurock",)}, "no statistic 'aurock'. Did you mean 'auroc'"),
    ],
)
def test_settings_that_can_not_work_are_refused_before_any_record_is_seen(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        FairnessConfig(**settings)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"gender": "male"}, "'gender', no attribute. Valid: sex, age"),
        ({"sex": "men"}, "reference of sex is 'men'.*Did you mean 'female'|Valid: female, male"),
        ({"age": "40-65"}, "reference of age is '40-65'.*Did you mean '40-64'"),
        ({"sex": "unknown"}, "reference of sex is 'unknown', which is no group to compare with"),
    ],
)
def test_a_reference_that_is_no_group_is_refused(reference, message):
    with pytest.raises(ConfigurationError, match=message):
        measured(*random_records(), config=FairnessConfig(reference=reference))


@pytest.mark.parametrize(
    ("label_names", "prevalence", "message"),
    [
        (["a"], [0.1, 0.1], "1 label names and 2 training prevalences"),
        (["a", "a"], [0.1, 0.1], "Labels are named a: expected names that differ"),
        (["a", "macro"], [0.1, 0.1], "Labels are named macro"),
    ],
)
def test_label_names_that_do_not_tell_the_rows_apart_are_refused(label_names, prevalence, message):
    with pytest.raises(ConfigurationError, match=message):
        Predictions(*random_records(labels=2)[:2], label_names, label_prevalence=prevalence)


def test_thresholds_of_the_long_tail_are_those_of_the_configuration():
    config = FairnessConfig(min_support=1, long_tail=LongTail(head=0.6, tail=0.4))
    report = measured(*random_records(labels=3), prevalence=[0.7, 0.5, 0.3], config=config)
    assert [row(report, "overall", "value", label=band).labels for band in ("head", "medium", "tail")] == [1, 1, 1]
