"""The published architecture: multi-scale cross-restoration, "MCF" (Jiang et al. 2023, arXiv 2308.01639).

Published are the kernels, strides and widths, the 50 channels of a token and the numbers of tokens: 136 of a global
signal of 4,800 samples, 1 of a beat of 480. A padding of 1 in the strided convolutions and none in the last one gives
exactly these: 4,800 / 32 = 150 and 150 - 14 = 136, 480 / 32 = 15 and 15 - 14 = 1.

Not known here, and so inferred from what is usual with such convolutions (Radford et al. 2016, arXiv 1511.06434): batch
norm and a leaky ReLU after every convolution but the last, and in the MLPs of the fusion one hidden layer as wide as
their input.

No rate, length or number of leads is assumed. What the published kernels span was chosen for 500 Hz, so at 100 Hz they
span five times as long: fewer ``widths`` and a shorter ``trend_window`` give the published durations back.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecgfair.errors import ConfigurationError
from ecgfair.models.dropout import RecordAttention
from ecgfair.models.encoder_base import Encoder, Latents, PartSettings, RestorationParts
from ecgfair.models.norms import BatchNorm
from ecgfair.signals.trend import trend

KERNEL: Final = 4
"""Of the strided convolutions: with a stride of 2 and a padding of 1 they halve an even length exactly."""
GATHER_KERNEL: Final = 15
"""Of the last convolution, without padding: of n positions it leaves n - 14 tokens."""
SLOPE: Final = 0.2
"""Of the leaky ReLU below 0."""


class McfBranch(nn.Module):
    """Strided convolutions, then one that gathers 15 positions in each token.

    Args:
        leads: Channels of the signal.
        widths: Channels of the strided convolutions; each halves time.
        channels: Channels of a token.
    """

    def __init__(self, leads: int, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.stride = 2 ** len(widths)
        stages: list[nn.Module] = []
        for before, width in pairwise([leads, *widths]):
            stages += [nn.Conv1d(before, width, KERNEL, 2, 1, bias=False), BatchNorm(width), nn.LeakyReLU(SLOPE)]
        self.strided = nn.Sequential(*stages)
        self.gather = nn.Conv1d(widths[-1], channels, GATHER_KERNEL)

    def forward(self, signal: Tensor) -> Tensor:
        """Map (B, leads, time) to tokens (B, channels, T), at least one.

        The signal is continued with zeros to whole strides, and the positions of a short one to the 15 that a token
        gathers, so that no sample is left out and every length has a token.
        """
        positions: Tensor = self.strided(F.pad(signal, (0, -signal.shape[-1] % self.stride)))
        lacking = max(GATHER_KERNEL - positions.shape[-1], 0)
        tokens: Tensor = self.gather(F.pad(positions, (0, lacking)))
        return tokens

    def layers(self) -> list[list[nn.Module]]:
        """Return each strided convolution with its norm, then the one that gathers."""
        modules = list(self.strided)
        return [*(modules[start : start + 3] for start in range(0, len(modules), 3)), [self.gather]]


class McfDecoder(nn.Module):
    """The mirror of a branch: tokens are spread over 15 positions each, then time is doubled as often as it was halved.

    Args:
        channels_in: Channels of a token.
        widths: Those of the branch.
        channels_out: Channels of the result.
    """

    def __init__(self, channels_in: int, widths: Sequence[int], channels_out: int) -> None:
        super().__init__()
        self.stride = 2 ** len(widths)
        self.spread = nn.ConvTranspose1d(channels_in, widths[-1], GATHER_KERNEL, bias=False)
        stages: list[nn.Module] = [BatchNorm(widths[-1]), nn.LeakyReLU(SLOPE)]
        for before, width in pairwise(reversed(widths)):
            stages += [nn.ConvTranspose1d(before, width, KERNEL, 2, 1, bias=False)]
            stages += [BatchNorm(width), nn.LeakyReLU(SLOPE)]
        stages.append(nn.ConvTranspose1d(widths[0], channels_out, KERNEL, 2, 1))
        self.rise = nn.Sequential(*stages)

    def forward(self, tokens: Tensor, length: int) -> Tensor:
        """Map (B, channels_in, T) to (B, channels_out, length); ``length`` is at most ``(T + 14) * stride``."""
        # What a short signal was continued with is dropped here, before it costs anything.
        positions = self.spread(tokens)[..., : -(-length // self.stride)]
        signal: Tensor = self.rise(positions)
        return signal[..., :length]


class TokenFusion(nn.Module):
    """Self-attention over the tokens of both scales, then one MLP over all tokens back to each scale.

    The MLPs have a weight for every pair of tokens, so this fusion is made for one length and one window.

    Args:
        channels: Channels of a token.
        heads: Attention heads.
        dropout: Probability in the attention.
        global_count: Tokens of the global signal.
        local_count: Tokens of a beat.
    """

    def __init__(self, channels: int, heads: int, dropout: float, global_count: int, local_count: int) -> None:
        super().__init__()
        self.counts = (global_count, local_count)
        self.attention = RecordAttention(channels, heads, dropout)
        self.norm = nn.LayerNorm(channels)
        self.to_global = self._mlp(global_count)
        self.to_local = self._mlp(local_count)

    def _mlp(self, count: int) -> nn.Module:
        both = sum(self.counts)
        return nn.Sequential(nn.Linear(both, both), nn.LeakyReLU(SLOPE), nn.Linear(both, count))

    def forward(self, global_tokens: Tensor, local_tokens: Tensor, has_beat: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse both scales.

        Args:
            global_tokens: (B, channels, T) of the global signal.
            local_tokens: (B, channels, S) of the beat.
            has_beat: (B,) bool; where False, the tokens of the beat are not looked at.

        Returns:
            Both, with what was fused added, in the shapes they came in.

        Raises:
            ValueError: The numbers of tokens are not those this fusion was made for.
        """
        found = (global_tokens.shape[-1], local_tokens.shape[-1])
        if found != self.counts:
            raise ValueError(
                f"The fusion got {found[0]} tokens of the global signal and {found[1]} of the beat: expected "
                f"{self.counts[0]} and {self.counts[1]}. It works for the length and window it was built for alone; "
                "build the network for the signals at hand."
            )
        tokens = torch.cat([global_tokens, local_tokens], dim=-1).transpose(1, 2)
        ignored = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        ignored[:, found[0] :] = ~has_beat[:, None]
        seen, _ = self.attention(tokens, tokens, tokens, key_padding_mask=ignored, need_weights=False)
        # The MLPs look at every token, so a beat that is not there has to be nothing to them as well.
        fused = self.norm(tokens + seen).masked_fill(ignored[..., None], 0).transpose(1, 2)
        return global_tokens + self.to_global(fused), local_tokens + self.to_local(fused)

    def beats(self, global_tokens: Tensor, local_tokens: Tensor) -> Tensor:
        """Return what ``forward`` returns of the local tokens alone, of records that all have a beat."""
        everyone = torch.ones(len(local_tokens), dtype=torch.bool, device=local_tokens.device)
        return self(global_tokens, local_tokens, everyone)[1]  # type: ignore[no-any-return]  # of its own forward


class McfEncoder(Encoder):
    """The published encoders of the global signal and of its trend, with weights of their own.

    The trend stays in millivolts per sample. Published is a rescaling of each record's trend, all leads together, to
    one range, which hides how high a voltage is.

    Args:
        leads: Number of leads.
        widths: Channels of the strided convolutions of every branch and, mirrored, of every decoder; each halves time.
        channels: Channels of a token.
        trend_window: Samples in the moving average under the trend: 10 as published, which are 20 ms at 500 Hz.

    Raises:
        ConfigurationError: There are no widths, or a number is below 1.
    """

    def __init__(
        self,
        leads: int = 12,
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        channels: int = 50,
        trend_window: int = 10,
    ) -> None:
        super().__init__()
        if not widths:
            raise ConfigurationError("McfEncoder has no widths: expected at least one number of channels.")
        for name, value in (("leads", leads), ("channels", channels), ("trend_window", trend_window)):
            if value < 1:
                raise ConfigurationError(f"{name} of McfEncoder is {value}: expected 1 or more.")
        if any(width < 1 for width in widths):
            raise ConfigurationError(f"widths of McfEncoder are {tuple(widths)}: expected 1 or more each.")
        self.leads = leads
        self.widths = tuple(widths)
        self.trend_window = trend_window
        self.signal_branch = McfBranch(leads, widths, channels)
        self.trend_branch = McfBranch(leads, widths, channels)
        self.stride = self.signal_branch.stride
        self.signal_channels = channels
        self.channels = 2 * channels

    def token_count(self, length: int) -> int:
        """Return ``ceil(length / stride) - 14``, at least 1; token t looks at the strides t to t + 14."""
        return max(-(-length // self.stride) - GATHER_KERNEL + 1, 1)

    def forward(self, signal: Tensor, trend_of: Tensor | None = None) -> Latents:
        """Encode (B, leads, time) millivolts of any length; see the base class."""
        source = signal if trend_of is None else trend_of
        return Latents(self.signal_branch(signal), self.trend_branch(trend(source, self.trend_window)))

    def layers(self) -> list[list[nn.Module]]:
        """Return the convolutions of both branches, those of the same depth together."""
        branches = zip(self.signal_branch.layers(), self.trend_branch.layers(), strict=True)
        return [signal + trend for signal, trend in branches]

    def make_decoder(self, channels_in: int, channels_out: int, settings: PartSettings) -> McfDecoder:
        """Return the mirror of a branch; its widths are the encoder's."""
        return McfDecoder(channels_in, self.widths, channels_out)

    def make_parts(self, settings: PartSettings) -> RestorationParts:
        """Return the published parts. Their widths are the encoder's: no other width of the settings is read.

        Raises:
            ConfigurationError: ``length`` or ``window`` is missing.
        """
        if settings.length is None or settings.window is None:
            raise ConfigurationError(
                f"The fusion of McfEncoder got length {settings.length} and window {settings.window}: expected the "
                "samples of the global signal and of a beat, since its MLPs work over a fixed number of tokens."
            )
        channels, widths = self.signal_channels, self.widths
        counts = (self.token_count(settings.length), self.token_count(settings.window))
        return RestorationParts(
            local_encoder=McfBranch(self.leads, widths, channels),
            fusion=TokenFusion(channels, settings.fusion_heads, settings.dropout, *counts),
            global_decoder=self.make_decoder(channels, settings.outputs, settings),
            local_decoder=self.make_decoder(channels, settings.outputs, settings),
            trend_decoder=self.make_decoder(self.channels, self.leads, settings),
        )
