"""One rank of the distributed tests: runs every scenario and leaves what it found as JSON.

Each rank runs them all, in the environment that torch's distributed launcher would make.
"""

from __future__ import annotations

import json
import os
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, IterableDataset, Sampler

from ecgfair.errors import ConfigurationError
from tests.callbacks.toy import RECORDS, Toy, ToyRecords, fairness, loader, logged, toy_records, trainer_for

COLLECTIVE_TIMEOUT = timedelta(seconds=100)


class Shard(Sampler):
    """The positions of one rank, as many as they are."""

    def __init__(self, positions):
        self.positions = positions

    def __iter__(self):
        return iter(self.positions)

    def __len__(self):
        return len(self.positions)


class Stream(IterableDataset):
    """Records without a length, which a rank may have none of."""

    def __init__(self, positions):
        self.positions = positions

    def __iter__(self):
        return (ToyRecords()[position] for position in self.positions)


def uneven(world):
    """One rank with a single record, the last with most, none in the order of the store."""
    order = torch.randperm(RECORDS, generator=torch.Generator().manual_seed(0)).tolist()
    return [order[:1], *([order[1:20]] if world > 2 else []), order[20 if world > 2 else 1 :]]


def one_group_on_one_rank(world):
    """All women on the first rank, so that the others know of none."""
    women = (toy_records()["sex"] == 1).nonzero()[:, 0].tolist()
    others = [position for position in range(RECORDS) if position not in women]
    return [women, *(others[rank :: world - 1] for rank in range(world - 1))]


def overlapping(world):
    """Every rank has some records of the next one, too."""
    return [
        [position for position in range(RECORDS) if position % world == rank or position % 7 == rank] + [60]
        for rank in range(world)
    ]


def empty(world, rank):
    shards = [list(range(RECORDS))[other :: world - 1] for other in range(world - 1)]
    return [*shards[:rank], [], *shards[rank:]]


def scenarios(world, rank):
    """The loader of this rank, by the name of a scenario."""
    shards = {"uneven": uneven, "one_group_on_one_rank": one_group_on_one_rank, "overlapping": overlapping}
    for name, make in shards.items():
        # Batches differ between ranks, too.
        yield name, DataLoader(ToyRecords(), batch_size=3 + 4 * rank, sampler=Shard(make(world)[rank]))
    for name, without in (("empty_first_rank", 0), ("empty_last_rank", world - 1)):
        yield name, DataLoader(Stream(empty(world, without)[rank]), batch_size=8)


def distributed(world, folder, *callbacks, padded=False, **arguments):
    strategy = DDPStrategy(process_group_backend="gloo", timeout=COLLECTIVE_TIMEOUT)
    return trainer_for(
        folder, *callbacks, strategy=strategy, devices=world, use_distributed_sampler=padded, **arguments
    )


def outcome(trainer, callback):
    points = callback.operating_points
    return {"logged": logged(trainer), "thresholds": None if points is None else points.to_dict()}


def trained(world, folder):
    """A training that stops early by one metric and keeps its best by another, and a test of the best."""
    checkpoint = ModelCheckpoint(folder, monitor="val/fair/sex/worst_auroc", mode="max", filename="{epoch}")
    stopping = EarlyStopping("val/fair/sex_x_age/worst_auroc", mode="max", patience=1)
    callback = fairness(resamples=100, permutations=100)
    trainer = distributed(
        world, folder, callback, checkpoint, stopping, padded=True, enable_checkpointing=True, max_epochs=6
    )
    trainer.fit(Toy(), loader(), loader())
    chosen = {"name": Path(checkpoint.best_model_path).name, "stopped": stopping.stopped_epoch}
    fitted = outcome(trainer, callback) | chosen | {"epochs": trainer.current_epoch}

    tested = fairness()
    trainer = distributed(world, folder / "test", tested, padded=True)
    warnings.filterwarnings("ignore", "Using `DistributedSampler` with the dataloaders")
    warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`")
    trainer.test(Toy(), loader(), ckpt_path=checkpoint.best_model_path, verbose=False)
    return fitted, outcome(trainer, tested)


def main(folder):
    # Read first: Lightning takes them away.
    rank, world = (int(os.environ[name]) for name in ("LOCAL_RANK", "WORLD_SIZE"))
    # The advice to average over ranks is for other values: that it stays silent is part of the behaviour.
    warnings.filterwarnings("error", "It is recommended to use `self.log")
    found = {}
    callback = fairness()
    trainer = distributed(world, folder / "padded", callback, padded=True)
    trainer.validate(Toy(), loader(), verbose=False)
    found["padded"] = outcome(trainer, callback)
    for name, data in scenarios(world, rank):
        callback = fairness()
        trainer = distributed(world, folder / name, callback)
        trainer.validate(Toy(), data, verbose=False)
        found[name] = outcome(trainer, callback)
    found["fit"], found["test"] = trained(world, folder / "fit")

    skipping = Toy()
    skipping.allow_zero_length_dataloader_with_multiple_devices = True
    try:
        distributed(world, folder / "skipping", fairness()).validate(skipping, loader(), verbose=False)
    except ConfigurationError as error:
        found["skipping"] = str(error)
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
