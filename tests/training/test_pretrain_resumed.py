"""Training that was stopped in mid-epoch ends at the very weights of training that was not.

Masks, alterations, augmentation and dropout are on: whatever is drawn at random has to be drawn again.
"""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from data_modules.streaming.datamodules import EcgDataModule
from ecgfair.ecg import Preprocessing
from ecgfair.training import FinetuneModule, PretrainModule
from ecgfair.training.base import EcgModule
from ecgfair.training.pretrain import PretrainWeights
from tests.data_modules.streamed_store import stream_store
from tests.training.tiny import ALTERED, ENCODERS

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
    # The run that goes on writes no checkpoints here.
    "ignore:Be aware that when using `ckpt_path`:UserWarning",
)
PREPROCESSING = Preprocessing(leads=("I", "II", "V1"), length=200)
EPOCHS, STEPS = 2, 5
"""Epochs, and steps in each: 40 of the 50 records are trained on, 8 a step."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("resumed") / "store"
    return stream_store(path, preprocessing=PREPROCESSING, beats=[[30, 80, 130]] * 50)


@pytest.fixture(autouse=True)
def seed(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")


def pretraining(encoder):
    settings = {"local_widths": [8], "decoder_width": 8, "weights": PretrainWeights(**ALTERED)}
    return PretrainModule(PREPROCESSING, encoder=ENCODERS[encoder], **settings)


def finetuning():
    return FinetuneModule(PREPROCESSING, ["often", "rarely"], [0.8, 0.2], encoder=ENCODERS["residual"], dropout=0.3)


STAGES = {
    "residual": lambda: pretraining("residual"),
    "published": lambda: pretraining("published"),
    "stage 2": finetuning,
}


def trained(folder, store, make, luck, *callbacks, ckpt_path=None):
    """The module after training, begun with a generator in a state of its own."""
    torch.manual_seed(luck)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        max_epochs=EPOCHS,
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        num_sanity_val_steps=0,
    )
    module = make()
    data = EcgDataModule(store, batch_size=8, seed=5)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=None if ckpt_path is None else True)
    assert trainer.global_step == EPOCHS * STEPS
    return module


def every(steps, folder):
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=steps, save_top_k=-1)


def different(one, other):
    """Names of weights and buffers that are not the same to the last bit."""
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    return [name for name, value in first.items() if not torch.equal(value, second[name])]


@pytest.mark.parametrize(
    ("stage", "step"),
    [("residual", 3), ("published", 8), ("stage 2", 9)],  # in the first epoch, in the second
    ids=STAGES,
)
def test_a_run_resumed_in_mid_epoch_ends_with_the_same_weights_to_the_bit(store, tmp_path, stage, step):
    whole = trained(tmp_path, store, STAGES[stage], 1, every(1, tmp_path))
    started = STAGES[stage]()
    assert different(whole, started), "it has learned"
    resumed = trained(tmp_path, store, STAGES[stage], 2, ckpt_path=tmp_path / f"step={step}.ckpt")
    assert different(whole, resumed) == []


def test_without_a_seed_of_its_own_for_each_step_it_would_end_with_others(store, tmp_path, monkeypatch):
    # Neither numbers of the records' own nor a seed for torch's generator, which gives the others.
    monkeypatch.setattr(EcgModule, "draws", lambda *_: None)
    monkeypatch.setattr(EcgModule, "on_train_batch_start", lambda *_: None)
    whole = trained(tmp_path, store, STAGES["residual"], 1, every(3, tmp_path))
    resumed = trained(tmp_path, store, STAGES["residual"], 2, ckpt_path=tmp_path / "step=3.ckpt")
    assert different(whole, resumed)
