"""The folder of a run: kept free of a second one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lightning.pytorch.utilities import rank_zero_only

from ecgfair.errors import RunFolderError

CONFIG: Final = "config.yaml"


def is_other_process() -> bool:
    """Whether this is not the first process of a run: the others start when its folder is there already."""
    return bool(getattr(rank_zero_only, "rank", 0))


def check_run_folder(folder: Path, *, overwrite: bool, resumes: bool) -> None:
    """Keep two runs out of one folder."""
    if is_other_process() or not folder.exists() or resumes:
        return
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is a file: expected a folder or nothing there. Choose another --run.")
    if not any(folder.iterdir()):
        return
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder} is not empty and holds no run of ecgfair: choose another folder with --run.")
    if not overwrite:
        raise RunFolderError(
            f"{folder} holds a run already. Go on with it (--ckpt_path {folder}/checkpoints/last.ckpt), replace it "
            "(--overwrite true) or choose another folder (--run)."
        )


def set_aside(path: Path) -> None:
    """Rename a file to the first free ``name-1``, ``name-2``, … beside it."""
    number = 1
    while (aside := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    path.rename(aside)
