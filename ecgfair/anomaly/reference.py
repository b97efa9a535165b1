"""What scores and features are usual: the yardstick that puts the terms of a score on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ecgfair.anomaly.normal_beats import NormalBeats
from ecgfair.anomaly.terms import BEAT_TERMS
from ecgfair.ecg import LEADS
from ecgfair.errors import ConfigurationError

LEAST_RECORDS = 16


class NormalReference(nn.Module):
    """Mean and spread of each term and of the encoder's features over training records, kept with the weights.

    They are buffers: a checkpoint holds them, and no gradient reaches them.

    Args:
        terms: Names of the terms of the score.
        features: Number of features.
        leads: Number of leads.
    """

    term_mean: Tensor
    term_std: Tensor
    map_mean: Tensor
    map_std: Tensor
    feature_mean: Tensor
    feature_std: Tensor
    precision: Tensor
    records: Tensor

    def __init__(self, terms: Sequence[str], features: int, leads: int = len(LEADS)) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.beats = NormalBeats(leads) if set(BEAT_TERMS) & set(self.terms) else None
        for name in ("term", "map"):
            self.register_buffer(f"{name}_mean", torch.zeros(len(self.terms)))
            self.register_buffer(f"{name}_std", torch.ones(len(self.terms)))
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_std", torch.ones(features))
        self.register_buffer("precision", torch.eye(features))
        self.register_buffer("records", torch.zeros((), dtype=torch.int64))

    @property
    def is_fitted(self) -> bool:
        """Whether it has seen records."""
        return bool(self.records > 0)

    def fit_features(self, features: Tensor) -> None:
        """Take mean and covariance of features, for ``distance``.

        The covariance is shrunk towards a multiple of the identity by the share that loses least (Ledoit and Wolf 2004,
        doi:10.1016/S0047-259X(03)00096-4), since there may be more features than records.

        Args:
            features: (N, D).

        Raises:
            ConfigurationError: There are fewer than 16 records, or features are not finite.
        """
        if len(features) < LEAST_RECORDS:
            raise ConfigurationError(
                f"The reference of the anomaly scores would be made of {len(features)} training records: expected "
                f"{LEAST_RECORDS} or more. Raise scoring.reference_records, or train on more records."
            )
        if not bool(features.isfinite().all()):
            raise ConfigurationError("Features of training records are not finite: the network has not learned.")
        values = features.double()
        mean, std = values.mean(0), values.std(0).clamp_min(1e-6)
        covariance = shrunk_covariance((values - mean) / std)
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std)
        self.precision.copy_(torch.linalg.inv(covariance))
        self.records.fill_(len(features))

    def fit_terms(self, terms: Mapping[str, Tensor], maps: Mapping[str, Tensor]) -> None:
        """Take mean and standard deviation of each term and of the samples of its map.

        Args:
            terms: (N,) by name, NaN where a record has none.
            maps: (N, leads, time) by name, NaN where there is nothing to tell; terms without a map are left out.
        """
        for position, name in enumerate(self.terms):
            for kind, values in (("term", terms.get(name)), ("map", maps.get(name))):
                known = torch.zeros(0) if values is None else values[values.isfinite()].double()
                if len(known) > 1:
                    getattr(self, f"{kind}_mean")[position] = known.mean()
                    getattr(self, f"{kind}_std")[position] = known.std().clamp_min(1e-6)

    def distance(self, features: Tensor) -> Tensor:
        """Return the logarithm of the squared Mahalanobis distance of features (B, D) to their mean, a number each.

        After Lee et al. 2018, arXiv 1807.03888, with one class. The logarithm keeps a few very strange records from
        outweighing the other terms of a score.
        """
        deviation = (features - self.feature_mean) / self.feature_std
        return torch.einsum("bi,ij,bj->b", deviation, self.precision, deviation).clamp_min(1e-6).log()

    def standardise(self, name: str, values: Tensor) -> Tensor:
        """Return a term, (B,), in standard deviations from its mean over training records."""
        position = self.terms.index(name)
        return (values - self.term_mean[position]) / self.term_std[position]

    def standardise_map(self, name: str, values: Tensor) -> Tensor:
        """Return a term's map, (B, leads, time), in standard deviations from the mean over training samples."""
        position = self.terms.index(name)
        return (values - self.map_mean[position]) / self.map_std[position]


def shrunk_covariance(centred: Tensor) -> Tensor:
    """Return the covariance of (N, D) centred values, shrunk as Ledoit and Wolf 2004 have it; (D, D)."""
    records, size = centred.shape
    covariance = centred.T @ centred / records
    target = covariance.diagonal().mean()
    excess = covariance - target * torch.eye(size, dtype=centred.dtype, device=centred.device)
    squares = centred.square()
    # The sum over all entries of the variance of their estimates.
    noise = ((squares.T @ squares / records) - covariance.square()).sum() / records
    share = (noise / excess.square().sum().clamp_min(1e-12)).clamp(0, 1)
    shrunk: Tensor = covariance - share * excess
    return shrunk
