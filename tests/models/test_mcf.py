from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.errors import ConfigurationError
from ecgfair.models.encoder import EncoderSpec, McfEncoder, ResidualEncoder
from ecgfair.models.encoder_base import PartSettings
from ecgfair.models.mcf import McfBranch, McfDecoder, TokenFusion
from ecgfair.models.restoration import RestorationNetwork
from ecgfair.signals.trend import trend

WIDTHS = st.lists(st.integers(1, 4), min_size=1, max_size=5)


def windows_in(length: int, kernel: int, step: int) -> int:
    """Count the windows of a convolution by laying them down one by one."""
    return sum(1 for start in range(0, length, step) if start + kernel <= length)


def test_the_published_lengths_give_the_published_tokens():
    encoder = McfEncoder().eval()
    with torch.inference_mode():
        latents = encoder(torch.randn(1, 12, 4800))
        assert latents.signal.shape == latents.trend.shape == (1, 50, 136)
        assert encoder.signal_branch(torch.randn(1, 12, 480)).shape == (1, 50, 1)
    assert (encoder.token_count(4800), encoder.token_count(480)) == (136, 1)


def test_the_published_encoder_has_the_parameters_that_its_kernels_and_widths_ask_for():
    widths = [12, 32, 64, 128, 256, 512]
    strided = sum(4 * before * width + 2 * width for before, width in pairwise(widths))
    branch = strided + 15 * 512 * 50 + 50
    assert sum(weight.numel() for weight in McfEncoder().parameters()) == 2 * branch == 2_167_780


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 700), leads=st.integers(1, 4), widths=WIDTHS, channels=st.integers(1, 4))
def test_any_signal_has_as_many_tokens_as_windows_fit(length, leads, widths, channels):
    encoder = McfEncoder(leads, widths, channels).eval()
    positions = -(-length // encoder.stride) * encoder.stride
    for _ in widths:
        positions = windows_in(positions + 2, 4, 2)
    expected = max(windows_in(positions, 15, 1), 1)
    latents = encoder(torch.randn(2, leads, length))
    assert encoder.token_count(length) == expected
    assert latents.signal.shape == latents.trend.shape == (2, channels, expected)
    assert latents.features().shape == (2, encoder.channels, expected)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 300), widths=WIDTHS)
def test_every_sample_reaches_a_token(length, widths):
    torch.manual_seed(0)
    branch = McfBranch(1, widths, 3).double().eval()
    signal = torch.randn(1, 1, length, dtype=torch.double, requires_grad=True)
    tokens = branch(signal)
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert signal.grad.all()


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 700), widths=WIDTHS, channels_out=st.integers(1, 4))
def test_a_decoder_returns_the_length_that_its_branch_took(length, widths, channels_out):
    tokens = McfBranch(2, widths, 3).eval()(torch.randn(2, 2, length))
    assert McfDecoder(3, widths, channels_out).eval()(tokens, length).shape == (2, channels_out, length)


@pytest.mark.parametrize("token", [0, 3, 9])
def test_a_token_is_decoded_to_the_samples_it_was_made_of(token):
    torch.manual_seed(0)
    widths, length = [3, 4, 5], 8 * 24
    branch, decoder = McfBranch(1, widths, 3).double().eval(), McfDecoder(3, widths, 1).double().eval()
    signal = torch.randn(1, 1, length, dtype=torch.double, requires_grad=True)
    branch(signal)[..., token].sum().backward()
    looked_at = signal.grad[0, 0].nonzero()
    tokens = torch.randn(1, 3, 10, dtype=torch.double)
    other = tokens.clone()
    other[..., token] += 1
    drawn = (decoder(tokens, length) != decoder(other, length))[0, 0].nonzero()
    assert (drawn.min(), drawn.max()) == (looked_at.min(), looked_at.max())


def test_signal_and_trend_have_branches_with_weights_of_their_own():
    encoder = McfEncoder(2, [4, 8], 3, trend_window=5).eval()
    signal, other = torch.randn(2, 3, 2, 200)
    latents = encoder(signal)
    torch.testing.assert_close(latents.signal, encoder.signal_branch(signal))
    torch.testing.assert_close(latents.trend, encoder.trend_branch(trend(signal, 5)))
    assert torch.equal(encoder(signal, other).signal, latents.signal)
    assert torch.equal(encoder(signal, other).trend, encoder(other).trend)
    assert not {id(w) for w in encoder.signal_branch.parameters()} & {id(w) for w in encoder.trend_branch.parameters()}


def test_the_tokens_of_a_record_do_not_depend_on_its_neighbours():
    encoder = McfEncoder(2, [4, 8], 3).eval()
    signal = torch.randn(4, 2, 333)
    torch.testing.assert_close(encoder(signal).features()[1:2], encoder(signal[1:2]).features())


def fusion() -> TokenFusion:
    torch.manual_seed(0)
    return TokenFusion(4, 2, 0.0, global_count=5, local_count=2).eval()


def test_the_fusion_adds_to_each_scale_what_its_mlp_makes_of_all_tokens():
    fuse = fusion()
    whole, beat = torch.randn(3, 4, 5), torch.randn(3, 4, 2)
    tokens = torch.cat([whole, beat], dim=-1).transpose(1, 2)
    fused = fuse.norm(tokens + fuse.attention(tokens, tokens, tokens)[0]).transpose(1, 2)
    found = fuse(whole, beat, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(found[0], whole + fuse.to_global(fused))
    torch.testing.assert_close(found[1], beat + fuse.to_local(fused))


def test_a_beat_that_is_not_there_changes_nothing_in_the_fused_signal():
    fuse = fusion()
    whole, beat, has_beat = torch.randn(2, 4, 5), torch.randn(2, 4, 2), torch.tensor([False, True])
    one, other = fuse(whole, beat, has_beat)[0], fuse(whole, beat + 1 + torch.arange(2), has_beat)[0]
    assert torch.equal(one[0], other[0])
    assert not torch.allclose(one[1], other[1])


def test_the_fusion_refuses_signals_of_another_length_and_names_both():
    with pytest.raises(ValueError, match="got 6 tokens of the global signal and 2 of the beat: expected 5 and 2"):
        fusion()(torch.randn(1, 4, 6), torch.randn(1, 4, 2), torch.ones(1, dtype=torch.bool))


@pytest.mark.parametrize("known", [{"length": 1000}, {"window": 96}, {}])
def test_parts_for_no_length_are_refused(known):
    with pytest.raises(ConfigurationError, match=r"length .* and window .*: expected the samples"):
        RestorationNetwork(McfEncoder(2, [4], 2), **known)


def test_the_parts_around_it_are_of_its_own_family():
    parts = McfEncoder(2, [4, 8], 6).make_parts(PartSettings(3, [99], 2, 99, 0.0, length=200, window=96))
    assert isinstance(parts.local_encoder, McfBranch)
    assert isinstance(parts.fusion, TokenFusion)
    assert all(isinstance(decoder, McfDecoder) for decoder in parts[2:])
    assert not any(99 in weight.shape for part in parts for weight in part.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": []}, "no widths"),
        ({"widths": [8, 0]}, r"widths of McfEncoder are \(8, 0\)"),
        ({"channels": 0}, "channels of McfEncoder is 0"),
        ({"trend_window": 0}, "trend_window of McfEncoder is 0"),
        ({"trend_widths": [4]}, "takes no argument 'trend_widths'"),
    ],
)
def test_an_impossible_encoder_is_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        EncoderSpec("McfEncoder", arguments).build(leads=12)


def test_it_is_built_by_name_and_has_the_interface_of_the_default_encoder():
    encoder = EncoderSpec("McfEncoder", {"widths": [4, 8]}).build(leads=3)
    assert isinstance(encoder, McfEncoder)
    assert (encoder.leads, encoder.stride, encoder.signal_channels, encoder.channels) == (3, 4, 50, 100)
    assert ResidualEncoder(widths=[4, 8], trend_widths=[2, 4]).token_count(1001) == 251
