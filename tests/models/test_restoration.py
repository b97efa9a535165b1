from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.ecg import ATTRIBUTES
from ecgfair.errors import ConfigurationError
from ecgfair.models.encoder import Encoder, McfEncoder, ResidualEncoder
from ecgfair.models.encoder_base import PartSettings
from ecgfair.models.fusion import ScaleFusion
from ecgfair.models.restoration import Restoration, RestorationNetwork

LENGTH, WINDOW = 997, 96
FAMILIES = ("residual", "mcf")


def encoder(family: str, leads: int = 12) -> Encoder:
    if family == "mcf":
        return McfEncoder(leads, widths=[4, 6, 8], channels=6)
    return ResidualEncoder(leads, widths=[8, 16, 24], trend_widths=[4, 8, 12])


def network(
    family: str = "residual", leads: int = 12, length: int = LENGTH, window: int = WINDOW, **switches: Any
) -> RestorationNetwork:
    torch.manual_seed(0)
    return RestorationNetwork(
        encoder(family, leads), [8, 16], decoder_width=16, length=length, window=window, **switches
    )


def inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    signal, beat = torch.randn(batch, 12, 997, generator=generator), torch.randn(batch, 12, 96, generator=generator)
    return signal, beat, torch.ones(batch, dtype=torch.bool)


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_comes_back_in_the_shape_it_went_in(family):
    restoration = network(family)(*inputs())
    assert restoration.whole.signal.shape == restoration.whole.log_variance.shape == (3, 12, 997)
    assert restoration.beat.signal.shape == restoration.beat.log_variance.shape == (3, 12, 96)
    assert restoration.from_trend.shape == (3, 12, 997)
    assert restoration.attributes.shape == (3, len(ATTRIBUTES))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_scale_is_restored_with_the_help_of_the_other(family):
    net = network(family).eval()
    signal, beat, has_beat = inputs()
    before, other_beat = net(signal, beat, has_beat), net(signal, beat + 1, has_beat)
    other_signal = net(signal + torch.randn(1000)[:997], beat, has_beat)
    assert not torch.allclose(before.whole.signal, other_beat.whole.signal, atol=1e-6)
    assert not torch.allclose(before.beat.signal, other_signal.beat.signal, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_record_without_a_beat_is_restored_as_if_there_were_no_local_signal(family):
    net = network(family).eval()
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


def flat(restoration: Restoration) -> list[torch.Tensor]:
    return [*restoration.whole, *restoration.beat, restoration.from_trend, restoration.attributes]


@settings(max_examples=12, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    leads=st.integers(1, 4),
    length=st.integers(1, 400),
    window=st.integers(1, 150),
    shared=st.booleans(),
)
def test_signals_of_any_length_and_number_of_leads_come_back(family, leads, length, window, shared):
    net = network(family, leads, length, window, shared_log_variance=shared, alteration_head=True).eval()
    signal, beat = torch.randn(2, leads, length), torch.randn(2, leads, window)
    restoration = net(signal, beat, torch.tensor([True, False]))
    assert restoration.whole.signal.shape == restoration.whole.log_variance.shape == (2, leads, length)
    assert restoration.beat.signal.shape == restoration.beat.log_variance.shape == (2, leads, window)
    assert restoration.from_trend.shape == (2, leads, length)
    assert all(torch.isfinite(values).all() for values in flat(restoration))
    record, where = net.tell_altered(net.encode_global(signal), length)
    assert record.shape == (2,)
    assert where.shape == (2, leads, length)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("leak", [False, True])
def test_gradients_reach_every_part_with_every_switch(family, shared, leak):
    net = network(family, shared_log_variance=shared, alteration_head=True)
    signal, beat, has_beat = inputs()
    restoration = net(signal, beat, has_beat, trend_of=signal + 1 if leak else None)
    outputs = flat(restoration) + list(net.tell_altered(net.encode_global(signal), LENGTH))
    torch.stack([(values * torch.randn_like(values)).mean() for values in outputs]).sum().backward()
    unreached = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not unreached
    assert all(torch.isfinite(weight.grad).all() for weight in net.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_steps_give_what_forward_gives(family):
    net = network(family).eval()
    signal, beat, has_beat = inputs()
    has_beat[1] = False
    latents = net.encode_global(signal)
    whole, local = net.fuse(latents.signal, net.encode_beats(beat), has_beat)
    steps = Restoration(
        net.restore_global(whole, LENGTH),
        net.restore_beat(local, WINDOW),
        net.restore_from_trend(whole, latents, LENGTH),
        net.predict_attributes(latents),
    )
    assert all(map(torch.equal, flat(steps), flat(net(signal, beat, has_beat))))


@pytest.mark.parametrize("family", FAMILIES)
def test_one_pass_over_a_record_serves_all_its_beats(family):
    net = network(family).eval()
    signal, beats, has_beat = inputs()
    tokens = net.encode_global(signal[:1]).signal.expand(3, -1, -1)
    together = net.fuse(tokens, net.encode_beats(beats), has_beat)
    found = net.restore_global(together[0], LENGTH).signal, net.restore_beat(together[1], WINDOW).signal
    for number in range(3):
        alone = net(signal[:1], beats[number : number + 1], has_beat[:1])
        torch.testing.assert_close(found[0][number], alone.whole.signal[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found[1][number], alone.beat.signal[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_mask_hides_leaks_through_the_trend_only_if_the_trend_is_that_of_the_whole_signal(family):
    net = network(family).eval()
    signal, beat, has_beat = inputs()
    hidden = torch.zeros(LENGTH, dtype=torch.bool)
    hidden[300:350] = True
    other = torch.where(hidden, -signal, signal)
    masked, other_masked = signal.masked_fill(hidden, 0), other.masked_fill(hidden, 0)
    mended, published = net(masked, beat, has_beat), net(masked, beat, has_beat, trend_of=signal)
    assert torch.equal(mended.from_trend, net(other_masked, beat, has_beat).from_trend)
    leaked = net(other_masked, beat, has_beat, trend_of=other)
    assert not torch.allclose(published.from_trend, leaked.from_trend, atol=1e-6)
    assert torch.equal(published.whole.signal, leaked.whole.signal), "the global branch never sees the trend"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trend_meets_the_signal_after_the_beat_was_fused_with_it(family):
    net = network(family).eval()
    signal, beat, has_beat = inputs()
    has_beat[1] = False
    one, other = net(signal, beat, has_beat).from_trend, net(signal, beat + 1, has_beat).from_trend
    assert not torch.allclose(one[0], other[0], atol=1e-6)
    torch.testing.assert_close(one[1], other[1])


@pytest.mark.parametrize("shared", [False, True])
def test_a_decoder_gives_the_leads_first_and_their_log_variance_after_them(shared):
    net = network(shared_log_variance=shared).eval()
    signal, beat, _ = inputs()
    tokens, local = net.encode_global(signal).signal, net.encode_beats(beat)
    for decoder, restored in (
        (net.global_decoder(tokens, LENGTH), net.restore_global(tokens, LENGTH)),
        (net.local_decoder(local, WINDOW), net.restore_beat(local, WINDOW)),
    ):
        assert torch.equal(restored.signal, decoder[:, :12])
        assert torch.equal(restored.log_variance[:, -1], decoder[:, -1].tanh() if shared else decoder[:, -1])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_log_variance_is_the_same_for_all_leads_and_within_one(family):
    net = network(family, shared_log_variance=True)
    for restored in net(*(values * 1000 for values in inputs()[:2]), inputs()[2])[:2]:
        assert torch.equal(restored.log_variance, restored.log_variance[:, :1].expand_as(restored.log_variance))
        assert restored.log_variance.abs().max() <= 1
        assert restored.signal.std(dim=1).all(), "the signal has its own lead"


@pytest.mark.parametrize("family", FAMILIES)
def test_by_default_each_lead_has_a_log_variance_of_its_own_without_bounds(family):
    net = network(family).eval()
    latents = net.encode_global(inputs()[0])
    log_variance = net.restore_global(latents.signal * 1e4, LENGTH).log_variance
    assert log_variance.std(dim=1).all()
    assert log_variance.abs().max() > 1


def test_the_switches_change_no_name_of_the_default_network():
    default = network().state_dict()
    assert {name.split(".")[0] for name in default} == {
        "encoder",
        "local_encoder",
        "fusion",
        "global_decoder",
        "local_decoder",
        "trend_decoder",
        "attribute_head",
    }
    assert network(shared_log_variance=True).state_dict().keys() == default.keys()
    added = network(alteration_head=True).state_dict()
    assert {name.split(".")[0] for name in added.keys() - default.keys()} == {"alteration_head"}
    assert all(torch.equal(added[name], value) for name, value in default.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_whether_a_record_was_altered_is_read_off_its_pooled_latents_and_where_is_said_of_each_sample(family):
    net = network(family, alteration_head=True).eval()
    latents = net.encode_global(inputs()[0])
    tokens, head = latents.features(), net.alteration_head
    pooled = torch.cat([tokens.mean(-1), tokens.max(-1).values], dim=1)
    torch.testing.assert_close(net.pooled(latents), pooled)
    record, where = net.tell_altered(latents, LENGTH)
    torch.testing.assert_close(record, (pooled @ head.record[-1].weight.T + head.record[-1].bias)[:, 0])
    assert torch.equal(where, head.decoder(tokens, LENGTH))
    assert where.shape == (3, 12, LENGTH)
    assert where.std(dim=1).all(), "each lead has a map of its own"
    assert where.std(dim=2).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_whether_a_record_was_altered_does_not_depend_on_its_neighbours(family):
    net = network(family, alteration_head=True).eval()
    signal = inputs()[0]
    record, where = net.tell_altered(net.encode_global(signal), LENGTH)
    alone = net.tell_altered(net.encode_global(signal[1:2]), LENGTH)
    torch.testing.assert_close(record[1:2], alone[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(where[1:2], alone[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [1, 8, 17, 400])
def test_a_decoder_of_the_family_returns_any_channels_at_any_length(family, length):
    maker = encoder(family, leads=2).eval()
    decoder = maker.make_decoder(5, 3, PartSettings(4, [8], 2, 16, 0.1, length, WINDOW)).eval()
    assert decoder(torch.randn(2, 5, maker.token_count(length)), length).shape == (2, 3, length)


@pytest.mark.parametrize("family", FAMILIES)
def test_beats_fused_alone_are_what_the_fusion_of_both_scales_makes_of_them(family):
    net = network(family).eval()
    signal, beat, has_beat = inputs()
    tokens, local = net.encode_global(signal).signal, net.encode_beats(beat)
    both, alone = net.fuse(tokens, local, has_beat)[1], net.fuse_beats(tokens, local)
    torch.testing.assert_close(alone, both, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(net.fusion.beats(tokens, local), both, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(alone, net.fuse_beats(tokens.flip(0), local), atol=1e-4), "the record is looked at"


def test_without_its_head_the_network_can_not_tell_what_was_altered_and_says_so():
    net = network()
    with pytest.raises(ConfigurationError, match="alteration_head=True"):
        net.tell_altered(net.encode_global(inputs()[0]), LENGTH)


@pytest.mark.parametrize("heads", [0, 5])
def test_heads_that_do_not_divide_the_channels_are_refused(heads):
    with pytest.raises(ConfigurationError, match=f"fusion_heads is {heads}, .* has 24 channels"):
        network(fusion_heads=heads)
