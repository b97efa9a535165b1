"""Settings, what they do to training by a plain loop and by a Trainer, and that each helps where it must.

Two processes of the distributed test run this file as a program, see ``main``.
"""

import dataclasses
import json
import math
import os

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from data_modules.streaming.balancing import Sampling
from ecgfair.ecg import ATTRIBUTES
from ecgfair.errors import CheckpointError, ConfigurationError
from ecgfair.groups import group_by_demographics
from ecgfair.losses.group_robust import GroupRobustLoss
from ecgfair.losses.reweighting import LabelReweighting
from ecgfair.training.mitigation import Mitigation, without
from tests.gloo_processes import on_processes
from tests.mitigation_case import (
    Counts,
    auroc_by_sex,
    false_alarms_by_sex,
    features_of,
    misleading_cue,
    module_for,
    prevalence_by_sex,
    train,
    visible_demographics,
)
from tests.training.tiny import values

BY_SEX = Sampling("group", balance_groups="sex")


@pytest.fixture(scope="module")
def cue():
    """Records with a misleading cue to train on, and as many women as men to look at."""
    return misleading_cue(), misleading_cue(women=0.5, seed=9)


@pytest.fixture(scope="module")
def plainly_trained(cue):
    return auroc_by_sex(train(module_for(cue[0]), cue[0]), cue[1])


def test_plain_training_on_a_misleading_cue_fails_women(plainly_trained):
    assert plainly_trained["men"] > 0.95
    assert plainly_trained["women"] < 0.7


@pytest.mark.parametrize(
    ("settings", "sampling"),
    [
        ({"mitigation": Mitigation("sex", robust_step=0.05)}, None),
        ({}, BY_SEX),
        ({"mitigation": Mitigation("sex", robust_step=0.05)}, BY_SEX),
    ],
    ids=["group DRO", "balanced sampling", "both"],
)
def test_the_worst_group_gains_where_a_cue_misleads(cue, plainly_trained, settings, sampling):
    trained, measured = cue
    found = auroc_by_sex(train(module_for(trained, **settings), trained, sampling=sampling), measured)
    assert min(found.values()) > min(plainly_trained.values()) + 0.15
    assert abs(found["men"] - found["women"]) < abs(plainly_trained["men"] - plainly_trained["women"]) - 0.15


def test_reweighting_closes_the_gap_in_false_alarms_where_the_label_depends_on_sex():
    trained, measured = prevalence_by_sex(), prevalence_by_sex(seed=9)
    reweighting = Mitigation("sex", reweighting_cap=10)
    plain, mitigated = (
        false_alarms_by_sex(train(module_for(trained, mitigation=mitigation), trained), measured)
        for mitigation in (None, reweighting)
    )
    assert plain["women"] - plain["men"] > 0.3
    assert abs(mitigated["women"] - mitigated["men"]) < 0.1


def told_by_features(module, trained, measured):
    """How well fresh probes tell the sex (AUROC, linear and not) and the age (R2) of others from the features."""
    before, after = features_of(module, trained), features_of(module, measured)
    sex = {
        name: roc_auc_score(measured["sex"], probe.fit(before, trained["sex"]).predict_proba(after)[:, 1])
        for name, probe in (
            ("sex", LogisticRegression(max_iter=2000)),
            ("sex by trees", HistGradientBoostingClassifier(max_iter=40)),
        )
    }
    return sex | {"age": Ridge(0.01).fit(before, trained["age"]).score(after, measured["age"])}


def test_features_tell_less_of_age_and_sex_against_an_adversary_and_the_disease_as_well():
    trained, measured = visible_demographics(), visible_demographics(seed=9)
    against = Mitigation(adversary_strength=1.0)
    settings = {"auxiliary": {"attribute_weight": 0.1}, "plain": {}, "adversary": {"mitigation": against}}
    modules = {
        name: train(module_for(trained, **kept), trained, 250, learning_rate=2e-3) for name, kept in settings.items()
    }
    told = {name: told_by_features(module, trained, measured) for name, module in modules.items()}
    for other in ("plain", "auxiliary"):
        assert told["adversary"]["sex"] < told[other]["sex"] - 0.1
        assert told["adversary"]["sex by trees"] < told[other]["sex by trees"] - 0.05
        assert told["adversary"]["age"] < told[other]["age"] - 0.1
    probabilities = modules["adversary"].predict_step(measured, 0)["probabilities"].detach()
    assert roc_auc_score(measured["labels"], probabilities) > 0.98


def small(count=24, seed=0):
    batch = misleading_cue(count, women=0.4, seed=seed)
    batch["sex"][::6] = -1
    batch["age"] = torch.linspace(20, 95, count)
    batch["age"][1] = math.nan
    return batch


def test_without_mitigation_the_loss_is_bit_for_bit_that_of_the_labels_and_attributes():
    batch = small()
    plain, off = (
        module_for(batch, attribute_weight=0.1),
        module_for(batch, attribute_weight=0.1, mitigation=Mitigation()),
    )
    assert off.mitigated_loss is None
    assert off.adversary is None
    assert plain.state_dict().keys() == off.state_dict().keys()
    losses = [module.training_step(batch, 0) for module in (plain, off)]
    assert torch.equal(*losses)


def logged(module, batch, step="training_step"):
    """What a step logs."""
    told = {}
    module.log_losses = lambda stage, total, losses: told.update(values({stage: total, **losses}))
    getattr(module, step)(batch, 0)
    return told


def test_the_loss_of_the_labels_is_logged_as_it_is_without_mitigation_beside_what_is_minimised():
    batch = small()
    plain = logged(module_for(batch), batch)
    robust = logged(module_for(batch, mitigation=Mitigation("sex", robust_step=1.0)), batch)
    assert torch.equal(robust["labels"], plain["labels"])
    assert torch.equal(robust["train"], robust["mitigated"])
    assert not torch.isclose(robust["mitigated"], robust["labels"])


def test_validation_has_the_loss_it_has_without_mitigation():
    batch = small()
    everything = Mitigation(robust_step=0.1, reweighting_cap=5, adversary_strength=1)
    plain, mitigated = (
        logged(module_for(batch, mitigation=mitigation).eval(), batch, "validation_step")
        for mitigation in (None, everything)
    )
    assert plain.keys() == mitigated.keys()
    assert torch.equal(plain["val"], mitigated["val"])


def test_groups_are_robust_in_the_losses_of_their_records_and_losses_are_reweighted_first():
    batch = small()
    mitigation = Mitigation("sex", robust_step=0.5, reweighting_cap=4)
    module = module_for(batch, mitigation=mitigation)
    groups = group_by_demographics("sex", batch["age"], batch["sex"])
    counts = Counts(batch).group_counts("sex", (), as_drawn=True)
    reweighting, robust = LabelReweighting(3, 1, 4), GroupRobustLoss(3, 0.5)
    reweighting.count(*counts)
    robust.count(counts[0])
    each = module.loss.each(module(batch["signal"]).logits, batch["labels"])
    expected = robust(reweighting(each, batch["labels"], groups.codes).mean(1), groups.codes)
    torch.testing.assert_close(module.training_step(batch, 0), expected)
    assert torch.equal(module.mitigated_loss.robust.weights, robust.weights)


def test_what_the_adversary_hides_is_no_auxiliary_target_and_other_attributes_still_are():
    batch = small()
    batch["attributes"][:, ATTRIBUTES.index("heart_rate")] = 0.5
    for hidden in (("age",), ("sex",), ("age", "sex")):
        mitigation = Mitigation(adversary_strength=1.0, adversary_attributes=hidden)
        module = module_for(batch, attribute_weight=0.1, mitigation=mitigation)
        told = logged(module, batch)
        assert {name for name in told if name.startswith("adversary")} == {f"adversary_{name}" for name in hidden}
        assert ("sex" in told) == ("sex" not in hidden)
        module.zero_grad()
        module.adversary = None
        module.training_step(batch, 0).backward()
        rows = module.network.attribute_head.weight.grad.abs().sum(1)
        for name in ("age", "sex", "heart_rate"):
            assert (rows[ATTRIBUTES.index(name)] > 0) == (name not in hidden)


def test_unknown_age_and_sex_cost_the_adversary_nothing():
    batch = small()
    batch["attributes"][:] = math.nan
    module = module_for(batch, mitigation=Mitigation(adversary_strength=1.0))
    told = logged(module, batch)
    assert told["adversary_age"] == told["adversary_sex"] == 0
    assert torch.equal(told["train"], told["labels"])


def test_columns_that_are_left_out_are_missing_and_the_batch_is_as_it_was():
    attributes = torch.arange(14.0).reshape(2, 7)
    found = without(attributes, ["sex"])
    assert found[:, 1].isnan().all()
    assert torch.equal(found[:, 2:], attributes[:, 2:])
    assert without(attributes, []) is attributes


class Records(LightningDataModule):
    """A data module of a few records that can count them."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch
        self.group_counts = Counts(batch).group_counts

    def train_dataloader(self):
        records = [{name: values[row] for name, values in self.batch.items()} for row in range(len(self.batch["sex"]))]
        return DataLoader(records, batch_size=8)

    val_dataloader = train_dataloader


class Uncounted(Records):
    def __init__(self, batch):
        super().__init__(batch)
        del self.group_counts


def module_with_log(batch, **settings):
    module = module_for(batch, **settings)
    module.mitigated_loss.robust.records.fill_(1)  # as before the data are counted
    module.mitigated_loss.reweighting = module.mitigated_loss.reweighting and LabelReweighting(3, 1, 5)
    return module


def trainer(epochs, **settings):
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    return Trainer(accelerator="cpu", logger=False, max_epochs=epochs, **({"devices": 1} | quiet | settings))


DRO = Mitigation("sex", robust_step=0.5, robust_adjustment=1.0)
EVERYTHING = dataclasses.replace(DRO, reweighting_cap=5, adversary_strength=1.0)
IGNORED = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:Checkpoint directory .* exists")


@IGNORED
def test_a_trainer_counts_the_groups_and_a_resumed_run_goes_on_with_their_weights(tmp_path):
    batch = small()

    def fit(module, **arguments):
        trainer(4).fit(module, Records(batch), **arguments)
        return module.mitigated_loss.robust

    first = module_with_log(batch, mitigation=EVERYTHING)

    def keep_the_second_epoch():
        if first.current_epoch == 1:
            first.trainer.save_checkpoint(tmp_path / "two.ckpt")

    first.on_train_epoch_end = keep_the_second_epoch
    whole = fit(first)
    assert whole.records.tolist() == list(group_by_demographics("sex", batch["age"], batch["sex"]).counts().values())
    kept = torch.load(tmp_path / "two.ckpt", weights_only=True)
    assert kept["mitigation"]["robust_step"] == 0.5
    stopped = kept["state_dict"]["mitigated_loss.robust.log_weights"].softmax(0)
    assert not torch.allclose(stopped, whole.weights, atol=0.01)
    second = module_with_log(batch, mitigation=EVERYTHING)
    torch.testing.assert_close(fit(second, ckpt_path=tmp_path / "two.ckpt").weights, whole.weights)
    for found, expected in zip(second.parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


@IGNORED
def test_data_that_can_not_count_their_groups_are_told_what_is_missing():
    batch = small()
    module = module_with_log(batch, mitigation=DRO)
    with pytest.raises(ConfigurationError, match="Uncounted has no group_counts"):
        trainer(1).fit(module, Uncounted(batch))
    with pytest.raises(ConfigurationError, match="no data module was given"):
        trainer(1).fit(module, Records(batch).train_dataloader(), Records(batch).val_dataloader())


def test_weights_trained_under_another_mitigation_are_refused_with_both():
    batch, checkpoint = small(), {}
    module_for(batch, mitigation=DRO).on_save_checkpoint(checkpoint)
    with pytest.raises(CheckpointError, match=r"'robust_step': 0.5.*configuration has off"):
        module_for(batch).on_load_checkpoint(checkpoint)
    same = {}
    module_for(batch, mitigation=Mitigation(age_edges=[50], groups="sex")).on_save_checkpoint(same)
    module_for(batch).on_load_checkpoint(same)  # what is off makes no difference
    del same["mitigation"]
    module_for(batch).on_load_checkpoint(same)  # nor does a checkpoint from before there was any


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": "sex x age"}, "mitigation.groups is 'sex x age': expected sex, age or both"),
        ({"groups": "sex_x_sex"}, "mitigation.groups"),
        ({"groups": ""}, "mitigation.groups"),
        ({"age_edges": [65, 40]}, "age_edges is"),
        ({"robust_step": -0.1}, "mitigation.robust_step is -0.1"),
        ({"robust_step": math.nan}, "mitigation.robust_step is nan"),
        ({"robust_adjustment": 1.0}, "robust_step is 0, which is off"),
        ({"reweighting_cap": 0.5}, "mitigation.reweighting_cap is 0.5"),
        ({"adversary_strength": -1.0}, "mitigation.adversary_strength is -1.0"),
        ({"adversary_attributes": ["gender"]}, "mitigation.adversary_attributes has 'gender'"),
        ({"adversary_attributes": []}, r"mitigation.adversary_attributes is \[\]"),
        ({"adversary_attributes": ["sex", "sex"]}, "each once"),
        ({"adversary_steps": 0}, "mitigation.adversary_steps is 0"),
        ({"adversary_learning_rate": 0.0}, "mitigation.adversary_learning_rate is 0.0"),
        ({"adversary_hidden": 0}, "mitigation.adversary_hidden is 0"),
    ],
)
def test_settings_that_can_not_work_are_refused_by_name(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Mitigation(**settings)


def test_an_adversary_of_a_frozen_encoder_is_refused():
    with pytest.raises(ConfigurationError, match="frozen encoder can't learn to hide"):
        module_for(small(), freeze_encoder=True, mitigation=Mitigation(adversary_strength=1.0))


class Shares(Records):
    """Counts all records, and hands every process its half."""

    def train_dataloader(self):
        rank = int(os.environ["RANK"])
        records = super().train_dataloader().dataset[rank::2]
        return DataLoader(records, batch_size=4)

    val_dataloader = train_dataloader


def main(folder):
    """Train under everything as one of two processes."""
    batch = small()
    module = module_with_log(batch, attribute_weight=0.1, mitigation=EVERYTHING)
    strategy = DDPStrategy(process_group_backend="gloo")
    runner = trainer(2, devices=2, strategy=strategy, use_distributed_sampler=False)
    runner.fit(module, Shares(batch))
    told = {name: value.flatten().tolist() for name, value in module.named_parameters()}
    told["groups"] = module.mitigated_loss.robust.weights.tolist()
    (folder / f"rank{runner.global_rank}.json").write_text(json.dumps(told))


def test_two_processes_train_one_network_one_adversary_and_one_set_of_weights(tmp_path):
    on_processes(main, tmp_path)
    one, two = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert one == two
    assert one["groups"] != pytest.approx([1 / 3] * 3, abs=0.005)
    before = module_for(small(), attribute_weight=0.1, mitigation=EVERYTHING)
    assert one["adversary.head.0.weight"] != before.adversary.head[0].weight.flatten().tolist()
