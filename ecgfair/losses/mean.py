"""A mean that remembers what it is a mean over, so that several processes can minimise and log the mean of them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from ecgfair.processes import several_processes


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of some values and how many they are, or a weighted sum of such means.

    The mean of the means of two processes, or of two batches, is not the mean over all of their values where the one
    has more of them than the other. With their counts it can be had.

    Args:
        terms: The mean, a scalar with a gradient; (K,) of a sum of K means, whose sum it is.
        counts: Over how many values each of them is, in the same shape.
    """

    terms: Tensor
    counts: Tensor

    @classmethod
    def of(cls, values: Tensor, mask: Tensor | None = None) -> Mean:
        """Return the mean of values where a mask is True; 0 with a gradient of 0 where there are none.

        Half precision would overflow over some thousand values: they are added up in single precision at least.

        Args:
            values: Any shape.
            mask: Bool, of a shape that broadcasts to that of ``values``; all of them if None.
        """
        values = precise(values)
        if mask is None:
            return cls.over(values.mean() if values.numel() else values.sum(), values.numel())
        weight = mask.expand_as(values).to(values.dtype)
        count = weight.sum()
        return cls((values * weight).sum() / count.clamp_min(1), count)

    @classmethod
    def over(cls, mean: Tensor, count: int) -> Mean:
        """Return a mean that was taken already.

        Args:
            mean: Scalar.
            count: Over how many values.
        """
        return cls(mean, torch.full_like(mean, count, requires_grad=False))

    @classmethod
    def sum_of(cls, means: Iterable[Mean]) -> Mean:
        """Return the sum of means, each over values of its own."""
        parts = list(means)
        return cls(*(torch.cat([getattr(part, name).reshape(-1) for part in parts]) for name in ("terms", "counts")))

    def __add__(self, other: Mean) -> Mean:
        """Return the sum of both means."""
        return Mean.sum_of([self, other])

    def __rmul__(self, factor: float) -> Mean:
        """Return the mean times a factor."""
        return Mean(factor * self.terms, self.counts)

    @property
    def value(self) -> Tensor:
        """The mean over the values of this process, a scalar."""
        return self.terms.sum()

    def over_processes(self) -> Tensor:
        """Return what this process has to minimise, so that all processes minimise the mean over all of their values.

        Every process has to call this. In a single process it is the mean itself.

        Returns:
            Scalar. Over processes its mean, and that of its gradient, which is what DDP takes, are those of the mean
            over the values of all.
        """
        if not several_processes():
            return self.value
        all_counts = self.counts.clone()
        distributed.all_reduce(all_counts)
        return (distributed.get_world_size() * self.counts / all_counts.clamp_min(1) * self.terms).sum()


def precise(values: Tensor) -> Tensor:
    """Return values in single precision, or in double where they are: what is added up must not overflow."""
    return values if values.dtype == torch.float64 else values.float()
