"""Masks that hide parts of a signal. True means hidden, everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError
from ecgfair.signals.beats import rhythm
from ecgfair.signals.draws import Randomness, rand, randint


def patch_mask(
    shape: tuple[int, int, int],
    patch: int,
    ratio: float,
    shared: float = 0.5,
    *,
    device: torch.device | None = None,
    generator: Randomness = None,
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
    noise = rand((batch, leads, patches), generator, device)
    is_shared = rand((batch, 1, 1), generator, device) < shared
    noise = torch.where(is_shared, noise[:, :1], noise)
    # The ranks of independent noise are a uniformly random permutation: those below `hidden` are hidden.
    mask = noise.argsort(dim=-1).argsort(dim=-1) < hidden
    return mask.repeat_interleave(patch, dim=-1)[..., :time]


def span_mask(
    shape: tuple[int, int, int],
    ratio: float,
    *,
    device: torch.device | None = None,
    generator: Randomness = None,
) -> Tensor:
    """Hide one contiguous span of each beat or record, in all leads.

    Every sample has about the same chance to be hidden, since the span wraps around the ends of the window.

    Args:
        shape: (B, leads, time) of the beats or records.
        ratio: Share of the samples hidden, in (0, 1); at least one is hidden and at least one is left.
        device: Device of the result.
        generator: Source of randomness; the default one if None.

    Returns:
        (B, leads, time) bool.

    Raises:
        ConfigurationError: The ratio is not in (0, 1), or the window is shorter than two samples.
    """
    batch, leads, time = shape
    if not 0 < ratio < 1:
        raise ConfigurationError(
            f"The share of a beat or record to hide is {ratio}: expected a number between 0 and 1."
        )
    if time < 2:
        raise ConfigurationError(f"A window of {time} samples can't both hide and leave something: expected 2 or more.")
    start = randint(0, time, (batch, 1), generator, device)
    offset = (torch.arange(time, device=device) - start) % time
    hidden = min(max(round(ratio * time), 1), time - 1)
    return (offset < hidden)[:, None].expand(batch, leads, time)


def lead_mask(
    shape: tuple[int, int, int],
    ratio: float,
    recorded: Tensor | None = None,
    *,
    device: torch.device | None = None,
    generator: Randomness = None,
) -> Tensor:
    """Hide whole leads of each record.

    Six of the twelve leads, those of the limbs, follow from any two of them, so a hidden one of them is arithmetic as
    long as two are in sight. The leads of the chest are not.

    Args:
        shape: (B, leads, time) of the signal.
        ratio: Share of the recorded leads hidden, in (0, 1); at least one is hidden and at least one is left.
        recorded: (B, leads) bool: leads with something to hide; all if None. A record with fewer than two has no lead
            to spare: it gets a span of time (``span_mask``) instead.
        device: Device of the result.
        generator: Source of randomness; the default one if None.

    Returns:
        (B, leads, time) bool.

    Raises:
        ConfigurationError: The ratio is not in (0, 1), or the signal is shorter than two samples.
    """
    batch, leads, _ = shape
    span = span_mask(shape, ratio, device=device, generator=generator)
    noise = rand((batch, leads), generator, device)
    if recorded is None:
        recorded = torch.ones(batch, leads, dtype=torch.bool, device=device)
    hidden = _lowest(noise, recorded, ratio)
    spare = recorded.sum(dim=1) > 1
    return torch.where(spare[:, None, None], hidden[:, :, None], span)


def beat_mask(
    shape: tuple[int, int, int],
    beats: Tensor,
    ratio: float,
    before: int,
    after: int,
    *,
    generator: Randomness = None,
) -> Tensor:
    """Hide whole heartbeats, in all leads.

    Args:
        shape: (B, leads, time) of the signal.
        beats: (B, K) sample index of the R peaks, padded with -1. A record without any inside the signal, or whose
            beats hide all of it, gets a span of time (``span_mask``) instead.
        ratio: Share of the beats hidden, in (0, 1); at least one is hidden and, of two or more, at least one is left.
            The share of the time that they take depends on the heart rate.
        before: Samples hidden before an R peak.
        after: Samples hidden from an R peak on.
        generator: Source of randomness, on the beats' device; the default one if None.

    Returns:
        (B, leads, time) bool, on the beats' device.

    Raises:
        ConfigurationError: The ratio is not in (0, 1), or the signal is shorter than two samples.
    """
    time = shape[-1]
    span = span_mask(shape, ratio, device=beats.device, generator=generator)
    noise = rand(beats.shape, generator, beats.device)
    hidden = _lowest(noise, rhythm(beats, time).valid, ratio)
    return _or_span(_windows(beats - before, beats + after, hidden, time), span)


def phase_mask(
    shape: tuple[int, int, int], beats: Tensor, ratio: float, before: int, *, generator: Randomness = None
) -> Tensor:
    """Hide the same phase of every heartbeat of a record, in all leads: all its P waves, or all its QRS complexes.

    A hidden QRS complex can be copied from the next beat, so other masks ask mostly for what this record repeats. With
    every one of them hidden, it has to be known what a QRS complex looks like next to such P and T waves.

    The phase is drawn anew for each record, as a window relative to the R peaks whose place is uniform over the mean
    distance of two beats. The beats that would precede the first and follow the last are hidden, too.

    Args:
        shape: (B, leads, time) of the signal.
        beats: (B, K) sample index of the R peaks, padded with -1. A record with fewer than two inside the signal has
            no cycle to take phases of: it gets a span of time (``span_mask``) instead, and so does one that is hidden
            as a whole since its rhythm is very irregular.
        ratio: Length of the window as a share of the mean distance of two beats, in (0, 1); so about this share of the
            record is hidden, whatever its heart rate.
        before: Samples before an R peak at which the earliest window starts.
        generator: Source of randomness, on the beats' device; the default one if None.

    Returns:
        (B, leads, time) bool, on the beats' device.

    Raises:
        ConfigurationError: The ratio is not in (0, 1), or the signal is shorter than two samples.
    """
    batch, _, time = shape
    span = span_mask(shape, ratio, device=beats.device, generator=generator)
    place = rand((batch, 1), generator, beats.device)
    pace = rhythm(beats, time)
    has_cycle = ~pace.cycle.isnan()
    cycle = pace.cycle.nan_to_num().round().long().clamp(min=1)
    length = (ratio * cycle).round().long().clamp(min=1)
    start = (place * cycle).long() - before
    every = torch.cat([beats, pace.first - cycle, pace.last + cycle], dim=1)
    hidden = torch.cat([pace.valid, torch.ones_like(has_cycle).expand(-1, 2)], dim=1) & has_cycle
    return _or_span(_windows(every + start, every + start + length, hidden, time), span)


def _lowest(noise: Tensor, eligible: Tensor, ratio: float) -> Tensor:
    """Choose a share of what is eligible in each row, at random: at least one and, of two or more, not all.

    Both are (B, n); the result is (B, n) bool. Noise is below 1, so what isn't eligible ranks last.
    """
    count = eligible.sum(dim=1, keepdim=True)
    chosen = (ratio * count).round().clamp(min=1).minimum((count - 1).clamp(min=1))
    return eligible & (noise.masked_fill(~eligible, 2).argsort(dim=1).argsort(dim=1) < chosen)


def _windows(start: Tensor, end: Tensor, hidden: Tensor, time: int) -> Tensor:
    """Return the union (B, time) bool of windows, given (B, K) starts, ends (not included), and which of them count."""
    # One up where a window starts and one down where it ends: what is above zero in between is inside of some window.
    steps = torch.zeros(len(start), time + 1, dtype=torch.long, device=start.device)
    count = hidden.long()
    steps.scatter_add_(1, start.clamp(0, time), count).scatter_add_(1, end.clamp(0, time), -count)
    return steps.cumsum(dim=1)[:, :time] > 0


def _or_span(hidden: Tensor, span: Tensor) -> Tensor:
    """Return masks (B, time) for all leads, and the spans (B, leads, time) for records that hide all or nothing."""
    useful = hidden.any(dim=1) & ~hidden.all(dim=1)
    return torch.where(useful[:, None, None], hidden[:, None], span)
