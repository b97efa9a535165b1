import json

import pytest

from ecgfair.ecg import ATTRIBUTES, LEADS, AttributeStatistics, Preprocessing
from ecgfair.errors import ConfigurationError, PreprocessingMismatchError


def test_a_preprocessing_survives_json():
    for preprocessing in (
        Preprocessing(),
        Preprocessing(("I", "II"), 500, 5000, (0.5, 40.0), "center", "reject", 0.005),
    ):
        assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


def test_lists_as_yaml_has_them_make_an_equal_preprocessing():
    assert Preprocessing(leads=list(LEADS), band_pass=[0.5, 40.0]) == Preprocessing(band_pass=(0.5, 40.0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"leads": ()}, "leads"),
        ({"leads": ("I", "I")}, "none twice"),
        ({"sampling_rate": 0}, "sampling_rate is 0"),
        ({"length": -1}, "length is -1"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"band_pass": (0.5, 60.0)}, "half the sampling rate"),
        ({"band_pass": (40.0, 0.5)}, "low < high"),
        ({"crop": "end"}, "crop is 'end': expected start, center or reject"),
        ({"pad": "zero"}, "pad is 'zero': expected start, center or reject"),
    ],
)
def test_an_impossible_preprocessing_is_refused_by_field(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        Preprocessing(**wrong)


def test_a_preprocessing_with_other_fields_is_told_to_be_of_another_version():
    with pytest.raises(ConfigurationError, match="another version"):
        Preprocessing.from_dict({**Preprocessing().to_dict(), "notch": 50})


def test_every_field_that_differs_is_named_with_both_values():
    mine, other = Preprocessing(), Preprocessing(sampling_rate=500, length=5000)
    with pytest.raises(PreprocessingMismatchError) as refused:
        mine.require_same(other, "the checkpoint", "the data")
    assert "sampling_rate is 100 in the checkpoint but 500 in the data" in str(refused.value)
    assert "length is 1000 in the checkpoint but 5000 in the data" in str(refused.value)
    assert "scale" not in str(refused.value)
    mine.require_same(Preprocessing(), "the checkpoint", "the data")


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [((0.0,), (1.0,), "1 means"), ((0.0,) * len(ATTRIBUTES), (0.0,) * len(ATTRIBUTES), "positive")],
)
def test_statistics_that_can_not_standardise_are_refused(mean, std, message):
    with pytest.raises(ConfigurationError, match=message):
        AttributeStatistics(mean, std)
