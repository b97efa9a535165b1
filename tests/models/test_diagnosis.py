import math
from itertools import combinations

import pytest
import torch
from torch import nn

from ecgfair.ecg import ATTRIBUTES
from ecgfair.errors import ConfigurationError
from ecgfair.models.conditioning import Conditioning, DemographicInput
from ecgfair.models.diagnosis import DiagnosisNetwork
from ecgfair.models.encoder import ResidualEncoder, TwoScaleEncoder
from ecgfair.signals.beat_view import BeatView
from tests.models.beat_cases import random_views

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


# Two scales -----------------------------------------------------------------------------------------------------------


def two_scales(dropout: float = 0.0, beat_dropout: float = 0.0, **settings) -> DiagnosisNetwork:
    widths = {"shape_widths": [4, 4, 6], "rhythm_width": 5, "beat_widths": [4, 6, 6], "beat_embedding": 7}
    encoder = TwoScaleEncoder(12, [8, 16], [4, 8], dropout=0.0, **widths)
    settings = {"attributes": True, "beat_dropout": beat_dropout} | settings
    built = DiagnosisNetwork(encoder, PREVALENCE, dropout, **settings)
    for told in (built.conditioning, *built.beat_conditioning):
        if isinstance(told, DemographicInput) and told.modulate is not None:
            nn.init.normal_(told.modulate.weight)
    return built


def views(*counts: int) -> BeatView:
    return random_views(*counts, leads=12, columns=8)


OF_BEATS = (
    ("encoder.shape_branch.", "encoder.rhythm_branch.", "beat_heads.0.", "beat_conditioning.0."),
    ("encoder.beat_branch.", "beat_heads.1.", "beat_conditioning.1."),
)


def parts(built: DiagnosisNetwork) -> list[set[str]]:
    """The names of the weights behind the logits of the record, and of those behind the logits of each branch."""
    names = {name for name, _ in built.named_parameters() if not name.startswith("attribute_head")}
    of_beats = [{name for name in names if name.startswith(beats)} for beats in OF_BEATS]
    return [names.difference(*of_beats), *of_beats]


def learning(built: DiagnosisNetwork) -> set[str]:
    return {name for name, weight in built.named_parameters() if weight.grad is not None and weight.grad.any()}


@DEPTHS
def test_what_is_said_is_the_mean_of_the_record_and_of_every_branch_over_its_beats(hidden):
    built = two_scales(hidden=hidden).eval()
    signal, view = torch.randn(3, 12, 300), views(5, 8, 1)
    diagnosis = built(signal, None, view)
    assert len(diagnosis.by_scale) == 3
    torch.testing.assert_close(diagnosis.logits, torch.stack(diagnosis.by_scale).mean(0))
    tokens, beats = built.encoder(signal).features(), built.encoder.encode_beats(view)
    pooled = torch.cat([tokens.mean(-1), tokens.amax(-1)], 1)
    torch.testing.assert_close(diagnosis.by_scale[0], built.label_head(pooled))
    assert len(built.beat_heads) == len(beats) == 2
    for said, found, head in zip(diagnosis.by_scale[1:], beats, built.beat_heads, strict=True):
        torch.testing.assert_close(said, nn.functional.linear(found, *head.parameters()))
    for one, other in combinations(diagnosis.by_scale, 2):
        assert not torch.allclose(one, other, atol=1e-3)
    assert torch.equal(diagnosis.features, torch.cat([pooled, *beats], 1))
    assert diagnosis.features.shape[1] == built.features
    torch.testing.assert_close(diagnosis.attributes, built.attribute_head(pooled))


@WAYS
def test_each_head_learns_from_its_own_loss_alone(how):
    # The biases before a batch norm are taken out again by its mean, but for what rounding leaves of them.
    taken_out = {f"encoder.rhythm_branch.convolutions.{place}.bias" for place in range(3)}
    taken_out.add("encoder.beat_branch.embed.bias")
    for scale in range(3):
        built = two_scales(conditioning=Conditioning(AGE_AND_SEX, how, dropout=0.0))
        diagnosis = built(torch.randn(4, 12, 300), patients(20, 40, 60, 80), views(5, 8, 3, 2))
        diagnosis.by_scale[scale].square().sum().backward()
        own, *others = (parts(built)[place % 3] for place in range(scale, scale + 3))
        found = learning(built)
        assert found.isdisjoint(set.union(*others))
        assert own - found <= taken_out


def test_the_loss_of_what_is_said_reaches_the_record_and_every_branch_over_its_beats():
    built = two_scales()
    diagnosis = built(torch.randn(4, 12, 300), None, views(5, 8, 3, 2))
    diagnosis.logits.square().sum().backward()
    record, shape, each = parts(built)
    assert learning(built) & record
    assert {"beat_heads.0.weight", "encoder.shape_branch.stem.weight"} <= learning(built) & shape
    assert {"beat_heads.1.weight", "encoder.beat_branch.shape.stem.weight"} <= learning(built) & each


@WAYS
def test_of_a_record_without_a_beat_the_record_speaks_for_every_branch(how):
    built = two_scales(conditioning=Conditioning(AGE_AND_SEX, how)).eval()
    diagnosis = built(torch.randn(3, 12, 300), patients(20, 50, 80), views(5, 0, 2))
    record, *of_beats = diagnosis.by_scale
    for beats in of_beats:
        assert torch.equal(record[1], beats[1])
        assert (record != beats)[[0, 2]].all()
    # A mean of three numbers that are alike is that number but for rounding.
    torch.testing.assert_close(diagnosis.logits[1], record[1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("scale", [1, 2])
def test_records_without_a_beat_teach_the_branches_over_beats_nothing(scale):
    built = two_scales()
    diagnosis = built(torch.randn(2, 12, 300), None, views(0, 0))
    diagnosis.by_scale[scale].square().sum().backward()
    assert learning(built).isdisjoint(set.union(*parts(built)[1:]))
    assert learning(built) & parts(built)[0]
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in built.parameters())


def test_no_weight_is_without_a_gradient_where_no_record_has_a_beat():
    built = two_scales(conditioning=Conditioning(AGE_AND_SEX))
    diagnosis = built(torch.randn(2, 12, 300), patients(20, 50), views(0, 0))
    (diagnosis.logits.sum() + diagnosis.attributes.sum()).backward()
    assert [name for name, weight in built.named_parameters() if weight.grad is None] == []


@WAYS
def test_every_head_is_told_of_the_patient_and_the_attributes_are_not(how):
    built = two_scales(conditioning=Conditioning(AGE_AND_SEX, how)).eval()
    signal, view = torch.randn(2, 12, 300), views(5, 8)
    young, old = built(signal, patients(20, 20), view), built(signal, patients(90, 90), view)
    for one, other in zip(young.by_scale, old.by_scale, strict=True):
        assert not torch.allclose(one, other)
    assert torch.equal(young.attributes, old.attributes)
    assert torch.equal(young.features, old.features)
    told = [{id(weight) for weight in part.parameters()} for part in (built.conditioning, *built.beat_conditioning)]
    assert all(told)
    assert all(one.isdisjoint(other) for one, other in combinations(told, 2))


def test_an_encoder_of_beats_without_their_view_is_refused():
    with pytest.raises(ValueError, match="expected the beat view of every record"):
        two_scales()(torch.randn(2, 12, 300))


def test_a_view_changes_nothing_for_an_encoder_of_one_scale():
    built, signal = network().eval(), torch.randn(2, 12, 300)
    plain, shown = built(signal), built(signal, None, views(5, 8))
    assert torch.equal(plain.logits, shown.logits)
    assert len(plain.by_scale) == 1
    assert plain.by_scale[0] is plain.logits
    assert len(built.beat_heads) == len(built.beat_conditioning) == 0


@DEPTHS
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_all_heads_start_from_prevalence_less_what_the_loss_adds(hidden, tau):
    built = two_scales(hidden=hidden, logit_adjustment=tau)
    expected = (1 - tau) * torch.tensor([0.5, 0.1, 0.001]).logit()
    for head in (built.label_head[-1] if hidden else built.label_head, *built.beat_heads):
        torch.testing.assert_close(head.bias.detach(), expected, atol=1e-5, rtol=0)


def test_the_record_and_its_beats_have_a_dropout_of_their_own():
    signal, view = torch.randn(64, 12, 300), views(*[5] * 64)
    for of_record, of_beats in ((0.5, 0.0), (0.0, 0.5)):
        built = two_scales(of_record, of_beats)
        widths = [2 * built.encoder.channels, *built.encoder.beat_features]
        features = built(signal, None, view).features.split(widths, dim=1)
        for part, probability in zip(features, (of_record, of_beats, of_beats), strict=True):
            assert float((part == 0).float().mean()) == pytest.approx(probability, abs=0.05)
