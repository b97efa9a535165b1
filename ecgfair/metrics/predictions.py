"""What is measured: the probabilities of some records, the truth, and who the patients are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError
from ecgfair.groups import Grouping
from ecgfair.metrics.fairness_report import OVERALL, SUMMARIES
from ecgfair.metrics.kernels.operating_points import OperatingPoints


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's answers about N records and C labels.

    Args:
        probabilities: (N, C) in [0, 1]; NaN where the model failed, which leaves the label undefined.
        targets: (N, C), 0 or 1.
        label_names: C names.
        groupings: The attributes to compare groups of.
        patients: (N,) int64, equal for records of one patient; -1 where unknown: a patient of its own. ``None`` if
            unknown throughout.
        label_prevalence: C shares of positive training records, which cut the long tail; ``None`` if unknown.
        operating_points: Thresholds, chosen on other records; ``None`` if there are none.
        strata: (N,) int64 stratum of each record, within which ``stratified_auroc`` compares, -1 for a record to be
            compared with none; ``None`` leaves that statistic undefined.

    Raises:
        ConfigurationError: Names are not unique, or one is that of a mean; names and prevalences do not fit the labels.
        ValueError: Groups, patients or strata are not one for each record.
    """

    probabilities: Tensor
    targets: Tensor
    label_names: Sequence[str]
    groupings: Sequence[Grouping] = ()
    patients: Tensor | None = None
    label_prevalence: Sequence[float] | None = None
    operating_points: OperatingPoints | None = None
    strata: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse names that do not tell the labels apart, or that do not fit the columns."""
        names, columns = list(self.label_names), self.probabilities.shape[1] if self.probabilities.ndim == 2 else 0
        shares = names if self.label_prevalence is None else self.label_prevalence
        if not len(names) == len(shares) == columns:
            raise ConfigurationError(
                f"There are {len(names)} label names and {len(shares)} training prevalences for probabilities of the "
                f"shape {tuple(self.probabilities.shape)}: expected (records, labels), and one of each for every label."
            )
        unfit = [name for name in names if name in SUMMARIES or names.count(name) > 1]
        if unfit:
            raise ConfigurationError(
                f"Labels are named {', '.join(sorted(set(unfit)))}: expected names that differ from each other and "
                f"from {', '.join(SUMMARIES)}, which name means over labels."
            )
        attributes = [grouping.attribute for grouping in self.groupings]
        unfit = [name for name in attributes if name == OVERALL or attributes.count(name) > 1]
        if unfit:
            raise ConfigurationError(
                f"Attributes are named {', '.join(sorted(set(unfit)))}: expected names that differ from each other and "
                f"from {OVERALL}, which names the rows about all records."
            )
        self._check_records()

    def _check_records(self) -> None:
        """Refuse what is not one whole number a record."""
        records = len(self.probabilities)
        columns = {f"the group by {grouping.attribute}": grouping.codes for grouping in self.groupings}
        for name, column in {**columns, "patients": self.patients, "strata": self.strata}.items():
            if column is None:
                continue
            if column.shape != (records,) or column.is_floating_point() or column.dtype == torch.bool:
                raise ValueError(
                    f"{name} is {column.dtype} of the shape {tuple(column.shape)}: expected one whole number for each "
                    f"of {records} records."
                )
            if count := int((column < -1).sum()):
                raise ValueError(f"{name} is below -1 for {count} of {records} records: expected numbers from 0 or -1.")

    @cached_property
    def thresholds(self) -> Tensor | None:
        """(C,) float64 thresholds in the order of the labels, NaN where there is none; ``None`` without any."""
        if self.operating_points is None:
            return None
        points = self.operating_points.for_labels(self.label_names)
        return torch.tensor(points.thresholds, dtype=torch.float64, device=self.probabilities.device)

    @property
    def failures(self) -> tuple[int, ...]:
        """C numbers of records whose probability is NaN."""
        missing = self.probabilities.isnan()
        return tuple(missing.sum(0).tolist()) if bool(missing.any()) else (0,) * len(self.label_names)

    @cached_property
    def units(self) -> Tensor:
        """(N,) int64, what is resampled: patients, and records of unknown patients each by itself."""
        records = torch.arange(len(self.probabilities), device=self.probabilities.device)
        if self.patients is None:
            return records
        return torch.where(self.patients < 0, -1 - records, self.patients)
