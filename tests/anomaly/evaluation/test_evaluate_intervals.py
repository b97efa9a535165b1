import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.anomaly.evaluation.decisions import f1_at
from ecgfair.metrics.chance.intervals import confidence_interval
from ecgfair.metrics.chance.resampling import patient_weights
from ecgfair.metrics.kernels.auroc import auroc
from tests.anomaly.anomaly_cases import evaluated, population

FREE = settings(deadline=None, max_examples=15)  # other work on the machine is no failure


# How sure a value is --------------------------------------------------------------------------------------------------


def test_intervals_are_those_of_resampled_patients():
    case = population(200)
    report = evaluated(case, resamples=200, seed=3)
    weights = patient_weights(case["patients"], 200, 3)
    values = auroc(case["score"][:, None], case["abnormal"][:, None].long(), weights).auroc
    patients = torch.tensor([len(case["patients"][kind].unique()) for kind in (case["abnormal"], ~case["abnormal"])])
    low, high = confidence_interval(values, patients.min()[None].double(), bounded=True)
    row = report.overall("auroc")
    assert (row.low, row.high) == pytest.approx((low.item(), high.item()), abs=1e-9)


def test_the_interval_of_f1_rests_on_the_patients_that_are_abnormal_or_called_so():
    case = population(200)
    case["abnormal"] &= torch.arange(200) < 12
    row = evaluated(case, resamples=200, threshold=-1.0).overall("f1")
    called = case["abnormal"] | (case["score"] >= -1.0)
    values = f1_at(case["score"], case["abnormal"], -1.0, patient_weights(case["patients"], 200, 0))[:, None]
    patients = torch.tensor([float(len(case["patients"][called].unique()))])
    low, high = confidence_interval(values, patients, bounded=True)
    assert (row.low, row.high) == pytest.approx((low.item(), high.item()), abs=1e-9)


def test_every_statistic_of_all_records_has_an_interval_around_it():
    report = evaluated(population(200), resamples=200, threshold=0.5)
    for row in report.rows[:10]:
        assert row.attribute == "overall"
        assert row.low < row.value < row.high


def test_records_of_one_patient_are_not_two_pieces_of_evidence():
    case = population(120)
    twice = {
        name: torch.cat([value, value]) if isinstance(value, torch.Tensor) else value for name, value in case.items()
    }
    alone, together = evaluated(case, resamples=300), evaluated(twice, resamples=300)
    apart = evaluated(twice, resamples=300, patients=None)

    def width(report, name):
        return report.overall(name).high - report.overall(name).low

    for name in ("auroc", "best_f1", "average_precision"):
        assert together.overall(name).value == pytest.approx(alone.overall(name).value, abs=0.02)
        assert width(together, name) == pytest.approx(width(alone, name), rel=0.05)
        assert width(apart, name) < 0.9 * width(alone, name)
    assert any("240 of 240 records have no known patient" in note for note in apart.notes)


def test_unknown_patients_are_each_their_own_beside_known_ones():
    case = population(100)
    case["patients"] = torch.where(torch.arange(100) < 20, -1, case["patients"])
    report = evaluated(case)
    assert report.patients == 20 + 40
    assert any(note.startswith("20 of 100 records have no known patient") for note in report.notes)


# The same records, the same report ------------------------------------------------------------------------------------


def shared(report):
    """Rows without NaN, which is unequal to itself."""
    return [tuple(str(value) for value in row) for row in report.rows]


def test_the_same_records_give_the_same_report_in_any_order():
    case = population(150)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(5))
    mixed = {name: value[order] if isinstance(value, torch.Tensor) else value for name, value in case.items()}
    first, again = (evaluated(case, resamples=100, threshold=0.4) for _ in range(2))
    other = evaluated(mixed, resamples=100, threshold=0.4)
    assert shared(first) == shared(again)
    for row, same in zip(first.rows, other.rows, strict=True):
        assert row[:5] == same[:5]
        assert (row.value, row.low, row.high) == pytest.approx((same.value, same.low, same.high), abs=1e-9, nan_ok=True)


def test_another_seed_gives_other_intervals_and_the_same_values():
    case = population(150)
    one, other = (evaluated(case, resamples=100, seed=seed).overall("auroc") for seed in (0, 1))
    assert one.value == other.value
    assert one.low != other.low


@FREE
@given(
    st.integers(0, 100), st.sampled_from([torch.exp, torch.atan, lambda score: 1e4 * score - 7, lambda score: score**3])
)
def test_nothing_but_the_order_of_the_scores_counts(seed, transform):
    case = population(60, seed=seed)
    moved = {**case, "score": transform(case["score"])}
    threshold = torch.tensor(0.5, dtype=torch.float64)
    first = evaluated(case, threshold=threshold.item())
    second = evaluated(moved, threshold=transform(threshold).item())
    assert shared(first) == shared(second)
