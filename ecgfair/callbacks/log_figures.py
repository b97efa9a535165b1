"""Figures to the run folder and to the loggers that take them. None of them may end a training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from ecgfair.report.ecg_page import save_page


@runtime_checkable
class ImageLogger(Protocol):
    """A logger that keeps images, as Lightning's WandbLogger does."""

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Keep images under a key."""
        ...


def log_figures(trainer: Trainer, key: str, figures: Mapping[str, Figure], folder: Path | None) -> None:
    """Write figures into a folder and hand them to every logger that keeps figures.

    Args:
        trainer: Its loggers; call this on the first process alone.
        key: Under which loggers keep them.
        figures: By the name of their file, without its ending; the same names in every epoch make a series.
        folder: For PNG files; ``None`` for a run that leaves no files.
    """
    if folder is not None:
        for name, figure in figures.items():
            path = folder / f"{name}.png"
            _try(f"{path} was not written", partial(save_page, figure, path))
    for logger in trainer.loggers:
        refused = f"{type(logger).__name__} did not take the figures {key!r}"
        if isinstance(logger, TensorBoardLogger):
            for name, figure in figures.items():
                _try(refused, _to_tensorboard(logger, f"{key}/{name}", figure, trainer.global_step))
        elif isinstance(logger, ImageLogger):
            _try(refused, _to_images(logger, key, figures, trainer.global_step))


def _to_tensorboard(logger: TensorBoardLogger, tag: str, figure: Figure, step: int) -> Callable[[], None]:
    return lambda: logger.experiment.add_figure(tag, figure, step, close=False)


def _to_images(logger: ImageLogger, key: str, figures: Mapping[str, Figure], step: int) -> Callable[[], None]:
    return lambda: logger.log_image(key, list(figures.values()), step=step, caption=list(figures))


def _try(refused: str, hand_over: Callable[[], None]) -> None:
    try:
        hand_over()
    except Exception as error:  # whatever a logger raises, of a network or a full disk
        warnings.warn(f"{refused}: {error}. The training goes on.", stacklevel=3)
