"""TrainingSampler: the order of an epoch, the same at any number of processes; TrainingLoader begins it anywhere."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any, Final, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, DistributedSampler

from data_modules.stores.store import RecordStore
from data_modules.streaming.datasets import StoreDataset
from ecgfair.ecg import EcgBatch
from ecgfair.errors import ConfigurationError

_BLOCK: Final = 4096  # positions made Python integers at a time


class SamplerState(TypedDict):
    """Where an epoch stands and which order it goes by; plain values, for a checkpoint."""

    seen: int
    """Records of the epoch that all processes together have trained on."""
    records: int
    seed: int
    window: int
    weights: int
    """Checksum of the weights; 0 without."""


class TrainingSampler(DistributedSampler[int]):
    """Shuffles the records anew every epoch, in an order that depends on the seed and the epoch alone.

    Process r of w takes the records r, r + w, r + 2w, … of the global order, so that the w batches of a step together
    are the same records at any w, as long as w times the batch size is the same. Every process gets equally many
    records: the last of the order, at most w - 1 and other ones every epoch, are left out.

    With weights a record is drawn about weight x records / sum of weights times an epoch: that number rounded down or
    up, at random. This is systematic sampling (Madow, Annals of Mathematical Statistics 20, 1949) of the shuffled
    records, which meets the weights more closely than independent draws, and without weights draws each record once.

    It is a DistributedSampler by class, or Lightning would wrap another one around it.

    Args:
        dataset: What to sample from.
        num_replicas: Number of processes.
        rank: This process.
        seed: Of the order.
        weights: (N,) how often to draw each record, relative to the others; not negative. None draws each once.
        shards: (N,) number of the file that each record is in; needed with a window.
        window: Shuffle the files, then the records within so many files at a time, so that a slow disk or a remote
            store is read file by file; 0 shuffles all records at once.

    Attributes:
        seen: Records of the epoch that all processes together have trained on already: iteration starts behind them.

    Raises:
        ConfigurationError: There are fewer records than processes, or the weights can't be drawn by.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int = 1,
        rank: int = 0,
        *,
        seed: int = 0,
        weights: NDArray[np.float64] | None = None,
        shards: NDArray[np.int32] | None = None,
        window: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed, drop_last=True)  # type: ignore[arg-type]  # only its length is asked for
        self.records = len(dataset)
        if self.records < num_replicas:
            raise ConfigurationError(
                f"{self.records} training records can't be shared by {num_replicas} processes: expected at least one "
                "each. Use fewer devices or more training folds."
            )
        if weights is not None and not (weights.min() >= 0 and 0 < weights.sum() < np.inf):
            raise ConfigurationError("The sampling weights are negative, all zero or infinite: expected finite shares.")
        if window and shards is None:
            raise ConfigurationError(f"window is {window} but the files of the records are not given: expected both.")
        self.num_samples = self.records // num_replicas
        self.total_size = self.num_samples * num_replicas
        self.window = window
        self.seen = 0
        self._weights = weights
        self._shards = shards

    def order(self) -> NDArray[np.int32]:
        """Return the records of the whole epoch in order, (records,) positions in the dataset, for all processes."""
        generator = np.random.default_rng([self.seed, self.epoch])
        # Half the memory of the default, and data sets of 2^31 records are far.
        order = generator.permutation(np.arange(self.records, dtype=np.int32))
        if self._weights is not None:
            until = np.cumsum(self._weights[order])
            points = (np.arange(self.records) + generator.random()) * (until[-1] / self.records)
            drawn = np.searchsorted(until, points, side="right").clip(max=self.records - 1)
            order = generator.permutation(order[drawn])
        if self.window and self._shards is not None:
            place = generator.permutation(int(self._shards.max()) + 1)
            order = order[np.argsort(place[self._shards[order]] // self.window, kind="stable")]
        return order

    def __iter__(self) -> Iterator[int]:
        """Yield this process's positions in the dataset, those behind ``seen``."""
        own = self.order()[self.seen : self.total_size][self.rank :: self.num_replicas]
        for start in range(0, len(own), _BLOCK):
            yield from own[start : start + _BLOCK].tolist()

    def state_dict(self) -> SamplerState:
        """Return where the epoch stands and what its order depends on."""
        weights = 0 if self._weights is None else zlib.crc32(self._weights.tobytes())
        return SamplerState(seen=self.seen, records=self.records, seed=self.seed, window=self.window, weights=weights)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind what was seen, at any number of processes.

        Raises:
            ConfigurationError: The order was another one, or what was seen can't be shared by these processes.
        """
        mine: dict[str, Any] = {**self.state_dict()}
        different = [name for name in mine if name != "seen" and mine[name] != state_dict.get(name)]
        if different:
            told = ", ".join(f"{name} was {state_dict.get(name)} and is {mine[name]}" for name in different)
            raise ConfigurationError(
                f"The epoch can't go on where it stopped, because its order has changed: {told}. Go on with the same "
                "data and the same sampling, or from the end of an epoch."
            )
        seen = int(state_dict["seen"])
        if seen % self.num_replicas and seen < self.total_size:
            raise ConfigurationError(
                f"The epoch stopped after {seen} records, which {self.num_replicas} processes can't have shared: "
                "expected a number of processes that divides it."
            )
        self.seen = seen


class TrainingLoader(DataLoader[EcgBatch]):
    """Loads nothing before the first batch is asked for, and begins where the epoch stands by then.

    Lightning asks for an iterator before it has restored where a run stopped and before it tells the sampler the
    epoch. A DataLoader with workers would read ahead in the order of the wrong epoch, from its start.

    Its length is that of the whole epoch, also when it begins in the middle: Lightning counts on.

    Args:
        dataset: What to load; it gathers whole batches.
        sampler: The order.
        before_epoch: Called when the first batch of an epoch is asked for, before the sampler is.
        **settings: See ``torch.utils.data.DataLoader``.
    """

    def __init__(self, dataset: StoreDataset, sampler: Any, before_epoch: Callable[[], None], **settings: Any) -> None:
        self.before_epoch = before_epoch
        super().__init__(dataset, sampler=sampler, **settings)

    def __iter__(self) -> Iterator[EcgBatch]:  # type: ignore[override]  # the base promises one of its own, whose methods are private
        """Yield the batches of this process."""
        self.before_epoch()
        if self.num_workers or self.pin_memory:
            yield from super().__iter__()
            return
        # A DataLoader in one process adds to each batch about what all but its signals takes to gather.
        for items in self.batch_sampler or ():
            yield cast("StoreDataset", self.dataset).__getitems__(items)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: that there is a state tells Lightning that this loader resumes, the data module keeps it."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See ``state_dict``."""


def shard_numbers(stores: Sequence[RecordStore]) -> list[NDArray[np.int32]]:
    """Return the file of signals that each record is in, numbered through all stores: (records,) a store."""
    numbers, first = [], 0
    for store in stores:
        rows = np.diff(store.shard_starts)
        numbers.append(np.repeat(np.arange(first, first + len(rows), dtype=np.int32), rows))
        first += len(rows)
    return numbers
