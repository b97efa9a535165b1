import pytest
import torch

from ecgfair.errors import ConfigurationError
from ecgfair.signals.augmentation import Augmentation

OFF = Augmentation(crop_seconds=None, lead_dropout=0, scaling=0, noise=0)


def signal() -> torch.Tensor:
    return torch.randn(64, 12, 1000, generator=torch.Generator().manual_seed(0))


def test_with_every_strength_off_the_signal_is_unchanged():
    assert torch.equal(OFF(signal(), 100), signal())


def test_a_crop_is_a_window_of_the_record_of_the_length_asked_for():
    ramp = torch.arange(1000).float().expand(64, 12, 1000)
    windows = Augmentation(crop_seconds=8, lead_dropout=0, scaling=0, noise=0)(ramp, 100)
    assert windows.shape == (64, 12, 800)
    assert (windows.diff(dim=-1) == 1).all()
    assert len(windows[:, 0, 0].unique()) > 10, "windows start at different places"


def test_a_crop_longer_than_the_record_keeps_the_record():
    assert Augmentation(crop_seconds=60, lead_dropout=0, scaling=0, noise=0)(signal(), 100).shape[-1] == 1000


def test_dropped_leads_are_zero_and_one_lead_always_stays():
    dropped = Augmentation(crop_seconds=None, lead_dropout=0.95, scaling=0, noise=0)(signal(), 100)
    alive = dropped.any(dim=-1).sum(dim=1)
    assert alive.min() >= 1
    assert alive.float().mean() < 3


def test_scaling_is_the_same_for_all_leads_of_a_record():
    factor = Augmentation(crop_seconds=None, lead_dropout=0, scaling=0.1, noise=0)(signal(), 100) / signal()
    torch.testing.assert_close(factor, factor[:, :1, :1].expand_as(factor))
    assert 0.05 < factor[:, 0, 0].std() < 0.15


def test_noise_has_the_standard_deviation_asked_for():
    noise = Augmentation(crop_seconds=None, lead_dropout=0, scaling=0, noise=0.02)(signal(), 100) - signal()
    assert noise.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("wrong", [{"lead_dropout": 1.0}, {"noise": -1.0}, {"scaling": -0.1}, {"crop_seconds": 0.0}])
def test_impossible_strengths_are_refused_by_name(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Augmentation(**wrong)
