"""Precisions, accumulated gradients and the switches of ``Computing``: both stages train under each, and as before."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from ecgfair.errors import ConfigurationError
from ecgfair.models.encoder import EncoderSpec
from ecgfair.signals.augmentation import Augmentation
from ecgfair.training import PretrainModule
from ecgfair.training.base import Optimisation
from ecgfair.training.computing import Computing
from ecgfair.training.pretrain_settings import PretrainWeights
from tests.training.finetune_cases import NARROW, labelled_batch, quiet_module
from tests.training.tiny import PREPROCESSING, tiny_module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:You defined a `validation_step`:lightning.fabric.utilities.warnings.PossibleUserWarning",
)
STEPS = 3
TWO_SCALES = EncoderSpec("TwoScaleEncoder", NARROW | {"dropout": 0.2})
EVERY_TASK = PretrainWeights(**dict.fromkeys(vars(PretrainWeights()), 1.0))


def pretrain(computing):
    torch.manual_seed(0)
    return PretrainModule(
        PREPROCESSING,
        encoder=TWO_SCALES,
        local_widths=[8],
        decoder_width=8,
        weights=EVERY_TASK,
        optimisation=Optimisation(learning_rate=1e-3),
        computing=computing,
    )


def finetune(computing):
    return quiet_module(
        TWO_SCALES,
        dropout=0.2,
        beat_dropout=0.4,
        hidden=8,
        augmentation=Augmentation(),
        optimisation=Optimisation(learning_rate=1e-3),
        computing=computing,
    )


STAGES = {"pretrain": pretrain, "finetune": finetune}


def trained(folder, build, computing=None, **settings):
    """Train some steps; return the losses, the weights and statistics, and the module."""
    module = build(computing or Computing())
    step, losses = module.training_step, []

    def training_step(batch, batch_idx):
        losses.append(step(batch, batch_idx))
        return losses[-1]

    module.training_step = training_step
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "logger"), False)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, filename="end")],
        **quiet,
        **settings,
    )
    trainer.fit(module, DataLoader([labelled_batch()] * STEPS, batch_size=None))
    checkpoint = torch.load(folder / "end.ckpt", weights_only=True)
    return [float(loss.detach()) for loss in losses], checkpoint["state_dict"], module


@pytest.fixture
def plainly(tmp_path, monkeypatch):
    """What either stage comes to without any switch."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    return lambda stage: trained(tmp_path / "plain", STAGES[stage])


@pytest.mark.parametrize("stage", STAGES)
def test_computed_again_the_encoder_learns_the_same_to_the_bit_and_its_statistics_move_once(tmp_path, plainly, stage):
    passes = []

    def build(computing):
        module = STAGES[stage](computing)
        module.network.encoder.signal_branch.blocks[1].residual[0].register_forward_hook(lambda *_: passes.append(1))
        return module

    losses, weights, module = trained(tmp_path / "again", build, Computing(recompute=True))
    in_training = len(passes)
    expected_losses, expected, _ = plainly(stage)
    assert losses == expected_losses
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        assert torch.equal(value, expected[name]), name
    passes.clear()
    trained(tmp_path / "once", build)
    assert in_training == 2 * len(passes), "each pass of the encoder was repeated"
    passes.clear()
    module.eval().validation_step(labelled_batch(), 0)
    once = len(passes)
    with torch.no_grad():
        module.validation_step(labelled_batch(), 0)
    assert len(passes) == 2 * once, "outside training nothing is repeated"


# Dynamo looks for gradients of what it traces; it means nothing here.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
# Of the import of inductor itself.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("stage", "backend"),
    [
        ("finetune", "eager"),
        pytest.param("pretrain", "eager", marks=pytest.mark.slow),
        pytest.param("finetune", "inductor", marks=pytest.mark.slow),
        pytest.param("pretrain", "inductor", marks=pytest.mark.slow),
    ],
)
def test_compiled_the_network_learns_the_same_and_its_weights_keep_their_names(
    tmp_path, plainly, monkeypatch, stage, backend
):
    compiled = []
    compile_ = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda module: compiled.append(module) or compile_(module, backend=backend)
    )
    losses, weights, module = trained(tmp_path / "compiled", STAGES[stage], Computing(compile=True))
    expected_losses, expected, _ = plainly(stage)
    assert compiled == [module.network.encoder, module.network]
    assert losses == pytest.approx(expected_losses, rel=1e-4, abs=1e-5)
    assert weights.keys() == expected.keys()


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16-mixed"},
        {"accumulate_grad_batches": 2},
        {"accumulate_grad_batches": 2, "precision": "bf16-mixed"},
    ],
    ids=["bf16", "accumulated", "both"],
)
@pytest.mark.parametrize("stage", STAGES)
def test_in_half_precision_and_with_accumulated_gradients_losses_are_near_and_checkpoints_alike(
    tmp_path, plainly, stage, settings
):
    losses, weights, _ = trained(tmp_path / "changed", STAGES[stage], **settings)
    expected_losses, expected, _ = plainly(stage)
    assert losses[0] == pytest.approx(expected_losses[0], rel=0.02, abs=0.02)
    assert torch.isfinite(torch.tensor(losses)).all()
    assert {name: value.dtype for name, value in weights.items()} == {
        name: value.dtype for name, value in expected.items()
    }


def test_a_network_is_not_both_compiled_and_computed_again():
    with pytest.raises(ConfigurationError, match=r"computing.compile and computing.recompute are both true"):
        Computing(compile=True, recompute=True)


def test_a_second_run_of_the_same_module_computes_again_once():
    module = tiny_module(computing=Computing(recompute=True))
    for _ in range(2):
        module.computing.apply(module.network)
    layer = module.network.encoder.layers()[0][0]
    assert layer.forward.args[1] == type(layer).forward.__get__(layer)
