"""Random numbers that belong to records: what a record draws follows from the run's seed, the step and its index.

A generator with a state gives the next number to whoever asks next, so what a record gets depends on its batch, its
place in it and the process. Here numbers are a function of a key and a count instead (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3", doi 10.1145/2063384.2063405): a key is made for each record, and the n-th draw of a
record is the same whatever is drawn beside it. The function is the finaliser of splitmix64 (Steele et al. 2014, doi
10.1145/2660193.2660195) over an arithmetic sequence, in torch's int64, whose sums and products wrap around. Bits,
uniform numbers and whole numbers are the same on every device; normal ones are up to the device's logarithm and cosine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

_GAMMA: Final = 0x9E3779B97F4A7C15 - 2**64
"""The odd step between two states of splitmix64, the golden ratio of 2^64; here and below as a signed number."""
_FIRST: Final = 0xBF58476D1CE4E5B9 - 2**64
_SECOND: Final = 0x94D049BB133111EB - 2**64
_CHILD: Final = 0x5851F42D4C957F2D
"""Parts the keys of children from the states that the numbers themselves are made of."""
_FINENESS: Final = 2**16
"""Chances are rounded to one part in this."""


class Draws:
    """A source of random numbers for the records of a batch, each of which draws numbers of its own.

    Every call goes one count further, for all records at once. So a function that draws has to make the same calls
    whatever is in its batch; where only some records draw, they do so from a child, which ``rows`` makes, and the
    child is made in any case.

    Numbers also do not depend on how many are asked for: the first k of a longer row are those of a shorter one. So
    what is drawn for columns of padding changes nothing, as long as it stands behind all else in a record's row.

    Args:
        keys: (B,) int64, one a record. Every call takes them one step further; a number beside them that counts the
            calls would be one more thing that torch.compile makes a graph for.
    """

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys

    @classmethod
    def of(cls, seed: int, step: int, index: Tensor) -> Draws:
        """Return the source of records in one step of a run.

        The same record twice in a batch draws the same twice: there is nothing to tell the two apart by.

        Args:
            seed: Of the run.
            step: Of the optimiser.
            index: (B,) int64, which records: ``EcgBatch['index']``. Numbers are drawn on its device.
        """
        digest = hashlib.sha256(f"{seed},{step}".encode()).digest()
        base = int.from_bytes(digest[:8], "little", signed=True)
        return cls(_finalised(index.long() * _GAMMA + base))

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.keys)

    def again(self) -> Draws:
        """Return a source that will draw what this one is going to draw."""
        return Draws(self.keys)

    def rows(self, rows: Tensor) -> Draws:
        """Return a child that draws for some of the records.

        Args:
            rows: Which: (B,) bool, or their numbers, int64.
        """
        return Draws(self._child_keys()[rows])

    def slots(self, count: int) -> Draws:
        """Return a child that draws for ``count`` parts of each record, one after the other: rows of (B, count)."""
        return Draws(self._parts(count).flatten())

    def copies(self, count: int) -> Draws:
        """Return a child that draws for ``count`` copies of the batch, one after the other: rows of (count, B)."""
        return Draws(self._parts(count).T.flatten())

    def uniform(self, *shape: int) -> Tensor:
        """Return (B, *shape) float32, uniform in [0, 1), in steps of 2^-24."""
        return _fractions(self._bits(math.prod(shape), torch.int32)).view(len(self), *shape)

    def normal(self, *shape: int) -> Tensor:
        """Return (B, *shape) float32, standard normal (Box and Muller 1958), at most 5.8 from 0."""
        number = math.prod(shape)
        # A pair of uniform numbers becomes a pair of normal ones, which stand beside each other.
        pairs = _fractions(self._bits(number + number % 2, torch.int32)).view(len(self), (number + 1) // 2, 2)
        radius = (-2 * (1 - pairs[..., 0]).log()).sqrt()
        angle = 2 * math.pi * pairs[..., 1]
        both = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
        return both.flatten(1)[:, :number].reshape(len(self), *shape)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return (B, *shape) int64, uniform from ``low`` to ``high - 1``; there are at most 2^31 of them.

        Raises:
            ValueError: There are none, or more than that.
        """
        span = high - low
        if not 0 < span <= 2**31:
            raise ValueError(f"Whole numbers from {low} to below {high}: expected at least one and at most 2^31.")
        bits = _shifted(self._bits(math.prod(shape), torch.int64), 33)
        return (low + _shifted(bits * span, 31)).view(len(self), *shape)

    def chance(self, share: float, *shape: int) -> Tensor:
        """Return (B, *shape) bool, each True with this probability, which is rounded to one part in 2^16.

        It takes a quarter of the time of a comparison with ``uniform``, and is meant for dropout.
        """
        below = round(share * _FINENESS) - _FINENESS // 2
        bits = self._bits(math.prod(shape), torch.int16)
        # A share of 1 is beyond what 16 bits hold.
        happens = bits < below if below < _FINENESS // 2 else torch.ones_like(bits, dtype=torch.bool)
        return happens.view(len(self), *shape)

    def _bits(self, number: int, dtype: torch.dtype) -> Tensor:
        """Return (B, number) whole numbers of this type, whose bits are all random."""
        self.keys = self.keys + _GAMMA
        bits: Tensor = _bits_of(self.keys, number, dtype)
        return bits

    def _child_keys(self) -> Tensor:
        self.keys = self.keys + _GAMMA
        keys: Tensor = _finalised(self.keys ^ _CHILD)
        return keys

    def _parts(self, count: int) -> Tensor:
        number = torch.arange(1, count + 1, device=self.keys.device) * _GAMMA
        keys: Tensor = _finalised(self._child_keys()[:, None] + number)
        return keys


Randomness = torch.Generator | Draws | None
"""Where a function draws from: numbers of records, torch's generator of that state, or its default one."""


def rand(shape: Sequence[int], source: Randomness = None, device: torch.device | None = None) -> Tensor:
    """Return uniform numbers in [0, 1), float32.

    Args:
        shape: Of the result; from ``Draws`` its first dimension is that of the records.
        source: What they are drawn from; with a generator, or None, they are those of ``torch.rand``.
        device: Device of the result.

    Raises:
        ValueError: The source is one of other records.
    """
    if isinstance(source, Draws):
        return _of_records(source, shape).uniform(*shape[1:]).to(device or source.keys.device)
    return torch.rand(tuple(shape), dtype=torch.float32, device=device, generator=source)


def randn(shape: Sequence[int], source: Randomness = None, device: torch.device | None = None) -> Tensor:
    """Return standard normal numbers, float32; arguments and errors as of ``rand``."""
    if isinstance(source, Draws):
        return _of_records(source, shape).normal(*shape[1:]).to(device or source.keys.device)
    return torch.randn(tuple(shape), dtype=torch.float32, device=device, generator=source)


def randint(
    low: int, high: int, shape: Sequence[int], source: Randomness = None, device: torch.device | None = None
) -> Tensor:
    """Return whole numbers from ``low`` to ``high - 1``, int64; further arguments and errors as of ``rand``."""
    if isinstance(source, Draws):
        return _of_records(source, shape).integers(low, high, *shape[1:]).to(device or source.keys.device)
    return torch.randint(low, high, tuple(shape), device=device, generator=source)


def rows_of(source: Randomness, rows: Tensor) -> Randomness:
    """Return what some rows draw from: a child of ``Draws``, or the generator that all draw from."""
    return source.rows(rows) if isinstance(source, Draws) else source


def slots_of(source: Randomness, count: int) -> Randomness:
    """Return what the parts of records draw from, see ``Draws.slots``; a generator stays itself."""
    return source.slots(count) if isinstance(source, Draws) else source


def copies_of(source: Randomness, count: int) -> Randomness:
    """Return what copies of a batch draw from, see ``Draws.copies``; a generator stays itself."""
    return source.copies(count) if isinstance(source, Draws) else source


def _of_records(source: Draws, shape: Sequence[int]) -> Draws:
    if shape[0] != len(source):
        raise ValueError(
            f"The shape {tuple(shape)} has {shape[0]} rows, the source of random numbers is one of {len(source)} "
            "records: expected a row for each."
        )
    return source


def _fractions(bits: Tensor) -> Tensor:
    """Return the upper 24 of 32 bits as float32 in [0, 1): so many it holds exactly."""
    return (bits >> 8).float().mul_(2.0**-24).add_(0.5)


def _shifted(value: Tensor, places: int) -> Tensor:
    """Shift right as if the number had no sign: zeros come in from the left."""
    return (value >> places).bitwise_and_((1 << (64 - places)) - 1)


# Operations of their own, so that torch.compile calls them as they are: of such arithmetic and views in 64 bits
# inductor 2.13 made code for the CPU that gave other numbers and corrupted memory.
@torch.library.custom_op("ecgfair::finalised", mutates_args=(), schema="(Tensor state) -> Tensor")
def _finalised(state: Tensor) -> Tensor:
    """Return the finaliser of splitmix64 of each state."""
    state = _shifted(state, 30).bitwise_xor_(state).mul_(_FIRST)
    state = _shifted(state, 27).bitwise_xor_(state).mul_(_SECOND)
    return _shifted(state, 31).bitwise_xor_(state)


@_finalised.register_fake
def _(state: Tensor) -> Tensor:
    return torch.empty_like(state)


@torch.library.custom_op(
    "ecgfair::bits", mutates_args=(), schema="(Tensor keys, int number, ScalarType dtype) -> Tensor"
)
def _bits_of(keys: Tensor, number: int, dtype: torch.dtype) -> Tensor:
    """Return (B, number) whole numbers of a type: words of 64 bits, cut into shorter ones, the lowest bits first."""
    parts = 8 // dtype.itemsize
    place = torch.arange(1, -(-number // parts) + 1, device=keys.device) * _GAMMA
    words: Tensor = _finalised(_finalised(keys)[:, None] + place)
    return words.view(dtype)[:, :number].contiguous()


@_bits_of.register_fake
def _(keys: Tensor, number: int, dtype: torch.dtype) -> Tensor:
    return keys.new_empty(len(keys), number, dtype=dtype)
