"""Silence for warnings of the stack that no user can act on."""

from __future__ import annotations

import logging
import warnings
from typing import Final

HOME_NOTICES: Final = (
    "mkdir -p failed for path",
    "is not a writable directory",
    "Matplotlib created a temporary cache directory",
    "Matplotlib is building the font cache",
)
"""What Matplotlib says of a home that is not there or can't be written to. It does without, in a temporary folder."""


def quiet_without_home() -> None:
    """Have Matplotlib keep to itself that it finds no home; before it is imported, which is when it looks."""
    for name in ("matplotlib", "matplotlib.font_manager"):
        logging.getLogger(name).addFilter(_is_worth_telling)


def _is_worth_telling(record: logging.LogRecord) -> bool:
    return not any(notice in record.getMessage() for notice in HOME_NOTICES)


def quiet() -> None:
    """Silence what Lightning says to everybody and what does not apply here, each with its reason."""
    ignored = (
        # `main` takes its arguments as a list, for tests too; they are those of the command line.
        r"LightningCLI's args parameter is intended.*",
        # Of Lightning's own code, nothing a user can change.
        r".*isinstance\(treespec, LeafSpec\).*is deprecated.*",
        # Lightning 2.6 calls jsonargparse by names that go with its version 5; pyproject.toml keeps it below.
        r"(?s).*JsonargparseDeprecationWarning.*",
        r"(?s).*deprecated in\s+v4\..*removed in\s+v5.*",
        # The loader gathers a batch in one memory copy; whether processes help is `--data.init_args.num_workers`.
        r".*does not have many workers.*",
        # CSVLogger says so when a run is resumed, and the folder was looked after.
        r"Experiment logs directory .* exists and is not empty.*",
        r"Checkpoint directory .* exists and is not empty.*",
        # Few batches an epoch are what tiny data sets have.
        r"The number of training batches .* is smaller than the logging interval.*",
        # `test` measures the averaged weights, which is what the checkpoint holds as the model's.
        r"You're using the WeightAveraging callback, but loading a checkpoint outside.*",
        # A frozen encoder stays in evaluation mode on purpose.
        r"Found \d+ module\(s\) in eval mode at the start of training.*",
        # Whether to use a GPU is the user's choice (--trainer.accelerator).
        r"GPU available but not used.*",
    )
    for message in ignored:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
