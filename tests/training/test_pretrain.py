import math

import pytest
import torch

from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError
from ecgfair.signals.draws import Draws
from ecgfair.training import PretrainModule
from ecgfair.training.pretrain import VALIDATION_SEED, Masking, PretrainWeights
from tests.training.tiny import values

LOSSES = ["whole", "beat", "trend", "measures", "sex"]


def encoder_gradient(module: PretrainModule, batch, **weights: float) -> torch.Tensor:
    module.eval().zero_grad()  # without dropout, so that two passes differ by their losses alone
    losses = values(module.losses(batch, torch.Generator().manual_seed(0)))
    torch.stack([weights.get(name, 0.0) * loss for name, loss in losses.items()]).sum().backward()
    gradients = [parameter.grad for parameter in module.network.encoder.parameters()]
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


@pytest.mark.parametrize("name", LOSSES)
def test_each_of_the_five_losses_changes_the_gradients_of_the_encoder(pretrain_module, make_batch, name):
    batch = make_batch()
    everything = dict.fromkeys(LOSSES, 1.0)
    with_it = encoder_gradient(pretrain_module, batch, **everything)
    without_it = encoder_gradient(pretrain_module, batch, **{**everything, name: 0.0})
    alone = encoder_gradient(pretrain_module, batch, **{name: 1.0})
    assert alone.abs().max() > 0
    torch.testing.assert_close(with_it - without_it, alone, atol=1e-4, rtol=1e-3)


def test_the_restoration_of_a_beat_reaches_the_encoder_through_the_fusion_alone(pretrain_module, make_batch):
    batch = make_batch()
    assert encoder_gradient(pretrain_module, batch, beat=1.0).any()
    pretrain_module.network.fusion.forward = lambda one, other, _has_beat: (one, other)
    assert not encoder_gradient(pretrain_module, batch, beat=1.0).any()


def test_the_fusion_changes_the_restoration_of_both_scales(pretrain_module, make_batch):
    batch = make_batch()
    pretrain_module.eval()
    seed = torch.Generator().manual_seed
    fused = values(pretrain_module.losses(batch, seed(0)))
    pretrain_module.network.fusion.forward = lambda one, other, _has_beat: (one, other)
    apart = values(pretrain_module.losses(batch, seed(0)))
    for name in ("whole", "beat", "trend"):
        assert not torch.isclose(fused[name], apart[name])
    for name in ("measures", "sex"):
        torch.testing.assert_close(fused[name], apart[name])


def test_every_parameter_of_the_network_is_trained(pretrain_module, make_batch):
    pretrain_module.training_step(make_batch(), 0).backward()
    idle = [name for name, parameter in pretrain_module.named_parameters() if parameter.grad is None]
    assert idle == []


def test_what_is_hidden_is_hidden_from_the_network(pretrain_module, make_batch):
    seen = {}
    forward = pretrain_module.network.forward
    pretrain_module.network.forward = lambda *inputs: seen.update(inputs=inputs) or forward(*inputs)
    pretrain_module.losses(make_batch())
    signal, beat, _, trend_of = seen["inputs"]
    assert (signal == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert (beat == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert trend_of is None, "the trend is that of the masked signal"


def test_missing_attributes_and_missing_beats_leave_every_loss_finite(pretrain_module, make_batch):
    batch = make_batch()
    batch["attributes"][:] = math.nan
    batch["beats"][:] = -1
    losses = values(pretrain_module.losses(batch))
    torch.stack(list(losses.values())).sum().backward()
    assert losses["beat"] == losses["measures"] == losses["sex"] == 0
    assert all(torch.isfinite(p.grad).all() for p in pretrain_module.parameters() if p.grad is not None)


def test_losses_are_averaged_so_that_their_balance_is_that_of_any_batch_size(pretrain_module, make_batch):
    pretrain_module.eval()
    few = [values(pretrain_module.losses(make_batch(4, seed=seed))) for seed in range(8)]
    many = values(pretrain_module.losses(make_batch(64)))
    for name in LOSSES:
        mean = torch.stack([losses[name] for losses in few]).mean()
        assert many[name].item() == pytest.approx(mean.item(), rel=0.5, abs=0.1)


def test_the_sum_is_weighted_as_configured(pretrain_module, make_batch):
    pretrain_module.weights = PretrainWeights(whole=0, beat=0, trend=3, measures=0, sex=0)
    pretrain_module.eval()
    step = pretrain_module.validation_step(make_batch(), 0)["loss"]
    drawn = Draws.of(VALIDATION_SEED, 0, make_batch()["index"])
    alone = values(pretrain_module.losses(make_batch(), drawn))["trend"]
    torch.testing.assert_close(step, 3 * alone)


def test_validation_hides_the_same_samples_of_a_record_each_time_and_in_every_batch(pretrain_module, make_batch):
    pretrain_module.eval()
    one, two = (pretrain_module.validation_step(make_batch(), number)["loss"] for number in (5, 6))
    others = make_batch() | {"index": torch.arange(8) + 8}
    assert one == two != pretrain_module.validation_step(others, 5)["loss"]
    seen, forward = [], pretrain_module.network.forward
    pretrain_module.network.forward = lambda *inputs: seen.append(inputs[0]) or forward(*inputs)
    for rows in (range(8), [6, 2], range(7, -1, -1)):
        batch = {name: value[list(rows)] for name, value in make_batch().items()}
        pretrain_module.validation_step(batch, 0)
        assert torch.equal(seen[-1], seen[0][list(rows)])


def test_restoration_learns_a_signal_that_repeats(make_batch):
    torch.manual_seed(0)
    module = PretrainModule(Preprocessing(), local_widths=[16], decoder_width=32, encoder=_tiny())
    batch = make_batch(16)
    time = torch.arange(1000) / 100
    batch["signal"] = torch.sin(2 * torch.pi * 1.2 * time).expand(16, 12, 1000).clone()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    first = values(module.losses(batch, torch.Generator().manual_seed(0)))
    for _ in range(60):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
    last = values(module.losses(batch, torch.Generator().manual_seed(0)))
    for name in ("whole", "beat"):
        assert last[name] < first[name] - 1, f"{name}: a nat better than at the start"
    assert last["trend"] < first["trend"] / 4


def _tiny():
    from tests.training.conftest import SMALL

    return SMALL


@pytest.mark.parametrize("field", ["before_seconds", "after_seconds"])
def test_a_window_without_length_is_refused_by_name(field):
    with pytest.raises(ConfigurationError, match=field):
        Masking(**{field: 0.0})


@torch.no_grad()
def test_what_was_never_recorded_is_not_to_be_restored(pretrain_module, make_batch):
    batch = make_batch()
    batch["recorded"] = batch["recorded"].clone()
    batch["recorded"][:, 4] = False
    batch["recorded"][:, :, 800:] = False
    batch["signal"] = batch["signal"] * batch["recorded"]
    pretrain_module.eval()
    losses = values(pretrain_module.losses(batch, torch.Generator().manual_seed(0)))
    forward = pretrain_module.network.forward

    def worse_where_nothing_was_recorded(*inputs):
        restoration = forward(*inputs)
        restoration.whole.signal[:, 4] += 100
        restoration.whole.signal[:, :, 800:] += 100
        restoration.beat.signal[:, 4] += 100
        restoration.from_trend[:, 4] += 100
        return restoration

    pretrain_module.network.forward = worse_where_nothing_was_recorded
    again = values(pretrain_module.losses(batch, torch.Generator().manual_seed(0)))
    for name, loss in losses.items():
        torch.testing.assert_close(again[name], loss, msg=name)
