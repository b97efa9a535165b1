import math

import pytest
import torch
from torch import nn

from ecgfair.ecg import ATTRIBUTES
from ecgfair.errors import ConfigurationError
from ecgfair.models.conditioning import Conditioning
from ecgfair.models.diagnosis import DiagnosisNetwork
from ecgfair.models.encoder import ResidualEncoder

PREVALENCE = [0.5, 0.1, 0.0]
AGE_AND_SEX = ("age", "sex")
WAYS = pytest.mark.parametrize("how", ["concatenate", "modulate"])
DEPTHS = pytest.mark.parametrize("hidden", [0, 9])


def small_encoder() -> ResidualEncoder:
    return ResidualEncoder(widths=[8, 16], trend_widths=[4, 8])


def network(*, attributes: bool = True, dropout: float = 0.0, **settings) -> DiagnosisNetwork:
    built = DiagnosisNetwork(small_encoder(), PREVALENCE, dropout, attributes=attributes, **settings)
    if built.conditioning is not None and built.conditioning.modulate is not None:
        nn.init.normal_(built.conditioning.modulate.weight)
    return built


def patients(*ages: float) -> torch.Tensor:
    known = torch.full((len(ages), len(ATTRIBUTES)), math.nan)
    known[:, ATTRIBUTES.index("age")] = torch.tensor(ages)
    return known


def test_a_batch_of_any_length_gets_one_logit_a_label():
    for length in (800, 1000):
        diagnosis = network(attributes=True)(torch.randn(2, 12, length))
        assert diagnosis.logits.shape == (2, 3)
        assert diagnosis.attributes.shape == (2, 7)


def test_without_the_attribute_head_there_are_no_attributes():
    assert network(attributes=False)(torch.randn(2, 12, 800)).attributes is None


@DEPTHS
def test_the_head_starts_from_the_prevalence_of_each_label(hidden):
    head = network(attributes=False, hidden=hidden).label_head
    start = (head[-1] if hidden else head).bias.sigmoid()
    torch.testing.assert_close(start, torch.tensor([0.5, 0.1, 0.001]), atol=1e-5, rtol=0)


def test_a_linear_head_without_conditioning_is_drawn_named_and_computed_as_in_older_checkpoints():
    torch.manual_seed(3)
    built = DiagnosisNetwork(small_encoder(), PREVALENCE, 0.4, attributes=True, conditioning=Conditioning())
    torch.manual_seed(3)
    encoder, labels, attributes = small_encoder(), nn.Linear(48, 3), nn.Linear(48, 7)
    expected = {f"encoder.{name}": value for name, value in encoder.state_dict().items()} | {
        "label_head.weight": labels.weight,
        "label_head.bias": built.label_head.bias,
        "attribute_head.weight": attributes.weight,
        "attribute_head.bias": attributes.bias,
    }
    assert list(built.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in built.state_dict().items())
    signal = torch.randn(3, 12, 300)
    torch.manual_seed(4)
    diagnosis = built(signal, patients(20, 50, 80))
    torch.manual_seed(4)
    tokens = encoder(signal).features()
    pooled = nn.functional.dropout(torch.cat([tokens.mean(-1), tokens.amax(-1)], 1), 0.4)
    assert torch.equal(diagnosis.features, pooled)
    assert torch.equal(diagnosis.logits, nn.functional.linear(pooled, labels.weight, built.label_head.bias))
    assert torch.equal(diagnosis.attributes, attributes(pooled))


def test_the_deep_head_is_the_published_one():
    built = network(dropout=0.5, hidden=9)
    kinds = [nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout, nn.Linear]
    assert len(built.label_head) == len(kinds)
    assert all(isinstance(module, kind) for module, kind in zip(built.label_head, kinds, strict=True))
    assert [module.p for module in built.modules() if isinstance(module, nn.Dropout) and module.p == 0.5] == [0.5]
    assert (built.label_head[1].p, built.label_head[5].p) == (0.25, 0.5)
    assert (built.label_head[2].in_features, built.label_head[2].out_features) == (48, 9)
    assert not built.label_head[2].bias.any()


def test_before_the_deep_head_no_other_dropout_is_drawn():
    built = network(dropout=0.5, hidden=9)
    signal = torch.randn(4, 12, 300)
    tokens = built.encoder.eval()(signal).features()
    assert torch.equal(built(signal).features, torch.cat([tokens.mean(-1), tokens.amax(-1)], 1))


@WAYS
@DEPTHS
def test_what_is_known_of_the_patient_changes_the_labels_alone(how, hidden):
    built = network(hidden=hidden, conditioning=Conditioning(AGE_AND_SEX, how)).eval()
    signal = torch.randn(2, 12, 300)
    young, old = built(signal, patients(20, 20)), built(signal, patients(90, 90))
    assert not torch.allclose(young.logits, old.logits)
    assert torch.equal(young.attributes, old.attributes), "the attribute head would copy what it is told"
    assert torch.equal(young.features, old.features), "an adversary would find what was put in"
    assert young.features.shape[1] == built.features == 48


@WAYS
@DEPTHS
def test_a_record_without_demographics_is_diagnosed_whoever_stands_beside_it(how, hidden):
    built = network(hidden=hidden, conditioning=Conditioning(AGE_AND_SEX, how)).eval()
    signal = torch.randn(3, 12, 300)
    logits = built(signal, patients(math.nan, 30, 80)).logits
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[:1], built(signal[:1]).logits, atol=1e-5, rtol=1e-4)


@WAYS
@DEPTHS
def test_every_weight_learns(how, hidden):
    built = network(hidden=hidden, conditioning=Conditioning(AGE_AND_SEX, how))
    diagnosis = built(torch.randn(4, 12, 300), patients(20, 40, math.nan, 80))
    (diagnosis.logits.square().mean() + diagnosis.attributes.square().mean()).backward()
    # The bias before a batch norm is taken out again by its mean.
    assert all(weight.grad.isfinite().all() for weight in built.parameters())
    assert {name for name, weight in built.named_parameters() if not weight.grad.any()} <= {"label_head.2.bias"}


def test_the_deep_head_trains_on_a_batch_of_one_record_by_the_statistics_so_far():
    head = network(hidden=9, dropout=0.0).label_head
    features = torch.randn(20, 48) * 3 + 1
    for _ in range(100):
        head(features)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    alone = head(features[:1])
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    torch.testing.assert_close(alone, head.eval()(features[:1]))
    head.train()
    norm = head[0]
    assert not torch.equal(norm(features[:2]), norm.eval()(features[:2]))


def test_a_negative_number_of_hidden_units_is_refused():
    with pytest.raises(ConfigurationError, match="hidden is -1"):
        network(hidden=-1)
