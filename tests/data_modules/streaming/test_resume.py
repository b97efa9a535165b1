"""A run that was stopped goes on with the records it has not seen, in the order they would have come in.

Every test compares with a run that nothing stopped.
"""

import json
import os
from datetime import timedelta
from itertools import chain

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from data_modules.streaming.balancing import Sampling
from data_modules.streaming.datamodules import EcgDataModule
from data_modules.streaming.mixture import MixtureDataModule
from ecgfair.errors import ConfigurationError
from tests.data_modules.streamed_store import stream_store
from tests.gloo_processes import TIMEOUT, on_processes

EPOCHS = 3
STEPS = 10
"""Steps an epoch: 40 of the 50 records are trained on, 4 a step."""

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    # The run that goes on writes no checkpoints here.
    "ignore:Be aware that when using `ckpt_path`:UserWarning",
    # Lightning says so of every run that has an OnExceptionCheckpoint.
    "ignore:.*last model of the previous `fit` call will be used:UserWarning",
    "ignore:.*there is no last checkpoint available:UserWarning",
)


class StoppedError(Exception):
    """Stands in for whatever ends a run."""


class Recorder(LightningModule):
    """Notes the records of each step, and fails at one of them."""

    def __init__(self, fail_at=None, plans_ahead=True):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.fail_at = fail_at
        self.plans_ahead = plans_ahead
        self.steps = []
        self.epochs = []
        self.validations = 0

    def training_step(self, batch):
        if self.global_step == self.fail_at:
            raise StoppedError
        self.steps.append(batch["index"].tolist())
        self.epochs.append(self.current_epoch)
        return self.layer(batch["age"][:, None]).square().mean()

    def validation_step(self, batch):
        pass

    def on_validation_end(self):
        self.validations += 1

    def on_load_checkpoint(self, checkpoint):
        self.look_ahead()

    def look_ahead(self):
        # Both stages do so, which makes Lightning ask for the loader before it knows where the run stopped.
        if self.plans_ahead:
            assert self.trainer.estimated_stepping_batches > 0

    def configure_optimizers(self):
        self.look_ahead()
        return torch.optim.SGD(self.parameters(), lr=1e-9)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return stream_store(tmp_path_factory.mktemp("resume") / "store")


def data_of(store, **settings):
    return EcgDataModule(store, **({"batch_size": 4, "seed": 5} | settings))


def trainer_for(folder, *callbacks, **settings):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "num_sanity_val_steps": 0}
    usual = {"accelerator": "cpu", "devices": 1, "max_epochs": EPOCHS, "enable_checkpointing": bool(callbacks)}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **(quiet | usual | settings))


def every(steps, folder):
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=steps, save_top_k=-1)


def checkpoint(folder, step):
    return folder / f"step={step}.ckpt"


def uninterrupted(folder, data, **settings):
    module = Recorder()
    trainer_for(folder, **settings).fit(module, datamodule=data)
    return module


def stopped(folder, data, *callbacks, fail_at, **settings):
    with pytest.raises(StoppedError):
        trainer_for(folder, *callbacks, **settings).fit(Recorder(fail_at), datamodule=data)


def resumed(folder, data, path, plans_ahead=True, **settings):
    module = Recorder(plans_ahead=plans_ahead)
    trainer = trainer_for(folder, **settings)
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    assert trainer.current_epoch == EPOCHS
    return module


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("plans_ahead", [True, False])
@pytest.mark.parametrize("step", [3, 15, 18])
def test_a_run_goes_on_in_mid_epoch_as_if_nothing_had_stopped_it(store, tmp_path, workers, plans_ahead, step):
    whole = uninterrupted(tmp_path, data_of(store))
    assert len(whole.steps) == EPOCHS * STEPS
    stopped(tmp_path, data_of(store, num_workers=workers), every(3, tmp_path), fail_at=20)
    module = resumed(tmp_path, data_of(store, num_workers=workers), checkpoint(tmp_path, step), plans_ahead)
    assert module.steps == whole.steps[step:]
    assert module.epochs == whole.epochs[step:]
    assert module.validations == EPOCHS - step // STEPS


def test_the_rest_of_an_epoch_is_the_records_not_yet_seen(store, tmp_path):
    stopped(tmp_path, data_of(store), every(3, tmp_path), fail_at=4)
    seen = set(chain(*uninterrupted(tmp_path, data_of(store)).steps[:3]))
    rest = chain(*resumed(tmp_path, data_of(store), checkpoint(tmp_path, 3)).steps[: STEPS - 3])
    training = {position for position in range(50) if position % 10 < 8}
    assert sorted(rest) == sorted(training - seen)


@pytest.mark.parametrize("step", [10, 20])
def test_a_checkpoint_of_the_last_step_of_an_epoch_goes_on_with_the_next_epoch(store, tmp_path, step):
    whole = uninterrupted(tmp_path, data_of(store))
    stopped(tmp_path, data_of(store), every(5, tmp_path), fail_at=27)
    assert resumed(tmp_path, data_of(store), checkpoint(tmp_path, step)).steps == whole.steps[step:]


def test_a_checkpoint_of_the_end_of_an_epoch_goes_on_with_the_next_epoch(store, tmp_path):
    whole = uninterrupted(tmp_path, data_of(store))
    stopped(tmp_path, data_of(store), ModelCheckpoint(tmp_path, "{step}"), fail_at=15)
    module = resumed(tmp_path, data_of(store), checkpoint(tmp_path, 10))
    assert module.steps == whole.steps[10:]
    assert module.validations == 2


def test_a_checkpoint_of_a_validation_in_mid_epoch_goes_on_behind_it(store, tmp_path):
    whole = uninterrupted(tmp_path, data_of(store), val_check_interval=0.5)
    best = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1)
    stopped(tmp_path, data_of(store), best, fail_at=18, val_check_interval=0.5)
    module = resumed(tmp_path, data_of(store), checkpoint(tmp_path, 15), val_check_interval=0.5)
    assert module.steps == whole.steps[15:]


def test_a_checkpoint_written_on_the_way_out_repeats_the_step_that_failed(store, tmp_path):
    whole = uninterrupted(tmp_path, data_of(store))
    on_exception = OnExceptionCheckpoint(tmp_path, "failed")
    stopped(tmp_path, data_of(store, num_workers=2), on_exception, fail_at=17)
    assert resumed(tmp_path, data_of(store), tmp_path / "failed.ckpt").steps == whole.steps[17:]


def test_a_run_that_reached_its_most_steps_goes_on_with_more(store, tmp_path):
    whole = uninterrupted(tmp_path, data_of(store))
    trainer = trainer_for(tmp_path, every(7, tmp_path), max_steps=14)
    trainer.fit(Recorder(), datamodule=data_of(store))
    assert resumed(tmp_path, data_of(store), checkpoint(tmp_path, 14)).steps == whole.steps[14:]


def test_a_run_stopped_twice_goes_on_twice(store, tmp_path):
    whole = uninterrupted(tmp_path, data_of(store))
    stopped(tmp_path, data_of(store), every(3, tmp_path), fail_at=4)
    trainer, first = trainer_for(tmp_path, every(3, tmp_path)), checkpoint(tmp_path, 3)
    with pytest.raises(StoppedError):
        trainer.fit(Recorder(8), datamodule=data_of(store), ckpt_path=first, weights_only=True)
    assert resumed(tmp_path, data_of(store), checkpoint(tmp_path, 6)).steps == whole.steps[6:]


@pytest.mark.parametrize("settings", [{"limit_train_batches": 7}, {"accumulate_grad_batches": 2}])
def test_steps_that_are_fewer_than_batches_and_epochs_cut_short_go_on_in_place(store, tmp_path, settings):
    batches = {"limit_train_batches": 1, "accumulate_grad_batches": 2}[next(iter(settings))]
    whole = uninterrupted(tmp_path, data_of(store), **settings)
    stopped(tmp_path, data_of(store), every(4, tmp_path), fail_at=9, **settings)
    module = resumed(tmp_path, data_of(store), checkpoint(tmp_path, 4), **settings)
    assert module.steps == whole.steps[4 * batches :]


@pytest.mark.parametrize("sampling", [Sampling("label"), Sampling("group", window=1)])
def test_a_balanced_or_windowed_order_goes_on_too(store, tmp_path, sampling):
    whole = uninterrupted(tmp_path, data_of(store, sampling=sampling))
    assert whole.steps != uninterrupted(tmp_path, data_of(store)).steps
    stopped(tmp_path, data_of(store, sampling=sampling), every(3, tmp_path), fail_at=16)
    module = resumed(tmp_path, data_of(store, sampling=sampling), checkpoint(tmp_path, 15))
    assert module.steps == whole.steps[15:]


def test_a_mixture_goes_on_too(store, tmp_path):
    other = stream_store(tmp_path / "other", 30)

    def mixture():
        return MixtureDataModule([store, other], weights=[1, 3], batch_size=4)

    whole = uninterrupted(tmp_path, mixture())
    stopped(tmp_path, mixture(), every(3, tmp_path), fail_at=20)
    assert resumed(tmp_path, mixture(), checkpoint(tmp_path, 18)).steps == whole.steps[18:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 8}, "stopped after 12 records in 3 steps, which 1 processes with batches of 8 do not come to"),
        ({"seed": 6}, "seed was 5 and is 6"),
        ({"sampling": Sampling("label")}, "weights was 0 and is"),
        ({"train_folds": [1, 2, 3, 4, 5, 6, 7, 2]}, "the training data have changed"),
    ],
)
def test_the_rest_of_an_epoch_is_refused_where_it_would_be_another(store, tmp_path, settings, message):
    stopped(tmp_path, data_of(store), every(3, tmp_path), fail_at=4)
    with pytest.raises(ConfigurationError, match=message):
        resumed(tmp_path, data_of(store, **settings), checkpoint(tmp_path, 3))


def test_the_end_of_an_epoch_goes_on_with_any_order(store, tmp_path):
    stopped(tmp_path, data_of(store), ModelCheckpoint(tmp_path, "{step}"), fail_at=15)
    other = uninterrupted(tmp_path, data_of(store, seed=6))
    module = resumed(tmp_path, data_of(store, seed=6), checkpoint(tmp_path, 10))
    assert module.steps == other.steps[10:]


def test_a_checkpoint_in_mid_epoch_is_tested_on_any_data(store, tmp_path):
    stopped(tmp_path, data_of(store), every(3, tmp_path), fail_at=4)
    other = data_of(stream_store(tmp_path / "other", 30), batch_size=8, seed=1)
    trainer_for(tmp_path).validate(
        Recorder(), datamodule=other, ckpt_path=checkpoint(tmp_path, 3), verbose=False, weights_only=True
    )


def test_without_a_trainer_the_loader_begins_at_the_start_every_time(store):
    loader = data_of(store).train_dataloader()
    first, second = ([batch["index"].tolist() for batch in loader] for _ in range(2))
    assert first == second
    assert len(loader) == len(first) == STEPS


def distributed(folder, *callbacks):
    strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=TIMEOUT // 2))
    return trainer_for(folder, *callbacks, strategy=strategy, devices=2)


def main(folder, store):
    """Run as one of two ranks: whole, stopped, gone on; leave the records of each step as JSON."""
    rank = int(os.environ["LOCAL_RANK"])

    def data():
        return data_of(store, batch_size=2, num_workers=rank)  # however many workers, it is the same order

    found = {}
    whole = Recorder()
    distributed(folder).fit(whole, datamodule=data())
    try:
        distributed(folder, every(3, folder)).fit(Recorder(20), datamodule=data())
    except StoppedError:
        found["stopped"] = True
    again = Recorder()
    distributed(folder).fit(again, datamodule=data(), ckpt_path=checkpoint(folder, 18), weights_only=True)
    found |= {"whole": whole.steps, "again": again.steps, "validations": again.validations}
    (folder / f"rank{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, store):
    """What each of two gloo processes trained on, and the folder of their checkpoints."""
    folder = tmp_path_factory.mktemp("two_ranks")
    on_processes(main, folder, store)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)], folder


def together(ranks, run):
    """The records of each step of both processes, in the global order."""
    return [list(chain(*zip(*step, strict=True))) for step in zip(*(rank[run] for rank in ranks), strict=True)]


def test_two_processes_train_on_the_same_records_a_step_as_one_and_go_on_in_mid_epoch(two_ranks, store, tmp_path):
    ranks, _ = two_ranks
    alone = uninterrupted(tmp_path, data_of(store)).steps
    assert all(rank["stopped"] for rank in ranks)
    assert together(ranks, "whole") == alone
    assert together(ranks, "again") == alone[18:]
    assert [rank["validations"] for rank in ranks] == [2, 2]


def test_what_two_processes_began_one_process_finishes(two_ranks, store, tmp_path):
    ranks, folder = two_ranks
    module = resumed(tmp_path, data_of(store), checkpoint(folder, 18))
    assert module.steps == together(ranks, "whole")[18:]
