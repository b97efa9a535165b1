import torch

from ecgfair.ecg import ATTRIBUTES
from ecgfair.models.encoder import ResidualEncoder
from ecgfair.models.fusion import ScaleFusion
from ecgfair.models.restoration import RestorationNetwork


def network() -> RestorationNetwork:
    torch.manual_seed(0)
    return RestorationNetwork(ResidualEncoder(widths=[8, 16, 24], trend_widths=[4, 8, 12]), [8, 16], decoder_width=16)


def inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    signal, beat = torch.randn(batch, 12, 997, generator=generator), torch.randn(batch, 12, 96, generator=generator)
    return signal, beat, torch.ones(batch, dtype=torch.bool)


def test_everything_comes_back_in_the_shape_it_went_in():
    restoration = network()(*inputs())
    assert restoration.whole.signal.shape == restoration.whole.log_variance.shape == (3, 12, 997)
    assert restoration.beat.signal.shape == restoration.beat.log_variance.shape == (3, 12, 96)
    assert restoration.from_trend.shape == (3, 12, 997)
    assert restoration.attributes.shape == (3, len(ATTRIBUTES))


def test_each_scale_is_restored_with_the_help_of_the_other():
    net = network().eval()
    signal, beat, has_beat = inputs()
    before, other_beat = net(signal, beat, has_beat), net(signal, beat + 1, has_beat)
    other_signal = net(signal + torch.randn(1000)[:997], beat, has_beat)
    assert not torch.allclose(before.whole.signal, other_beat.whole.signal, atol=1e-6)
    assert not torch.allclose(before.beat.signal, other_signal.beat.signal, atol=1e-6)


def test_a_record_without_a_beat_is_restored_as_if_there_were_no_local_signal():
    net = network().eval()
    signal, beat, has_beat = inputs()
    has_beat[1] = False
    one, other = net(signal, beat, has_beat), net(signal, beat + 1, has_beat)
    torch.testing.assert_close(one.whole.signal[1], other.whole.signal[1])
    assert not torch.allclose(one.whole.signal[0], other.whole.signal[0], atol=1e-6)


def test_records_are_fused_independently_of_their_neighbours():
    fusion = ScaleFusion(24).eval()
    one, other = torch.randn(4, 24, 63), torch.randn(4, 24, 12)
    has_beat = torch.tensor([True, False, True, True])
    together = fusion(one, other, has_beat)
    alone = fusion(one[:1], other[:1], has_beat[:1])
    torch.testing.assert_close(together[0][:1], alone[0], atol=1e-5, rtol=1e-4)
    assert together[0].shape == one.shape
    assert together[1].shape == other.shape
