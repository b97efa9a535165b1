"""Stage 2 on two processes: gradients are those of one process, and no parameter is ever left without one.

DDP refuses a parameter without a gradient. The two processes run this file as a program, see ``main``.
"""

import math
import os

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from ecgfair.models.conditioning import Conditioning
from ecgfair.training import FinetuneModule
from ecgfair.training.label_loss import LabelLoss
from ecgfair.training.mitigation import Mitigation
from tests.gloo_processes import on_processes
from tests.training.finetune_cases import ENCODERS, labelled_batch, quiet_module

RECORDS = 16
LOSSES = {
    "bce": LabelLoss(),
    "asymmetric": LabelLoss("asymmetric"),
    "focal": LabelLoss("focal"),
    "ldam": LabelLoss("ldam", deferred=0.0),
    "distribution balanced": LabelLoss("distribution_balanced"),
    "adjusted": LabelLoss("ldam", logit_adjustment=1.0),
}
SETTINGS = {
    "plain": {},
    "no attributes": {"attribute_weight": 0.0},
    "deep head": {"hidden": 8, "dropout": 0.2},
    "told beside": {"conditioning": Conditioning(("age", "sex"))},
    "told by factors": {"conditioning": Conditioning(("age", "qtc"), "modulate"), "hidden": 8},
    "mixed": {"mixup": 0.4},
    "frozen": {"freeze_encoder": True, "conditioning": Conditioning(("sex",))},
    "adversary": {"mitigation": Mitigation(adversary_strength=1.0)},
}


def unusual_batch(records=RECORDS):
    """Every second record has no beats, no age, no sex and no label."""
    batch = labelled_batch(records)
    batch["beats"][1::2] = -1
    batch["attributes"][1::2] = math.nan
    batch["sex"][1::2] = -1
    batch["age"][1::2] = math.nan
    batch["labels"][1::2] = 0
    return batch


def rows(batch, chosen):
    return {name: values[chosen] for name, values in batch.items()}


def without_gradient(module):
    return [name for name, weight in module.named_parameters() if weight.requires_grad and weight.grad is None]


@pytest.mark.parametrize("every_second", [0, 1], ids=["usual records", "records that lack everything"])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_no_trained_parameter_is_without_a_gradient_in_any_setting(settings, encoder, every_second):
    module = quiet_module(encoder, **settings)
    module.training_step(rows(unusual_batch(), slice(every_second, None, 2)), 0).backward()
    assert without_gradient(module) == []
    assert all(weight.grad.isfinite().all() for weight in module.parameters() if weight.grad is not None)


@pytest.mark.parametrize("every_second", [0, 1], ids=["usual records", "records that lack everything"])
@pytest.mark.parametrize("mixup", [0.0, 0.4], ids=["alone", "mixed"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_no_trained_parameter_is_without_a_gradient_under_any_loss(loss, mixup, every_second):
    module = quiet_module(loss=loss, mixup=mixup, conditioning=Conditioning(("age", "sex")))
    module.training_step(rows(unusual_batch(), slice(every_second, None, 2)), 0).backward()
    assert without_gradient(module) == []
    assert all(weight.grad.isfinite().all() for weight in module.parameters() if weight.grad is not None)


class FixedStatistics(FinetuneModule):
    """Keeps the statistics of batch norm: with those of its own half, no process could have the whole's gradient."""

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def on_before_optimizer_step(self, optimizer):
        self.gradients = {name: weight.grad.clone() for name, weight in self.named_parameters()}


def fixed_module():
    module = quiet_module(
        loss=LabelLoss("distribution_balanced"),
        conditioning=Conditioning(("age", "sex"), "modulate", dropout=0.0),
        attribute_weight=0.0,  # a mean over the records that have an attribute, of which the halves have unlike many
        hidden=8,
    )
    module.__class__ = FixedStatistics
    # Factors of exactly 1 would leave what reads the attributes without a gradient other than 0.
    for told in (module.network.conditioning, *module.network.beat_conditioning):
        nn.init.normal_(told.modulate.weight, std=0.1)
    return module.train()


class Halves(LightningDataModule):
    """Hands every process its half of the records, all in one batch."""

    def train_dataloader(self):
        half = rows(unusual_batch(), slice(int(os.environ["RANK"]), None, 2))
        records = [rows(half, row) for row in range(RECORDS // 2)]
        return DataLoader(records, batch_size=RECORDS // 2)


def main(folder):
    """Train a step as one of two processes, and keep the gradient."""
    module = fixed_module()
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False)
    strategy = DDPStrategy(process_group_backend="gloo")
    runner = Trainer(
        accelerator="cpu", devices=2, strategy=strategy, max_steps=1, use_distributed_sampler=False, **quiet
    )
    runner.fit(module, Halves())
    torch.save((module.gradients, module.state_dict()), folder / f"rank{runner.global_rank}.pt")


def test_two_processes_have_the_gradient_of_one_though_one_of_them_sees_no_beat_and_no_patient(tmp_path):
    on_processes(main, tmp_path)
    (one, first), (two, second) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    module = fixed_module()
    module.training_step(unusual_batch(), 0).backward()
    assert without_gradient(module) == []
    for name, weight in module.named_parameters():
        torch.testing.assert_close(one[name], weight.grad, atol=1e-6, rtol=1e-4, msg=name)
        assert torch.equal(one[name], two[name]), name
        assert weight.grad.abs().max() > 0, name
    assert all(torch.equal(value, second[name]) for name, value in first.items())
