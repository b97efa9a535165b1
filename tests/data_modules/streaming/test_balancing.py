import numpy as np
import pytest

from data_modules.streaming.balancing import Sampling
from data_modules.streaming.training_sampler import TrainingSampler
from ecgfair.ecg import ATTRIBUTES, FEMALE, MALE
from ecgfair.errors import ConfigurationError


def people(sex, age):
    values = np.full((len(sex), len(ATTRIBUTES)), np.nan, dtype=np.float32)
    values[:, ATTRIBUTES.index("sex")] = sex
    values[:, ATTRIBUTES.index("age")] = age
    return values


def shares(sampling, labels, attributes, classes, epochs=20):
    """How often each class was drawn, as a share of all draws."""
    count = len(attributes)
    sampler = TrainingSampler(range(count), weights=sampling.weights(labels, attributes))
    drawn = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        drawn.append(sampler.order())
    counts = np.bincount(classes[np.concatenate(drawn)], minlength=classes.max() + 1)
    return counts / counts.sum()


NOBODY = people(np.zeros(1000), np.zeros(1000))
CLASSES = np.repeat([0, 1, 2], [800, 150, 50])
ONE_LABEL_EACH = np.eye(3, dtype=np.uint8)[CLASSES]


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        (1.0, np.array([1, 1, 1])),
        (0.5, np.sqrt([800, 150, 50])),
        (0.0, np.array([800, 150, 50])),
    ],
)
def test_labels_are_drawn_in_the_proportion_of_class_balanced_sampling(power, expected):
    found = shares(Sampling("label", power), ONE_LABEL_EACH, NOBODY, CLASSES)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.01)


def test_a_record_with_several_labels_is_drawn_for_each_and_those_with_none_are_one_more_class():
    # 10 records of A and B, 90 of A alone, 900 of none: a third of the draws for each of A, B and none.
    classes = np.repeat([0, 1, 2], [10, 90, 900])
    labels = np.array([[1, 1], [1, 0], [0, 0]], dtype=np.uint8)[classes]
    found = shares(Sampling("label"), labels, NOBODY, classes)
    np.testing.assert_allclose(found, [1 / 3 + 0.1 / 3, 0.9 / 3, 1 / 3], atol=0.01)


def test_a_label_that_no_training_record_has_changes_nothing():
    labels = np.concatenate([ONE_LABEL_EACH, np.zeros((1000, 1), np.uint8)], axis=1)
    np.testing.assert_allclose(
        shares(Sampling("label"), labels, NOBODY, CLASSES), shares(Sampling("label"), ONE_LABEL_EACH, NOBODY, CLASSES)
    )


@pytest.mark.parametrize(
    ("groups", "group_of", "count"),
    [
        ("sex", lambda sex, _: sex, 2),
        ("age", lambda _, age: np.digitize(age, [40, 65, 80]), 4),
        ("sex_x_age", lambda sex, age: sex + 2 * np.digitize(age, [40, 65, 80]), 8),
    ],
)
def test_every_group_of_a_demographic_is_drawn_equally_often(groups, group_of, count):
    generator = np.random.default_rng(0)
    sex = generator.choice([MALE, FEMALE], 4000, p=[0.8, 0.2])
    age = generator.choice([30, 50, 70, 85], 4000, p=[0.1, 0.5, 0.3, 0.1])
    classes = group_of(sex, age)
    found = shares(Sampling("group", balance_groups=groups), np.zeros((4000, 0), np.uint8), people(sex, age), classes)
    np.testing.assert_allclose(found, np.full(count, 1 / count), atol=0.01)


def test_an_age_band_begins_at_its_edge():
    sampling = Sampling("group", balance_groups="age", age_edges=(40,))
    weights = sampling.weights(np.zeros((4, 0), np.uint8), people([0, 0, 0, 0], [39, 40, 41, 90]))
    np.testing.assert_allclose(weights / weights[1], [3, 1, 1, 1])


def test_records_of_an_unknown_group_are_drawn_as_often_as_they_are_there():
    sex = np.repeat([MALE, FEMALE, np.nan], [700, 200, 100])
    found = shares(
        Sampling("group", balance_groups="sex"),
        np.zeros((1000, 0), np.uint8),
        people(sex, np.full(1000, 50)),
        np.repeat([0, 1, 2], [700, 200, 100]),
    )
    np.testing.assert_allclose(found, [0.45, 0.45, 0.1], atol=0.01)


def test_nobody_of_a_known_group_leaves_every_record_its_turn():
    sampling = Sampling("group", balance_groups="sex")
    assert sampling.weights(np.zeros((3, 0), np.uint8), people([np.nan] * 3, [50] * 3)).tolist() == [1, 1, 1]


def test_without_balance_there_are_no_weights():
    assert Sampling().weights(ONE_LABEL_EACH, NOBODY) is None


def test_balancing_labels_that_are_not_there_is_refused():
    with pytest.raises(ConfigurationError, match="balance is label, but the data have no labels"):
        Sampling("label").weights(np.zeros((3, 0), np.uint8), NOBODY[:3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"balance_power": 1.5}, "balance_power is 1.5"),
        ({"window": -1}, "window is -1"),
        ({"age_edges": [65, 40]}, "age_edges is"),
        ({"age_edges": []}, "age_edges is"),
        ({"balance_groups": "sex x age"}, "balance_groups is 'sex x age': expected sex, age or both"),
        ({"balance_groups": "sex_x_sex"}, "balance_groups is 'sex_x_sex'"),
        ({"balance_groups": "height"}, "balance_groups is 'height'"),
    ],
)
def test_settings_that_can_not_work_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Sampling(**settings)
