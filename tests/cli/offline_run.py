"""Reads what Weights & Biases wrote of a run that was offline: what `wandb sync` would upload."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

HEADER, BLOCK, RECORD = 7, 32768, struct.Struct("<IHB")
FULL, LAST = 1, 4


def records(path: Path) -> Iterator:
    """Yield the records of a .wandb file, a LevelDB log: blocks of 32 KiB, records in parts."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), HEADER, b""
    assert data.startswith(b":W&B")
    while position + RECORD.size <= len(data):
        if BLOCK - position % BLOCK < RECORD.size:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = RECORD.unpack_from(data, position)
        position += RECORD.size
        parts += data[position : position + length]
        position += length
        if kind in (FULL, LAST):
            yield Record.FromString(parts)
            parts = b""


class OfflineRun:
    """The one run in a folder that Weights & Biases wrote into.

    Args:
        folder: The folder of the logger, which has ``wandb/``.
    """

    def __init__(self, folder: Path) -> None:
        import wandb

        wandb.teardown()  # its service has written all when it has ended, not when a run is finished
        (path,) = (Path(folder) / "wandb").glob("offline-run-*/*.wandb")
        self.folder, self.records = path.parent, list(records(path))

    @property
    def id(self) -> str:
        (run,) = (record.run for record in self.records if record.HasField("run"))
        return run.run_id

    @property
    def exit_code(self) -> int:
        (code,) = (record.exit.exit_code for record in self.records if record.HasField("exit"))
        return code

    @property
    def config(self) -> dict:
        updates = [record.config.update for record in self.records if record.HasField("config")]
        updates += [record.run.config.update for record in self.records if record.HasField("run")]
        return {update.key: json.loads(update.value_json) for some in updates for update in some if update.key}

    @property
    def history(self) -> dict[str, list]:
        """All values of each key, in order."""
        values: dict[str, list] = {}
        for record in self.records:
            for item in record.history.item if record.HasField("history") else ():
                values.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
        return values

    def tables(self, key: str) -> list[pd.DataFrame]:
        """All tables under a key, in order."""
        files = [self.folder / "files" / path for path in self.history[f"{key}/path"]]
        return [pd.DataFrame(table["data"], columns=table["columns"]) for table in map(_read, files)]


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
