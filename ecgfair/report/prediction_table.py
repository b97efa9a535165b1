"""The prediction table: one row a record, all that an audit needs of a model, ours or any other.

The columns of the file are record_id, patient_id, fold, age, sex, any others, and ``probability/<label>`` and
``target/<label>`` of each label; of a model that scores anomalies also ``anomaly_score``, and ``anomaly_percentile``
where it is calibrated. What is true of the model and not of a record (how common a label was in training, the
thresholds that validation records chose) travels in the key-value metadata of the Parquet file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ecgfair.ecg import UNKNOWN_SEX
from ecgfair.errors import ConfigurationError
from ecgfair.groups import CROSS, DEFAULT_AGE_EDGES, DEMOGRAPHICS, Grouping, group_by_demographics
from ecgfair.metrics.kernels.operating_points import OperatingPoints

PROBABILITY: Final = "probability/{label}"
TARGET: Final = "target/{label}"
ANOMALY_SCORE: Final = "anomaly_score"
"""Higher is stranger, on the scale of the model."""
ANOMALY_PERCENTILE: Final = "anomaly_percentile"
"""Share of normal records that a record is stranger than."""
ANOMALY_TERM: Final = "anomaly/{term}"
"""A term of the score, on the score's scale; NaN where a record has no such term."""
LABEL: Final = "{label}"
"""Stands for the name of a label in the name of a column."""

METADATA_KEY: Final = b"ecgfair"
FORMAT: Final = 1


@dataclass(frozen=True)
class Metadata:
    """What is true of the model that made a table.

    Args:
        label_prevalence: Share of the training records that are positive, by label; ``None`` if unknown.
        operating_points: Thresholds that validation records chose; ``None`` if there are none.
        model_fingerprint: Of its weights; empty if unknown.
        data: What tells the data of the records from others, a text a store; empty if unknown.
    """

    label_prevalence: Mapping[str, float] | None = None
    operating_points: OperatingPoints | None = None
    model_fingerprint: str = ""
    data: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Return what is written into the file."""
        points = self.operating_points
        values = {
            "format": FORMAT,
            "label_prevalence": None if self.label_prevalence is None else dict(self.label_prevalence),
            "operating_points": None if points is None else points.to_dict(),
            "model_fingerprint": self.model_fingerprint,
            "data": list(self.data),
        }
        return json.dumps(values).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Metadata:
        """Read what ``to_json`` wrote.

        Raises:
            ConfigurationError: It is not that, or of a later version.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            if values["format"] != FORMAT:
                raise ConfigurationError(f"its metadata has the format {values['format']}, expected {FORMAT}")
            points, prevalence = values["operating_points"], values["label_prevalence"]
            return cls(
                None if prevalence is None else {str(name): float(share) for name, share in prevalence.items()},
                None if points is None else OperatingPoints.from_dict(points),
                str(values["model_fingerprint"]),
                tuple(str(one) for one in values.get("data", ())),  # earlier versions did not write it
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"its metadata is not what ecgfair writes ({error!r})") from error


NOTHING_KNOWN: Final = Metadata()


@dataclass(frozen=True, eq=False)
class PredictionTable:
    """A model's answers about N records and C labels, checked.

    Args:
        source: Where the table came from, for messages.
        record_ids: N ids, all different.
        probabilities: (N, C) float64 in [0, 1].
        targets: (N, C) float64, 0 or 1.
        label_names: C names.
        patient_ids: N ids, empty where unknown; ``None`` if the table has none: then a record is a patient of its own.
        folds: (N,) int64, -1 where unknown; ``None`` if the table has none.
        age: (N,) float64 years, NaN where missing; ``None`` if the table has none.
        sex: (N,) int64, codes of ``ecg``; ``None`` if the table has none.
        anomaly_score: (N,) float64, higher is stranger, NaN where missing; ``None`` if the table has none.
        anomaly_percentile: (N,) float64 in [0, 1], NaN where missing; ``None`` if the table has none.
        extra: Further columns to group by, N texts each, empty where missing.
        metadata: What is known of the model.
        numbered: Whether the table had no ids, so that ``record_ids`` are the numbers of its rows.
        notes: What was left out or taken for granted in reading, a sentence each.
    """

    source: str
    record_ids: tuple[str, ...]
    probabilities: Tensor
    targets: Tensor
    label_names: tuple[str, ...]
    patient_ids: tuple[str, ...] | None = None
    folds: Tensor | None = None
    age: Tensor | None = None
    sex: Tensor | None = None
    anomaly_score: Tensor | None = None
    anomaly_percentile: Tensor | None = None
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)
    metadata: Metadata = NOTHING_KNOWN
    numbered: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return how many records there are."""
        return len(self.record_ids)

    @property
    def patients(self) -> Tensor | None:
        """(N,) int64, equal for records of one patient, -1 where unknown; ``None`` if unknown throughout."""
        if self.patient_ids is None:
            return None
        # Sorted, so that the order of the rows changes no resample.
        codes, _ = pd.factorize(np.array([name or None for name in self.patient_ids], dtype=object), sort=True)
        return torch.from_numpy(codes.astype("int64"))

    def take(self, rows: Sequence[int], label_names: Sequence[str] | None = None) -> PredictionTable:
        """Return some records, and some labels, in the order asked for.

        Args:
            rows: Their positions.
            label_names: Of labels that are there; ``None`` for all.
        """
        names = self.label_names if label_names is None else tuple(label_names)
        at, columns = torch.tensor(rows, dtype=torch.int64), [self.label_names.index(name) for name in names]
        ids = self.patient_ids
        return replace(
            self,
            record_ids=tuple(self.record_ids[row] for row in rows),
            probabilities=self.probabilities[at][:, columns],
            targets=self.targets[at][:, columns],
            label_names=names,
            patient_ids=None if ids is None else tuple(ids[row] for row in rows),
            folds=None if self.folds is None else self.folds[at],
            age=None if self.age is None else self.age[at],
            sex=None if self.sex is None else self.sex[at],
            anomaly_score=None if self.anomaly_score is None else self.anomaly_score[at],
            anomaly_percentile=None if self.anomaly_percentile is None else self.anomaly_percentile[at],
            extra={name: [values[row] for row in rows] for name, values in self.extra.items()},
        )

    def of_folds(self, folds: Iterable[int]) -> PredictionTable:
        """Return the records of some folds.

        Raises:
            ConfigurationError: The table knows no folds, or has no record of one of them.
        """
        if self.folds is None:
            raise ConfigurationError(
                f"Folds are asked for, but {self.source} has no column of folds: name it with --columns.fold."
            )
        asked, known = list(folds), sorted(set(self.folds.tolist()) - {-1})
        if missing := [fold for fold in asked if fold not in known]:
            raise ConfigurationError(f"{self.source} has no record of fold {missing[0]}: expected some of {known}.")
        return self.take(torch.isin(self.folds, torch.tensor(asked)).nonzero()[:, 0].tolist())


def groupings(
    table: PredictionTable, attributes: Sequence[str], age_edges: Sequence[int] = DEFAULT_AGE_EDGES
) -> tuple[Grouping, ...]:
    """Group the records of a table.

    Args:
        table: Read with these attributes, so that it has their columns.
        attributes: ``sex``, ``age``, other columns, and intersections such as ``sex_x_age_x_device``.
        age_edges: See ``groups.age_bands``.

    Raises:
        ConfigurationError: The table has no such column, or one that makes no groups; the edges do not rise.
    """
    for attribute in attributes:
        parts = [attribute] if attribute in table.extra else attribute.split(CROSS)
        for name in set(parts) & set(DEMOGRAPHICS):
            if getattr(table, name) is None:
                raise ConfigurationError(
                    f"Groups are asked for by {attribute}, but {table.source} has no column {name!r}: name it with "
                    f"--columns.{name}, or leave these groups out."
                )
    age = torch.full((len(table),), torch.nan) if table.age is None else table.age
    sex = torch.full((len(table),), UNKNOWN_SEX) if table.sex is None else table.sex
    return tuple(group_by_demographics(name, age, sex, age_edges, table.extra) for name in attributes)


def write_predictions(
    path: Path,
    rows: pd.DataFrame,
    probabilities: Tensor | None,
    targets: Tensor,
    label_names: Sequence[str],
    metadata: Metadata,
) -> None:
    """Write a table to a Parquet file. A reader never sees half of it, and a failed write leaves the one before.

    Args:
        path: Of the file; its folder is made.
        rows: record_id, patient_id, fold, age, sex and further columns of N records, such as ``anomaly_score``.
        probabilities: (N, C); ``None`` for a model that tells no labels.
        targets: (N, C).
        label_names: C names.
        metadata: What is known of the model.

    Raises:
        ConfigurationError: One of the further columns has the name of a label's.
    """
    values = {
        name.replace(LABEL, label): tensor[:, column].cpu().numpy()
        for column, label in enumerate(label_names)
        for name, tensor in ((PROBABILITY, probabilities), (TARGET, targets))
        if tensor is not None
    }
    if double := [str(name) for name in rows.columns if name in values]:
        raise ConfigurationError(f"The prediction table would have two columns {double[0]!r}: expected one a label.")
    frame = pd.concat([rows.reset_index(drop=True), pd.DataFrame(values, index=range(len(rows)))], axis=1)
    frame["model_fingerprint"] = metadata.model_fingerprint
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA_KEY: metadata.to_json()})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    pq.write_table(table, partial)
    partial.replace(path)
