import math

import pytest
import torch

from ecgfair.ecg import ATTRIBUTES
from ecgfair.errors import ConfigurationError
from ecgfair.models.conditioning import SCALES, Conditioning, DemographicInput

AGE, SEX, PR = (ATTRIBUTES.index(name) for name in ("age", "sex", "pr"))
WAYS = pytest.mark.parametrize("how", ["concatenate", "modulate"])


def told(how="concatenate", inputs=("age", "sex"), features=6, *, started=False, **settings):
    """Build an input with random weights; that of modulation starts as the identity only when it is asked for."""
    module = DemographicInput(Conditioning(inputs, how, **settings), features)
    if module.modulate is not None and not started:
        torch.nn.init.normal_(module.modulate.weight)
    return module


def patients(count, **known):
    """Return attributes of patients of whom nothing but this is known."""
    attributes = torch.full((count, len(ATTRIBUTES)), math.nan)
    for name, value in known.items():
        attributes[:, ATTRIBUTES.index(name)] = torch.as_tensor(value, dtype=torch.float32)
    return attributes


@pytest.mark.parametrize(("how", "width"), [("concatenate", 6 + 32), ("modulate", 6)])
def test_the_width_is_that_of_what_comes_out(how, width):
    module = told(how)
    assert module.width == width
    assert module(torch.randn(3, 6), patients(3, age=50)).shape == (3, width)


def test_concatenation_leaves_the_features_as_they_are():
    features = torch.randn(3, 6)
    assert torch.equal(told("concatenate")(features, patients(3, age=50))[:, :6], features)


def test_modulation_starts_as_the_identity_and_then_learns():
    module, features = told("modulate", started=True), torch.randn(4, 6)
    attributes = patients(4, age=[20, 40, 60, 80], sex=[0, 1, 0, 1])
    assert torch.equal(module(features, attributes), features)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (module(features, attributes) * torch.arange(24.0).view(4, 6)).sum().backward()
        optimizer.step()
    assert all(weight.grad.abs().sum() > 0 for weight in module.parameters())
    assert not torch.allclose(module(features, attributes), features)


def test_modulation_scales_and_shifts_each_feature():
    module = told("modulate", features=2, hidden=1).eval()
    torch.nn.init.zeros_(module.modulate.weight)
    module.modulate.bias.data = torch.tensor([0.5, -1.0, 3.0, 4.0])
    assert torch.equal(module(torch.tensor([[2.0, 10.0]])), torch.tensor([[6.0, 4.0]]))


@WAYS
def test_a_record_of_which_nothing_is_known_is_read_like_any_other(how):
    module, features = told(how).eval(), torch.randn(4, 6)
    attributes = patients(4)
    attributes[1:, AGE] = torch.tensor([30.0, 50.0, 70.0])
    out = module(features, attributes)
    assert out.isfinite().all()
    torch.testing.assert_close(out[:1], module(features[:1]))
    torch.testing.assert_close(out[1:2], module(features[1:2], attributes[1:2]))


@WAYS
def test_every_input_counts_and_nothing_else_does(how):
    module, features = told(how).eval(), torch.randn(2, 6)
    base = patients(2, age=60, sex=0)
    for changed in (patients(2, age=70, sex=0), patients(2, age=60, sex=1), patients(2, age=60), patients(2, sex=0)):
        assert not torch.allclose(module(features, changed), module(features, base))
    assert torch.equal(module(features, patients(2, age=60, sex=0, pr=300)), module(features, base))


@WAYS
def test_a_missing_value_is_not_an_average_one(how):
    module, features = told(how, ("age", "pr")).eval(), torch.randn(2, 6)
    average = patients(2, age=SCALES["age"][0], pr=SCALES["pr"][0])
    assert not torch.allclose(module(features, average), module(features, patients(2)))


def test_the_inputs_are_scaled_by_constants_and_clamped():
    module = DemographicInput(Conditioning(ATTRIBUTES), 3).eval()
    attributes = torch.tensor(
        [
            [80.0, 1.0, 90.0, 190.0, 115.0, 430.0, 440.0],
            [40.0, 0.0, 50.0, 130.0, 75.0, 350.0, 380.0],
            [60.0, math.nan, 9000.0, -9000.0, math.inf, 390.0, 410.0],
        ]
    )
    values, known = module._inputs(torch.zeros(3, 3), attributes).chunk(2, dim=1)
    expected = torch.tensor([[1.0] * 7, [-1.0] * 7, [0, 0, 4, -4, 0, 0, 0]])
    assert torch.equal(values, expected)
    assert torch.equal(known, torch.tensor([[1.0] * 7, [1.0] * 7, [1, 0, 1, 1, 0, 1, 1]]))


def test_an_unknown_sex_by_its_code_is_missing_as_well():
    module, features = told().eval(), torch.randn(2, 6)
    assert torch.equal(module(features, patients(2, age=60, sex=-1)), module(features, patients(2, age=60)))


def test_the_constants_are_no_weights_of_a_checkpoint():
    assert set(told().state_dict()) == {"read.weight", "read.bias"}


def test_training_hides_whole_records_and_single_inputs_with_the_stated_probability():
    torch.manual_seed(0)
    module, many = told(dropout=0.3), 20_000
    attributes = patients(many, age=80, sex=1)
    values, known = module._inputs(torch.zeros(many, 6), attributes).chunk(2, dim=1)
    assert torch.equal(values, known), "what is hidden reads like what is missing"
    kept = known.mean(0)
    torch.testing.assert_close(kept, torch.full((2,), 0.7 * 0.7), atol=0.015, rtol=0)
    # Independent inputs would both be hidden in (1 - 0.49)^2 = 26 % of the records: hiding whole records makes it more.
    nothing = (known.sum(1) == 0).float().mean().item()
    assert nothing == pytest.approx(0.3 + 0.7 * 0.3**2, abs=0.015)


@WAYS
def test_nothing_is_hidden_outside_training_or_at_a_dropout_of_0(how):
    features, attributes = torch.randn(500, 6), patients(500, age=50, sex=1)
    module = told(how, dropout=0.5)
    assert not torch.equal(module(features, attributes), module(features, attributes))
    module.eval()
    assert torch.equal(module(features, attributes), module(features, attributes))
    assert (module._inputs(features, attributes)[:, 2:] == 1).all()
    assert (told(how, dropout=0.0)._inputs(features, attributes)[:, 2:] == 1).all()


@WAYS
def test_it_works_in_double_precision_whatever_the_attributes_are_stored_in(how):
    module = told(how).double().eval()
    assert module(torch.randn(2, 6).double(), patients(2, age=50)).dtype == torch.float64
    assert told(how)(torch.randn(2, 6), patients(2, age=50).double()).dtype == torch.float32


def test_a_list_from_a_configuration_file_is_as_good_as_a_tuple():
    assert Conditioning(["age", "sex"]).inputs == ("age", "sex")


def test_attributes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 2\): expected \(2, 7\)"):
        told()(torch.randn(2, 6), torch.zeros(2, 2))


def test_an_input_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="inputs is empty"):
        DemographicInput(Conditioning(), 6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": ("agee",)}, "names 'agee'.*Did you mean 'age'"),
        ({"inputs": ("age", "age")}, "age, age: expected no name twice"),
        ({"how": "add"}, "'add': expected concatenate or modulate"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
        ({"dropout": -0.1}, r"dropout is -0\.1"),
        ({"hidden": 0}, "hidden is 0"),
    ],
)
def test_settings_that_can_not_work_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Conditioning(**settings)
