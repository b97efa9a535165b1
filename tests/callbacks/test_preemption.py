"""A training that a signal asks to stop keeps the batch it is in, and goes on as if nothing had stopped it."""

import itertools
import json
import os
import signal
from datetime import timedelta

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import DDPStrategy

from ecgfair.callbacks import BestCheckpoint, Preemption
from ecgfair.errors import PreemptedError
from ecgfair.training.checkpoint_io import AtomicCheckpointIO, read_checkpoint
from tests.callbacks.training_cases import EPOCHS, STEPS, Averaging, data_of, trainer_for
from tests.data_modules.streamed_store import stream_store
from tests.gloo_processes import on_processes

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
        "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    ),
    pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no SIGUSR1"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return stream_store(tmp_path_factory.mktemp("preempted") / "store")


def send(number, batch, rank=None):
    """Send this process a signal in a batch, counted from 0."""
    count = itertools.count()

    def spoil(module, loss):
        if next(count) == batch and rank in (None, module.global_rank):
            os.kill(os.getpid(), number)
        return loss

    return spoil


class InValidation(Callback):
    """Sends the signal at the first batch of a validation."""

    def __init__(self, validation, times=1):
        self.left = validation
        self.times = times

    def on_validation_batch_end(self, *_):
        if self.left == 0:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_end(self, *_):
        self.left -= 1


def fit(folder, store, spoil=None, callbacks=(), resumed=False, **settings):
    module = Averaging(spoil)
    usual = (Preemption(), *callbacks, BestCheckpoint("val/loss", "min"))
    trainer = trainer_for(folder, *usual, **settings)
    last = folder / "checkpoints" / "last.ckpt" if resumed else None
    raised = None
    try:
        trainer.fit(module, datamodule=data_of(store), ckpt_path=last)
    except PreemptedError as error:
        raised = str(error)
    return module, raised


def goes_on_to_the_same(folder, store, first, make_callbacks=tuple, **settings):
    """Check that a run that was stopped goes on to the weights, steps and validations of one that was not."""
    whole, _ = fit(folder / "whole", store, callbacks=make_callbacks(), **settings)
    second, raised = fit(folder, store, callbacks=make_callbacks(), resumed=True, **settings)
    assert raised is None
    assert first.steps + second.steps == whole.steps
    assert first.validations + second.validations == whole.validations
    assert torch.equal(second.layer.weight, whole.layer.weight)
    kept = [read_checkpoint(path / "checkpoints/last.ckpt") for path in (folder / "whole", folder)]
    assert [found["global_step"] for found in kept] == [kept[0]["global_step"]] * 2
    for name, value in kept[0]["state_dict"].items():
        assert torch.equal(kept[1]["state_dict"][name], value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("batch", [0, 13])
def test_a_signal_stops_behind_the_running_batch_and_the_run_goes_on_from_there(store, tmp_path, number, batch):
    module, raised = fit(tmp_path, store, send(number, batch))
    assert len(module.steps) == batch + 1
    name = signal.Signals(number).name
    assert raised == (
        f"Stopped after epoch {batch // STEPS}, step {batch + 1}, as asked by {name}; "
        f"{tmp_path}/checkpoints/last.ckpt holds it. The same command goes on from there."
    )
    assert read_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] == batch + 1
    goes_on_to_the_same(tmp_path, store, module)


def test_the_exit_status_is_that_of_a_failure_in_passing():
    assert PreemptedError.exit_status == getattr(os, "EX_TEMPFAIL", 75) == 75


def test_in_the_last_batch_of_an_epoch_it_stops_behind_the_validation(store, tmp_path):
    module, raised = fit(tmp_path, store, send(signal.SIGTERM, STEPS - 1))
    assert len(module.steps) == STEPS
    assert module.validations == 1
    assert raised is not None
    goes_on_to_the_same(tmp_path, store, module)


@pytest.mark.parametrize("validation", [0, EPOCHS - 1])
def test_in_a_validation_it_stops_behind_it(store, tmp_path, validation):
    module, raised = fit(tmp_path, store, callbacks=[InValidation(validation)])
    assert len(module.steps) == (validation + 1) * STEPS
    assert raised is not None
    goes_on_to_the_same(tmp_path, store, module)


def test_where_validations_divide_an_epoch_it_stops_behind_the_one_that_follows_the_batch(store, tmp_path):
    module, raised = fit(tmp_path, store, send(signal.SIGTERM, 14), val_check_interval=5)
    assert (len(module.steps), module.validations) == (15, 3)
    assert raised is not None
    goes_on_to_the_same(tmp_path, store, module, val_check_interval=5)


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key:UserWarning")
def test_without_a_validation_it_stops_behind_the_epoch(store, tmp_path):
    module, raised = fit(tmp_path, store, send(signal.SIGTERM, STEPS - 1), limit_val_batches=0)
    assert len(module.steps) == STEPS
    assert raised is not None
    goes_on_to_the_same(tmp_path, store, module, limit_val_batches=0)


@pytest.mark.parametrize("batch", [4, 5, 7])
def test_where_gradients_are_gathered_it_stops_behind_the_step_that_uses_them(store, tmp_path, batch):
    module, _ = fit(tmp_path, store, send(signal.SIGTERM, batch), accumulate_grad_batches=4)
    assert len(module.steps) == 8
    goes_on_to_the_same(tmp_path, store, module, accumulate_grad_batches=4)


def test_averaged_weights_go_on_too(store, tmp_path):
    def averaging():
        return (EMAWeightAveraging(decay=0.5),)

    module, _ = fit(tmp_path, store, send(signal.SIGTERM, 13), callbacks=averaging())
    assert "averaging_state" in json.dumps(list(read_checkpoint(tmp_path / "checkpoints/last.ckpt")))
    goes_on_to_the_same(tmp_path, store, module, averaging)


def test_a_second_signal_changes_nothing_and_comes_to_no_harm_while_the_checkpoint_is_written(
    store, tmp_path, monkeypatch
):
    write = AtomicCheckpointIO.save_checkpoint

    def interrupted(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        write(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", interrupted)
    module, raised = fit(tmp_path, store, send(signal.SIGUSR1, 13), callbacks=[InValidation(1, times=3)])
    assert "as asked by" in raised
    monkeypatch.undo()
    goes_on_to_the_same(tmp_path, store, module)


def test_handlers_are_put_back_after_training_however_it_ends(store, tmp_path):
    def noted(*_):
        pass

    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = [signal.signal(number, noted) for number in numbers]
    try:
        fit(tmp_path, store)
        assert [signal.getsignal(number) for number in numbers] == [noted, noted]
        fit(tmp_path / "stopped", store, send(signal.SIGTERM, 3))
        assert [signal.getsignal(number) for number in numbers] == [noted, noted]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_under_slurm_lightning_does_not_requeue_by_itself(store, tmp_path, monkeypatch):
    slurm = {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "ecg", "SLURM_JOB_ID": "7", "SLURM_LOCALID": "0"}
    slurm |= {"SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS_PER_NODE": "1"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    called = []
    monkeypatch.setattr("lightning.pytorch.trainer.connectors.signal_connector.call", called.append)
    module, raised = fit(tmp_path, store, send(signal.SIGUSR1, 3))
    assert (len(module.steps), called) == (4, [])
    assert raised is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]


def main(folder, store):
    """Run as one of two ranks: stopped by a signal that the second gets, gone on, and whole."""
    rank = int(os.environ["LOCAL_RANK"])

    def run(name, spoil=None, resumed=False):
        strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60))
        settings = {"strategy": strategy, "devices": 2, "use_distributed_sampler": False}
        module, raised = fit(folder / name, store, spoil, resumed=resumed, **settings)
        return {"steps": module.steps, "raised": raised, "weight": module.layer.weight.tolist()}

    found = {"stopped": run("stopped", send(signal.SIGUSR1, 13, rank=1)), "on": run("stopped", resumed=True)}
    found["whole"] = run("whole")
    (folder / f"rank{rank}.json").write_text(json.dumps(found))


def test_two_processes_stop_together_if_one_gets_a_signal_and_go_on_together(store, tmp_path):
    on_processes(main, tmp_path, store)
    for rank in range(2):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert len(found["stopped"]["steps"]) in {4, 14}
        assert ("another process" if rank == 0 else "SIGUSR1") in found["stopped"]["raised"]
        assert found["stopped"]["steps"] + found["on"]["steps"] == found["whole"]["steps"]
        assert found["on"]["weight"] == found["whole"]["weight"]
