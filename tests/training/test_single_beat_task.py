import pytest
import torch

from ecgfair.ecg import ATTRIBUTES
from ecgfair.errors import ConfigurationError
from ecgfair.models.beat_restorer import BeatRestorer
from ecgfair.models.encoder import EncoderSpec
from ecgfair.signals.aligned_beats import POINTS
from ecgfair.training import PretrainModule
from ecgfair.training.pretrain_settings import PretrainWeights
from ecgfair.training.single_beat_task import hidden_places, single_beat_losses
from tests.training.finetune_cases import NARROW
from tests.training.tiny import PREPROCESSING, beating_batch, tiny_module, values

WIDER = {"shape_widths": [8, 8], "beat_widths": [8, 8], "beat_embedding": 16}
"""So that single beats can be learned."""
TWO_SCALES = EncoderSpec("TwoScaleEncoder", NARROW | WIDER)
WEIGHTS = PretrainWeights(single_beat=1.0, single_beat_attributes=1.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def parts():
    torch.manual_seed(0)
    return TWO_SCALES.build(12), BeatRestorer(16, 12)


def two_scale_module(weights):
    torch.manual_seed(0)
    return PretrainModule(PREPROCESSING, encoder=TWO_SCALES, local_widths=[8], decoder_width=8, weights=weights)


def test_it_learns_to_restore_beats_and_to_tell_attributes_from_each():
    encoder, restorer = parts()
    batch, generator = beating_batch(), seeded()
    batch["signal"] = batch["signal"] * (1 - 2 * batch["sex"])[:, None, None]  # so that a beat tells the sex
    optimiser = torch.optim.Adam([*encoder.parameters(), *restorer.parameters()], 3e-3)
    seen = []
    for _ in range(150):
        losses = values(single_beat_losses(encoder, restorer, batch, 100.0, generator))
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        seen.append(torch.stack(list(losses.values())).detach())
    first, last = torch.stack(seen[:5]).mean(0), torch.stack(seen[-10:]).mean(0)
    assert (last < 0.6 * first).all(), (first, last)


def test_hidden_is_a_third_of_the_time_in_all_leads_or_whole_leads():
    hidden = hidden_places(torch.Size([4000, 12, POINTS]), torch.device("cpu"), seeded())
    in_all = hidden.all(dim=1)
    of_leads = hidden.all(dim=2) | ~hidden.any(dim=2)
    spans = hidden == in_all[:, None]
    by_time = spans.flatten(1).all(dim=1) & (in_all.sum(dim=1) == round(POINTS / 3))
    assert (by_time | of_leads.all(dim=1)).all()
    assert by_time.float().mean() == pytest.approx(0.5, abs=0.03)
    places = in_all[by_time].float().mean(dim=0)
    torch.testing.assert_close(places, torch.full_like(places, 26 / 78), atol=0.05, rtol=0)


def test_what_is_visible_costs_nothing(monkeypatch):
    encoder, restorer = parts()
    monkeypatch.setattr(
        "ecgfair.training.single_beat_task.hidden_places", lambda s, _d, _g: torch.zeros(s, dtype=torch.bool)
    )
    assert values(single_beat_losses(encoder, restorer, beating_batch(), 100.0, seeded()))["single_beat"] == 0


def test_a_lead_that_was_not_recorded_is_not_restored():
    encoder, restorer = parts()
    batch = beating_batch()
    batch["recorded"] = batch["recorded"].clone()
    batch["recorded"][:, 3] = False
    before = values(single_beat_losses(encoder, restorer, batch, 100.0, seeded()))["single_beat"]
    with torch.no_grad():
        restorer.decode[-1].bias.view(12, POINTS)[3] += 100
    torch.testing.assert_close(
        values(single_beat_losses(encoder, restorer, batch, 100.0, seeded()))["single_beat"], before
    )


def test_without_a_beat_both_losses_are_0_and_have_a_gradient():
    encoder, restorer = parts()
    batch = beating_batch() | {"beats": torch.full((8, 4), -1)}
    losses = values(single_beat_losses(encoder, restorer, batch, 100.0))
    assert [float(loss.detach()) for loss in losses.values()] == [0, 0]
    sum(losses.values()).backward()
    assert all((weight.grad == 0).all() for weight in restorer.parameters())


def test_attributes_that_are_missing_cost_nothing():
    encoder, restorer = parts()
    batch = beating_batch()
    batch["attributes"] = torch.full_like(batch["attributes"], torch.nan)
    assert batch["attributes"].shape[1] == len(ATTRIBUTES)
    assert values(single_beat_losses(encoder, restorer, batch, 100.0, seeded()))["single_beat_attributes"] == 0


@pytest.mark.parametrize("single", [0.0, 1.0])
def test_stage_one_has_a_gradient_for_every_weight_that_it_trains_and_leaves_the_others(single):
    module = two_scale_module(PretrainWeights(single_beat=single, single_beat_attributes=single))
    module.training_step(beating_batch(), 0).backward()
    lacking = [name for name, weight in module.named_parameters() if weight.requires_grad and weight.grad is None]
    assert lacking == []
    branch = module.network.encoder.beat_branch
    assert [weight.requires_grad for weight in branch.embed.parameters()] == [single > 0] * 2
    assert not any(weight.requires_grad for weight in module.network.encoder.shape_branch.parameters())


def test_an_encoder_that_reads_no_beats_can_not_learn_from_them():
    with pytest.raises(ConfigurationError, match="ResidualEncoder does not read single beats"):
        tiny_module(weights=WEIGHTS)
