"""Masks that hide parts of a signal. True means hidden, everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError


def patch_mask(
    shape: tuple[int, int, int],
    patch: int,
    ratio: float,
    shared: float = 0.5,
    *,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Hide whole patches of time, in all leads of a record at once or in each lead on its own.

    Hiding all leads asks for rhythm; hiding single leads asks for how the leads see the same beat. The published mask
    is the shared one alone.

    Args:
        shape: (B, leads, time) of the signal.
        patch: Length of a patch in samples; the last patch may be shorter.
        ratio: Share of the patches hidden, in (0, 1); at least one is hidden and at least one is left.
        shared: Share of the records whose leads all hide the same patches.
        device: Device of the result.
        generator: Source of randomness; the default one if None.

    Returns:
        (B, leads, time) bool.

    Raises:
        ConfigurationError: The ratio is not in (0, 1), or the signal is shorter than two patches.
    """
    batch, leads, time = shape
    patches = -(-time // patch)
    if not 0 < ratio < 1 or patches < 2:
        raise ConfigurationError(
            f"A mask of {ratio:.0%} of {patches} patches ({patch} of {time} samples each) can't both hide and leave "
            "something: choose a ratio between 0 and 1 and a shorter patch."
        )
    hidden = min(max(round(ratio * patches), 1), patches - 1)
    noise = torch.rand(batch, leads, patches, device=device, generator=generator)
    is_shared = torch.rand(batch, 1, 1, device=device, generator=generator) < shared
    noise = torch.where(is_shared, noise[:, :1], noise)
    # The ranks of independent noise are a uniformly random permutation: those below `hidden` are hidden.
    mask = noise.argsort(dim=-1).argsort(dim=-1) < hidden
    return mask.repeat_interleave(patch, dim=-1)[..., :time]


def span_mask(
    shape: tuple[int, int, int],
    ratio: float,
    *,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Hide one contiguous span of each beat, in all leads.

    Every sample has about the same chance to be hidden, since the span wraps around the ends of the window.

    Args:
        shape: (B, leads, time) of the beats.
        ratio: Share of the samples hidden, in (0, 1).
        device: Device of the result.
        generator: Source of randomness; the default one if None.

    Returns:
        (B, leads, time) bool.

    Raises:
        ConfigurationError: The ratio is not in (0, 1).
    """
    batch, leads, time = shape
    if not 0 < ratio < 1:
        raise ConfigurationError(f"The share of a beat to hide is {ratio}: expected a number between 0 and 1.")
    start = torch.randint(time, (batch, 1), device=device, generator=generator)
    offset = (torch.arange(time, device=device) - start) % time
    return (offset < max(round(ratio * time), 1))[:, None].expand(batch, leads, time)
