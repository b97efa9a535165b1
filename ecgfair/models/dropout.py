"""Dropout that each record draws for itself, whatever batch or process it is in: see ``signals.draws``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from ecgfair.signals.draws import Draws, Randomness, rows_of, slots_of

_source: Draws | None = None  # a context variable would break the graphs of torch.compile


@contextmanager
def drawing_from(source: Randomness) -> Iterator[None]:
    """Let networks draw from this source within the ``with`` statement.

    Args:
        source: ``Draws`` of the records that a network is given. Anything else lets it draw from torch's default
            generator: dropout knows no other.
    """
    global _source
    before, _source = _source, source if isinstance(source, Draws) else None
    try:
        yield
    finally:
        _source = before


def own_source() -> Draws | None:
    """Return what a network is to draw from now; None for torch's default generator."""
    return _source


def by_slot(there: Tensor) -> AbstractContextManager[None]:
    """Let parts of records draw for themselves, within a network that takes them out of their records.

    Args:
        there: (B, K) bool, which of K slots of a record hold a part. Rows within the ``with`` statement are those
            parts, in their order.
    """
    source = own_source()
    return drawing_from(rows_of(slots_of(source, there.shape[1]), there.flatten()))


def drawn_again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts for a pass and for its repetition, in which the repetition draws what the pass drew.

    It is the ``context_fn`` of ``torch.utils.checkpoint``, which forgets activations and computes them once more: that
    happens in the backward pass, where ``drawing_from`` has ended long since.
    """
    source = own_source()
    return nullcontext(), nullcontext() if source is None else drawing_from(source.again())


class RecordDropout(nn.Dropout):
    """Dropout over (B, ...) whose rows draw from the source of ``drawing_from``, or as ``nn.Dropout`` without one."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Zero values at random in training, and scale the others so that their mean stays."""
        source = own_source()
        if source is None or not self.training or self.p == 0:
            return super().forward(input)
        if len(source) != len(input):
            raise ValueError(
                f"Dropout of {len(input)} rows draws from a source of {len(source)} records: expected a row for each."
            )
        # Of a probability of 1 nothing is kept, and nothing is divided by 0.
        kept, scale = source.chance(1 - self.p, *input.shape[1:]), 1 / (1 - self.p) if self.p < 1 else 0.0
        return torch.where(kept, input * scale, 0)


class RecordAttention(nn.MultiheadAttention):
    """Self-attention over (B, tokens, channels) whose dropout is a ``RecordDropout``; else that of torch.

    Args:
        channels: Channels of a token.
        heads: Attention heads.
        dropout: Probability of each weight that one token gives another.
    """

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__(channels, heads, dropout=dropout, batch_first=True)
        self.drop = RecordDropout(dropout)

    @override
    def forward(  # type: ignore[override]  # with fewer arguments: no other is used here
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, None]:
        """Return what each token sees in the others, and no weights.

        Args:
            query: (B, L, channels), the tokens that look.
            key: (B, S, channels), the tokens that are looked at.
            value: Likewise.
            key_padding_mask: (B, S) bool, True where there is nothing to look at.
            need_weights: Not supported.
        """
        if own_source() is None or not self.training or self.dropout == 0:
            seen, _ = super().forward(query, key, value, key_padding_mask=key_padding_mask, need_weights=False)
            return seen, None
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        asked, offered, said = (
            F.linear(tokens, weight, bias).view(len(tokens), -1, self.num_heads, self.head_dim).transpose(1, 2)
            for tokens, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        match = asked @ offered.transpose(-1, -2) * self.head_dim**-0.5
        if key_padding_mask is not None:
            match = match.masked_fill(key_padding_mask[:, None, None], -torch.inf)
        seen = self.drop(match.softmax(dim=-1)) @ said
        return self.out_proj(seen.transpose(1, 2).flatten(2)), None
