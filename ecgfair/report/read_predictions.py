"""Read a prediction table and check it: what an audit rests on is right, or it says which record is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfair.ecg import AGE_OVER_89, FEMALE, MALE, UNKNOWN_SEX
from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.report.prediction_columns import ColumnNames, FoundColumns, find_columns
from ecgfair.report.prediction_table import (
    ANOMALY_PERCENTILE,
    ANOMALY_SCORE,
    METADATA_KEY,
    NOTHING_KNOWN,
    Metadata,
    PredictionTable,
)
from ecgfair.report.table_files import column_names, file_metadata, is_missing, numbers, read_table, texts

OLDEST: Final = 130
"""Years that nobody exceeds."""
PTBXL_OVER_89: Final = 300

_SEXES: Final = {"male": MALE, "female": FEMALE}
_SPELT: Final = {"0": MALE, "1": FEMALE, "m": MALE, "f": FEMALE, **_SEXES}
_BY_NAME: Final = ColumnNames()


def read_predictions(
    path: str | Path,
    names: ColumnNames = _BY_NAME,
    attributes: Sequence[str] = (),
    sexes: Mapping[str, str] | None = None,
) -> PredictionTable:
    """Read the predictions of any model.

    Args:
        path: A ``.parquet`` file, or a comma-separated ``.csv`` file with a header row, in UTF-8.
        names: Which column holds what.
        attributes: The groups asked for; the columns that they need are kept.
        sexes: How the table spells ``male`` and ``female``, as in ``{"1": male, "2": female}``; by default 0 and 1, in
            English, or by the initial.

    Raises:
        ConfigurationError: The table is not what it should be; the message names the column and the first record at
            fault.
    """
    path, source = Path(path), str(path)
    found = find_columns(names, column_names(path), source, attributes)
    table = read_table(path, found.all)
    ids, notes = _record_ids(table, found, source), list(found.notes)
    reader = _Reader(table, found, source, ids)
    metadata = _metadata(path)
    probabilities, targets = reader.probabilities(), reader.targets()
    return PredictionTable(
        source,
        tuple(ids),
        probabilities,
        targets,
        tuple(found.labels),
        patient_ids=reader.patients(notes),
        folds=reader.folds(),
        age=reader.age(),
        sex=reader.sex(sexes, notes, is_ours=metadata is not NOTHING_KNOWN),
        anomaly_score=reader.anomaly_score(),
        anomaly_percentile=reader.anomaly_percentile(),
        extra={name: texts(table[name]) for name in found.extra},
        metadata=metadata,
        numbered="record_id" not in found.fields,
        notes=tuple(notes),
    )


class _Reader:
    """Columns of one table."""

    def __init__(self, table: pa.Table, found: FoundColumns, source: str, record_ids: Sequence[str]) -> None:
        self.table, self.fields, self.labels = table, found.fields, found.labels
        self.source, self.record_ids = source, record_ids

    def probabilities(self) -> Tensor:
        """Read (N, C) probabilities."""
        values = self._of_labels(0)
        self._refuse(np.isnan(values), "probabilities are missing or NaN", "a number in [0, 1] for every record", "")
        wrong = (values < 0) | (values > 1)
        self._refuse(wrong, "probabilities lie outside [0, 1]", "the sigmoid of the logits", values)
        return torch.from_numpy(values)

    def targets(self) -> Tensor:
        """Read (N, C) targets."""
        values = self._of_labels(1)
        self._refuse((values != 0) & (values != 1), "targets are neither 0 nor 1", "0 or 1 for every record", values)
        return torch.from_numpy(values)

    def patients(self, notes: list[str]) -> tuple[str, ...] | None:
        """Read the ids of the patients."""
        if "patient_id" not in self.fields:
            notes.append(
                "No patient ids: each record is taken as a patient of its own. Intervals and tests are too optimistic "
                "if patients have several records."
            )
            return None
        ids = [
            text if text.lower() not in ("nan", "none", "null", "<na>") else "" for text in self._texts("patient_id")
        ]
        if unknown := ids.count(""):
            notes.append(f"{unknown} of {len(ids)} records have no patient id and are taken as patients of their own.")
        return tuple(ids)

    def folds(self) -> Tensor | None:
        """Read the folds."""
        if "fold" not in self.fields:
            return None
        values = self._numbers("fold")
        missing = np.isnan(values)
        wrong = ~missing & ((values < 0) | (values % 1 != 0))
        self._refuse_field("fold", wrong, values, "whole numbers")
        return torch.from_numpy(np.where(missing, -1, values).astype(np.int64))

    def age(self) -> Tensor | None:
        """Read the ages."""
        if "age" not in self.fields:
            return None
        values = self._numbers("age")
        advice = f"years from 0 to {OLDEST}, empty where missing"
        if bool((values == PTBXL_OVER_89).any()):
            advice += f" ({PTBXL_OVER_89} is PTB-XL's code for an age over 89: write {AGE_OVER_89:g})"
        self._refuse_field("age", (values < 0) | (values > OLDEST), values, advice)
        return torch.tensor(values)

    def sex(self, sexes: Mapping[str, str] | None, notes: list[str], *, is_ours: bool) -> Tensor | None:
        """Read the sexes."""
        if "sex" not in self.fields:
            return None
        codes = _SPELT if sexes is None else _sex_codes(sexes)
        found = [text.lower() for text in self._texts("sex")]
        read = [UNKNOWN_SEX if is_missing(text) or text == str(UNKNOWN_SEX) else codes.get(text) for text in found]
        strange = [at for at, code in enumerate(read) if code is None]
        if strange:
            expected = ", ".join(f"{text} ({'male' if code == MALE else 'female'})" for text, code in codes.items())
            raise ConfigurationError(
                f"{self.source}: the column {self.fields['sex']!r} holds {found[strange[0]]!r} for record "
                f"{self.record_ids[strange[0]]} ({len(strange)} such records): expected {expected}, or nothing where "
                'unknown. Say how it is spelt, as in --sexes \'{"1": male, "2": female}\'.'
            )
        if sexes is None and not is_ours and {"0", "1"} & set(found):
            notes.append("Sex 0 is taken as male and 1 as female, as in PTB-XL; if not so, say how by --sexes.")
        return torch.tensor(read, dtype=torch.int64)

    def anomaly_score(self) -> Tensor | None:
        """Read the anomaly scores."""
        if ANOMALY_SCORE not in self.fields:
            return None
        values = self._numbers(ANOMALY_SCORE)
        self._refuse_field(ANOMALY_SCORE, np.isinf(values), values, "a finite number, empty where missing")
        return torch.tensor(values)

    def anomaly_percentile(self) -> Tensor | None:
        """Read the percentiles of normals."""
        if ANOMALY_PERCENTILE not in self.fields:
            return None
        values = self._numbers(ANOMALY_PERCENTILE)
        wrong = (values < 0) | (values > 1)
        self._refuse_field(ANOMALY_PERCENTILE, wrong, values, "a share from 0 to 1, empty where missing")
        return torch.tensor(values)

    def _numbers(self, field: str) -> NDArray[np.float64]:
        column = self.fields[field]
        return numbers(self.table[column], column, self.source, self.record_ids)

    def _texts(self, field: str) -> list[str]:
        return texts(self.table[self.fields[field]])

    def _of_labels(self, which: int) -> NDArray[np.float64]:
        """(N, C) of the columns of probabilities, 0, or targets, 1."""
        columns = [of_label[which] for of_label in self.labels.values()]
        values = [numbers(self.table[name], name, self.source, self.record_ids) for name in columns]
        return np.stack(values, axis=1)

    def _refuse(self, wrong: NDArray[np.bool_], what: str, expected: str, values: NDArray[np.float64] | str) -> None:
        """Say how many of the labels' cells are wrong, and which is the first."""
        if not wrong.any():
            return
        row, column = np.argwhere(wrong)[0]
        value = values if isinstance(values, str) else f" {values[row, column]:g}"
        label = list(self.labels)[column]
        raise ConfigurationError(
            f"{self.source}: {wrong.sum()} {what}, the first{value} for label {label} of record "
            f"{self.record_ids[row]}: expected {expected}. Mend these or leave the records out."
        )

    def _refuse_field(self, field: str, wrong: NDArray[np.bool_], values: NDArray[np.float64], expected: str) -> None:
        if wrong.any():
            first = int(wrong.argmax())
            raise ConfigurationError(
                f"{self.source}: the column {self.fields[field]!r} holds {values[first]:g} for record "
                f"{self.record_ids[first]} ({wrong.sum()} such records): expected {expected}."
            )


def _record_ids(table: pa.Table, found: FoundColumns, source: str) -> list[str]:
    if "record_id" not in found.fields:
        return [str(row) for row in range(1, table.num_rows + 1)]
    ids = texts(table[found.fields["record_id"]])
    if "" in ids:
        raise ConfigurationError(
            f"{source}: row {ids.index('') + 1} has no record id ({ids.count('')} such rows): expected a different one "
            "for each row."
        )
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        double = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ConfigurationError(
            f"{source}: {len(ids) - len(set(ids))} rows repeat a record id, the first is {double!r}: expected each "
            "record once."
        )
    return ids


def _sex_codes(sexes: Mapping[str, str]) -> dict[str, int]:
    for meant in sexes.values():
        if meant not in _SEXES:
            raise ConfigurationError(f"sexes has {meant!r} for a value.{did_you_mean(str(meant), _SEXES)}")
    return {str(spelt).strip().lower(): _SEXES[meant] for spelt, meant in sexes.items()}


def _metadata(path: Path) -> Metadata:
    text = file_metadata(path).get(METADATA_KEY)
    if text is None:
        return NOTHING_KNOWN
    try:
        return Metadata.from_json(text)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{path} can't be read: {error}. Write it again, or read it as a CSV file, which has no metadata."
        ) from error
