"""Weights & Biases that may be absent, out of reach or broken without ending a training: the run folder has it all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from ecgfair.cli.run_folder import is_other_process

PATIENCE: Final = {"init_timeout": 30, "finish_timeout": 60}
"""Seconds to wait for the server at the start, and at the end for what is not uploaded by then.

The defaults of Weights & Biases are 90, and for ever.
"""
AFTER_ALL: Final = "The training goes on, and the run folder has everything"


def build_logger(class_type: type[Logger], *args: Any, **kwargs: Any) -> Logger:
    """Build the logger that a configuration names, Weights & Biases as one that ends no training.

    It is an instantiator of jsonargparse, so the configuration names Lightning's ``WandbLogger``, by short name too.
    """
    if class_type is not WandbLogger:
        return class_type(*args, **kwargs)
    try:
        return FailSafeWandbLogger(*args, **kwargs)
    except ModuleNotFoundError:
        if os.environ.get("WANDB_MODE") != "disabled":
            _tell("is not installed (pip install 'ecgfair[wandb]')")
        return DummyLogger()


class FailSafeWandbLogger(WandbLogger):
    """Lightning's logger for Weights & Biases; whatever it raises is told in one line, and the training goes on.

    Where the server can't be reached or nobody is logged in, the run is kept offline. It never asks at the terminal,
    which would wait for an answer overnight. What fails later on makes it silent from then on; a table or a figure that
    is refused costs no more than that. The run is closed when the training ends, not when the process does.

    Args:
        args: As for Lightning's.
        kwargs: As for Lightning's; ``settings`` beyond ``PATIENCE`` as a mapping.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given_up = False

    def keep_in(self, folder: Path) -> None:
        """Write the files of Weights & Biases into a folder, if the configuration names none."""
        if self._wandb_init["dir"] == ".":
            self._wandb_init["dir"] = self._save_dir = str(folder)

    @override
    def __getstate__(self) -> dict[str, Any]:
        """Go to a spawned process, which joins the run if there is one; Lightning's would begin one here."""
        state = dict(self.__dict__)
        if self._experiment is not None:
            state["_id"], state["_name"] = self._experiment.id, self._experiment.name
            state["_attach_id"] = getattr(self._experiment, "_attach_id", None)
            state["_experiment"] = None
        return state

    @property
    @override
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of Weights & Biases; one that takes everything and keeps nothing after a failure."""
        if self._experiment is None and not self._given_up:
            self._begin()
        return DummyLogger().experiment if self._given_up else self._experiment

    def _begin(self) -> None:
        try:
            self._wandb_init["settings"] = _patient(self._wandb_init.get("settings"))
            with _nobody_at_the_terminal():
                self._open()
        except Exception as error:  # whatever Weights & Biases raises of accounts, networks and disks
            if self._is_offline():
                self._give_up("does not start", error)
                return
            self._wandb_init["mode"] = "offline"
            try:
                self._open()
            except Exception as second:  # likewise
                self._give_up("does not start", second)
                return
            folder = Path(self._wandb_init["dir"] or ".") / "wandb"
            _tell(f"can't be reached ({_reason(error)}), so this run is offline: `wandb sync` uploads it from {folder}")

    def _open(self) -> None:
        _ = super().experiment

    def _is_offline(self) -> bool:
        asked = (os.environ.get("WANDB_MODE"), self._wandb_init.get("mode"))
        return self._offline or any(mode in ("offline", "dryrun", "disabled") for mode in asked)

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._try("does not take metrics any more", lambda: WandbLogger.log_metrics(self, metrics, step))

    @override
    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self._try("does not take the configuration", lambda: WandbLogger.log_hyperparams(self, params))

    @override
    @rank_zero_only
    def log_table(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        def log() -> None:
            import wandb

            # A longer table would be cut without a word at 10 000 rows.
            rows = len(data or () if dataframe is None else dataframe)
            wandb.Table.MAX_ROWS = max(wandb.Table.MAX_ROWS, rows)
            wandb.Table.MAX_ARTIFACT_ROWS = max(wandb.Table.MAX_ARTIFACT_ROWS, rows)
            WandbLogger.log_table(self, key, columns, data, dataframe, step)

        self._try(f"did not take the table {key!r}", log, is_over=False)

    @override
    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        self._try(
            f"did not take the figures {key!r}",
            lambda: WandbLogger.log_image(self, key, images, step, **kwargs),
            is_over=False,
        )

    @override
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        self._try("did not take a checkpoint", lambda: WandbLogger.after_save_checkpoint(self, checkpoint_callback))

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        def close() -> None:
            WandbLogger.finalize(self, status)
            run, self._experiment = self._experiment, None
            if run is not None:
                self._id = self._wandb_init["id"] = run.id  # so that whoever logs once more goes on with this run
                run.finish(exit_code=int(status != "success"))

        self._try("could not close the run", close)

    def _try(self, what: str, action: Callable[[], None], *, is_over: bool = True) -> None:
        if self._given_up:
            return
        try:
            action()
        except Exception as error:  # see `_begin`
            if is_over:
                self._give_up(what, error)
            else:
                _tell(f"{what}: {_reason(error)}")

    def _give_up(self, what: str, error: Exception) -> None:
        self._given_up, self._experiment = True, None
        _tell(f"{what}: {_reason(error)}")


def _reason(error: Exception) -> str:
    said = str(error).strip()
    return said.splitlines()[0].rstrip(".") if said else type(error).__name__


def _tell(what: str) -> None:
    if not is_other_process():
        print(f"ecgfair: Weights & Biases {what}. {AFTER_ALL}.", file=sys.stderr)  # noqa: T201  # one line, no traceback


def _patient(settings: Any) -> Any:
    """Add ``PATIENCE`` where neither the settings nor the environment say otherwise, and this version knows of it."""
    import wandb

    if settings is not None and not isinstance(settings, Mapping):
        return settings
    known = getattr(wandb.Settings, "model_fields", PATIENCE)
    default = {
        key: value for key, value in PATIENCE.items() if key in known and f"WANDB_{key.upper()}" not in os.environ
    }
    return default | dict(settings or {})


@contextmanager
def _nobody_at_the_terminal() -> Iterator[None]:
    """Without a terminal Weights & Biases raises where it would ask for an account."""
    own = sys.stdin
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = own
