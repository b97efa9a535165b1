import pytest
import torch

from ecgfair.callbacks.gather import unique_by_index
from ecgfair.errors import ConfigurationError


def columns(index, **changes):
    index = torch.tensor(index)
    table = {
        "index": index,
        "age": index * 10.0,
        "sex": index % 2,
        "targets": torch.stack([index % 2, index % 3], 1).float(),
        "probabilities": torch.arange(len(index)).float()[:, None],
    }
    return table | changes


def test_records_are_sorted_by_index_and_the_first_of_a_repeated_one_is_kept():
    found = unique_by_index(columns([7, 2, 7, 5, 2]))
    assert found["index"].tolist() == [2, 5, 7]
    assert found["probabilities"].flatten().tolist() == [1, 3, 0]
    assert found["targets"].tolist() == [[0, 2], [1, 2], [1, 1]]


def test_a_missing_age_is_the_same_missing_age():
    age = torch.tensor([torch.nan, 20.0, torch.nan])
    assert unique_by_index(columns([7, 2, 7], age=age))["age"].isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("age", torch.tensor([70.0, 20.0, 71.0])),
        ("age", torch.tensor([70.0, 20.0, torch.nan])),
        ("sex", torch.tensor([1, 0, -1])),
        ("targets", torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])),
    ],
)
def test_rows_of_one_index_that_differ_are_refused(name, values):
    with pytest.raises(ConfigurationError, match=f"Records with the index 7 differ in {name}"):
        unique_by_index(columns([7, 2, 7], **{name: values}))


def test_no_records_stay_none():
    assert len(unique_by_index({name: column[:0] for name, column in columns([1]).items()})["index"]) == 0
