"""How stage 2 trains with all of it on: rates by layer, frozen and handed-on encoders, deferred weights, going on."""

from types import SimpleNamespace

import pytest
import torch

from ecgfair.models.conditioning import Conditioning
from ecgfair.models.encoder import EncoderSpec
from ecgfair.signals.augmentation import Augmentation
from ecgfair.training import FinetuneModule
from ecgfair.training.base import Optimisation
from ecgfair.training.encoder_checkpoint import load_encoder
from ecgfair.training.label_loss import LabelLoss
from ecgfair.training.mitigation import Mitigation
from tests.data_modules.streamed_store import stream_store
from tests.training.finetune_cases import ENCODERS, NARROW, STATISTICS, labelled_batch, quiet_module, view_of
from tests.training.test_pretrain_resumed import EPOCHS, PREPROCESSING, STEPS, different, every, trained

RATE, DECAY, SCALE = 0.01, 0.5, 0.3
SLOW_BELOW = Optimisation(learning_rate=RATE, weight_decay=0.05, encoder_scale=SCALE, layer_decay=DECAY)


def optimizer_of(module):
    """The optimiser that a trainer of ten steps would get."""
    module._trainer = SimpleNamespace(estimated_stepping_batches=10)
    optimizer = module.configure_optimizers()["optimizer"]
    module._trainer = None
    return optimizer


def names_of(module, group):
    named = {id(parameter): name for name, parameter in module.named_parameters()}
    return {named[id(parameter)] for parameter in group["params"]}


@pytest.mark.parametrize("told", [Conditioning(), Conditioning(("age", "sex"), "modulate")], ids=["alone", "told"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_trained_parameter_is_in_one_group_and_learns_at_the_rate_of_its_layer(encoder, told):
    against_sex = Mitigation(adversary_strength=1.0, adversary_attributes=("sex",))
    mitigation = Mitigation() if told.inputs else against_sex
    module = quiet_module(encoder, conditioning=told, hidden=8, mitigation=mitigation, optimisation=SLOW_BELOW)
    layers = module.network.encoder.layers()
    depth = {
        id(parameter): len(layers) - 1 - place
        for place, layer in enumerate(layers)
        for part in layer
        for parameter in part.parameters()
    }
    found = [(parameter, group) for group in optimizer_of(module).param_groups for parameter in group["params"]]
    trained_ones = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert sorted(id(parameter) for parameter, _ in found) == sorted(map(id, trained_ones))
    assert {id(weight) for weight in module.network.encoder.parameters()} <= set(map(id, trained_ones))
    for parameter, group in found:
        of_layer = SCALE * DECAY ** depth[id(parameter)] if id(parameter) in depth else 1.0
        assert group["max_lr"] == pytest.approx(RATE * of_layer)
        assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0)
    assert len({group["max_lr"] for _, group in found}) == len(layers) + 1


@pytest.mark.parametrize("encoder", ENCODERS)
def test_without_decay_all_of_the_encoder_learns_at_one_rate(encoder):
    module = quiet_module(encoder, optimisation=Optimisation(RATE, encoder_scale=SCALE))
    for group in optimizer_of(module).param_groups:
        rate = {name.startswith("network.encoder."): group["max_lr"] for name in names_of(module, group)}
        assert rate in ({False: RATE}, {True: RATE * SCALE})


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_frozen_encoder_stays_to_the_bit_and_the_heads_learn_at_the_full_rate_whatever_the_decay(encoder):
    module = quiet_module(encoder, freeze_encoder=True, optimisation=SLOW_BELOW).train()
    optimizer = optimizer_of(module)
    assert {group["max_lr"] for group in optimizer.param_groups} == {RATE}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for _ in range(2):
        optimizer.zero_grad()
        module.training_step(labelled_batch(), 0).backward()
        optimizer.step()
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    heads = {name for name, _ in module.named_parameters() if not name.startswith("network.encoder.")}
    assert changed == heads


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.no_grad()
def test_an_encoder_that_stage_two_saved_starts_another_stage_two_with_the_same_features(encoder, tmp_path):
    first, batch = quiet_module(encoder, training_data="here:folds 1,2"), labelled_batch()
    for _ in range(2):
        first.train().training_step(batch, 0)  # batch norm has seen records
    first.save_encoder(tmp_path / "encoder")
    torch.manual_seed(1)  # the heads may start otherwise
    folder = str(tmp_path / "encoder")
    second, control = (quiet_module(folder, random_weights=random) for random in (False, True))
    said = [module.eval()(batch["signal"], None, view_of(batch)).features for module in (first, second, control)]
    assert torch.equal(said[0], said[1])
    assert not torch.allclose(said[0], said[2], atol=1e-3)
    _, card = load_encoder(folder)
    assert card.spec == ENCODERS[encoder]
    assert (card.attribute_statistics, card.training_data) == (STATISTICS, "here:folds 1,2")


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
    # The run that goes on writes no checkpoints here.
    "ignore:Be aware that when using `ckpt_path`:UserWarning",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("going on") / "store"
    return stream_store(path, preprocessing=PREPROCESSING, beats=[[30, 80, 130]] * 50)


@pytest.fixture(autouse=True)
def seed(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")


def everything(deferred=0.5):
    """Stage 2 with all that is drawn at random, and all that depends on how far training is."""
    return FinetuneModule(
        PREPROCESSING,
        ["often", "rarely"],
        [0.8, 0.2],
        training_records=40,
        encoder=EncoderSpec("TwoScaleEncoder", NARROW | {"dropout": 0.2}),
        loss=LabelLoss("ldam", deferred=deferred, beta=0.99),
        dropout=0.3,
        hidden=8,
        conditioning=Conditioning(("age", "sex"), "modulate", dropout=0.3),
        augmentation=Augmentation(crop_seconds=1.5, time_warp=0.05, baseline_wander=0.1),
        mixup=0.4,
        mitigation=Mitigation("sex", robust_step=0.1),
        optimisation=Optimisation(layer_decay=0.7),
    )


def noting_weights(deferred, noted):
    """A module that notes in each training step whether its loss weighs."""
    module = everything(deferred)
    module.loss.register_forward_pre_hook(
        lambda loss, _: noted.append(loss.weighed and loss.training) if module.training else None
    )
    return module


def test_classes_are_weighed_from_the_stated_share_of_the_steps_on(store, tmp_path):
    noted = []
    trained(tmp_path, store, lambda: noting_weights(0.5, noted), 1)
    by_step = noted[:: len(noted) // (EPOCHS * STEPS)]
    assert by_step == [False] * 5 + [True] * 5


@pytest.mark.parametrize("step", [3, 8], ids=["before classes are weighed", "after"])
def test_a_run_with_everything_on_that_goes_on_ends_with_the_same_weights_to_the_bit(store, tmp_path, step):
    whole = trained(tmp_path, store, everything, 1, every(step, tmp_path))
    assert different(whole, everything()), "it has learned"
    noted = []
    resumed = trained(tmp_path, store, lambda: noting_weights(0.5, noted), 2, ckpt_path=tmp_path / f"step={step}.ckpt")
    assert different(whole, resumed) == []
    assert noted[0] == (step >= 5), "the loss knows at once how far training is"


def test_deferred_weights_change_what_is_learned(store, tmp_path):
    never, late = (trained(tmp_path, store, lambda share=share: everything(share), 1) for share in (1.0, 0.5))
    assert different(never, late)
