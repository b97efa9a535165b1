import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from ecgfair.losses.mean import Mean
from ecgfair.training.epoch_means import EpochMeans
from tests.training.finetune_cases import labelled_batch, quiet_module


def mean(*values):
    return Mean.of(torch.tensor(values))


def test_batches_count_by_what_they_hold_and_terms_of_a_sum_each_by_its_own():
    epoch = EpochMeans()
    epoch.add({"a": mean(1.0, 2.0, 3.0), "sum": mean(1.0) + 0.5 * mean(4.0, 8.0)})
    epoch.add({"a": mean(10.0), "sum": mean(3.0, 5.0) + 0.5 * Mean.of(torch.zeros(0))})
    assert epoch.over_processes() == pytest.approx({"a": 4, "sum": 3 + 0.5 * 6})


def test_what_nothing_was_known_of_is_0():
    epoch = EpochMeans()
    epoch.add({"a": Mean.of(torch.ones(2), torch.zeros(2, dtype=torch.bool))})
    assert epoch.over_processes() == {"a": 0}


def test_many_batches_lose_no_digits():
    epoch = EpochMeans()
    for _ in range(1000):
        epoch.add({"a": Mean(torch.tensor(0.1), torch.tensor(2.0**20))})
    assert epoch.over_processes()["a"] == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)


def test_an_epoch_goes_on_from_a_checkpoint_and_ends_as_if_it_had_not_stopped():
    whole, stopped, resumed = EpochMeans(), EpochMeans(), EpochMeans()
    first, second = {"a": mean(1.0, 2.0, 3.0)}, {"a": mean(10.0)}
    whole.add(first)
    whole.add(second)
    stopped.add(first)
    resumed.go_on(stopped.state())
    resumed.add(second)
    assert resumed.over_processes() == whole.over_processes()
    resumed.clear()
    assert resumed.over_processes() == {}


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_loss_of_an_epoch_is_the_mean_over_its_records_though_its_last_batch_is_smaller():
    module = quiet_module(attribute_weight=0.0).eval()
    batches = [labelled_batch(8), {name: values[:3] for name, values in labelled_batch(8).items()}]
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (told,) = trainer.validate(module, DataLoader(batches, batch_size=None), verbose=False)
    with torch.no_grad():
        each = [module.validation_step(batch, 0)["loss"].item() for batch in batches]
    assert told["val/loss"] == pytest.approx((8 * each[0] + 3 * each[1]) / 11, rel=1e-6)
    assert told["val/loss"] == told["val/loss/labels"]
