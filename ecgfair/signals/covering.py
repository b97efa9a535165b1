"""Masks that together hide every sample once, for scoring. True means hidden, everywhere.

A score takes each sample from the pass that hid it: nothing is left unseen by the score, nothing counts twice, and the
same record always gets the same masks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.errors import ConfigurationError
from ecgfair.signals.beats import rhythm


def covering_masks(
    leads: int, time: int, patch: int, passes: int, per_lead: bool = False, device: torch.device | None = None
) -> Tensor:
    """Hide every ``passes``-th patch of time, starting one patch later in each pass.

    Args:
        leads: Leads of the signal.
        time: Samples of the signal.
        patch: Length of a patch in samples; the last patch may be shorter.
        passes: Number of masks: a pass hides about one part in ``passes``, so 3 hide a third each.
        per_lead: Start one patch later in each lead, too, so that of ``passes`` neighbouring leads each hides other
            patches. If false, all leads hide the same ones.
        device: Device of the result.

    Returns:
        (passes, leads, time) bool; every sample of every lead is True in exactly one pass.

    Raises:
        ConfigurationError: There are fewer than two passes, or fewer patches than passes.
    """
    patches = -(-time // patch) if patch > 0 else 0
    _check_passes(passes, patches, f"patches ({patch} of {time} samples each)")
    turn = torch.arange(time, device=device).div(patch, rounding_mode="floor").expand(leads, time)
    if per_lead:
        turn = turn + torch.arange(leads, device=device)[:, None]
    return _in_turns(turn % passes, passes)


def covering_spans(leads: int, window: int, passes: int, device: torch.device | None = None) -> Tensor:
    """Hide one contiguous span of a beat after the other, in all leads.

    Args:
        leads: Leads of the beat.
        window: Samples of the beat.
        passes: Number of spans; their lengths differ by one sample at most.
        device: Device of the result.

    Returns:
        (passes, leads, window) bool, the spans in order of time; every sample is True in exactly one pass.

    Raises:
        ConfigurationError: There are fewer than two passes, or fewer samples than passes.
    """
    _check_passes(passes, window, "samples of a beat")
    turn = (torch.arange(window, device=device) * passes).div(window, rounding_mode="floor")
    return _in_turns(turn.expand(leads, window), passes)


def covering_phases(beats: Tensor, time: int, passes: int, before: int, patch: int) -> Tensor:
    """Hide one phase of every heartbeat after the other: all QRS complexes in one pass, all T waves in another.

    A patch that hides one QRS complex leaves the next one in sight, to be copied. Here no beat of the record shows what
    is hidden, so what a record does in all its beats has to be judged by what hearts do.

    The mean distance of two beats is one cycle, and each pass hides one of ``passes`` equal parts of it. Cycles are
    counted from ``before`` samples before each R peak and start anew at the next one; a longer pause holds more of
    them, and so does the signal before the first beat and after the last.

    Args:
        beats: (B, K) sample index of the R peaks, padded with -1. What is not inside the signal is ignored.
        time: Samples of the signals.
        passes: Number of masks.
        before: Samples before an R peak at which its beat begins, so that a P wave belongs to the R peak after it.
        patch: Part of a cycle in samples for a record with fewer than two beats, in which no cycle is known: it gets
            patches, every ``passes``-th of them in a pass, as from ``covering_masks``.

    Returns:
        (passes, B, time) bool, the same for all leads; every sample of every record is True in exactly one pass.

    Raises:
        ConfigurationError: There are fewer than two passes, or fewer patches than passes.
    """
    patches = -(-time // patch) if patch > 0 else 0
    _check_passes(passes, patches, f"patches ({patch} of {time} samples each)")
    pace = rhythm(beats, time)
    has_cycle = ~pace.cycle.isnan()
    # In whole samples, rounded down: some distance of two beats is then at least as long, and so holds every phase.
    cycle = torch.where(has_cycle, pace.cycle.nan_to_num().long().clamp(min=passes), patch * passes)
    # What is no beat begins after the end. A column more than there are beats, for there has to be one where K is 0.
    starts = F.pad((beats - before).masked_fill(~pace.valid, time), (0, 1), value=time).sort(dim=1).values
    position = torch.arange(time, device=beats.device).expand(len(beats), time).contiguous()
    own = (torch.searchsorted(starts, position, right=True) - 1).clamp(min=0)
    anchor = torch.where(has_cycle, starts.gather(1, own), 0)
    # Before the first beat the offset is negative; its remainder is the phase of a beat that would have come before.
    turn = ((position - anchor).remainder(cycle) * passes).div(cycle, rounding_mode="floor")
    return _in_turns(turn, passes)


def _in_turns(turn: Tensor, passes: int) -> Tensor:
    # (leads, time) numbers of the pass that hides a sample -> (passes, leads, time).
    return turn == torch.arange(passes, device=turn.device)[:, None, None]


def _check_passes(passes: int, parts: int, named: str) -> None:
    if not 2 <= passes <= parts:
        raise ConfigurationError(
            f"{passes} passes over {parts} {named} can't hide each part once and leave something to see: choose 2 "
            "passes or more, and no more than there are parts."
        )
