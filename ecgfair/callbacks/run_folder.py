"""Where a run writes its tables, whether it does, and how."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from lightning.pytorch import Trainer

from ecgfair.errors import WriteError


def run_folder(trainer: Trainer) -> Path:
    """Return where a run writes. Every rank has to ask: Lightning sends rank 0's answer to all."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def leaves_files(trainer: Trainer) -> bool:
    """Whether a run leaves files: one by ``fast_dev_run`` does not."""
    return not getattr(trainer, "fast_dev_run", False)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a Parquet file as a whole or not at all, so that a reader or a crash never meets half of it.

    Args:
        frame: Its index is left out.
        path: Its folder is made if need be; a file that is there is replaced.

    Raises:
        WriteError: The disk is full or can't be written; a file that was there is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    try:
        frame.to_parquet(draft, index=False)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise WriteError(
            f"{path} can't be written ({error}): what was there before is kept. Make room or mend the disk; the same "
            "command then goes on."
        ) from error
