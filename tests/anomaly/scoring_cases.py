"""Small networks, made records, stub networks of which it is known what they say, and how scores are compared."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ecgfair.anomaly.reference import NormalReference
from ecgfair.anomaly.scores import AnomalyScores
from ecgfair.anomaly.scoring import AnomalyScoring, Scoring
from ecgfair.anomaly.terms import Geometry
from ecgfair.models.encoder import Latents, McfEncoder, ResidualEncoder
from ecgfair.models.restoration import Restoration, RestorationNetwork, Restored

LEADS, LENGTH, RATE = 3, 400, 100.0
GEOMETRY = Geometry(RATE, before=28, after=68)
WINDOW = GEOMETRY.window
FAMILIES = ("residual", "mcf")
COVERS = ("patches", "phases")
BEATS = ((40, 120, 200, 280, 360), (90, 170, 260), (), (150,), (5, 395))
"""R peaks of five records: regular, fewer, none, one, and two of which no window is whole."""
OF_BEATS = {"shape": 1.0, "variation": 0.5, "altered_beat": 0.5}
ALL = {"whole": 1.0, "beat": 2.0, "trend": 0.5, "altered": 1.0, "distance": 1.0, **OF_BEATS}
ALL_MAPPED = {"whole": 1.0, "beat": 2.0, "trend": 0.5, "altered": 1.0, "shape": 1.0, "variation": 2.0}
"""Every term, and every term that has a map, with weights that differ."""


def network(family: str = "residual", *, leads: int = LEADS) -> RestorationNetwork:
    """A network with random weights, and statistics of its norms that are not those of a fresh one."""
    torch.manual_seed(0)
    encoder = (
        McfEncoder(leads, widths=[4, 6], channels=6)
        if family == "mcf"
        else ResidualEncoder(leads, widths=[4, 8], trend_widths=[4, 6])
    )
    net = RestorationNetwork(
        encoder, [6], decoder_width=8, length=LENGTH, window=WINDOW, alteration_head=True, beat_network=True
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def padded(*beats: tuple[int, ...], columns: int = 6) -> Tensor:
    """(B, K) R peaks, padded with -1."""
    return torch.tensor([list(row) + [-1] * (columns - len(row)) for row in beats])


def records(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, recorded and beats of the five records of ``BEATS``; no sample is 0."""
    signal = torch.randn(len(BEATS), LEADS, LENGTH, generator=torch.Generator().manual_seed(seed))
    return signal + 3 * signal.sign(), torch.ones(signal.shape, dtype=torch.bool), padded(*BEATS)


def many(count: int = 20, seed: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, recorded and beats of records to take a reference from."""
    signal = torch.randn(count, LEADS, LENGTH, generator=torch.Generator().manual_seed(seed))
    return signal, torch.ones(signal.shape, dtype=torch.bool), padded(*(BEATS[row % 5] for row in range(count)))


def scorer(net: Any, *, fitted: bool = True, **settings: Any) -> AnomalyScoring:
    """Scoring with a reference taken from ``many``, if it standardises."""
    leak = settings.pop("trend_unmasked", False)
    scoring = Scoring(**settings)
    reference = NormalReference(scoring.measured, 2 * net.encoder.channels, LEADS)
    made = AnomalyScoring(net, scoring, GEOMETRY, reference, trend_unmasked=leak)
    if fitted and scoring.standardise:
        made.fit_reference([many()])
    return made


@cache
def full(family: str = "residual", cover: str = "phases") -> AnomalyScoring:
    """Scoring by every term, with a network that no test changes."""
    return scorer(network(family), terms=ALL, map_terms=ALL_MAPPED, cover=cover)


def close(one: Tensor, other: Tensor) -> None:
    """Assert that two tensors differ by no more than rounding; NaN equals NaN."""
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4, equal_nan=True)


def same(one: Tensor, other: Tensor) -> None:
    """Assert that two tensors do not differ at all; NaN equals NaN."""
    torch.testing.assert_close(one, other, atol=0, rtol=0, equal_nan=True)


def rows_of(scores: AnomalyScores, rows: Any) -> list[Tensor]:
    """All that these scores, made with maps, say of some records."""
    assert scores.map is not None
    return [
        scores.score[rows],
        scores.has_beat[rows],
        scores.map[rows],
        *(part[rows] for part in scores.parts.values()),
    ]


def take(batch: tuple[Tensor, ...], rows: Any) -> tuple[Tensor, ...]:
    """Some records of a batch."""
    return tuple(part[rows] for part in batch)


class _Encoder(nn.Module):
    channels = LEADS


class StubNetwork(nn.Module):
    """A network whose tokens are the samples that it sees; what it restores is said by ``restore``.

    Every lead is restored from itself alone: the mean of what is seen around a sample, unless ``template`` says what
    it restores whatever it sees. ``log_variance`` is what it says of its error.
    """

    alteration_head: nn.Module | None = None
    beat_network: nn.Module | None = None

    def __init__(self, template: Tensor | None = None, beat: Tensor | None = None, log_variance: float = 0.0) -> None:
        super().__init__()
        self.encoder = _Encoder()
        self.template, self.beat, self.log_variance = template, beat, log_variance

    def _restored(self, tokens: Tensor, template: Tensor | None) -> Tensor:
        if template is not None:
            return template.expand(tokens.shape)
        return nn.functional.avg_pool1d(tokens, 9, 1, 4)

    def _sure(self, signal: Tensor) -> Restored:
        return Restored(signal, torch.full_like(signal, self.log_variance))

    def encode_global(self, signal, trend_of=None):
        return Latents(signal, signal if trend_of is None else trend_of)

    def encode_beats(self, beat):
        return beat

    def fuse(self, global_tokens, local_tokens, has_beat):
        return global_tokens, local_tokens

    def fuse_beats(self, global_tokens, local_tokens):
        return local_tokens

    def restore_global(self, tokens, length):
        return self._sure(self._restored(tokens, self.template))

    def restore_beat(self, tokens, window):
        return self._sure(self._restored(tokens, self.beat))

    def restore_from_trend(self, fused_global, latents, length):
        return self._restored(fused_global, self.template)

    def pooled(self, latents):
        return torch.cat([latents.signal.mean(-1), latents.signal.amax(-1)], dim=1)

    def forward(self, signal, beat, has_beat, trend_of=None):
        """What the published scheme asks for."""
        whole, local = self.restore_global(signal, signal.shape[-1]), self.restore_beat(beat, beat.shape[-1])
        return Restoration(whole, local, self._restored(signal, self.template), signal.new_zeros(len(signal), 1))
