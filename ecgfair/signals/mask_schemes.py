"""A mixture of mask schemes, as a configuration names them: each record of a batch is hidden by one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.signals.draws import Randomness, rand
from ecgfair.signals.masking import beat_mask, lead_mask, patch_mask, phase_mask, span_mask


@dataclass(frozen=True)
class MaskScheme:
    """How one scheme hides. A scheme leaves aside the lengths that it has no use for.

    Args:
        share: Share of the records hidden this way, in proportion to the other schemes' shares; 0 switches it off.
        ratio: What is hidden, in (0, 1): the share of the patches, of the leads, of the time (``spans``), of the beats
            or of the distance of two beats (``phases``).
        patch_seconds: Length of a patch (``shared_patches``, ``lead_patches``).
        before_seconds: Start of a beat before its R peak (``beats``, ``phases``).
        after_seconds: End of a beat after its R peak (``beats``).
    """

    share: float = 1.0
    ratio: float = 0.3
    patch_seconds: float = 0.5
    before_seconds: float = 0.28
    after_seconds: float = 0.68

    def __post_init__(self) -> None:
        """Refuse what can't hide and leave something."""
        if not 0 <= self.share < float("inf"):
            raise ConfigurationError(f"MaskScheme.share is {self.share}: expected a number of 0 or more.")
        if not 0 < self.ratio < 1:
            raise ConfigurationError(f"MaskScheme.ratio is {self.ratio}: expected a number between 0 and 1.")
        for name in ("patch_seconds", "before_seconds", "after_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigurationError(f"MaskScheme.{name} is {getattr(self, name)}: expected a positive length.")


def check_schemes(schemes: Mapping[str, MaskScheme]) -> None:
    """Refuse a mixture that names a scheme that there is not, or that hides no record.

    Args:
        schemes: The schemes by their names, see ``SCHEMES``.

    Raises:
        ConfigurationError: A name is unknown, or no share is above 0.
    """
    for name in schemes:
        if name not in SCHEMES:
            raise ConfigurationError(f"There is no mask scheme {name!r}.{did_you_mean(name, SCHEMES)}")
    if not any(scheme.share > 0 for scheme in schemes.values()):
        raise ConfigurationError(
            f"No mask scheme has a share above 0: give one to at least one of {', '.join(SCHEMES)}."
        )


def hide(
    shape: tuple[int, int, int],
    schemes: Mapping[str, MaskScheme],
    sampling_rate: float,
    beats: Tensor,
    recorded: Tensor | None = None,
    *,
    generator: Randomness = None,
) -> Tensor:
    """Hide parts of each record by a scheme drawn for it.

    How many random numbers are drawn depends on the shapes and the schemes alone, never on the records.

    Args:
        shape: (B, leads, time) of the signal.
        schemes: The schemes by their names, see ``SCHEMES``; their order changes which records get which.
        sampling_rate: Hz.
        beats: (B, K) sample index of the R peaks, padded with -1, on the device of the result.
        recorded: (B, leads, time) bool, or a shape that broadcasts to it: ``leads`` chooses among those with a recorded
            sample. All if None. No other scheme looks at it, so parts that were not recorded can be among the hidden.
        generator: Source of randomness, on the beats' device; the default one if None.

    Returns:
        (B, leads, time) bool, on the beats' device; every record has something hidden and something not. A record that
        lacks what its scheme hides (beats, a second lead) gets a span of the same ratio.

    Raises:
        ConfigurationError: As from ``check_schemes``, or a patch or beat is too short or too long for the signal.
    """
    check_schemes(schemes)
    batch, leads, time = shape
    used = {name: scheme for name, scheme in schemes.items() if scheme.share > 0}
    shares = torch.tensor([scheme.share for scheme in used.values()], dtype=torch.float64)
    bounds = (shares.cumsum(0) / shares.sum())[:-1].to(beats.device, torch.float32)
    draw = rand((batch,), generator, beats.device)
    chosen = torch.bucketize(draw, bounds, right=True)[:, None, None]
    lead_recorded = None if recorded is None else recorded.expand(shape).any(dim=-1)
    request = _Request(shape, sampling_rate, beats, lead_recorded, generator)
    masks = torch.zeros(batch, leads, time, dtype=torch.bool, device=beats.device)
    # Every scheme makes masks for the whole batch: cheaper than to wait for the device to say which records are whose.
    for number, (name, scheme) in enumerate(used.items()):
        masks = torch.where(chosen == number, SCHEMES[name](scheme, request), masks)
    return masks


class _Request(NamedTuple):
    """What the schemes may need to know of a batch."""

    shape: tuple[int, int, int]
    rate: float
    beats: Tensor
    lead_recorded: Tensor | None
    generator: Randomness

    def samples(self, seconds: float) -> int:
        return max(round(seconds * self.rate), 1)


def _patches(scheme: MaskScheme, request: _Request, shared: float) -> Tensor:
    return patch_mask(
        request.shape,
        request.samples(scheme.patch_seconds),
        scheme.ratio,
        shared,
        device=request.beats.device,
        generator=request.generator,
    )


def _leads(scheme: MaskScheme, request: _Request) -> Tensor:
    device = request.beats.device
    return lead_mask(request.shape, scheme.ratio, request.lead_recorded, device=device, generator=request.generator)


def _spans(scheme: MaskScheme, request: _Request) -> Tensor:
    return span_mask(request.shape, scheme.ratio, device=request.beats.device, generator=request.generator)


def _beats(scheme: MaskScheme, request: _Request) -> Tensor:
    before, after = request.samples(scheme.before_seconds), request.samples(scheme.after_seconds)
    return beat_mask(request.shape, request.beats, scheme.ratio, before, after, generator=request.generator)


def _phases(scheme: MaskScheme, request: _Request) -> Tensor:
    before = request.samples(scheme.before_seconds)
    return phase_mask(request.shape, request.beats, scheme.ratio, before, generator=request.generator)


SCHEMES: Mapping[str, Callable[[MaskScheme, _Request], Tensor]] = {
    "shared_patches": lambda scheme, request: _patches(scheme, request, shared=1),
    "lead_patches": lambda scheme, request: _patches(scheme, request, shared=0),
    "leads": _leads,
    "spans": _spans,
    "beats": _beats,
    "phases": _phases,
}
"""The schemes by name: patches of time that all leads hide (the published one), patches drawn for each lead, whole
leads, one contiguous span, whole heartbeats, and the same phase of every heartbeat of the record."""
