"""What ends a training without killing it is told in one line, leaves the last checkpoint, and the run goes on."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys

import pytest
import torch

from ecgfair.__main__ import main
from ecgfair.errors import PreemptedError
from ecgfair.training import FinetuneModule, PretrainModule
from ecgfair.training.checkpoint_io import read_checkpoint
from tests.faults.cases import STEPS, assert_same_run
from tests.faults.driven import at_renaming, at_step, in_validation
from tests.gloo_processes import on_processes

slow = pytest.mark.slow  # what a callback's own tests show as well, or the other stage
STAGES = {"pretrain": PretrainModule, "finetune": FinetuneModule}


def send(number):
    return lambda: os.kill(os.getpid(), number)


def state(case):
    return json.loads((case.run / "run.json").read_text())["state"]


def step_of(case):
    return read_checkpoint(case.last)["global_step"]


@pytest.mark.parametrize(("stage", "number"), [("pretrain", signal.SIGTERM), ("finetune", signal.SIGUSR1)])
def test_a_signal_stops_a_run_behind_its_batch_and_the_same_command_goes_on_from_there(cases, stage, number):
    case = cases(stage)
    ended = case.start(at_step(7, send(number)))
    assert ended.status == PreemptedError.exit_status == 75
    name = signal.Signals(number).name
    assert ended.error == (
        f"ecgfair: Stopped after epoch 1, step 8, as asked by {name}; {case.last} holds it. The same command goes on "
        "from there."
    )
    assert (state(case), step_of(case)) == ("preempted", 8)
    whole = cases.unharmed(stage)
    assert_same_run(case.finish(), whole)


def as_rank(_folder, command, status, harm):
    """Run a command line as one of two processes, of which the second has a trap."""
    if harm is not None and os.environ["RANK"] == "1":
        harm()
    assert main(command) == status


def test_two_processes_stop_together_by_a_signal_to_one_and_the_same_command_goes_on(cases):
    flags = ("--trainer.devices=2", "--trainer.strategy=ddp")
    case, whole = cases("finetune", *flags), cases("finetune", *flags)
    on_processes(as_rank, whole.folder, whole.command, 0, None)
    told = on_processes(as_rank, case.folder, case.command, 75, at_step(4, send(signal.SIGTERM)))
    assert f"as asked by another process; {case.last} holds it" in told
    assert (state(case), step_of(case)) == ("preempted", 5)
    on_processes(as_rank, case.folder, case.command, 0, None)
    assert_same_run(case, whole)


@slow
def test_a_signal_in_a_validation_stops_a_run_behind_it(cases):
    case = cases("finetune")
    ended = case.start(in_validation(1, send(signal.SIGTERM)))
    assert (ended.status, state(case), step_of(case)) == (75, "preempted", 2 * STEPS)
    assert_same_run(case.finish(), cases.unharmed("finetune"))


@slow
def test_a_signal_while_a_checkpoint_is_written_does_it_no_harm(cases):
    case = cases("pretrain")
    seen = []

    def twice():
        if not seen:
            seen.append(True)
            send(signal.SIGTERM)()
            send(signal.SIGUSR1)()

    ended = case.start(at_renaming(9, twice, behind=False))
    assert (ended.status, state(case)) == (75, "preempted"), ended.output
    assert_same_run(case.finish(), cases.unharmed("pretrain"))


def full_disk():
    """Let no file grow beyond some bytes any more: checkpoints don't fit, lines of text do."""
    resource = pytest.importorskip("resource")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))


@pytest.mark.parametrize("stage", [pytest.param("pretrain", marks=slow), "finetune"])
def test_a_full_disk_ends_a_run_with_the_last_checkpoint_kept_and_the_same_command_goes_on(cases, stage):
    case = cases(stage)
    ended = case.start(at_step(7, full_disk))
    assert ended.status == 2
    assert re.search(r"ecgfair: \S+ can't be written \(.*File too large", ended.error)
    assert "the same command" in ended.error
    assert step_of(case) == STEPS
    assert [path for path in case.run.rglob("*") if path.suffix in {".draft", ".tmp", ".partial"}] == []
    assert_same_run(case.finish(), cases.unharmed(stage))


@pytest.mark.parametrize("stage", ["pretrain", pytest.param("finetune", marks=slow)])
def test_a_loss_that_is_no_number_ends_a_run_with_its_records_named_and_the_last_checkpoint_kept(cases, stage):
    module = STAGES[stage]
    step = module.training_step
    named = []

    def spoiled(self, batch, *rest):
        loss = step(self, batch, *rest)
        if self.global_step != 7:
            return loss
        sys.stdout.write(f"RECORDS {' '.join(map(str, batch['index'].tolist()))}\n")
        spoil = torch.tensor(torch.nan)
        return {**loss, "loss": loss["loss"] * spoil} if isinstance(loss, dict) else loss * spoil

    case = cases(stage)
    ended = case.start(lambda: setattr(module, "training_step", spoiled))
    assert ended.status == 2
    named = [int(number) for number in re.search(r"^RECORDS (.*)$", ended.output, re.MULTILINE)[1].split()]
    assert len(named) == 8
    records = ", ".join(f"r{position}" for position in named)
    assert f"not finite at epoch 1, step 7, in the batch of the records {records}. " in ended.error
    assert f"The last good checkpoint is {case.last}." in ended.error
    assert (state(case), step_of(case)) == ("diverged", STEPS)
    assert_same_run(case.finish(), cases.unharmed(stage))


def test_a_shard_that_is_corrupted_in_mid_epoch_is_named_and_refused(cases):
    store = cases.folder / "corrupted"
    shutil.copytree(cases.store, store)
    case = cases("finetune", store=store)
    shards = sorted(store.glob("signals-*.arrow"))
    whole = [shard.read_bytes() for shard in shards]

    def corrupt():
        for shard, content in zip(shards, whole, strict=True):
            changed = bytearray(content)
            changed[len(changed) // 2] ^= 1
            shard.write_bytes(changed)
            os.utime(shard, ns=(0, 10**18))

    ended = case.start(at_step(7, corrupt))
    assert ended.status == 2
    assert re.search(
        rf"{store}/signals-0000\d\.arrow is damaged: its SHA-256 is [0-9a-f]+…, the manifest says [0-9a-f]+…",
        ended.error,
    )
    assert step_of(case) == STEPS
    for shard, content in zip(shards, whole, strict=True):
        shard.write_bytes(content)
    assert_same_run(case.finish(), cases.unharmed("finetune"))


def test_a_shard_that_is_corrupted_is_named_in_one_line_if_a_worker_finds_it(cases):
    store = cases.folder / "corrupted-for-workers"
    shutil.copytree(cases.store, store)
    shard = min(store.glob("signals-*.arrow"))
    changed = bytearray(shard.read_bytes())
    changed[len(changed) // 2] ^= 1
    shard.write_bytes(changed)
    ended = cases("finetune", "--data.init_args.num_workers=1", store=store).start()
    assert ended.status == 2
    assert ended.error.startswith(f"ecgfair: {shard} is damaged: its SHA-256 is ")


def test_a_worker_that_dies_is_told_in_one_line_and_the_same_command_goes_on(cases):
    # A fork remembers the children of the process that runs the tests: they are not the training's to lose.
    strangers = multiprocessing.active_children()

    def kill_a_worker():
        worker = next(child for child in multiprocessing.active_children() if child not in strangers)
        os.kill(worker.pid, signal.SIGKILL)

    flags = ("--data.init_args.num_workers=1",)
    case = cases("finetune", *flags)
    # In the first step of an epoch: later it may have no batch left to prepare, and nobody would miss it.
    ended = case.start(at_step(STEPS, kill_a_worker))
    assert ended.status == 2
    # How its death is noticed first depends on what it was about.
    ways = r"\(pid \d+\) (is killed by signal: Killed|exited unexpectedly)|ended while it sent a batch \(.*\)"
    assert re.search(f"A process that loads data ({ways}): it may have been killed", ended.error)
    assert ended.error.endswith(f"{case.last} is kept; the same command goes on from it.")
    assert step_of(case) == STEPS
    assert_same_run(case.finish(), cases.unharmed("finetune", *flags))
