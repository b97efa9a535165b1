"""What both callbacks that measure epochs have in common: what validation records chose goes with the weights."""

import pytest
import torch

from ecgfair.callbacks.epoch_measurement import EpochMeasurement
from ecgfair.errors import ConfigurationError
from tests.callbacks.anomaly_toy import LABELS, RECORDS, Data, Scorer, ToyRecords, anomaly
from tests.callbacks.toy import checkpointing, fairness, logged, trainer_for

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
    "error:It is recommended to use `self.log",
)

KEYS = {anomaly: "calibration", fairness: "operating_points"}
COLUMNS = {"index": "index", "age": "age", "sex": "sex", "targets": "labels"}
both_callbacks = pytest.mark.parametrize("make", list(KEYS))


class Both(Scorer):
    """Tells labels and scores anomalies."""

    label_names, label_prevalence = LABELS, [0.1, 0.5, 0.4]

    def validation_step(self, batch):
        return {"loss": torch.tensor(0.0), "probabilities": batch["signal"][:, :, :3].abs().mean(1).clamp(0, 1)}

    test_step = validation_step


class Means:
    """What the callback below chooses."""

    def __init__(self, age):
        self.age = age

    def to_dict(self):
        return {"age": self.age}

    def require_disjoint(self, test_folds, test_data=()):
        if 9 in test_folds:
            raise ConfigurationError("tested on what chose")


class MeanAge(EpochMeasurement):
    """The least that a subclass has to say."""

    def __init__(self):
        super().__init__("means", lambda values: Means(values["age"]), logged="age")
        self.measured = []

    def _no_rows(self, pl_module):
        return {name: ToyRecords().columns[key][:0] for name, key in COLUMNS.items()}

    def _rows(self, step, pl_module, outputs, batch, dataloader_idx):
        return {name: batch[key] for name, key in COLUMNS.items()}

    def _measure(self, records, trainer, pl_module, stage):
        self.measured.append((stage, records["index"].tolist(), *self._weights_at(trainer)))
        value = float(records["age"].nanmean())
        if stage == "val":
            self.chosen = Means(value)
        self._log(pl_module, {f"{stage}/age/mean": value})


def loader_of(order):
    return torch.utils.data.DataLoader(torch.utils.data.Subset(ToyRecords(), list(order)), batch_size=24)


def test_a_subclass_says_what_it_wants_of_a_batch_and_gets_all_records_once_in_the_order_of_the_store(tmp_path):
    callback = MeanAge()
    trainer = trainer_for(tmp_path, callback, num_sanity_val_steps=2, max_epochs=2)
    trainer.fit(Scorer(), datamodule=Data(loaded=loader_of(reversed([*range(RECORDS), 0, 5]))))
    store = [100 + place for place in range(RECORDS)]
    assert callback.measured == [("val", store, 0, 3), ("val", store, 1, 6)]
    assert logged(trainer) == pytest.approx({"val/age/mean": float(ToyRecords().columns["age"].nanmean())})


def test_the_weights_of_a_checkpoint_are_of_its_epoch_and_step_and_come_with_what_was_chosen(tmp_path):
    checkpointing(tmp_path, MeanAge()).fit(Scorer(), datamodule=Data())
    callback = MeanAge()
    trainer_for(tmp_path, callback).test(
        Scorer(), datamodule=Data(), ckpt_path=tmp_path / "epoch=1.ckpt", verbose=False
    )
    ((stage, _, epoch, step),) = callback.measured
    assert (stage, epoch, step) == ("test", 1, 6)
    assert callback.state_dict() == {"means": {"age": pytest.approx(float(ToyRecords().columns["age"].nanmean()))}}


def test_what_was_chosen_is_refused_by_a_test_on_the_same_folds_and_by_no_test_of_data_without_folds(tmp_path):
    callback = MeanAge()
    trainer_for(tmp_path, callback).validate(Scorer(), datamodule=Data(), verbose=False)
    trainer_for(tmp_path, callback).test(Scorer(), loader_of(range(RECORDS)), verbose=False)
    with pytest.raises(ConfigurationError, match="tested on what chose"):
        trainer_for(tmp_path, callback).test(Scorer(), datamodule=Data(test=(9,)), verbose=False)
    assert [stage for stage, *_ in callback.measured] == ["val", "test"]


def test_batches_of_an_epoch_that_failed_are_not_measured_with_the_next(tmp_path):
    class FailsOnce(Scorer):
        failed = False

        def validation_step(self, batch):
            if 160 in batch["index"] and not self.failed:
                self.failed = True
                raise OSError("unplugged")
            return super().validation_step(batch)

    callback, module = MeanAge(), FailsOnce()
    with pytest.raises(OSError, match="unplugged"):
        trainer_for(tmp_path, callback).validate(module, datamodule=Data(), verbose=False)
    last = Data(loaded=loader_of([60]))
    trainer_for(tmp_path, callback).validate(module, datamodule=last, verbose=False)
    assert callback.measured == [("val", [160], 0, 0)]


@both_callbacks
def test_the_state_is_empty_until_a_validation_and_a_new_training_forgets_it(tmp_path, make):
    callback = make()
    assert callback.state_dict() == {}
    trainer_for(tmp_path, callback).validate(Both(), datamodule=Data(), verbose=False)
    assert list(callback.state_dict()) == [KEYS[make]]
    trainer_for(tmp_path, callback, max_epochs=1, limit_val_batches=0).fit(Both(), datamodule=Data())
    assert callback.state_dict() == {}


@both_callbacks
def test_a_state_read_by_another_callback_of_the_same_kind_is_the_same(tmp_path, make):
    callback, other = make(), make()
    trainer_for(tmp_path, callback).validate(Both(), datamodule=Data(), verbose=False)
    other.load_state_dict(callback.state_dict())
    assert getattr(other, KEYS[make]) == getattr(callback, KEYS[make])
    assert other.state_dict() == callback.state_dict()


@both_callbacks
def test_a_validation_of_a_checkpoint_says_of_which_epoch_the_weights_were_that_chose(tmp_path, make):
    checkpointing(tmp_path, make(), max_epochs=2).fit(Both(), datamodule=Data())
    callback = make()
    trainer = trainer_for(tmp_path, callback)
    trainer.validate(Both(), datamodule=Data(), ckpt_path=tmp_path / "epoch=1.ckpt", verbose=False)
    chosen = callback.chosen.thresholds if make is anomaly else callback.operating_points
    assert chosen.chosen_on == "validation records at epoch 1"


@both_callbacks
def test_a_second_evaluation_loader_is_refused(tmp_path, make):
    class TwoLoaders(Both):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return super().validation_step(batch)

    class TwoLoads(Data):
        def val_dataloader(self):
            return [loader_of(range(RECORDS)), loader_of(range(RECORDS))]

    with pytest.raises(ConfigurationError, match="validation_step got a batch of a second loader: expected one"):
        trainer_for(tmp_path, make()).validate(TwoLoaders(), datamodule=TwoLoads(), verbose=False)


@both_callbacks
def test_a_batch_without_a_field_is_told_with_the_field(tmp_path, make):
    records = ToyRecords()
    del records.columns["age"]
    loaded = torch.utils.data.DataLoader(records, batch_size=24)
    with pytest.raises(ConfigurationError, match="The batch has no age: expected the fields of EcgBatch"):
        trainer_for(tmp_path, make()).validate(Both(), datamodule=Data(loaded=loaded), verbose=False)
