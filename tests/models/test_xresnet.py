from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.ecg import AttributeStatistics, Preprocessing
from ecgfair.errors import ConfigurationError
from ecgfair.models.diagnosis import DiagnosisNetwork
from ecgfair.models.encoder import EncoderSpec, XResNetEncoder
from ecgfair.models.restoration import RestorationNetwork
from ecgfair.models.xresnet import Bottleneck
from ecgfair.training.encoder_checkpoint import EncoderCheckpoint, load_encoder, save_encoder

SMALL = {"layers": [1, 2, 1], "width": 8}


def count(module):
    return sum(weight.numel() for weight in module.parameters())


def test_the_published_network_has_the_parameters_that_its_kernels_and_widths_ask_for():
    stem = sum(5 * before * after + 2 * after for before, after in pairwise([12, 32, 32, 64]))

    def bottleneck(channels_in):
        inside = channels_in * 64 + 2 * 64 + 5 * 64 * 64 + 2 * 64
        return inside + 64 * 256 + 2 * 256

    widening = 64 * 256 + 2 * 256
    encoder = stem + bottleneck(64) + widening + (3 + 4 + 23 + 3 - 1) * bottleneck(256)
    head = 2 * 512 + 512 * 128 + 128 + 2 * 128 + 128 * 71 + 71
    network = DiagnosisNetwork(XResNetEncoder(), [0.1] * 71, 0.5, attributes=False, hidden=128)
    assert count(network.encoder) == encoder == 1_804_672
    assert count(network) == encoder + head == 1_880_775


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 700), leads=st.integers(1, 4), layers=st.lists(st.integers(1, 2), min_size=1, max_size=4))
def test_a_signal_of_any_length_becomes_one_token_a_stride(length, leads, layers):
    encoder = XResNetEncoder(leads, layers, width=4).eval()
    latents = encoder(torch.randn(2, leads, length))
    assert encoder.stride == 4 * 2 ** (len(layers) - 1)
    assert encoder.token_count(length) == -(-length // encoder.stride)
    assert latents.signal.shape == (2, 16, encoder.token_count(length))
    assert latents.trend.shape == (2, 0, encoder.token_count(length))
    assert torch.equal(latents.features(), latents.signal)


def test_the_stem_is_three_convolutions_and_a_maximum():
    encoder = XResNetEncoder(**SMALL).eval()
    signal = torch.randn(2, 12, 301)
    features = signal
    for place in (0, 3, 6):
        convolution, norm = encoder.stem[place], encoder.stem[place + 1]
        features = F.conv1d(features, convolution.weight, stride=2 if place == 0 else 1, padding=2)
        features = norm(features).clamp(min=0)
    torch.testing.assert_close(encoder.stem(signal), F.max_pool1d(features, 3, 2, 1))


def test_at_the_start_only_the_shortcuts_speak_unless_told_otherwise():
    signal = torch.randn(2, 12, 400)
    for silent in (True, False):
        encoder = XResNetEncoder(**SMALL, zero_last_norm=silent).eval()
        blocks = [module for module in encoder.modules() if isinstance(module, Bottleneck)]
        features = encoder.stem(signal)
        for block in blocks:
            expected = block.shortcut(features).clamp(min=0)
            features = block(features)
            assert torch.equal(features, expected) == silent


def test_the_shortcut_averages_neighbours_where_time_is_halved():
    block = Bottleneck(16, 4, 5, 2).eval()
    torch.nn.init.zeros_(block.residual[-1].weight)
    features = torch.rand(1, 16, 5)
    expected = torch.stack([features[..., :2].mean(-1), features[..., 2:4].mean(-1), features[..., 4]], dim=-1)
    torch.testing.assert_close(block(features), expected)


def test_every_convolution_starts_as_wide_as_a_rectifier_asks_for():
    for name, weight in XResNetEncoder(layers=[1, 1], width=64).named_parameters():
        if weight.ndim > 1:
            expected = (2 / (weight.shape[1] * weight.shape[2])) ** 0.5
            assert abs(weight.std().item() / expected - 1) < 0.1, name


def test_the_latent_is_the_same_whatever_the_trend_is_computed_of():
    encoder = XResNetEncoder(**SMALL).eval()
    masked, whole = torch.randn(2, 3, 12, 400)
    assert torch.equal(encoder(masked).features(), encoder(masked, whole).features())


def test_stage_1_restores_around_it_and_every_weight_of_it_learns():
    encoder = XResNetEncoder(**SMALL, zero_last_norm=False)
    network = RestorationNetwork(encoder, local_widths=[8], fusion_heads=2, decoder_width=8)
    signal, beat = torch.randn(3, 12, 333), torch.randn(3, 12, 70)
    restored = network(signal, beat, torch.tensor([True, True, False]))
    assert restored.whole.signal.shape == restored.from_trend.shape == signal.shape
    assert restored.beat.signal.shape == beat.shape
    (restored.whole.signal.square().mean() + restored.from_trend.square().mean()).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in encoder.parameters())


def test_a_checkpoint_gives_back_the_encoder(tmp_path):
    spec, preprocessing = EncoderSpec("XResNetEncoder", SMALL), Preprocessing()
    encoder = spec.build(12)
    encoder(torch.randn(4, 12, 300))
    save_encoder(tmp_path / "encoder", encoder, EncoderCheckpoint(spec, preprocessing, AttributeStatistics(), "none"))
    loaded, _ = load_encoder(tmp_path / "encoder", preprocessing)
    signal = torch.randn(2, 12, 500)
    assert torch.equal(loaded.eval()(signal).signal, encoder.eval()(signal).signal)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": []}, r"layers .* \(\): expected one stage"),
        ({"layers": [3, 0]}, r"\(3, 0\): expected one stage"),
        ({"leads": 0}, "leads .* 0: expected 1 or more"),
        ({"width": 7}, "width .* 7: expected an even number"),
        ({"width": 0}, "width .* 0: expected an even number"),
        ({"kernel": 4}, "kernel .* 4: expected an odd number"),
        ({"kernel": -1}, "kernel .* -1: expected an odd number"),
    ],
)
def test_what_no_network_can_be_built_from_is_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        XResNetEncoder(**arguments)
