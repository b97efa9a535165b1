import pytest
import torch

from ecgfair.signals.medians import lower_median


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 2, 5, 6, 61])
def test_it_is_the_median_of_torch_to_the_bit_for_any_number_of_missing_values(dtype, length):
    values = torch.randn(40, 3, length, generator=torch.Generator().manual_seed(length)).to(dtype)
    share = torch.linspace(0, 1, 40)[:, None, None]
    for found in (values, values.masked_fill(torch.rand(values.shape) < share, torch.nan)):
        expected = found.nanmedian(dim=-1).values
        torch.testing.assert_close(lower_median(found), expected, atol=0, rtol=0, equal_nan=True)


def test_of_an_even_count_it_is_the_lower_of_the_middle_two():
    values = torch.tensor([[4.0, 1.0, 3.0, 2.0], [9.0, torch.nan, 7.0, torch.nan]])
    assert lower_median(values).tolist() == [2.0, 7.0]


def test_the_values_stay_as_they_are_in_any_layout():
    values = torch.randn(30, 5).T
    copy = values.clone()
    windows = torch.arange(20.0).flip(0).unfold(0, 5, 2)
    torch.testing.assert_close(lower_median(values), copy.nanmedian(dim=-1).values)
    torch.testing.assert_close(lower_median(windows), windows[:, 2])
    assert torch.equal(values, copy)


def test_no_rows_have_no_medians():
    assert lower_median(torch.zeros(0, 3, 7)).shape == (0, 3)
