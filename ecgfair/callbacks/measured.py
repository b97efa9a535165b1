"""From the gathered records of an epoch to what is measured: groups, strata, and who the patients are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from ecgfair.callbacks.outputs import label_description
from ecgfair.errors import ConfigurationError
from ecgfair.groups import CROSS, DEFAULT_AGE_EDGES, DEMOGRAPHICS, age_strata, group_by_demographics
from ecgfair.metrics.kernels.operating_points import OperatingPoints
from ecgfair.metrics.predictions import Predictions

DEFAULT_ATTRIBUTES: Final = ("sex", "age", "sex_x_age")


@runtime_checkable
class RecordSource(Protocol):
    """A data module that can name the records it streams."""

    def records(self, index: NDArray[Any], columns: Sequence[str] = ()) -> pd.DataFrame:
        """Return record_id, patient_id, fold, age and sex of the records at these positions, and further columns."""
        ...


@dataclass(frozen=True)
class Attributes:
    """Which groups are compared.

    Args:
        names: ``sex``, ``age``, columns of the records table, and intersections such as ``sex_x_age``.
        age_edges: First year of each age band but the youngest.

    Raises:
        ConfigurationError: A name comes twice, or the edges do not rise.
    """

    names: tuple[str, ...] = DEFAULT_ATTRIBUTES
    age_edges: tuple[int, ...] = DEFAULT_AGE_EDGES

    def __post_init__(self) -> None:
        """Refuse what could only fail once the records are there; lists, as YAML has them, become tuples."""
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "age_edges", tuple(self.age_edges))
        if len(set(self.names)) < len(self.names):
            raise ConfigurationError(f"attributes is {list(self.names)}: expected each once.")
        for name in self.demographic:
            group_by_demographics(name, torch.zeros(0), torch.zeros(0, dtype=torch.int64), self.age_edges)

    @property
    def demographic(self) -> tuple[str, ...]:
        """Those that every batch knows: of sex and age alone. Their groups are fixed by the configuration."""
        return tuple(name for name in self.names if set(name.split(CROSS)) <= set(DEMOGRAPHICS))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the records table that the others need."""
        others = [part for name in self.names if name not in self.demographic for part in name.split(CROSS)]
        return tuple(dict.fromkeys(part for part in others if part not in DEMOGRAPHICS))

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Names of the groups of the demographic attributes."""
        nobody = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        return {name: group_by_demographics(name, *nobody, self.age_edges).names for name in self.demographic}


def predictions_of(
    records: Mapping[str, Tensor],
    pl_module: LightningModule,
    attributes: Attributes,
    table: pd.DataFrame | None = None,
    operating_points: OperatingPoints | None = None,
) -> Predictions:
    """Describe gathered records for ``metrics.fairness.evaluate``.

    Args:
        records: See ``gather.all_records``.
        pl_module: The module, see ``outputs.label_description``.
        attributes: Which groups to compare.
        table: The records' rows, with ``attributes.columns``, see ``records_table``; ``None`` leaves such out.
        operating_points: Thresholds.

    Raises:
        ConfigurationError: See ``Predictions``.
        ValueError: Age or sex are not what they should be.
    """
    names, prevalence = label_description(pl_module)
    columns = {} if table is None else {name: table[name].tolist() for name in attributes.columns}
    age, sex = records["age"], records["sex"]
    asked = attributes.demographic if table is None else attributes.names
    return Predictions(
        records["probabilities"],
        records["targets"],
        names,
        tuple(group_by_demographics(name, age, sex, attributes.age_edges, columns) for name in asked),
        label_prevalence=prevalence,
        operating_points=operating_points,
        strata=age_strata(age),
    )


def records_table(records: Mapping[str, Tensor], trainer: Trainer, columns: Sequence[str] = ()) -> pd.DataFrame | None:
    """Return the rows of the records, in their order; ``None`` if the data module can't name its records.

    Raises:
        ConfigurationError: Columns are asked for that it does not have.
    """
    source = getattr(trainer, "datamodule", None)
    if not isinstance(source, RecordSource):
        if columns:
            raise ConfigurationError(
                f"Groups are asked for by {', '.join(columns)}, which are columns of the records table; "
                f"{type(source).__name__} has no records(index, columns). Expected a data module of ecgfair."
            )
        return None
    return source.records(records["index"].numpy(), columns).reset_index(drop=True)


def patients_of(table: pd.DataFrame | None) -> Tensor | None:
    """Return (N,) int64 patients, -1 where unknown; ``None`` without a table."""
    if table is None:
        return None
    # Sorted, so that the order of the records does not matter to the resamples; -1 where missing.
    codes, _ = pd.factorize(table["patient_id"], sort=True)
    return torch.from_numpy(codes.astype("int64"))
