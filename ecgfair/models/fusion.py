"""Fusion: the global signal and one heartbeat look at each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgfair.models.dropout import RecordAttention


class ScaleFusion(nn.Module):
    """One self-attention layer over the tokens of both scales together, then each scale takes its tokens back.

    The published form has one MLP over a fixed number of tokens; attention with a learned mark of each scale does the
    same at any length.

    Args:
        channels: Channels of a token, the same for both scales.
        heads: Attention heads.
        dropout: Probability inside the layer.
    """

    def __init__(self, channels: int, heads: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.scale_mark = nn.Parameter(torch.zeros(2, channels))
        self.attention = RecordAttention(channels, heads, dropout)
        self.norm_attention = nn.LayerNorm(channels)
        self.mix = nn.Sequential(nn.Linear(channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, channels))
        self.norm_mix = nn.LayerNorm(channels)
        nn.init.normal_(self.scale_mark, std=0.02)

    def forward(self, global_tokens: Tensor, local_tokens: Tensor, has_beat: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse both scales.

        Args:
            global_tokens: (B, channels, T) of the global signal.
            local_tokens: (B, channels, S) of the beat.
            has_beat: (B,) bool; where False, the tokens of the beat are not looked at.

        Returns:
            Both, fused, in the shapes they came in.
        """
        length = global_tokens.shape[-1]
        marked = (global_tokens + self.scale_mark[0, :, None], local_tokens + self.scale_mark[1, :, None])
        tokens = torch.cat(marked, dim=-1).transpose(1, 2)
        ignored = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        ignored[:, length:] = ~has_beat[:, None]
        seen, _ = self.attention(tokens, tokens, tokens, key_padding_mask=ignored, need_weights=False)
        tokens = self.norm_attention(tokens + seen)
        tokens = self.norm_mix(tokens + self.mix(tokens)).transpose(1, 2)
        return tokens[..., :length], tokens[..., length:]

    def beats(self, global_tokens: Tensor, local_tokens: Tensor) -> Tensor:
        """Return what ``forward`` returns of the local tokens alone, at a fraction of its cost.

        Args:
            global_tokens: (B, channels, T).
            local_tokens: (B, channels, S) of a beat of each record.
        """
        local = (local_tokens + self.scale_mark[1, :, None]).transpose(1, 2)
        tokens = torch.cat([(global_tokens + self.scale_mark[0, :, None]).transpose(1, 2), local], dim=1)
        seen, _ = self.attention(local, tokens, tokens, need_weights=False)
        fused = self.norm_attention(local + seen)
        mixed: Tensor = self.norm_mix(fused + self.mix(fused)).transpose(1, 2)
        return mixed
