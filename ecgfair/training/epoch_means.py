"""The losses of an epoch, over all of its records, whichever process and batch they were in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed

from ecgfair.losses.mean import Mean
from ecgfair.processes import several_processes


class EpochMeans:
    """Adds up totals and counts, so that what is logged is the mean over all records of all processes.

    The mean of the batches' means is another number where the last batch is smaller, or records lack what a loss is
    about; so is that of the processes' means where one has fewer records. A process without any batch has no part in
    it.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, means: Mapping[str, Mean]) -> None:
        """Add what a batch brings.

        Args:
            means: By the key they are logged under.
        """
        for key, mean in means.items():
            # Single precision would lose digits over the batches of an epoch; Apple's GPUs have no other.
            wide = torch.float32 if mean.terms.device.type == "mps" else torch.float64
            terms, counts = mean.terms.detach().to(wide), mean.counts.to(wide)
            new = torch.stack([terms * counts, counts])
            self._sums[key] = self._sums[key].to(new.device) + new if key in self._sums else new

    def clear(self) -> None:
        """Forget all: an epoch begins."""
        self._sums = {}

    def over_processes(self) -> dict[str, float]:
        """Return the means by key, the same in every process; every process has to call this."""
        return {key: float((sums[0] / sums[1].clamp_min(1)).sum()) for key, sums in self.state().items()}

    def state(self) -> dict[str, Tensor]:
        """Return the totals and counts of all processes together, for a checkpoint; every process has to call this.

        Returns:
            CPU tensors (2,) by key, the total and the count of a mean; (2, K) of a sum of K means.
        """
        own = {key: sums.cpu() for key, sums in self._sums.items()}
        if not several_processes():
            return own
        parts: list[dict[str, Tensor] | None] = [None] * distributed.get_world_size()
        # Not tensors of one shape: a process without a batch does not know which losses there are.
        distributed.all_gather_object(parts, own)
        found: dict[str, Tensor] = {}
        for part in parts:
            for key, sums in (part or {}).items():
                found[key] = found[key] + sums if key in found else sums
        return found

    def go_on(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the totals and counts of a checkpoint; one process does, or they would count several times."""
        self._sums = {key: sums.clone() for key, sums in state.items()}
