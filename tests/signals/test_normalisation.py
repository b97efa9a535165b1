import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import minmax_scale

from ecgfair.signals.normalisation import min_max

values = arrays(np.float32, (2, 3, 7), elements=st.floats(-100, 100, width=16))


@settings(deadline=None)
@given(values, arrays(np.bool_, (2, 3, 7)))
def test_each_lead_is_scaled_as_scikit_learn_scales_its_recorded_samples(signal, recorded):
    scaled = min_max(torch.tensor(np.where(recorded, signal, np.nan)), torch.tensor(recorded)).numpy()
    for lead, seen, result in zip(signal.reshape(6, 7), recorded.reshape(6, 7), scaled.reshape(6, 7), strict=True):
        assert not result[~seen].any()
        own = lead[seen].astype(np.float64)
        if len(own) and np.ptp(own) > 0:
            np.testing.assert_allclose(result[seen], minmax_scale(own, (-1, 1)), atol=1e-5)
            assert result.min() == -1
            assert result.max() == 1
        else:
            assert not result.any()


def test_a_flat_lead_and_a_lead_without_samples_are_zero_and_change_no_other():
    signal = torch.tensor([[[0.7, 0.7, 0.7], [torch.nan, 5.0, torch.inf], [0.0, 1.0, 4.0]]])
    recorded = torch.tensor([[[True] * 3, [False] * 3, [True] * 3]])
    assert min_max(signal, recorded).tolist() == [[[0, 0, 0], [0, 0, 0], [-1, -0.5, 1]]]


@settings(deadline=None)
@given(values, st.floats(0.01, 100), st.floats(-5, 5))
def test_the_voltage_of_a_lead_is_lost(signal, factor, offset):
    lead = torch.tensor(signal).double()
    everywhere = torch.ones(1, 1, 1, dtype=torch.bool)
    torch.testing.assert_close(
        min_max(lead * factor + offset, everywhere), min_max(lead, everywhere), atol=1e-3, rtol=0
    )
