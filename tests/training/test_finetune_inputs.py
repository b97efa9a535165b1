"""What stage 2 is shown: windows, mixtures of records, and what is known of the patient."""

import math

import pytest
import torch
import torch.nn.functional as F

from data_modules.streaming.datamodules import EcgDataModule
from ecgfair.ecg import SEX_COLUMN, UNKNOWN_SEX, Preprocessing
from ecgfair.errors import ConfigurationError
from ecgfair.losses.attributes import attribute_losses
from ecgfair.losses.mean import Mean
from ecgfair.models.conditioning import Conditioning
from ecgfair.signals.windows import Windows
from ecgfair.training.label_loss import LabelLoss
from ecgfair.training.mitigation import Mitigation
from tests.data_modules.streamed_store import stream_store
from tests.training.finetune_cases import (
    EVERY_INPUT,
    PREVALENCE,
    STATISTICS,
    labelled_batch,
    quiet_module,
    told_losses,
    view_of,
)

WINDOWS = Windows(seconds=1.5, stride_seconds=1.0)
STARTS, LENGTH = (0, 100, 200, 250), 150  # of 4 seconds at 100 Hz; the last one ends with the record
TOLD = Conditioning(EVERY_INPUT, dropout=0.0)


def measured(batch, statistics=STATISTICS):
    """The attributes of a batch in their units."""
    return batch["attributes"] * torch.tensor(statistics.std) + torch.tensor(statistics.mean)


def by_window(module, batch):
    """What the network says of windows that are cut by hand, (windows, scales, B, C) probabilities."""
    shown = measured(batch), view_of(batch)
    told = [module.network(batch["signal"][..., start : start + LENGTH], *shown).by_scale for start in STARTS]
    return torch.stack([torch.stack(logits) for logits in told]).sigmoid()


@pytest.mark.parametrize("conditioning", [None, TOLD], ids=["told nothing", "told"])
@pytest.mark.parametrize("encoder", ["residual", "two scales"])
@torch.no_grad()
def test_a_prediction_is_the_mean_probability_of_hand_cut_windows_scale_by_scale(encoder, conditioning):
    module, batch = quiet_module(encoder, windows=WINDOWS, conditioning=conditioning).eval(), labelled_batch()
    of_windows = by_window(module, batch)
    assert of_windows.std(0).max() > 1e-4, "windows differ"
    expected = of_windows.mean(0).logit().mean(0).sigmoid()
    torch.testing.assert_close(module.predict_step(batch, 0)["probabilities"], expected)
    for step in ("validation_step", "test_step"):
        torch.testing.assert_close(getattr(module, step)(batch, 0)["probabilities"], expected)


@torch.no_grad()
def test_the_loss_of_validation_is_that_of_the_mean_probabilities_each_scale_by_itself():
    module, batch = quiet_module(windows=WINDOWS).eval(), labelled_batch()
    means = by_window(module, batch).mean(0)
    expected = torch.stack([F.binary_cross_entropy(scale, batch["labels"]) for scale in means]).mean()
    torch.testing.assert_close(told_losses(module, batch, "validation_step")["labels"], expected)


@torch.no_grad()
def test_attributes_of_a_record_are_the_mean_over_its_windows():
    module, batch = quiet_module("residual", windows=WINDOWS, attribute_weight=1.0).eval(), labelled_batch()
    cut = [module.network(batch["signal"][..., start : start + LENGTH]).attributes for start in STARTS]
    expected = attribute_losses(torch.stack(cut).mean(0), batch["attributes"]).measures.value
    torch.testing.assert_close(told_losses(module, batch, "validation_step")["measures"], expected)


def test_training_does_not_cut_windows():
    batch = labelled_batch()
    whole, cut = (told_losses(quiet_module(windows=windows), batch)["train"] for windows in (None, WINDOWS))
    assert torch.equal(whole, cut)


def seen_in_training(module, batch):
    """What the network and the loss get in a training step."""
    seen = {}
    module.network.register_forward_pre_hook(
        lambda _, shown: seen.update(zip(("signal", "attributes", "view"), shown, strict=False))
    )
    module.loss.register_forward_hook(lambda _, given, __: seen.update(target=given[1]))
    module.training_step(batch, 0)
    return seen


def test_mixup_trains_on_mixed_signals_and_views_with_the_labels_mixed_alike_and_keeps_attributes():
    module = quiet_module(mixup=1.0, conditioning=TOLD, attribute_weight=1.0)
    batch = labelled_batch()
    before = batch["attributes"].clone()
    # A label of its own for each record: a row of mixed labels then tells which records are in the mixture.
    batch["labels"] = torch.eye(8)
    module.loss.forward = lambda logits, target: Mean.of(logits.mean() + 0 * target.mean())
    seen = seen_in_training(module, batch)
    share = seen["target"]
    assert ((share > 0.01) & (share < 0.99)).any()
    assert (share.diagonal() >= 0.5).all()
    torch.testing.assert_close(share.sum(1), torch.ones(8))
    view = view_of(batch)
    for shown, whole in (
        (seen["signal"], batch["signal"]),
        (seen["view"].shape, view.shape),
        (seen["view"].rhythm, view.rhythm),
        (seen["view"].each, view.each),
    ):
        torch.testing.assert_close(shown, torch.einsum("ij,j...->i...", share, whole), atol=1e-5, rtol=1e-5)
    assert torch.equal(seen["view"].column, view.column)
    assert torch.equal(seen["view"].has_beat, view.has_beat)
    assert torch.equal(batch["attributes"], before)
    torch.testing.assert_close(seen["attributes"], measured(batch))


def test_mixed_labels_are_what_the_loss_is_taken_of():
    batch = labelled_batch()
    batch["signal"][:] = batch["signal"][:1].clone()  # mixed or not, all records look alike
    batch["beats"][:] = batch["beats"][:1].clone()
    module = quiet_module(mixup=1.0, attribute_weight=0.0)
    seen = {}
    module.loss.register_forward_hook(
        lambda _, given, told: seen.update(logits=given[0], target=given[1], loss=told.value)
    )
    module.training_step(batch, 0)
    assert ((seen["target"] > 0.01) & (seen["target"] < 0.99)).any()
    expected = F.binary_cross_entropy_with_logits(seen["logits"], seen["target"])
    torch.testing.assert_close(seen["loss"], expected)


@torch.no_grad()
def test_nothing_is_mixed_outside_training():
    batch = labelled_batch()
    for step in ("predict_step", "validation_step", "test_step"):
        one, two = (getattr(quiet_module(mixup=mixup).eval(), step)(batch, 0) for mixup in (0.0, 1.0))
        assert torch.equal(one["probabilities"], two["probabilities"])


PREPROCESSING = Preprocessing(leads=("I", "II", "V1"), length=200)
UNKNOWN = 18
"""A record of the validation fold of which neither age nor sex is known."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Records whose later folds are older, with faster hearts."""
    fold = [position % 10 + 1 for position in range(50)]
    age = [float(30 + 5 * number + position % 7) for position, number in enumerate(fold)]
    sex = [position % 2 for position in range(50)]
    age[UNKNOWN], sex[UNKNOWN] = None, None
    rate = [50.0 + 8 * number + position % 5 for position, number in enumerate(fold)]
    columns = {"age": age, "sex": sex, "heart_rate": rate, "beats": [[30, 80, 130]] * 50}
    return stream_store(tmp_path_factory.mktemp("told") / "store", preprocessing=PREPROCESSING, **columns)


def validation_batch(store, train_folds):
    """A module that was told of these training records, and the validation batch of the same data module."""
    data = EcgDataModule(store, train_folds=train_folds)
    (batch,) = data.val_dataloader()
    batch = data.on_after_batch_transfer(batch, 0)
    batch["labels"] = batch["labels"][:, :1].expand(-1, 3)
    module = quiet_module(
        preprocessing=PREPROCESSING,
        conditioning=TOLD,
        attribute_statistics=data.attribute_statistics,
        windows=Windows(1.0),
    )
    return module.eval(), batch


@torch.no_grad()
def test_a_patient_is_told_in_physical_units_whatever_statistics_standardise_the_attributes(store):
    (one, of_one), (other, of_other) = (validation_batch(store, folds) for folds in ([1, 2], [6, 7, 8]))
    assert torch.equal(of_one["index"], of_other["index"])
    known = of_one["attributes"][:, 0].isfinite()
    assert (of_one["attributes"] - of_other["attributes"])[known, 0].abs().min() > 1
    said = [module.predict_step(batch, 0)["probabilities"] for module, batch in ((one, of_one), (other, of_other))]
    torch.testing.assert_close(*said, atol=1e-5, rtol=1e-4)
    # Of the other's statistics the same numbers mean another patient.
    mistaken = other.predict_step(of_other | {"attributes": of_one["attributes"]}, 0)["probabilities"]
    assert not torch.allclose(mistaken, said[0], atol=1e-3)


@torch.no_grad()
def test_a_patient_without_age_and_sex_is_served_like_one_of_whom_nothing_is_known(store):
    _, batch = validation_batch(store, [1, 2])
    row = batch["index"].tolist().index(UNKNOWN)
    assert batch["attributes"][row, [0, SEX_COLUMN]].isnan().all()
    assert batch["sex"][row] == UNKNOWN_SEX
    by_age_and_sex = Conditioning(("age", "sex"), dropout=0.0)
    module = quiet_module(preprocessing=PREPROCESSING, conditioning=by_age_and_sex).eval()
    said = module.predict_step(batch, 0)["probabilities"]
    assert said.isfinite().all()
    untold = module(batch["signal"], None, view_of(batch)).logits.sigmoid()
    torch.testing.assert_close(said[row], untold[row])
    others = torch.arange(len(said)) != row
    assert ((said - untold).abs().amax(1) > 1e-5)[others].all(), "the others are told"


@torch.no_grad()
def test_a_batch_of_which_no_attribute_is_known_is_served_as_the_signal_alone():
    batch = labelled_batch()
    batch["attributes"][:] = math.nan
    module = quiet_module(conditioning=TOLD).eval()
    untold = module(batch["signal"], None, view_of(batch)).logits.sigmoid()
    torch.testing.assert_close(module.predict_step(batch, 0)["probabilities"], untold)


def test_an_adversary_reads_every_branch_of_an_encoder_of_beats_and_reaches_each():
    batch = labelled_batch()
    gradients = {}
    for strength in (1.0, 3.0):
        module = quiet_module(mitigation=Mitigation(adversary_strength=strength), attribute_weight=0.0)
        encoder = module.network.encoder
        assert len(encoder.beat_features) == 2
        assert module.network.features == 2 * encoder.channels + sum(encoder.beat_features)
        assert module.adversary.head[0].in_features == module.network.features
        module.training_step(batch, 0).backward()
        grown = dict(encoder.named_parameters())
        gradients[strength] = {name: weight.grad for name, weight in grown.items() if name.endswith(".stem.weight")}
    assert len(gradients[1.0]) == 4, "signal, trend, the median beat and every beat"
    for name, weak in gradients[1.0].items():
        assert not torch.allclose(weak, gradients[3.0][name], rtol=0.01, atol=0), name


@pytest.mark.parametrize(("told", "hidden"), [(("age",), ("age", "sex")), (("heart_rate", "sex"), ("sex",))])
def test_what_the_heads_are_told_can_not_be_hidden_from_them(told, hidden):
    both = sorted(set(told) & set(hidden))
    mitigation = Mitigation(adversary_strength=1.0, adversary_attributes=hidden)
    with pytest.raises(ConfigurationError, match=rf"both name {', '.join(both)}: what the heads are told"):
        quiet_module(conditioning=Conditioning(told), mitigation=mitigation)


def test_one_attribute_can_be_told_and_another_hidden():
    mitigation = Mitigation(adversary_strength=1.0, adversary_attributes=("sex",))
    module = quiet_module(conditioning=Conditioning(("age",)), mitigation=mitigation)
    told = told_losses(module, labelled_batch())
    assert told["train"].isfinite()
    assert "adversary_sex" in told


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_heads_start_lower_by_what_the_loss_adds_so_that_training_starts_from_prevalence(tau):
    module = quiet_module(loss=LabelLoss(logit_adjustment=tau))
    odds = torch.tensor(PREVALENCE).logit()
    target = labelled_batch()["labels"]
    heads = module.network.label_head, *module.network.beat_heads
    assert len(heads) == 3
    for head in heads:
        torch.testing.assert_close(head.bias.detach(), odds * (1 - tau))
        said = head.bias.detach().expand(len(target), -1)
        torch.testing.assert_close(
            module.loss.train()(said, target).value, F.binary_cross_entropy_with_logits(odds.expand_as(target), target)
        )
