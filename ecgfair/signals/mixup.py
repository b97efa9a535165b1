"""Mixing two records into one, and their labels with them, for training only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError
from ecgfair.signals.draws import Draws, Randomness, rand


def mixup(
    signal: Tensor,
    labels: Tensor,
    alpha: float,
    generator: Randomness = None,
    *,
    beside: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:
    """Replace each record by a weighted mean with a random record of its batch, and its labels likewise.

    It is the published method (Zhang et al. 2018, arXiv 1710.09412) with one weight a record, from
    Beta(alpha, alpha), and one departure: the greater of a weight and 1 less the weight is the record's own. Of two
    records mixed either one may be called the partner, so mixtures are drawn as often as before, but each now stands in
    the row of the record that it mostly is. A row therefore keeps its attributes and its group, which are not mixed: a
    group can't be, and a loss weighted by group asks for one. Millivolts stay millivolts: a mean leaves the scale as it
    is. What is missing in one of the two records (0 mV) is the other's share alone in the mixture.

    Args:
        signal: (B, leads, time) millivolts, floating point, 0 where nothing was recorded.
        labels: (B, C) floating point, from 0 to 1.
        alpha: 0 returns the very tensors that were given. Weights are near 1 for a small alpha (0.2 is common), and
            near a half for a great one.
        generator: Source of randomness, on the device of the signal; the default one if None. Partners are drawn by
            torch's default generator where records draw for themselves (``Draws``).
        beside: (B, ...) each, what else is seen of the records, floating point, to be mixed alike: their beats.

    Returns:
        The signal and the labels, soft now, of the same shapes and types, and what is beside them.

    Raises:
        ConfigurationError: Alpha is negative or not finite.
        ValueError: Labels or signal are whole numbers, which have no mean, or are of unlike many records.
    """
    if not 0 <= alpha < math.inf:
        raise ConfigurationError(f"The alpha of mixup is {alpha}: expected 0, which is off, or more, such as 0.2.")
    mixed = (signal, labels, *beside)
    if alpha == 0:
        return mixed
    for name, tensor in (("signal", signal), ("labels", labels)):
        if not tensor.is_floating_point():
            raise ValueError(f"The {name} to mix are {tensor.dtype}: expected floating point, so that a mean is one.")
    if len(signal) != len(labels):
        raise ValueError(f"There are {len(signal)} signals and {len(labels)} rows of labels: expected one row each.")
    weight = own_weights(len(signal), alpha, device=signal.device, generator=generator)
    # Partners are of the same batch, so they can't be drawn by each record for itself.
    state = None if isinstance(generator, Draws) else generator
    partner = torch.randperm(len(signal), device=signal.device, generator=state)
    return tuple(_mean(tensor, partner, weight) for tensor in mixed)


def own_weights(
    count: int, alpha: float, *, device: torch.device | None = None, generator: Randomness = None
) -> Tensor:
    """Draw weights from Beta(alpha, alpha), each w below a half replaced by 1 - w.

    By Devroye's formula (1996, "Random variate generation in one line of code", doi:10.1145/256562.256623): with t of
    Student's distribution with 2 alpha degrees of freedom, 1/2 + t / (2 sqrt(2 alpha + t²)) is such a draw. Torch's own
    Beta distribution takes no generator.

    Args:
        count: How many.
        alpha: Above 0.
        device: Device of the result.
        generator: Source of randomness; the default one if None.

    Returns:
        (count,) float32, from 0.5 to 1.
    """
    if isinstance(generator, Draws):
        first, second = rand((count, 2), generator, device).unbind(dim=1)
    else:
        first, second = rand((2, count), generator, device)
    # t² / (2 alpha). It may be infinite, where the weight is 1, or 0, where it is a half; both come out right below.
    ratio = torch.expm1(-first.log() / alpha) * torch.cos(2 * math.pi * second) ** 2
    return 0.5 + 0.5 / torch.sqrt(1 + 1 / ratio)


def _mean(tensor: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of each row and its partner."""
    # Rounded to the tensor's type first: then the two weights add up to 1 exactly, and a label stays within 0 to 1.
    own = weight.to(tensor.dtype).view(-1, *[1] * (tensor.ndim - 1))
    return own * tensor + (1 - own) * tensor[partner]
