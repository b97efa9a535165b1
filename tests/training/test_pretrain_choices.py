"""What the switches of stage 1 change: the published choices, the task of alterations, and what reaches which part."""

import math
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
import torch
import torch.nn.functional as F

from ecgfair.ecg import SEX_COLUMN
from ecgfair.errors import ConfigurationError
from ecgfair.signals.alteration import Altered
from ecgfair.training import pretrain
from ecgfair.training.pretrain import Choices, PretrainWeights
from tests.training.tiny import ALTERED, beating_batch, tiny_module, values

SWITCHES = {name: get_args(hint)[1] for name, hint in get_type_hints(Choices).items()}
"""Every switch with its published value."""
CHOICES = [{}, *({name: value} for name, value in SWITCHES.items()), SWITCHES]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def watched(module):
    """What the network is given and what it returns, once losses were asked for."""
    seen, forward = {}, module.network.forward

    def watch(*inputs):
        seen["inputs"], seen["outputs"] = inputs, forward(*inputs)
        return seen["outputs"]

    module.network.forward = watch
    return seen


def test_every_switch_has_this_projects_value_first_and_the_published_one_second():
    assert len(SWITCHES) == len(fields(Choices)) == 6
    assert [getattr(Choices(), name) for name in SWITCHES] == [
        get_args(hint)[0] for hint in get_type_hints(Choices).values()
    ]


@pytest.mark.parametrize("choices", CHOICES, ids=lambda choices: "+".join(choices) if choices else "as it is")
@pytest.mark.parametrize("encoder", ["residual", "published"])
def test_gradients_reach_every_parameter(encoder, choices):
    module = tiny_module(encoder, choices=Choices(**choices), weights=PretrainWeights(**ALTERED))
    module.training_step(beating_batch(), 0).backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert len(gradients) > 30
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("trend", ["masked", "unmasked"])
@torch.no_grad()
def test_what_the_mask_hides_reaches_the_restoration_through_the_unmasked_trend_alone(trend):
    module = tiny_module(choices=Choices(trend=trend)).eval()
    seen, batch = watched(module), beating_batch()
    batch["signal"] += 0.1 * torch.randn(batch["signal"].shape, generator=seeded())  # no sample is 0 unless hidden
    batch["beats"] = torch.full_like(batch["beats"], -1)  # a beat would show it as well
    module.losses(batch, seeded())
    first, hidden = seen["outputs"], seen["inputs"][0] == 0
    assert 0.2 < hidden.float().mean() < 0.4
    batch["signal"] = batch["signal"] + 5 * hidden * torch.sin(torch.arange(400) / 5)
    module.losses(batch, seeded())
    assert torch.equal(seen["inputs"][0] == 0, hidden)
    assert torch.equal(seen["outputs"].whole.signal, first.whole.signal)
    assert torch.equal(seen["outputs"].from_trend, first.from_trend) == (trend == "masked")


@pytest.mark.parametrize("error", ["hidden", "all"])
@torch.no_grad()
def test_visible_samples_count_where_the_error_is_over_all_samples_and_unrecorded_ones_never(error):
    module, batch = tiny_module(choices=Choices(error=error)).eval(), beating_batch()
    batch["signal"] += 0.1 * torch.randn(batch["signal"].shape, generator=seeded())
    batch["recorded"][:, 4] = False
    batch["recorded"][:, :, 350:] = False
    batch["signal"] *= batch["recorded"]
    batch["beats"][0] = -1
    seen = watched(module)
    losses = values(module.losses(batch, seeded()))
    signal, beat, has_beat, _ = seen["inputs"]
    out = seen["outputs"]
    assert has_beat.tolist() == [False] + [True] * 7
    hidden = (signal == 0) & batch["recorded"]
    counted = batch["recorded"] if error == "all" else hidden
    squared = (out.whole.signal - batch["signal"]).square()
    of_trend = (out.from_trend - batch["signal"]).square()
    nll = squared / out.whole.log_variance.exp() + out.whole.log_variance
    torch.testing.assert_close(losses["whole"], nll[counted].mean())
    torch.testing.assert_close(losses["trend"], of_trend[counted].mean())
    # The visible part of a beat is seen by the loss as it is by the network.
    visible = (beat != 0) & has_beat[:, None, None]
    out.beat.signal[visible] += 100
    module.network.forward = lambda *_inputs: out
    assert (values(module.losses(batch, seeded()))["beat"] > losses["beat"] + 1) == (error == "all")


@pytest.mark.parametrize("log_variance", ["by_lead", "shared"])
@torch.no_grad()
def test_a_shared_log_variance_is_one_channel_for_all_leads_within_one(log_variance):
    module = tiny_module(choices=Choices(log_variance=log_variance)).eval()
    seen, batch = watched(module), beating_batch()
    batch["signal"] *= 30
    module.losses(batch, seeded())
    shared = log_variance == "shared"
    for restored in (seen["outputs"].whole, seen["outputs"].beat):
        assert restored.signal.shape == restored.log_variance.shape
        assert torch.equal(restored.log_variance, restored.log_variance[:, :1].expand_as(restored.signal)) == shared
        assert (restored.log_variance.abs().max() <= 1) or not shared


@torch.no_grad()
def test_min_max_makes_losses_blind_to_the_gain_of_a_lead_and_millivolts_do_not():
    batch, gain = beating_batch(), torch.linspace(0.3, 4, 12)[None, :, None]
    louder = {**batch, "signal": batch["signal"] * gain}
    for scale in ("min_max", "millivolts"):
        module = tiny_module(choices=Choices(scale=scale)).eval()
        one, other = (values(module.losses(records, seeded())) for records in (batch, louder))
        for name in ("whole", "beat", "trend", "measures", "sex"):
            assert torch.isclose(one[name], other[name], rtol=1e-4).item() == (scale == "min_max"), name


@torch.no_grad()
def test_min_max_shows_the_alteration_task_leads_of_one_range(monkeypatch):
    monkeypatch.setattr(pretrain, "GAIN_SPREAD", 0.0)
    module = tiny_module(choices=Choices(scale="min_max"), weights=PretrainWeights(**ALTERED)).eval()
    encode, shown = module.network.encode_global, []
    module.network.encode_global = lambda signal: shown.append(signal) or encode(signal)
    module._alteration_losses(beating_batch(), seeded())
    assert len(shown[0]) == 16
    torch.testing.assert_close(shown[0].amax(dim=-1), torch.ones(16, 12))
    torch.testing.assert_close(shown[0].amin(dim=-1), -torch.ones(16, 12))


@torch.no_grad()
def test_attributes_have_the_losses_that_the_switches_name():
    batch, found = beating_batch(), {}
    columns = [column for column in range(batch["attributes"].shape[1]) if column != SEX_COLUMN]
    for choices in ({}, {"sex": "squared_error"}, {"measures": "squared_error"}):
        module = tiny_module(choices=Choices(**choices)).eval()
        seen = watched(module)
        found[tuple(choices)] = values(module.losses(batch, seeded()))
    predicted, target = seen["outputs"].attributes, batch["attributes"]  # the same weights and masks each time
    of_sex, sex = predicted[:, SEX_COLUMN], target[:, SEX_COLUMN]
    of_measures, measures = predicted[:, columns], target[:, columns]
    torch.testing.assert_close(found[()]["sex"], F.binary_cross_entropy_with_logits(of_sex, sex))
    torch.testing.assert_close(found[("sex",)]["sex"], F.mse_loss(of_sex, sex))
    torch.testing.assert_close(found[()]["measures"], F.smooth_l1_loss(of_measures, measures))
    torch.testing.assert_close(found[("measures",)]["measures"], F.mse_loss(of_measures, measures))


def test_an_encoder_that_saw_rescaled_leads_is_not_exported(tmp_path):
    with pytest.raises(ConfigurationError, match=r"choices.scale is min_max: .*stage 2, which sees millivolts"):
        tiny_module(choices=Choices(scale="min_max")).save_encoder(tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()
    tiny_module(choices=Choices(**{**SWITCHES, "scale": "millivolts"})).save_encoder(tmp_path / "encoder")
    assert (tmp_path / "encoder").is_dir()


@pytest.mark.parametrize("weights", [{"altered": 1.0}, {"altered_map": 0.5}])
def test_one_of_the_two_outputs_of_the_alteration_task_alone_is_refused(weights):
    with pytest.raises(ConfigurationError, match=r"weights.altered .*altered_map .*both above 0 or both 0"):
        PretrainWeights(**weights)


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_a_weight_that_is_no_factor_is_refused_by_name(weight):
    with pytest.raises(ConfigurationError, match=r"weights.trend is"):
        PretrainWeights(trend=weight)


def test_the_head_of_alterations_is_built_and_trained_only_where_it_is_asked_for():
    assert tiny_module().network.alteration_head is None
    assert set(tiny_module().losses(beating_batch())) == {"whole", "beat", "trend", "measures", "sex"}
    alone = PretrainWeights(**dict.fromkeys(("whole", "beat", "trend", "measures", "sex"), 0.0), **ALTERED)
    assert set(tiny_module(weights=alone).losses(beating_batch())) == {"altered", "altered_map"}
    both = tiny_module(weights=PretrainWeights(**ALTERED)).losses(beating_batch())
    assert len(both) == 7


def test_with_every_task_every_parameter_of_the_network_is_trained_and_every_loss_counts():
    module = tiny_module(weights=PretrainWeights(**ALTERED, altered_beat=1.0))
    assert len(module.losses(beating_batch())) == 8
    module.training_step(beating_batch(), 0).backward()
    assert [name for name, weight in module.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_altered_beats_in_rescaled_leads_are_refused():
    with pytest.raises(ConfigurationError, match=r"altered_beat is 1\.0 and choices\.scale min_max: .*millivolts"):
        tiny_module(weights=PretrainWeights(altered_beat=1.0), choices=Choices(scale="min_max"))


@pytest.mark.parametrize("right", [True, False])
@torch.no_grad()
def test_altered_records_are_those_with_a_changed_recorded_sample_and_each_is_shown_beside_its_original(right):
    module, batch = tiny_module(weights=PretrainWeights(**ALTERED)).eval(), beating_batch()
    changed = torch.zeros(8, 12, 400, dtype=torch.bool)
    changed[1, 3, 100:200] = changed[5, :, 50:60] = changed[6, 2, :30] = True
    batch["recorded"][6, 2] = False  # so this change is not to be seen
    batch["recorded"][7, 0, 300:] = False
    module.alteration = lambda signal, *_: Altered(signal + changed, changed)
    record, sample = torch.full((16,), -20.0), torch.full((16, 12, 400), -20.0)
    record[[9, 13]] = 20
    sample[9, 3, 100:200] = sample[13, :, 50:60] = 20
    sign = 1 if right else -1
    where = torch.where(torch.cat([batch["recorded"]] * 2), sign * sample, 1e4)  # what was not recorded is not counted
    module.network.tell_altered = lambda *_: (sign * record, where)
    losses = values(module._alteration_losses(batch, seeded()))
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(0 if right else 20, abs=1e-4), name


def test_two_copies_of_a_record_are_not_told_apart_by_their_gain():
    module, batch = tiny_module(weights=PretrainWeights(**ALTERED)).eval(), beating_batch()
    module.alteration = lambda signal, *_: Altered(signal, torch.zeros_like(signal, dtype=torch.bool))
    encode, shown = module.network.encode_global, []
    module.network.encode_global = lambda signal: shown.append(signal) or encode(signal)
    module._alteration_losses(batch, seeded())
    gain = shown[0].abs().amax(dim=(1, 2)) / batch["signal"].repeat(2, 1, 1).abs().amax(dim=(1, 2))
    torch.testing.assert_close(shown[0], gain[:, None, None] * batch["signal"].repeat(2, 1, 1))
    assert len(gain.unique()) == 16
    assert 0.02 < gain.std() < 0.3


@pytest.fixture
def step_of(monkeypatch):
    """What a training step of this run, epoch, batch and process hides, with dropout drawn behind it."""

    def of(seed=1, epoch=0, batch=0, rank=0):
        module = tiny_module()
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        monkeypatch.setattr(type(module), "current_epoch", epoch)
        monkeypatch.setattr(type(module), "global_rank", rank)
        seen, records = watched(module), beating_batch()
        torch.rand(seed + epoch + batch + rank)  # however much was drawn before
        module.on_fit_start()
        module.on_train_batch_start(records, batch)
        loss = module.training_step(records, batch)
        return (seen["inputs"][0] == 0).numpy().tobytes(), loss.item()

    return of


def test_every_process_epoch_batch_and_run_draws_masks_of_its_own_and_the_same_ones_again(step_of):
    steps = [{}, {"rank": 1}, {"rank": 2}, {"epoch": 1}, {"batch": 1}, {"epoch": 1, "rank": 1}, {"seed": 2}]
    drawn = [step_of(**step) for step in steps]
    assert len({masks for masks, _ in drawn}) == len(steps)
    assert [step_of(**step) for step in steps] == drawn
