import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ecgfair.anomaly.normal_beats import (
    COMPONENTS,
    EVEN_SPREAD,
    LEAST_NOISE,
    LINEAR_TO,
    NormalBeats,
    covered,
    shape_of,
)
from ecgfair.signals.aligned_beats import POINTS, AlignedBeats, aligned_beats, median_beats
from tests.signals.heart_cases import heart, peaks

LEADS = 3


def records(count: int = 20, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Signals (B, 3, 1000) of hearts of different sizes and waves, with some noise, and their R peaks."""
    draw = torch.Generator().manual_seed(seed)
    signal = heart(0.8).repeat(count, 1, 1) * (0.5 + torch.rand(count, LEADS, 1, generator=draw))
    other = heart(0.8, first=0.63) * torch.randn(count, LEADS, 1, generator=draw)
    return signal + 0.2 * other + 0.02 * torch.randn(signal.shape, generator=draw), peaks(0.8).repeat(count, 1)


def cut(signal: torch.Tensor, beats: torch.Tensor) -> AlignedBeats:
    return aligned_beats(signal, beats, 100.0)


def fitted(signal: torch.Tensor, beats: torch.Tensor) -> NormalBeats:
    normal = NormalBeats(LEADS)
    normal.fit(signal, cut(signal, beats))
    return normal


# The shape of a beat --------------------------------------------------------------------------------------------------


def test_a_shape_is_the_beat_over_its_size_linear_where_it_is_low():
    beat = torch.randn(1, LEADS, POINTS)
    level = beat.numpy() - beat.numpy().mean(-1, keepdims=True)
    size = np.sqrt((level**2).mean()) + 0.001
    np.testing.assert_allclose(shape_of(beat).numpy(), np.arcsinh(level / (LINEAR_TO * size)), atol=1e-5)


@pytest.mark.parametrize("gain", [1 / 3, 3.0, 30.0])
def test_a_shape_is_free_of_gain_and_of_level_in_each_lead(gain):
    beat = 10 * median_beats(cut(*records()), 20)  # so tall that the least voltage hardly counts
    torch.testing.assert_close(shape_of(beat * gain + torch.tensor([[[5.0], [-2.0], [0.0]]])), shape_of(beat), **LOOSE)


LOOSE = {"atol": 5e-3, "rtol": 0}


def test_silence_has_a_shape_too():
    assert torch.equal(shape_of(torch.zeros(2, LEADS, POINTS)), torch.zeros(2, LEADS, POINTS))


# Fitting --------------------------------------------------------------------------------------------------------------


def test_components_and_what_they_leave_are_those_of_scikit_learn():
    signal, beats = records()
    normal = fitted(signal, beats)
    shapes = shape_of(median_beats(cut(signal, beats), 20)).flatten(1).double().numpy()
    oracle = PCA(COMPONENTS).fit(shapes)
    np.testing.assert_allclose(normal.mean.numpy(), oracle.mean_, atol=1e-5)
    np.testing.assert_allclose(abs((normal.components.numpy() * oracle.components_).sum(1)), 1, atol=1e-4)
    new, new_beats = records(5, seed=2)
    strange = shape_of(median_beats(cut(new, new_beats), 5)).flatten(1).double().numpy()
    rest = strange - oracle.inverse_transform(oracle.transform(strange))
    found = normal.deviation(new, cut(new, new_beats)).shape * normal.shape_spread
    np.testing.assert_allclose(found.flatten(1).numpy(), abs(rest), atol=1e-4)


def test_deviations_of_training_records_have_the_spread_that_was_taken_from_them():
    signal, beats = records(40)
    normal, aligned = fitted(signal, beats), cut(signal, beats)
    found = normal.deviation(signal, aligned)
    between = found.between.masked_fill(covered(aligned, signal.shape)[:, None], torch.nan)
    for spread, values, over in (
        (normal.shape_spread, found.shape, (0,)),
        (normal.variation_spread, found.variation, (0,)),
        (normal.between_spread, between, (0, 2)),
    ):
        usual = spread - EVEN_SPREAD / (1 + EVEN_SPREAD) * spread.mean()
        torch.testing.assert_close(values.square().nanmean(over).sqrt(), usual / spread, atol=1e-3, rtol=1e-3)
        assert (values.square().nanmean(over).sqrt() < 1).float().mean() > 0.9
        assert values[~values.isnan()].min() >= 0


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_of_few_records_so_few_components_are_kept_that_something_is_left_of_each(count):
    signal, beats = records(count)
    normal = fitted(signal, beats)
    kept = min(COMPONENTS, (count - 1) // 2)
    torch.testing.assert_close(
        normal.components @ normal.components.T, torch.diag((torch.arange(COMPONENTS) < kept).float())
    )
    assert all(value.isfinite().all() for value in normal.state_dict().values())
    assert normal.shape_spread.min() > 1e-3
    new, new_beats = records(5, seed=2)
    shape = normal.deviation(new, cut(new, new_beats)).shape
    assert shape.isfinite().all()
    assert shape.mean() < 100


def test_records_without_a_beat_leave_what_a_fresh_one_has():
    signal, beats = records(4)
    fresh, normal = NormalBeats(LEADS), fitted(signal, torch.full_like(beats, -1))
    for name, value in normal.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name
    assert normal.deviation(signal, cut(signal, beats)).shape.isfinite().all()


def test_a_record_without_a_beat_takes_no_part_in_the_shapes():
    signal, beats = records()
    expected = fitted(signal[1:], beats[1:])
    beats[0] = -1
    found = fitted(signal, beats)
    for name in ("mean", "shape_spread", "variation_spread"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-5)


def test_nothing_is_left_of_an_earlier_fit():
    few, many = records(2), records(20, seed=3)
    again = fitted(*many)
    again.fit(few[0], cut(*few))
    for name, value in fitted(*few).state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


# Missing leads --------------------------------------------------------------------------------------------------------


def test_a_missing_lead_adds_nothing_and_the_others_vary_as_they_did():
    normal = fitted(*records())
    signal, beats = records(5, seed=2)
    whole = normal.deviation(signal, cut(signal, beats))
    signal = signal.clone()
    signal[:, 1] = torch.nan
    found = normal.deviation(signal, cut(signal, beats))
    for one, other in ((found.variation, whole.variation), (found.between, whole.between)):
        assert one[:, 1].isnan().all()
        assert torch.equal(one[:, ::2].isnan(), other[:, ::2].isnan())
        torch.testing.assert_close(one[:, ::2], other[:, ::2], atol=0, rtol=0, equal_nan=True)
    assert found.shape[:, 1].isnan().all()
    assert found.shape[:, ::2].isfinite().all()


def test_a_lead_that_no_training_record_has_is_as_usual_as_the_others():
    signal, beats = records()
    signal[:, 1] = torch.nan
    normal = fitted(signal, beats)
    assert all(value.isfinite().all() for value in normal.state_dict().values())
    torch.testing.assert_close(
        normal.shape_spread[1] / (1 + EVEN_SPREAD),
        (normal.shape_spread[::2].mean() / (1 + EVEN_SPREAD)).expand(POINTS),
        atol=1e-4,
        rtol=1e-4,
    )


def test_a_lead_that_some_training_records_lack_is_fitted_on_the_others():
    signal, beats = records()
    signal[:4, 1] = torch.nan
    normal = fitted(signal, beats)
    shapes = shape_of(median_beats(cut(signal, beats), 20))
    torch.testing.assert_close(normal.mean.view(LEADS, POINTS)[1], shapes[4:, 1].mean(0), atol=1e-5, rtol=1e-5)
    assert normal.deviation(signal, cut(signal, beats)).shape[4:].isfinite().all()


# The noise of a record, and where beats are ---------------------------------------------------------------------------


def test_variation_is_told_in_multiples_of_the_usual_difference_of_two_beats():
    signal, beats = records(3)
    normal, aligned = NormalBeats(LEADS), cut(signal, beats)
    beats_of = aligned.beat[aligned.record == 1]
    differ = beats_of - beats_of.nanmedian(dim=0).values
    differ = differ - differ.nanmedian(dim=-1, keepdim=True).values
    noise = differ.abs().transpose(0, 1).flatten(1).nanmedian(dim=1).values + LEAST_NOISE
    found = normal.deviation(signal, aligned)
    expected = differ.abs() / noise[:, None]
    torch.testing.assert_close(found.variation[aligned.record == 1], expected, equal_nan=True)
    torch.testing.assert_close(found.between[1], signal[1].abs() / noise[:, None])


def test_in_a_record_without_a_beat_the_median_voltage_stands_for_noise():
    signal, beats = records(2)
    beats[1] = -1
    found = NormalBeats(LEADS).deviation(signal, cut(signal, beats))
    noise = signal[1].abs().nanmedian(dim=1).values + LEAST_NOISE
    torch.testing.assert_close(found.between[1], signal[1].abs() / noise[:, None])
    assert found.shape[1].isnan().all()


def test_a_beat_that_the_baseline_lifts_differs_no_more_for_it():
    signal, beats = records(1)
    lifted = signal.clone()
    at = int(beats[0, 4])
    lifted[..., at - 40 : at + 60] += 0.3  # all of one beat and of no other
    aligned = cut(signal, beats)
    one = NormalBeats(LEADS).deviation(signal, aligned)
    other = NormalBeats(LEADS).deviation(lifted, cut(lifted, beats))
    # The median beat moves a little, since one more of them is above it.
    assert (other.variation[4] - one.variation[4]).abs().mean() < 0.3 * one.variation[4].mean()


@pytest.mark.parametrize("rate", [100.0, 250.0])
def test_samples_that_lie_in_a_beat_are_those_between_its_first_and_last_point(rate):
    time = round(4 * rate)
    rows = [[0.05, 1.0, 1.6, 3.9], [0.5, 0.7, -1, -1], [-1, -1, -1, -1], [2.0, -1, -1, -1]]
    beats = torch.tensor([[round(rate * second) if second >= 0 else -1 for second in row] for row in rows])
    aligned = aligned_beats(torch.zeros(4, 1, time), beats, rate)
    expected = torch.zeros(4, time, dtype=torch.bool)
    for record, place in zip(aligned.record.tolist(), aligned.place.tolist(), strict=True):
        for sample in range(time):
            expected[record, sample] |= place[0] <= sample <= place[-1]
    found = covered(aligned, torch.Size((4, 1, time)))
    assert torch.equal(found, expected)
    assert found.any(dim=1).tolist() == [True, True, False, True]
