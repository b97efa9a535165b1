"""One rank of the distributed test of anomaly scores: runs every scenario and leaves what it found as JSON."""

from __future__ import annotations

import json
import os
import warnings

from torch.utils.data import DataLoader, IterableDataset

from ecgfair.callbacks import PredictionTable
from ecgfair.errors import ConfigurationError
from tests.callbacks.anomaly_toy import RECORDS, Data, Scorer, ToyRecords, anomaly
from tests.callbacks.ranks import Shard, distributed, empty, overlapping, uneven
from tests.callbacks.toy import logged


class Stream(IterableDataset):
    """Records without a length, which a rank may have none of."""

    def __init__(self, positions):
        self.positions = positions

    def __iter__(self):
        return (ToyRecords()[position] for position in self.positions)


def main(folder):
    # Read first: Lightning takes them away.
    rank, world = (int(os.environ[name]) for name in ("LOCAL_RANK", "WORLD_SIZE"))
    # The advice to average over ranks is for other values: that it stays silent is part of the behaviour.
    warnings.filterwarnings("error", "It is recommended to use `self.log")
    loaders = {
        name: DataLoader(ToyRecords(), batch_size=3 + 4 * rank, sampler=Shard(make(world)[rank]))
        for name, make in (("uneven", uneven), ("overlapping", overlapping))
    }
    for name, without in (("empty_first_rank", 0), ("empty_last_rank", world - 1)):
        loaders[name] = DataLoader(Stream(empty(world, without)[rank]), batch_size=8)
    found = {}
    for name, loaded in loaders.items():
        callback = anomaly()
        trainer = distributed(world, folder / name, callback, PredictionTable())
        trainer.validate(Scorer(), datamodule=Data(loaded=loaded), verbose=False)
        found[name] = {"logged": logged(trainer), "calibration": callback.calibration.to_dict()}
        trainer.test(Scorer(), datamodule=Data(loaded=loaded), verbose=False)
        found[name]["test"] = logged(trainer)
    module = Scorer()
    callback = anomaly(maps=2)
    trainer = distributed(world, folder / "fit", callback, padded=True, max_epochs=2)
    trainer.fit(module, datamodule=Data())
    found["fit"] = {"logged": logged(trainer), "maps": module.asked.count(True)}

    skipping = Scorer()
    skipping.allow_zero_length_dataloader_with_multiple_devices = True
    try:
        distributed(world, folder / "skipping", anomaly()).validate(skipping, datamodule=Data(), verbose=False)
    except ConfigurationError as error:
        found["skipping"] = str(error)
    (folder / f"rank{rank}.json").write_text(json.dumps({"records": RECORDS, **found}))
