import pytest
import torch

from ecgfair.metrics.kernels.calibration import brier_scores, calibration_errors
from ecgfair.metrics.kernels.operating_points import rates


def measured_by_rates(probabilities, targets, *groups):
    return rates(probabilities, targets, torch.full((2,), 0.5), *groups)


@pytest.mark.parametrize("measure", [brier_scores, calibration_errors, measured_by_rates])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": torch.zeros(3)}, r"probabilities have the shape \(3,\) and targets \(3, 2\)"),
        ({"targets": torch.zeros(3, 1)}, r"targets \(3, 1\): expected both to be \(records, labels\)"),
        (
            {"probabilities": torch.tensor([[0.0, torch.nan]] * 3)},
            "3 of 6 probabilities are NaN: expected real numbers",
        ),
        ({"probabilities": torch.full((3, 2), 1.5)}, r"6 of 6 probabilities lie outside \[0, 1\].*sigmoid"),
        ({"probabilities": torch.full((3, 2), -torch.inf)}, r"6 of 6 probabilities lie outside \[0, 1\]"),
        ({"targets": torch.full((3, 2), 0.5)}, "6 of 6 targets are neither 0 nor 1"),
        ({"targets": torch.full((3, 2), torch.nan)}, "6 of 6 targets are neither 0 nor 1"),
        (
            {"codes": torch.zeros(4, dtype=torch.int64)},
            r"codes have the shape \(4,\) and the type torch.int64: expected \(3,\)",
        ),
        ({"codes": torch.tensor([0, 1, 2])}, "1 of 3 codes are no group: expected 0 to 1"),
        ({"codes": torch.tensor([0, -1, -1])}, "2 of 3 codes are no group"),
        ({"codes": torch.zeros(3)}, "type torch.float32: expected .*, one whole number a record"),
        ({"weights": torch.ones(3)}, r"weights have the shape \(3,\): expected \(weightings, 3\)"),
        ({"weights": torch.ones(1, 4)}, r"expected \(weightings, 3\), one column a record"),
        ({"weights": torch.tensor([[1.0, -1.0, 1.0]])}, "1 of 3 weights are negative or not finite"),
        ({"weights": torch.tensor([[1.0, torch.inf, torch.nan]])}, "2 of 3 weights"),
    ],
)
def test_inputs_without_a_meaning_are_refused_with_what_was_found(measure, change, message):
    inputs = {
        "probabilities": torch.zeros(3, 2),
        "targets": torch.zeros(3, 2),
        "codes": torch.zeros(3, dtype=torch.int64),
        "groups": 2,
        "weights": torch.ones(1, 3),
    } | change
    with pytest.raises(ValueError, match=message):
        measure(*inputs.values())
