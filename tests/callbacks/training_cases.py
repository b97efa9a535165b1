"""A training that a test can disturb: a module whose loss is what a test says, on a small store, and its trainer."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer

from data_modules.streaming.datamodules import EcgDataModule
from ecgfair.training.checkpoint_io import AtomicCheckpointIO

EPOCHS, STEPS = 3, 10
"""Epochs, and steps in each: 40 of the 50 records are trained on, 4 a step."""


class Averaging(LightningModule):
    """Learns the mean age of its records; notes the records of each step.

    Args:
        spoil: Called with the module and the loss of a step, returns the loss to train on.
    """

    def __init__(self, spoil=None):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(1, 1)
        self.spoil = spoil
        self.steps = []
        self.validations = 0

    def training_step(self, batch):
        self.steps.append(batch["index"].tolist())
        loss = (self.layer(torch.ones(len(batch["age"]), 1))[:, 0] - batch["age"] / 50).square().mean()
        return loss if self.spoil is None else self.spoil(self, loss)

    def validation_step(self, batch):
        self.log("val/loss", self.layer.weight.sum().detach())

    def on_validation_epoch_end(self):
        self.validations += 1

    def on_save_checkpoint(self, checkpoint):
        checkpoint["preprocessing"] = {}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def data_of(store, **settings):
    return EcgDataModule(str(store), **({"batch_size": 4, "seed": 5} | settings))


def trainer_for(folder, *callbacks, **settings):
    usual = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "num_sanity_val_steps": 0}
    usual |= {"accelerator": "cpu", "devices": 1, "max_epochs": EPOCHS, "plugins": [AtomicCheckpointIO()]}
    usual |= {"enable_checkpointing": bool(callbacks)}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **(usual | settings))
