import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecgfair.ecg import Preprocessing
from ecgfair.errors import CheckpointError, ConfigurationError, PreprocessingMismatchError
from ecgfair.signals.augmentation import Augmentation
from ecgfair.training import FinetuneModule
from ecgfair.training.label_loss import LabelLoss
from tests.training.conftest import SMALL

PLAIN = Augmentation(crop_seconds=None, lead_dropout=0, scaling=0, noise=0)


def finetune_module(**settings) -> FinetuneModule:
    torch.manual_seed(0)
    settings = {"encoder": SMALL, "dropout": 0.0, "augmentation": PLAIN, **settings}
    return FinetuneModule(Preprocessing(), ["a", "b", "c"], [0.3, 0.3, 0.3], **settings)


def train(module, batch, steps: int) -> None:
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=3e-3)
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()


@pytest.mark.parametrize("loss", ["bce", "asymmetric"])
def test_it_overfits_32_records_to_an_auroc_of_one(make_batch, loss):
    module, batch = finetune_module(loss=LabelLoss(loss)), make_batch(32)
    train(module, batch, steps=60)
    probabilities = module.eval().predict_step(batch, 0)["probabilities"].detach()
    assert roc_auc_score(batch["labels"], probabilities, average="macro") == 1.0


def test_a_frozen_encoder_keeps_weights_and_batch_norm_statistics_while_the_head_learns(make_batch):
    module, batch = finetune_module(freeze_encoder=True), make_batch(32)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    train(module, batch, steps=3)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {
        f"network.{head}.{part}" for head in ("label_head", "attribute_head") for part in ("weight", "bias")
    }


def test_an_encoder_that_is_not_frozen_learns(make_batch):
    module = finetune_module()
    before = module.network.encoder.signal_branch.stem.weight.clone()
    train(module, make_batch(), steps=1)
    assert not torch.equal(module.network.encoder.signal_branch.stem.weight, before)


def test_attributes_are_auxiliary_targets_with_the_weight_asked_for(make_batch):
    batch = make_batch()
    losses = {weight: finetune_module(attribute_weight=weight).eval().training_step(batch, 0) for weight in (0, 1, 2)}
    torch.testing.assert_close(
        losses[2] - losses[1], losses[1] - finetune_module(attribute_weight=1e-9).eval().training_step(batch, 0)
    )
    assert losses[1] > losses[0]


def test_without_attributes_there_is_no_idle_parameter(make_batch):
    module = finetune_module(attribute_weight=0)
    module.training_step(make_batch(), 0).backward()
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []


def test_missing_attributes_leave_the_loss_finite(make_batch):
    batch = make_batch()
    batch["attributes"][:] = math.nan
    assert torch.isfinite(finetune_module().training_step(batch, 0))


@pytest.mark.parametrize("step", ["validation_step", "test_step"])
def test_evaluation_sees_whole_records_and_returns_probabilities(make_batch, step):
    module, batch = finetune_module(augmentation=Augmentation()).eval(), make_batch()
    one, two = (getattr(module, step)(batch, 0)["probabilities"] for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == (8, 3)
    assert ((one >= 0) & (one <= 1)).all()


def test_training_is_augmented(make_batch):
    module, batch = finetune_module(augmentation=Augmentation()).eval(), make_batch()
    assert module.training_step(batch, 0) != module.training_step(batch, 0)


def test_weights_of_other_labels_are_refused_with_their_names():
    checkpoint = {}
    finetune_module().on_save_checkpoint(checkpoint)
    other = FinetuneModule(Preprocessing(), ["a", "b", "d"], [0.3] * 3, encoder=SMALL)
    with pytest.raises(CheckpointError, match=r"c, d.*label set it was trained on"):
        other.on_load_checkpoint(checkpoint)


def test_weights_of_another_preprocessing_or_another_project_are_refused():
    checkpoint = {}
    finetune_module().on_save_checkpoint(checkpoint)
    other = FinetuneModule(Preprocessing(sampling_rate=500), ["a", "b", "c"], [0.3] * 3, encoder=SMALL)
    with pytest.raises(PreprocessingMismatchError, match="sampling_rate is 100"):
        other.on_load_checkpoint(checkpoint)
    with pytest.raises(CheckpointError, match="no preprocessing"):
        other.on_load_checkpoint({"state_dict": {}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attribute_weight": -1.0}, "attribute_weight"),
        ({"mixup": -0.1}, "mixup is -0.1"),
        ({"hidden": -1}, "hidden is -1"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        finetune_module(**settings)


def test_names_and_prevalences_have_to_match():
    with pytest.raises(ConfigurationError, match="2 label names and 1 prevalences"):
        FinetuneModule(Preprocessing(), ["a", "b"], [0.3], encoder=SMALL)


@pytest.mark.parametrize(
    ("names", "prevalence", "message"),
    [([], [], "have no labels: stage 2 needs a label set"), (["A", "B"], [0.0, 0.0], "No training record is positive")],
)
def test_data_that_stage_two_can_learn_nothing_from_are_refused(names, prevalence, message):
    with pytest.raises(ConfigurationError, match=message):
        FinetuneModule(Preprocessing(), names, prevalence, encoder=SMALL).setup("fit")
