from itertools import groupby

import pytest
import torch

from ecgfair.errors import ConfigurationError
from ecgfair.models.encoder import ENCODERS, Encoder, EncoderSpec, ResidualEncoder
from ecgfair.signals.beat_view import beat_view
from ecgfair.signals.trend import trend

SMALL = {"widths": [8, 16, 24], "trend_widths": [4, 8, 12]}


@pytest.mark.parametrize("length", [800, 997, 1000, 5000])
def test_a_signal_of_any_length_becomes_one_token_a_stride(length):
    encoder = ResidualEncoder(**SMALL)
    latents = encoder(torch.randn(2, 12, length))
    tokens = -(-length // encoder.stride)
    assert encoder.token_count(length) == tokens
    assert latents.signal.shape == (2, encoder.signal_channels, tokens)
    assert latents.features().shape == (2, encoder.channels, tokens)


def test_the_trend_is_that_of_the_signal_unless_another_is_named():
    encoder = ResidualEncoder(**SMALL).eval()
    masked, whole = torch.randn(2, 3, 12, 400)
    latents, leaking = encoder(masked), encoder(masked, whole)
    assert torch.equal(latents.trend, encoder.trend_branch(trend(masked, encoder.trend_window)))
    assert torch.equal(leaking.trend, encoder.trend_branch(trend(whole, encoder.trend_window)))
    assert torch.equal(latents.signal, leaking.signal)


def test_every_encoder_that_a_checkpoint_may_name_is_one():
    assert set(ENCODERS) == {"ResidualEncoder", "TwoScaleEncoder", "McfEncoder", "XResNetEncoder"}
    for name, kind in ENCODERS.items():
        assert issubclass(kind, Encoder)
        assert kind.__name__ == name


def test_an_encoder_that_lacks_a_part_of_the_interface_can_not_be_built():
    class Half(Encoder):
        def token_count(self, length):
            return length

    with pytest.raises(TypeError, match=r"forward.*make_parts"):
        Half()


@pytest.mark.parametrize("name", ENCODERS)
def test_the_score_of_a_record_does_not_depend_on_its_neighbours(name):
    encoder = ENCODERS[name]().eval()
    signal = torch.randn(3, 12, 400)
    torch.testing.assert_close(encoder(signal).features()[:1], encoder(signal[:1]).features(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("length", [400, 997])
def test_every_encoder_makes_as_many_tokens_and_channels_as_it_says(name, length):
    encoder = ENCODERS[name]().eval()
    latents = encoder(torch.randn(1, 12, length))
    assert latents.signal.shape == (1, encoder.signal_channels, encoder.token_count(length))
    assert latents.features().shape == (1, encoder.channels, encoder.token_count(length))


@pytest.mark.parametrize("name", ENCODERS)
def test_every_parameter_is_in_exactly_one_layer(name):
    encoder = ENCODERS[name]()
    grouped = [id(weight) for group in encoder.layers() for module in group for weight in module.parameters()]
    assert len(encoder.layers()) > 1
    assert all(group for group in encoder.layers())
    assert sorted(grouped) == sorted(id(weight) for weight in encoder.parameters())


@pytest.mark.parametrize("name", ENCODERS)
def test_layers_go_from_the_signal_to_the_tokens(name):
    encoder = ENCODERS[name]().eval()
    place = {id(module): depth for depth, group in enumerate(encoder.layers()) for module in group}
    called = []
    for path, module in encoder.named_modules():
        if id(module) in place:
            child = path.split(".")[0]
            stop = (child if child.endswith("_branch") else "", place[id(module)])
            module.register_forward_hook(lambda *_, stop=stop: called.append(stop))
    signal = torch.randn(1, 12, 700)
    encoder(signal)
    if encoder.beat_features:
        every = torch.ones(1, 1, 1, dtype=torch.bool)
        encoder.encode_beats(beat_view(signal, every, torch.tensor([[100, 300, 500]]), 100.0))
    # One branch is run after the other, each from the signal, or from the beats, on.
    runs = [(branch, [depth for _, depth in stops]) for branch, stops in groupby(called, lambda stop: stop[0])]
    branches = [name for name, _ in encoder.named_children() if name.endswith("_branch")] or [""]
    assert sorted(branch for branch, _ in runs) == sorted(branches)
    assert {depth for _, depth in called} == set(range(len(encoder.layers())))
    for branch, depths in runs:
        assert depths == sorted(depths), branch
        assert depths[0] == 0, branch


def test_blocks_of_one_time_resolution_are_one_layer_in_both_branches():
    encoder = ResidualEncoder(widths=[8, 8, 16, 16, 16], trend_widths=[4, 6])
    signal, narrow = encoder.signal_branch, encoder.trend_branch
    assert encoder.layers() == [
        [signal.stem, narrow.stem],
        [*signal.blocks[:2], narrow.blocks[0]],
        [*signal.blocks[2:], signal.norm, narrow.blocks[1], narrow.norm],
    ]


def test_branches_that_shorten_time_differently_are_refused():
    with pytest.raises(ConfigurationError, match=r"8-fold.*4-fold"):
        ResidualEncoder(widths=[8, 16, 24], trend_widths=[4, 8])


def test_a_specification_builds_the_encoder_it_names():
    encoder = EncoderSpec("ResidualEncoder", SMALL).build(leads=8)
    assert encoder.leads == 8
    assert encoder.signal_channels == 24


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EncoderSpec("ResidualEncodr"), "Did you mean 'ResidualEncoder'"),
        (EncoderSpec("torch.nn.Linear"), "no encoder 'torch.nn.Linear'"),
        (EncoderSpec(arguments={"width": [8]}), "Did you mean 'widths'"),
        (EncoderSpec(arguments={"widths": []}), "no widths"),
        (EncoderSpec(arguments={"widths": "wide"}), "can't be built"),
        (EncoderSpec(arguments={"leads": 3}), "no argument 'leads'"),
    ],
)
def test_a_specification_that_names_nothing_known_is_refused(spec, message):
    with pytest.raises(ConfigurationError, match=message):
        spec.build(leads=12)
