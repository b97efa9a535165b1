"""Batch norm over the records of all processes, so that several train as one with all of their records does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from typing_extensions import override

from ecgfair.processes import several_processes


class BatchNorm(nn.BatchNorm1d):
    """Batch norm (Ioffe and Szegedy 2015) over the batches of all processes, of any size each, and of none.

    In training several processes put means and squared deviations together (Chan et al. 1983, "Algorithms for computing
    the sample variance", doi 10.1080/00031305.1983.10483115): activations, gradients and the statistics so far are
    those of one process with all of the records, and the statistics are the same in all processes. Every process has to
    take part in every pass, one without a beat as well. A single process has ``nn.BatchNorm1d`` to the bit.

    One value a channel has no spread, so one or none, over all processes, is normalised by the statistics so far and
    leaves them as they are: an epoch's last batch may have a single record, or a batch no beat.

    ``nn.SyncBatchNorm`` works on GPUs alone.

    Args:
        num_features: Number of channels.

    Attributes:
        keeps_statistics: Whether the statistics so far stay as they are, see ``statistics_kept``.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.keeps_statistics = False

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Map (B, channels) or (B, channels, time) to the same shape."""
        if self.training and several_processes():
            together: Tensor = self._over_processes(input)
            return together
        mean, variance = self.running_mean, self.running_var
        if self.training and input.numel() <= self.num_features:
            return F.batch_norm(input, mean, variance, self.weight, self.bias, eps=self.eps)
        if self.training and self.keeps_statistics:
            # The repetition saves as many tensors for the backward pass as the pass did, so they can't be left out.
            mean, variance = mean.clone(), variance.clone()
            return F.batch_norm(input, mean, variance, self.weight, self.bias, True, self.momentum, self.eps)
        normed: Tensor = super().forward(input)
        return normed

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's own
    def _over_processes(self, values: Tensor) -> Tensor:
        mean, deviations, count = _statistics_over_processes(values.detach())
        # A flag on the device: reading it would make the host wait.
        has_spread = count > 1
        variance = deviations / count.clamp_min(1)
        if not self.keeps_statistics:
            self._note(mean, deviations / (count - 1).clamp_min(1), has_spread)
        mean = torch.where(has_spread, mean, self.running_mean.to(mean.dtype))
        scale = (torch.where(has_spread, variance, self.running_var.to(mean.dtype)) + self.eps).rsqrt()
        # What a value adds to mean and variance of its channel; nothing where those of before are used.
        share = has_spread / count.clamp_min(1)
        normed: Tensor = _Normalised.apply(values, self.weight, self.bias, mean, scale, share)  # type: ignore[no-untyped-call]
        return normed

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor, has_spread: Tensor) -> None:
        momentum = self.momentum * has_spread.to(mean.dtype)
        self.running_mean += momentum * (mean - self.running_mean)
        self.running_var += momentum * (variance - self.running_var)
        self.num_batches_tracked += has_spread[0]


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let no norm of a module move its statistics within the ``with`` statement: a pass is repeated."""
    norms = [part for part in module.modules() if isinstance(part, BatchNorm)]
    for norm in norms:
        norm.keeps_statistics = True
    try:
        yield
    finally:
        for norm in norms:
            norm.keeps_statistics = False


def _statistics_over_processes(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean (C,), the sum of squared deviations from it (C,) and the values a channel, of all processes."""
    values = _precise(values)
    own_count = values.numel() // values.shape[1]
    mean = values.sum(_but_channels(values)) / max(own_count, 1)
    deviations = (values - _by_channel(mean, values)).square().sum(_but_channels(values))
    own = torch.stack([mean, deviations, torch.full_like(mean, own_count)])
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own)
    means, squares, counts = torch.stack(parts, dim=1)
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count.clamp_min(1)
    return mean, (squares + counts * (means - mean).square()).sum(0), count


class _Normalised(torch.autograd.Function):
    """Normalises by statistics that all processes made together; so what a value does to them is felt in all."""

    @staticmethod
    @override
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor, share: Tensor
    ) -> Tensor:
        ctx.save_for_backward(values, weight, mean, scale, share)
        normed = (_precise(values) - _by_channel(mean, values)) * _by_channel(scale * weight, values)
        return (normed + _by_channel(bias, values)).to(values.dtype)

    @staticmethod
    @override
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, scale, share = ctx.saved_tensors
        gradient = _precise(gradients[0])
        normed = (_precise(values) - _by_channel(mean, values)) * _by_channel(scale, values)
        own = torch.stack([part.sum(_but_channels(values)) for part in (gradient, gradient * normed)])
        both = own.clone()
        distributed.all_reduce(both)
        through_mean, through_variance = (_by_channel(share * total, values) for total in both)
        of_values = _by_channel(scale * weight, values) * (gradient - through_mean - normed * through_variance)
        return of_values.to(values.dtype), own[1].to(weight.dtype), own[0].to(weight.dtype), None, None, None


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _but_channels(values: Tensor) -> list[int]:
    return [dim for dim in range(values.ndim) if dim != 1]


def _by_channel(of_channels: Tensor, values: Tensor) -> Tensor:
    """Return (C,) in a shape that broadcasts to (B, C) or (B, C, T)."""
    return of_channels.view(-1, *[1] * (values.ndim - 2))
