"""Thresholds: chosen on validation records, kept with the weights, and only used by a test."""

import math

import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint

from ecgfair.callbacks import Fairness
from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels.operating_points import OperatingPoints
from tests.callbacks.oracle import expected, thresholds_of
from tests.callbacks.toy import LABELS, Toy, checkpointing, fairness, loader, logged, stored, trainer_for

pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
    # A test needs no callback that keeps checkpoints.
    "ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
)


class Folds(LightningDataModule):
    """The toy records, said to be of certain folds."""

    def __init__(self, validation, test):
        super().__init__()
        self.folds = {"train": [1], "validation": validation, "test": test}

    def train_dataloader(self):
        return loader()

    val_dataloader = test_dataloader = train_dataloader


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with a checkpoint of each epoch, validated on fold 9."""
    folder = tmp_path_factory.mktemp("run")
    checkpointing(folder).fit(Toy(), datamodule=Folds([9], [10]))
    return folder


def points_in(checkpoint):
    """The thresholds of a checkpoint, read as a careful reader does: no pickled objects."""
    states = torch.load(checkpoint, weights_only=True)["callbacks"]
    (state,) = (state for name, state in states.items() if name.startswith(Fairness.__name__))
    return OperatingPoints.from_dict(state["operating_points"])


@pytest.mark.parametrize("epoch", range(3))
def test_each_checkpoint_holds_the_thresholds_that_its_own_weights_gave_on_the_validation_records(run, epoch):
    points = points_in(run / f"epoch={epoch}.ckpt")
    assert list(points.label_names) == LABELS
    assert list(points.thresholds) == pytest.approx(thresholds_of(epoch))
    assert (points.rule, points.level) == ("youden", None)
    assert points.folds == (9,)
    assert points.chosen_on == f"validation records at epoch {epoch}"


@pytest.mark.parametrize("epoch", range(3))
def test_a_test_uses_the_thresholds_of_the_checkpoint_and_leaves_them_as_they_are(run, tmp_path, epoch):
    callback = fairness()
    trainer = trainer_for(tmp_path, callback)
    path = run / f"epoch={epoch}.ckpt"
    trainer.test(Toy(), datamodule=Folds([9], [10]), ckpt_path=path, verbose=False)
    assert logged(trainer) == pytest.approx(expected("test", epoch), abs=1e-6)
    assert callback.operating_points == points_in(path)


def test_thresholds_from_a_checkpoint_are_not_those_that_the_tested_records_would_choose(run, tmp_path):
    checkpoint = torch.load(run / "epoch=1.ckpt", weights_only=True)
    (name,) = (name for name in checkpoint["callbacks"] if name.startswith("Fairness"))
    other = points_in(run / "epoch=2.ckpt")
    checkpoint["callbacks"][name]["operating_points"] = other.to_dict()
    torch.save(checkpoint, tmp_path / "mixed.ckpt")
    trainer = trainer_for(tmp_path, fairness())
    trainer.test(Toy(), loader(), ckpt_path=tmp_path / "mixed.ckpt", verbose=False)
    assert logged(trainer) == pytest.approx(expected("test", 1, thresholds_from=2), abs=1e-6)
    key = "test/fair/sex/tpr_gap"
    assert logged(trainer)[key] != pytest.approx(expected("test", 1)[key], abs=1e-3)


def test_a_test_without_a_checkpoint_has_no_error_rates_and_the_rows_say_why(tmp_path):
    callback = fairness()
    trainer = trainer_for(tmp_path, callback)
    trainer.test(Toy(), loader(), verbose=False)
    assert logged(trainer) == pytest.approx(expected("test", thresholds_from=None), abs=1e-6, nan_ok=True)
    assert math.isnan(logged(trainer)["test/fair/sex/tpr_gap"])
    assert callback.operating_points is None
    rates = stored(tmp_path).query("statistic in ['tpr', 'fpr', 'fnr', 'ppv'] and group in ['all', 'female', 'male']")
    by_label = rates[rates["label"].isin(LABELS)]
    assert set(by_label[by_label["aggregate"] == "value"]["reason"]) == {
        "no thresholds, which validation records choose"
    }
    assert by_label["value"].isna().all()


def test_a_test_on_folds_that_chose_the_thresholds_is_refused(run, tmp_path):
    trainer = trainer_for(tmp_path, fairness())
    with pytest.raises(ConfigurationError, match=r"chosen on validation records at epoch 1, with the test folds \[9\]"):
        trainer.test(Toy(), datamodule=Folds([8], [9, 10]), ckpt_path=run / "epoch=1.ckpt", verbose=False)
    assert not (tmp_path / "fairness.parquet").exists()


def test_a_validation_chooses_thresholds_anew(run, tmp_path):
    callback = fairness()
    trainer = trainer_for(tmp_path, callback)
    trainer.validate(Toy(), datamodule=Folds([8], [10]), ckpt_path=run / "epoch=2.ckpt", verbose=False)
    assert callback.operating_points.folds == (8,)
    assert logged(trainer) == pytest.approx(expected("val", 2), abs=1e-6)


@pytest.mark.parametrize("keeps", ["weights alone", "another callback's state"])
def test_a_checkpoint_without_thresholds_is_not_tested_with_those_of_the_training_before(tmp_path, keeps):
    callback, alone = fairness(), keeps == "weights alone"
    checkpoint = ModelCheckpoint(tmp_path, filename="own", save_weights_only=alone)
    trainer = trainer_for(tmp_path, callback, checkpoint, enable_checkpointing=True, max_epochs=1)
    trainer.fit(Toy(), loader(), loader())
    assert callback.operating_points is not None
    path = tmp_path / "own.ckpt"
    if not alone:
        saved = torch.load(path, weights_only=True)
        saved["callbacks"] = {name: state for name, state in saved["callbacks"].items() if "Fairness" not in name}
        torch.save(saved, path)
    trainer.test(Toy(), loader(), ckpt_path=path, verbose=False)
    assert callback.operating_points is None
    assert math.isnan(logged(trainer)["test/fair/sex/tpr_gap"])


def test_the_weights_that_training_ended_with_are_tested_at_their_own_thresholds(tmp_path):
    module, trainer = Toy(), trainer_for(tmp_path, fairness())
    trainer.fit(module, loader(), loader())
    trainer.test(module, loader(), verbose=False)
    assert logged(trainer) == pytest.approx(expected("test", 2), abs=1e-6)


def test_a_new_training_begins_without_thresholds(tmp_path):
    callback = fairness()
    trainer_for(tmp_path, callback, max_epochs=1).fit(Toy(), loader(), loader())
    trainer_for(tmp_path, callback, max_epochs=1, limit_val_batches=0).fit(Toy(), loader(), loader())
    assert callback.operating_points is None


@pytest.mark.parametrize(("rule", "rate", "holds"), [("specificity", "fpr", 0.2), ("sensitivity", "fnr", 0.2)])
def test_a_rule_with_a_level_keeps_it_on_the_validation_records(tmp_path, rule, rate, holds):
    trainer = trainer_for(tmp_path, fairness(threshold_rule=rule, threshold_level=0.8))
    trainer.validate(Toy(), loader(), verbose=False)
    rows = stored(tmp_path).query("attribute == 'overall' and aggregate == 'value'")
    by_label = rows.loc[rows["label"].isin(LABELS) & (rows["statistic"] == rate), "value"]
    assert len(by_label) == len(LABELS)
    assert (by_label <= holds + 1e-9).all()
