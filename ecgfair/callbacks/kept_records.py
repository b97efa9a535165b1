"""The records of the best evaluation so far, on the disk while a training runs, so that a resumed one has its tables.

A folder of safetensors files, one an evaluation, that is removed once the tables are written. They are no part of the
checkpoints, which people share: what is in them is of patients.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
from safetensors.torch import save as dump_safetensors
from torch import Tensor

from ecgfair.callbacks.history import Moment
from ecgfair.errors import RunFolderError
from ecgfair.metrics.kernels.operating_points import OperatingPoints
from ecgfair.training.checkpoint_io import remove_drafts, write_whole

FOLDER: Final = "best_evaluation"
_MOST: Final = 2
"""Evaluations kept. The one before the best is what counts for who goes on from a checkpoint between the two."""


@dataclass(frozen=True, eq=False)
class KeptRecords:
    """What an evaluation is made of.

    Args:
        moment: When it was made.
        records: See ``gather.all_records``.
        operating_points: Chosen on them.
    """

    moment: Moment
    records: dict[str, Tensor]
    operating_points: OperatingPoints | None


def keep(folder: Path, kept: KeptRecords) -> None:
    """Write the records of the best evaluation so far; of earlier ones the last is kept.

    Raises:
        WriteError: The disk is full or can't be written.
    """
    points = None if kept.operating_points is None else kept.operating_points.to_dict()
    said = {"moment": json.dumps(asdict(kept.moment)), "operating_points": json.dumps(points)}
    columns = {name: column.contiguous() for name, column in kept.records.items()}
    write_whole(folder / FOLDER / f"step-{kept.moment.step:09d}.safetensors", dump_safetensors(columns, said))
    for earlier in _files(folder)[:-_MOST]:
        earlier.unlink()


def kept_until(folder: Path, step: int) -> KeptRecords | None:
    """Return the best evaluation until an optimiser step; none where there is none. What came later is removed.

    Raises:
        RunFolderError: The file is damaged.
    """
    remove_drafts(folder / FOLDER)
    found = None
    for path in _files(folder):
        kept = _read(path)
        if kept.moment.step <= step:
            found = kept
        else:
            path.unlink()
    return found


def remove(folder: Path) -> None:
    """Remove what was kept."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*.safetensors"))


def _read(path: Path) -> KeptRecords:
    try:
        with safetensors.safe_open(path, "pt") as file:
            said: Mapping[str, str] = file.metadata()
            points: dict[str, Any] | None = json.loads(said["operating_points"])
            return KeptRecords(
                Moment(**json.loads(said["moment"])),
                {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118  # it is no mapping
                None if points is None else OperatingPoints.from_dict(points),
            )
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{path} can't be read: {error}. Remove it: the run goes on, without intervals if its best epoch was that."
        ) from error
