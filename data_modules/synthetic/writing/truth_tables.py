"""What is true of each synthetic record, as tables beside a data set: ``OUT/truth/``.

- ``records.parquet``: one row a record; what it was asked to show, wherever that is published wrongly or not at all.
- ``oracle.parquet``: the best possible scores, as a table of predictions like those that ``test`` writes.
- ``masks.parquet``: one row a sign; where on the ECG it is.
- ``population.json``: what all of it was made from.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_modules.synthetic.heart.asked import Asked
from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.people.constitution import Constitution
from data_modules.synthetic.people.truth import Truth
from data_modules.synthetic.signals.disturbances import Problems
from data_modules.synthetic.signals.masks import Mask
from data_modules.synthetic.signals.recording import Recording
from data_modules.synthetic.writing import published
from data_modules.synthetic.writing.published import LABELS
from ecgfair.errors import SourceError

FOLDER: Final = "truth"
RECORDS: Final = "records.parquet"
ORACLE: Final = "oracle.parquet"
MASKS: Final = "masks.parquet"
POPULATION: Final = "population.json"

_ASKED: Final = tuple(one.name for one in fields(Asked))
_CONSTITUTION: Final = tuple(one.name for one in fields(Constitution))
_PROBLEMS: Final = tuple(one.name for one in fields(Problems))
_LEADS: Final = pa.list_(pa.string())
_MASK: Final = pa.struct([("code", pa.string()), ("leads", _LEADS), ("start", pa.float64()), ("end", pa.float64())])

TRUTH_SCHEMA: Final = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        ("fold", pa.int64()),
        ("age", pa.float64()),
        ("sex", pa.int8()),
        ("published_age", pa.float32()),
        ("published_sex", pa.int8()),
        ("recorded_at", pa.string()),
        ("present", pa.list_(pa.string())),
        ("stated", pa.list_(pa.string())),
        *((name, pa.float64()) for name in _ASKED),
        ("beats", pa.list_(pa.float64())),
        ("noise", pa.float64()),
        *((name, _LEADS) for name in _PROBLEMS),
        *((f"constitution/{name}", pa.float64()) for name in _CONSTITUTION),
        *((f"severity/{code}", pa.float64()) for code in CONDITIONS),
        *((f"strength/{code}", pa.float64()) for code in CONDITIONS),
        *((f"oracle/{label}", pa.float64()) for label in LABELS),
        ("masks", pa.list_(_MASK)),
    ]
)
"""Columns of the table that the files are made from: all but the last two kinds are those of ``records.parquet``.

Units as in ``ecgfair.ecg``; beats in seconds; ``age`` and ``sex`` are the true ones; severity in standard deviations.
"""


def truth_table(made: Iterable[tuple[Truth, Recording]]) -> pa.Table:
    """Return the table of some records, by ``TRUTH_SCHEMA``, in their order."""
    return pa.Table.from_pylist([_row(truth, recording) for truth, recording in made], TRUTH_SCHEMA)


def write_truth(folder: Path, table: pa.Table, population: Mapping[str, Any]) -> None:
    """Write ``folder/truth``.

    Args:
        folder: Of the data set or the store.
        table: Of all records, by ``TRUTH_SCHEMA``, in the order of the data set.
        population: What the records were made from; JSON values.
    """
    place = folder / FOLDER
    place.mkdir()
    apart = [name for name in TRUTH_SCHEMA.names if name == "masks" or name.startswith("oracle/")]
    pq.write_table(table.drop_columns(apart), place / RECORDS)
    pq.write_table(oracle_table(table), place / ORACLE)
    pq.write_table(_mask_table(table), place / MASKS)
    text = json.dumps(population, indent=2, ensure_ascii=False) + "\n"
    (place / POPULATION).write_text(text, encoding="utf-8")


def oracle_table(table: pa.Table) -> pa.Table:
    """Return the best possible scores in the columns that ``PredictionTable`` writes.

    Age and sex are those published, null where they are missing; a target is what is stated, label errors included.
    """
    columns = {
        "record_id": table["record_id"],
        "patient_id": table["patient_id"],
        "fold": table["fold"],
        "age": table["published_age"],
        "sex": table["published_sex"],
    }
    of_all = table["stated"].combine_chunks()
    stated, record = pc.list_flatten(of_all), pc.list_parent_indices(of_all).to_numpy()
    for label in LABELS:
        target = np.zeros(table.num_rows, dtype=np.float32)
        target[record[pc.equal(stated, label).to_numpy(zero_copy_only=False)]] = 1
        columns[f"probability/{label}"] = table[f"oracle/{label}"].cast(pa.float32())
        columns[f"target/{label}"] = pa.array(target)
    columns["model_fingerprint"] = pa.array(["oracle"] * table.num_rows, pa.string())
    return pa.table(columns)


def read_truth(folder: str | Path) -> pa.Table:
    """Return ``records.parquet`` of a synthetic data set or store.

    Raises:
        SourceError: The folder has none, or it can't be read.
    """
    return _read(folder, RECORDS)


def read_oracle(folder: str | Path) -> pa.Table:
    """Return ``oracle.parquet`` of a synthetic data set or store, see ``oracle_table``.

    Raises:
        SourceError: The folder has none, or it can't be read.
    """
    return _read(folder, ORACLE)


def read_masks(folder: str | Path, record_ids: Sequence[str] | None = None) -> dict[str, tuple[Mask, ...]]:
    """Return where each record's signs are; ``masks.mask_array`` makes an array of them.

    Args:
        folder: Of a synthetic data set or store.
        record_ids: Those asked for, as in ``records.parquet``; all if None.

    Returns:
        Record id -> its masks, in the order of the data set; empty for a record without a sign.

    Raises:
        SourceError: The folder has no such table, or no such record.
    """
    known: list[str] = _read(folder, RECORDS, ["record_id"])["record_id"].to_pylist()
    wanted = set(known if record_ids is None else record_ids)
    unknown = sorted(wanted.difference(known))
    if unknown:
        raise SourceError(
            f"{Path(folder) / FOLDER} has no record {unknown[0]!r}: expected a record_id of its {RECORDS}."
        )
    table = _read(folder, MASKS)
    found: dict[str, list[Mask]] = defaultdict(list)
    for row in table.filter(pc.is_in(table["record_id"], pa.array(sorted(wanted), pa.string()))).to_pylist():
        found[row["record_id"]].append(Mask(row["code"], tuple(row["leads"]), row["start"], row["end"]))
    return {record_id: tuple(found[record_id]) for record_id in known if record_id in wanted}


def read_population(folder: str | Path) -> dict[str, Any]:
    """Return what a synthetic data set or store was made from.

    Raises:
        SourceError: The folder does not say, or it can't be read.
    """
    path = Path(folder) / FOLDER / POPULATION
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return values


def _row(truth: Truth, recording: Recording) -> dict[str, Any]:
    row: dict[str, Any] = {
        "record_id": str(truth.number),
        "patient_id": str(truth.patient),
        "fold": truth.fold,
        "age": truth.age,
        "sex": truth.sex,
        "published_age": published.age(truth),
        "published_sex": published.sex(truth),
        "recorded_at": truth.recorded_at,
        "present": truth.present,
        "stated": truth.stated,
        "beats": recording.beats,
        "noise": truth.noise,
        "masks": [
            {"code": mask.code, "leads": mask.leads, "start": mask.start, "end": mask.end} for mask in recording.masks
        ],
    }
    row |= {name: getattr(recording.asked, name) for name in _ASKED}
    row |= {name: getattr(recording.problems, name) for name in _PROBLEMS}
    row |= {f"constitution/{name}": getattr(truth.constitution, name) for name in _CONSTITUTION}
    row |= {f"severity/{code}": truth.severity[code] for code in CONDITIONS}
    row |= {f"strength/{code}": truth.strength[code] for code in CONDITIONS}
    return row | {f"oracle/{label}": truth.oracle[label] for label in LABELS}


def _mask_table(table: pa.Table) -> pa.Table:
    of_all = table["masks"].combine_chunks()
    masks, record = pc.list_flatten(of_all), pc.list_parent_indices(of_all)
    ids = table["record_id"].combine_chunks().take(record)
    # Cast, since what was in Parquet in between names the items of its lists otherwise.
    columns = {field.name: masks.field(field.name).cast(field.type) for field in _MASK}
    return pa.table({"record_id": ids} | columns)


def _read(folder: str | Path, name: str, columns: list[str] | None = None) -> pa.Table:
    path = Path(folder) / FOLDER / name
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path} can't be read ({error}): expected what `python -m ecgfair synthesize` writes beside its records."
    )
