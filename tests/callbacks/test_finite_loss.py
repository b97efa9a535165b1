"""A loss or a weight that is no number stops a training, is told with its records, and gets into no checkpoint."""

import json
import os
import re
from datetime import timedelta

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from ecgfair.callbacks import BestCheckpoint, FiniteLoss
from ecgfair.errors import DivergedError
from ecgfair.training.checkpoint_io import read_checkpoint
from tests.callbacks.training_cases import STEPS, Averaging, data_of, trainer_for
from tests.data_modules.streamed_store import stream_store
from tests.gloo_processes import on_processes

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return stream_store(tmp_path_factory.mktemp("finite") / "store")


def at(step, value=float("nan"), rank=None):
    """Spoil the loss of a step, of one process if asked."""

    def spoil(module, loss):
        is_there = module.global_step == step and rank in (None, module.global_rank)
        return loss * value if is_there else loss

    return spoil


def fit(folder, store, module, *callbacks, **settings):
    trainer = trainer_for(folder, *(callbacks or (BestCheckpoint("val/loss", "min"), FiniteLoss())), **settings)
    trainer.fit(module, datamodule=data_of(store))
    return trainer


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_told_with_the_records_of_its_batch(store, tmp_path, value):
    module = Averaging(at(13, value))
    with pytest.raises(DivergedError) as told:
        fit(tmp_path, store, module)
    message = str(told.value)
    named = ", ".join(f"r{position}" for position in module.steps[-1])
    assert f"not finite at epoch 1, step 13, in the batch of the records {named}. " in message
    assert f"The last good checkpoint is {tmp_path}/checkpoints/last.ckpt." in message
    assert "\n" not in message
    assert len(module.steps) == 14


def test_the_last_checkpoint_is_that_of_the_epoch_before_and_the_weights_are_those_before_the_step(store, tmp_path):
    whole, spoiled = Averaging(), Averaging(at(13))
    fit(tmp_path / "whole", store, whole, FiniteLoss(), max_steps=13, enable_checkpointing=False)
    with pytest.raises(DivergedError):
        fit(tmp_path / "spoiled", store, spoiled)
    assert torch.equal(spoiled.layer.weight, whole.layer.weight)
    assert read_checkpoint(tmp_path / "spoiled/checkpoints/last.ckpt")["global_step"] == STEPS


def test_without_the_callback_the_weights_would_be_spoiled(store, tmp_path):
    module = Averaging(at(13))
    fit(tmp_path, store, module, BestCheckpoint("val/loss", "min"))
    assert module.layer.weight.isnan().all()


def test_before_the_first_checkpoint_it_says_that_there_is_none(store, tmp_path):
    with pytest.raises(DivergedError, match=r"step 0, .*There is no checkpoint yet\."):
        fit(tmp_path, store, Averaging(at(0)))


def test_a_gradient_that_is_no_number_never_gets_into_a_checkpoint(store, tmp_path):
    def spoil(module, loss):
        if module.global_step == 2 * STEPS - 1:  # the last step before the second validation
            module.layer.weight.register_hook(lambda gradient: gradient * torch.nan)
        return loss

    with pytest.raises(DivergedError, match=r"The weight layer\.weight is not finite at epoch 1, step 20,.*last\.ckpt"):
        fit(tmp_path, store, Averaging(spoil))
    assert read_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] == STEPS


def test_a_validation_loss_that_is_no_number_is_told_and_training_goes_on(store, tmp_path):
    class Unlucky(Averaging):
        def validation_step(self, batch):
            self.log("val/loss", torch.tensor(float("nan") if self.current_epoch == 1 else 1.0 - self.current_epoch))

    module = Unlucky()
    with pytest.warns(UserWarning, match="val/loss is nan at epoch 1, step 20: training goes on"):
        fit(tmp_path, store, module)
    assert len(module.steps) == 3 * STEPS


def test_with_gradients_gathered_over_batches_it_is_the_batch_at_fault_that_is_named(store, tmp_path):
    count = iter(range(100))
    module = Averaging(lambda _, loss: loss * (torch.nan if next(count) == 6 else 1))
    with pytest.raises(DivergedError) as told:
        fit(tmp_path, store, module, accumulate_grad_batches=4)
    assert len(module.steps) == 7
    assert ", ".join(f"r{position}" for position in module.steps[6]) in str(told.value)


def main(folder, store):
    """Run as one of two ranks; the loss of the second is spoiled."""
    rank = int(os.environ["LOCAL_RANK"])
    strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60))
    module = Averaging(at(7, rank=1))
    callbacks = (BestCheckpoint("val/loss", "min"), FiniteLoss())
    trainer = trainer_for(folder, *callbacks, strategy=strategy, devices=2, use_distributed_sampler=False)
    try:
        trainer.fit(module, datamodule=data_of(store))
    except DivergedError as error:
        (folder / f"rank{rank}.json").write_text(json.dumps({"said": str(error), "steps": module.steps}))


def test_two_processes_stop_together_and_name_the_records_of_the_one_at_fault(store, tmp_path):
    on_processes(main, tmp_path, store)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for rank in ranks:
        assert "step 7, in the batch of the records" in rank["said"]
        named = [int(name) for name in re.findall(r"r(\d+)", rank["said"].split("records ")[1].split(".")[0])]
        assert sorted(named) == sorted(ranks[1]["steps"][7])
        assert len(rank["steps"]) == 8
