"""Scores and maps of a batch of records: deterministic, every sample hidden once, a few forward passes in all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import torch
from torch import Tensor

from ecgfair.anomaly.beat_terms import BeatTerms
from ecgfair.anomaly.evaluated import evaluated
from ecgfair.anomaly.maps import PUBLISHED_SMOOTHING, smooth
from ecgfair.anomaly.reference import NormalReference
from ecgfair.anomaly.restored_terms import RestoredTerms
from ecgfair.anomaly.scores import AnomalyScores
from ecgfair.anomaly.terms import ALTERED_BEAT, BEAT_TERMS, RESTORED_TERMS, SHAPE, VARIATION, Geometry, Terms
from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.models.restoration import RestorationNetwork

ALTERED: Final = "altered"
DISTANCE: Final = "distance"
TERMS: Final = (*RESTORED_TERMS, ALTERED, DISTANCE, *BEAT_TERMS)
MAPPED: Final = (*RESTORED_TERMS, ALTERED, SHAPE, VARIATION)
"""Terms that say where, too."""
TERM_RECORDS: Final = 256
"""Training records, about, that mean and spread of the terms are taken from; all of them where there are fewer."""


@dataclass
class Scoring:
    """What a score is made of, and how.

    Args:
        scheme: ``covering`` as said here, or the ``published`` one, which reads nothing else of this, see
            ``published_scoring``.
        terms: Weight of each term in the score. ``whole``, ``beat`` and ``trend``: how badly the global signal, the
            beats and the signal from its trend are restored where they were hidden. ``altered``: the logit that the
            record was altered, of a network trained to tell. ``distance``: how far the encoder's features are from
            those of training records. ``shape``: how far the median beat is from the principal components of normal
            ones. ``variation``: how much single beats differ from it. ``altered_beat``: the logit that it was altered.
            A term of weight 0 is measured and logged, but not part of the score.
        map_terms: Weight of each term in the map; ``distance`` and ``altered_beat`` have none.
        standardise: Put every term on one scale, by mean and standard deviation over training records, before they are
            added. Without it they are added as they are, as published.
        uncertainty: What a restored sample adds to its term: its ``likelihood`` (squared error over its expected
            value, plus the logarithm of that), or the ``weighted_error`` alone, as published.
        cover: Which samples are hidden together: every n-th of the ``patches`` of time, or the same ``phases`` of all
            beats.
        passes: In how many passes all samples are hidden, each once.
        patch_seconds: Length of a patch.
        smoothing_seconds: Standard deviation of the Gaussian that smooths the map along time.
        reference_records: Training records, at most, that the distance is taken from; the other terms' means and
            spreads are taken from about 256 of them.

    Raises:
        ConfigurationError: A term is unknown, a value can't work.
    """

    scheme: Literal["covering", "published"] = "covering"
    terms: dict[str, float] = field(default_factory=lambda: {"whole": 1.0, "beat": 1.0, "trend": 1.0})
    map_terms: dict[str, float] = field(default_factory=lambda: {"whole": 1.0, "beat": 1.0, "trend": 1.0})
    standardise: bool = True
    uncertainty: Literal["likelihood", "weighted_error"] = "likelihood"
    cover: Literal["patches", "phases"] = "phases"
    passes: int = 3
    patch_seconds: float = 0.2
    smoothing_seconds: float = PUBLISHED_SMOOTHING
    reference_records: int = 2000

    def __post_init__(self) -> None:
        """Refuse what can't be scored."""
        for name, weights, known in (("terms", self.terms, TERMS), ("map_terms", self.map_terms, MAPPED)):
            for term, weight in weights.items():
                if term not in known:
                    raise ConfigurationError(f"scoring.{name} has {term!r}.{did_you_mean(term, known)}")
                if not 0 <= weight < math.inf:
                    raise ConfigurationError(f"scoring.{name} has {term}: {weight}: expected a weight of 0 or more.")
            if not any(weights.values()):
                raise ConfigurationError(f"scoring.{name} is {weights}: expected a weight above 0 for at least one.")
        if self.passes < 2:
            raise ConfigurationError(f"scoring.passes is {self.passes}: expected 2 or more, or nothing is left to see.")
        if not 0 < self.patch_seconds < math.inf:
            raise ConfigurationError(f"scoring.patch_seconds is {self.patch_seconds}: expected a positive length.")
        if not 0 <= self.smoothing_seconds < math.inf:
            raise ConfigurationError(f"scoring.smoothing_seconds is {self.smoothing_seconds}: expected 0 or more.")
        if not self.standardise and (learned := [name for name in self.measured if name in (DISTANCE, *BEAT_TERMS)]):
            raise ConfigurationError(f"scoring has the term {learned[0]}, which needs scoring.standardise: true.")

    @property
    def names(self) -> tuple[str, ...]:
        """Terms of the score, in the order of ``TERMS``."""
        return RESTORED_TERMS if self.scheme == "published" else tuple(name for name in TERMS if name in self.terms)

    @property
    def measured(self) -> tuple[str, ...]:
        """Terms of the score or the map."""
        return tuple(name for name in TERMS if name in {*self.terms, *self.map_terms})


class AnomalyScoring:
    """Scores batches of records with one network.

    No record is looked at beside another: its score and its map do not depend on the batch that it is in, nor on what
    is stored where nothing was recorded.

    Args:
        network: In the state of training or evaluation; its modes are left as they are found.
        scoring: What a score is made of.
        geometry: Rate and window of a beat.
        reference: What is usual; see ``fit_reference``.
        trend_unmasked: Whether the trend is that of the signal before it is masked, as published.

    Raises:
        ConfigurationError: The network lacks what a term needs.
    """

    def __init__(
        self,
        network: RestorationNetwork,
        scoring: Scoring,
        geometry: Geometry,
        reference: NormalReference,
        *,
        trend_unmasked: bool = False,
    ) -> None:
        if ALTERED in {*scoring.terms, *scoring.map_terms} and network.alteration_head is None:
            raise ConfigurationError(
                "scoring has the term altered, but the network was not trained to tell altered records: give "
                "weights.altered a value above 0, or leave the term out."
            )
        if ALTERED_BEAT in scoring.terms and network.beat_network is None:
            raise ConfigurationError(
                "scoring has the term altered_beat, but the network was not trained to tell altered beats: give "
                "weights.altered_beat a value above 0, or leave the term out."
            )
        self.network = network
        self.scoring = scoring
        self.reference = reference
        self._restored = RestoredTerms(
            network,
            geometry,
            cover=scoring.cover,
            passes=scoring.passes,
            patch_seconds=scoring.patch_seconds,
            likelihood=scoring.uncertainty == "likelihood",
            trend_unmasked=trend_unmasked,
        )
        self._rate = geometry.sampling_rate
        self._of_beats = (
            None
            if reference.beats is None
            else BeatTerms(reference.beats, geometry.sampling_rate, network.beat_network)
        )

    @torch.inference_mode()
    def __call__(self, signal: Tensor, recorded: Tensor, beats: Tensor, *, maps: bool = False) -> AnomalyScores:
        """Score a batch.

        Args:
            signal: (B, leads, time) millivolts.
            recorded: (B, leads, time) bool, or a shape that broadcasts to it.
            beats: (B, K) int64 sample index of the R peaks, padded with -1.
            maps: Make maps too.

        Raises:
            ConfigurationError: The reference was not fitted, see ``fit_reference``.
        """
        if self.scoring.standardise and not self.reference.is_fitted:
            raise ConfigurationError(
                "Anomaly scores are told in standard deviations of training records, which this module has not seen: "
                "train it with the callback AnomalyDetection, or set scoring.standardise to false."
            )
        found = self._terms(signal, recorded.expand(signal.shape), beats, maps=maps)
        parts = {name: self._on_scale(name, found.terms[name]) for name in self.scoring.names}
        score = _weighted_mean(parts, self.scoring.terms)
        shown = self._map(found, recorded.expand(signal.shape)) if maps else None
        return AnomalyScores(score, parts, found.has_beat, shown)

    @torch.inference_mode()
    def fit_reference(self, batches: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Take what is usual from training records.

        Args:
            batches: (signal, recorded, beats) of each batch, as ``__call__`` takes them.
        """
        features = torch.cat([self._features(signal, recorded.expand(signal.shape)) for signal, recorded, _ in batches])
        self.reference.fit_features(features)
        if self._of_beats is not None:
            self._of_beats.fit(batches)
        # A mean and a spread need fewer records than a covariance, and these terms cost more passes.
        step = min(max(len(features) // TERM_RECORDS, 1), len(batches))
        found = [self._terms(*batch, maps=True) for batch in batches[::step]]
        self.reference.fit_terms(
            {name: torch.cat([terms.terms[name] for terms in found]) for name in found[0].terms},
            {name: torch.cat([terms.maps[name] for terms in found]) for name in found[0].maps},
        )

    def _on_scale(self, name: str, values: Tensor) -> Tensor:
        return self.reference.standardise(name, values) if self.scoring.standardise else values

    def _features(self, signal: Tensor, recorded: Tensor) -> Tensor:
        with evaluated(self.network):
            return self.network.pooled(self.network.encode_global(signal.masked_fill(~recorded, 0)))

    def _terms(self, signal: Tensor, recorded: Tensor, beats: Tensor, *, maps: bool) -> Terms:
        recorded = recorded.expand(signal.shape)
        signal = signal.masked_fill(~recorded, 0)
        asked = {*self.scoring.terms, *(self.scoring.map_terms if maps else ())}
        with evaluated(self.network):
            found = Terms.none(beats, signal.shape[-1])
            if asked & set(RESTORED_TERMS):
                found = self._restored(signal, recorded, beats, asked, maps=maps)
            if self._of_beats is not None and asked & set(BEAT_TERMS):
                self._of_beats.add(found, signal, recorded, beats, maps=maps)
            if asked & {ALTERED, DISTANCE}:
                self._add_unmasked(found, signal, recorded, asked, maps=maps)
        return found

    def _add_unmasked(self, found: Terms, signal: Tensor, recorded: Tensor, asked: set[str], *, maps: bool) -> None:
        """Add the terms that look at the record as it is."""
        latents = self.network.encode_global(signal)
        if DISTANCE in asked:
            found.terms[DISTANCE] = self.reference.distance(self.network.pooled(latents))
        if ALTERED in asked:
            logit, where = self.network.tell_altered(latents, signal.shape[-1])
            found.terms[ALTERED] = logit
            if maps:
                found.maps[ALTERED] = where.masked_fill(~recorded, torch.nan)

    def _map(self, found: Terms, recorded: Tensor) -> Tensor:
        weights = self.scoring.map_terms
        maps = {}
        for name in weights:
            values = found.maps[name]
            maps[name] = self.reference.standardise_map(name, values) if self.scoring.standardise else values
        return smooth(_weighted_mean(maps, weights), self.scoring.smoothing_seconds, self._rate, recorded)


def _weighted_mean(values: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the mean over terms, by weight; where a term is NaN, that of the others, and NaN where all are."""
    total, mass = torch.zeros(()), torch.zeros(())
    for name, value in values.items():
        if not weights[name]:
            continue
        known = ~value.isnan()
        total = total.to(value) + weights[name] * value.masked_fill(~known, 0)
        mass = mass.to(value) + weights[name] * known
    return total / mass
