"""UnpaddedDistributedSampler: shares the records to evaluate among processes."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from torch.utils.data import DistributedSampler

from ecgfair.errors import ConfigurationError


class UnpaddedDistributedSampler(DistributedSampler[int]):
    """Every record exactly once, at any number of processes, in the order of the data.

    PyTorch's own sampler repeats records until the processes have equally many, and so counts some twice in every
    metric. This one is a DistributedSampler by class, or Lightning would wrap another one around it.

    Args:
        dataset: What to sample from.
        num_replicas: Number of processes.
        rank: This process.

    Raises:
        ConfigurationError: There are fewer records than processes: one would have nothing to do and the others would
            wait for it.
    """

    def __init__(self, dataset: Sized, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]  # only its length is asked for
        if len(dataset) < num_replicas:
            raise ConfigurationError(
                f"{len(dataset)} records can't be shared by {num_replicas} processes: expected at least one each. Use "
                "fewer devices or more records."
            )
        self.num_samples = len(range(rank, len(dataset), num_replicas))
        self.total_size = len(dataset)

    def __iter__(self) -> Iterator[int]:
        """Yield every ``num_replicas``-th position, from ``rank`` on."""
        return iter(range(self.rank, self.total_size, self.num_replicas))
