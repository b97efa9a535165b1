"""Dropout that each record draws for itself; torch's own without a source."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ecgfair.models.conditioning import Conditioning
from ecgfair.models.diagnosis import DiagnosisNetwork
from ecgfair.models.dropout import RecordAttention, RecordDropout, by_slot, drawing_from, drawn_again, own_source
from ecgfair.models.encoder import EncoderSpec
from ecgfair.models.restoration import RestorationNetwork
from ecgfair.signals.draws import Draws
from tests.models.beat_cases import random_views

INDEX = torch.tensor([3, 8, 1, 0, 12, 5])
LEADS, TIME = 3, 200
NARROW = {"widths": [8, 12], "trend_widths": [4, 6], "dropout": 0.3}
BEATS = {"shape_widths": [4, 4], "rhythm_width": 4, "beat_widths": [4, 4], "beat_embedding": 4}
PARTS = [[0, 1, 2], [3, 4, 5], [5, 2, 0], [4]]


def source(rows=range(6), step=0):
    return Draws.of(1, step, INDEX[list(rows)])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_dropout_alone(module):
    """In training, but with norms that do not look at who else is in the batch."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
    return module


def drawn(module, *inputs, rows=range(6), step=0):
    with drawing_from(source(rows, step)):
        return module(*inputs)


# The layer ------------------------------------------------------------------------------------------------------------


def test_without_a_source_it_is_the_dropout_of_torch():
    features, drop = random(6, 5, 40), RecordDropout(0.3)
    torch.manual_seed(2)
    own = drop(features)
    torch.manual_seed(2)
    assert torch.equal(own, F.dropout(features, 0.3))
    with drawing_from(torch.Generator()):
        assert own_source() is None


def test_a_row_is_dropped_alike_whoever_stands_beside_it():
    features, drop = random(6, 5, 40), RecordDropout(0.3)
    whole = drawn(drop, features)
    for rows in PARTS:
        assert torch.equal(drawn(drop, features[rows], rows=rows), whole[rows])
    assert torch.equal(drawn(drop, features), whole)
    assert not torch.equal(drawn(drop, features, step=1), whole)


def test_it_draws_anew_in_every_layer_and_ends_with_the_statement():
    drop, ones = RecordDropout(0.5), torch.ones(6, 60)
    with drawing_from(source()):
        assert not torch.equal(drop(ones), drop(ones))
        with drawing_from(None):
            assert own_source() is None
        assert own_source() is not None
    assert own_source() is None


@pytest.mark.parametrize("p", [0.1, 0.4, 0.9])
def test_the_stated_share_is_dropped_and_the_mean_stays(p):
    ones = torch.ones(6, 30_000)
    out = drawn(RecordDropout(p), ones)
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=0.005)
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(out[out != 0].unique(), torch.tensor([1 / (1 - p)]))


def test_what_is_dropped_has_no_gradient_and_the_rest_the_scale():
    features = random(6, 50).requires_grad_()
    out = drawn(RecordDropout(0.5), features)
    out.sum().backward()
    assert torch.equal(features.grad, torch.where(out == 0, 0.0, 2.0))


def test_nothing_and_everything_can_be_dropped_and_nothing_is_outside_training():
    features = random(6, 50)
    assert torch.equal(drawn(RecordDropout(0.0), features), features)
    assert torch.equal(drawn(RecordDropout(1.0), features), torch.zeros(6, 50))
    assert torch.equal(drawn(RecordDropout(0.5).eval(), features), features)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_keeps_the_type_and_drops_the_same_in_each(dtype):
    features = random(6, 50)
    out = drawn(RecordDropout(0.5), features.to(dtype))
    assert out.dtype == dtype
    assert torch.equal(out != 0, drawn(RecordDropout(0.5), features) != 0)


def test_rows_that_are_not_the_records_are_refused():
    with pytest.raises(ValueError, match="12 rows draws from a source of 6 records"):
        drawn(RecordDropout(0.5), torch.ones(12, 3))


def test_parts_of_records_draw_for_themselves_however_many_others_have():
    there = torch.arange(4) < torch.tensor([2, 4, 0, 1, 3, 2])[:, None]
    drop, record = RecordDropout(0.5), there.nonzero()[:, 0]

    def of(rows, columns):
        with drawing_from(source(rows)), by_slot(there[rows][:, :columns]):
            return drop(torch.ones(int(there[rows].sum()), 200))

    whole = of(list(range(6)), 4)
    assert len(whole.unique(dim=0)) == len(whole) == 12
    for rows, columns in (([0, 3], 2), ([1], 4), ([4, 0], 3), ([2], 1)):
        assert torch.equal(of(rows, columns), torch.cat([whole[record == row] for row in rows]))
    with by_slot(there):
        assert own_source() is None


# Attention ------------------------------------------------------------------------------------------------------------


def attention(dropout=0.3):
    torch.manual_seed(0)
    return RecordAttention(8, 2, dropout)


def ignored():
    mask = torch.zeros(6, 9, dtype=torch.bool)
    mask[[1, 4], 5:] = True
    return mask


def test_attention_without_a_source_is_that_of_torch_and_has_its_weights():
    torch.manual_seed(0)
    plain, tokens = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True), random(6, 9, 8)
    own = attention()
    assert {name: value.shape for name, value in own.state_dict().items()} == {
        name: value.shape for name, value in plain.state_dict().items()
    }
    torch.manual_seed(1)
    seen, _ = own(tokens, tokens, tokens, key_padding_mask=ignored(), need_weights=False)
    torch.manual_seed(1)
    expected, _ = plain(tokens, tokens, tokens, key_padding_mask=ignored(), need_weights=False)
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("mask", [None, ignored()])
def test_attention_by_records_is_that_of_torch_but_for_what_is_dropped(mask):
    own, tokens = attention(), random(6, 9, 8).requires_grad_()
    own.drop.p = 0.0
    drawn(lambda: own(tokens, tokens, tokens, key_padding_mask=mask)[0].square().sum().backward())
    gradients = [tokens.grad.clone(), *(weight.grad.clone() for weight in own.parameters())]
    own.zero_grad()
    tokens.grad = None
    own.dropout = 0.0
    own(tokens, tokens, tokens, key_padding_mask=mask)[0].square().sum().backward()
    for one, other in zip(gradients, [tokens.grad, *(weight.grad for weight in own.parameters())], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_attention_of_a_record_is_dropped_alike_whoever_stands_beside_it():
    own, tokens = attention(), random(6, 9, 8)
    whole = drawn(lambda: own(tokens, tokens, tokens)[0])
    for rows in PARTS:
        part = tokens[rows]
        torch.testing.assert_close(drawn(lambda part=part: own(part, part, part)[0], rows=rows), whole[rows])
    assert not torch.allclose(drawn(lambda: own(tokens, tokens, tokens)[0], step=1), whole)


# Whole networks -------------------------------------------------------------------------------------------------------


def flat(found):
    if isinstance(found, torch.Tensor):
        return [found]
    return [part for value in found if value is not None for part in flat(value)]


def assert_by_record(network, inputs):
    whole = flat(drawn(network, *inputs(list(range(6)))))
    others = flat(drawn(network, *inputs(list(range(6))), step=1))
    assert not torch.allclose(whole[0], others[0])
    for rows in PARTS:
        for part, of_whole in zip(flat(drawn(network, *inputs(rows), rows=rows)), whole, strict=True):
            torch.testing.assert_close(part, of_whole[rows], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "encoder",
    [
        EncoderSpec("ResidualEncoder", NARROW),
        EncoderSpec("McfEncoder", {"widths": [8, 8], "channels": 8, "trend_window": 2}),
    ],
    ids=["residual", "published"],
)
def test_the_network_of_stage_1_drops_of_each_record_the_same_in_every_batch(encoder):
    torch.manual_seed(0)
    network = with_dropout_alone(
        RestorationNetwork(encoder.build(LEADS), [8], decoder_width=8, dropout=0.3, length=TIME, window=64)
    )
    signal, beat, has_beat = random(6, LEADS, TIME), random(6, LEADS, 64), torch.arange(6) != 4
    assert_by_record(network, lambda rows: (signal[rows], beat[rows], has_beat[rows]))


@pytest.mark.parametrize("settings", [{}, {"hidden": 6}], ids=["linear", "deep"])
def test_the_network_of_stage_2_drops_and_hides_of_each_record_and_beat_the_same_in_every_batch(settings):
    torch.manual_seed(0)
    encoder = EncoderSpec("TwoScaleEncoder", NARROW | BEATS).build(LEADS)
    told = Conditioning(("age", "sex"), "modulate", dropout=0.4)
    network = DiagnosisNetwork(encoder, (0.5, 0.1), 0.3, attributes=True, conditioning=told, **settings)
    with torch.no_grad():
        for part in [network.conditioning, *network.beat_conditioning]:
            nn.init.normal_(part.modulate.weight)
    signal, attributes = random(6, LEADS, TIME), 50 + random(6, 7)
    attributes[:, 1] = torch.arange(6) % 2
    view = random_views(3, 0, 5, 7, 1, 4, leads=LEADS, columns=9)

    def inputs(rows):
        own = type(view)(*(part[rows] for part in view))
        slots = max(int((own.column >= 0).sum(dim=1).max()), 1)
        return signal[rows], attributes[rows], own._replace(each=own.each[:, :slots], column=own.column[:, :slots])

    assert_by_record(with_dropout_alone(network), inputs)


# With what torch does to whole networks -------------------------------------------------------------------------------


def test_a_compiled_encoder_drops_the_same_step_after_step():
    torch.manual_seed(0)
    encoder = with_dropout_alone(EncoderSpec("ResidualEncoder", NARROW).build(LEADS))
    compiled, signal = torch.compile(encoder, backend="eager"), random(6, LEADS, TIME)
    for step in range(3):
        for one, other in zip(drawn(encoder, signal, step=step), drawn(compiled, signal, step=step), strict=True):
            torch.testing.assert_close(one, other)
    torch.manual_seed(3)
    plain = compiled(signal)
    torch.manual_seed(3)
    torch.testing.assert_close(plain.signal, encoder(signal).signal)


def test_what_is_computed_once_more_in_the_backward_pass_drops_the_same():
    torch.manual_seed(0)
    layers = nn.Sequential(RecordDropout(0.5), nn.Linear(20, 20), RecordDropout(0.5))
    features = random(6, 20)

    def gradient(run):
        layers.zero_grad()
        with drawing_from(source()):
            own_source().uniform(3)  # whatever was drawn before
            out = run(features)
        out.square().sum().backward()
        return out, layers[1].weight.grad.clone()

    def again(rows):
        return checkpoint(layers, rows, use_reentrant=False, context_fn=drawn_again)

    for one, other in zip(gradient(layers), gradient(again), strict=True):
        assert torch.equal(one, other)
