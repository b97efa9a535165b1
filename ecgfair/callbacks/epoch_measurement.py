"""A callback that measures all records of an epoch, and keeps with the weights what validation records chose."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from ecgfair.callbacks.gather import all_records, refuse_skipped_ranks
from ecgfair.callbacks.history import Stage


class Chosen(Protocol):
    """What validation records choose for weights, such as thresholds; a test only uses it."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for a checkpoint that is read with ``weights_only=True``."""
        ...

    def require_disjoint(self, test_folds: Iterable[int], test_data: Iterable[str] = ()) -> None:
        """Refuse to be used on the records that chose; folds of other data are not those."""
        ...


ChosenT = TypeVar("ChosenT", bound=Chosen)


class EpochMeasurement(Callback, ABC, Generic[ChosenT]):
    """Collects the rows of every batch, gathers them over ranks at the end of the epoch, and has them measured.

    What validation records chose is in every checkpoint. It is forgotten when another training starts or other weights
    are loaded, and a test on the folds that chose it is refused. A subclass says which rows it wants of a batch, and
    measures those of all ranks; at each validation it sets ``chosen``. The sanity check is not measured.

    Args:
        key: Under which the state of the callback has what was chosen.
        read: Makes it of what its ``to_dict`` returned.
        logged: Regular expression of the keys that are logged, between ``val/`` and the next ``/``.
    """

    def __init__(self, key: str, read: Callable[[Mapping[str, Any]], ChosenT], logged: str) -> None:
        self.chosen: ChosenT | None = None
        self._key = key
        self._read = read
        self._logged = logged
        self._batches: list[dict[str, Tensor]] = []
        self._loaded_moment: tuple[int, int] | None = None

    @abstractmethod
    def _no_rows(self, pl_module: LightningModule) -> dict[str, Tensor]:
        """What a rank without records has to offer: it fixes the columns and their types on every rank."""

    @abstractmethod
    def _rows(
        self, step: str, pl_module: LightningModule, outputs: Any, batch: Any, dataloader_idx: int
    ) -> dict[str, Tensor]:
        """Return a batch's rows, with the columns of ``_no_rows``, on the CPU; ``step`` is named in messages."""

    @abstractmethod
    def _measure(self, records: dict[str, Tensor], trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        """Measure the records of all ranks, each once, in the order of the store; every rank is called."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew, and refuse the one set-up in which ranks would wait for each other forever."""
        self._batches, self._loaded_moment = [], None
        if stage == TrainerFn.FITTING:
            self.chosen = None
        # Lightning advises to average over ranks what is logged; every rank has the value of all records already.
        warnings.filterwarnings("ignore", rf"It is recommended to use `self\.log\('(val|test)/{self._logged}/")
        refuse_skipped_ranks(trainer, pl_module)

    @override
    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: what was chosen with its weights."""
        return {} if self.chosen is None else {self._key: self.chosen.to_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was chosen with the weights."""
        if self._key in state_dict:
            self.chosen = self._read(state_dict[self._key])

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note which epoch the weights are of, which Lightning restores for ``fit`` alone; forget an older choice."""
        self._loaded_moment = (checkpoint["epoch"], checkpoint["global_step"])
        self.chosen = None

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the batches of an epoch that did not end."""
        self._start(trainer, pl_module)

    @override
    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise; refuse what was chosen on the records that are tested."""
        self._start(trainer, pl_module)
        if trainer.ckpt_path is not None and self._loaded_moment is None:
            # A checkpoint of weights alone: what is at hand was chosen for other weights.
            self.chosen = None
        folds = _folds(trainer)
        if self.chosen is not None and folds is not None:
            self.chosen.require_disjoint(folds["test"], data_of(trainer))

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what the epoch's end needs."""
        self._batches.append(self._rows("validation_step", pl_module, outputs, batch, dataloader_idx))

    @override
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what the epoch's end needs."""
        self._batches.append(self._rows("test_step", pl_module, outputs, batch, dataloader_idx))

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, unless it is the sanity check."""
        if trainer.sanity_checking:
            self._batches = []
        else:
            self._measure(self._gathered(trainer, pl_module), trainer, pl_module, "val")

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure."""
        self._measure(self._gathered(trainer, pl_module), trainer, pl_module, "test")

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch; a subclass may refuse here what would fail at its end, the sanity check's included."""
        self._batches = []

    def _gathered(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Tensor]:
        own, self._batches = self._batches, []
        return all_records(self._no_rows(pl_module), own, trainer)

    def _log(self, pl_module: LightningModule, values: Mapping[str, float]) -> None:
        """Log values that are the same on every rank, so that none has to wait for another."""
        for key, value in values.items():
            pl_module.log(key, value, on_step=False, on_epoch=True, batch_size=1, sync_dist=False, rank_zero_only=False)

    def _weights_at(self, trainer: Trainer) -> tuple[int, int]:
        """Return epoch and step of the weights."""
        if trainer.state.fn != TrainerFn.FITTING and self._loaded_moment is not None:
            return self._loaded_moment
        return trainer.current_epoch, trainer.global_step

    def _validation_records(self, trainer: Trainer) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
        """Return the records that choose in words, their folds and data, none where the data module does not say."""
        folds = (_folds(trainer) or {}).get("validation", ())
        return f"validation records at epoch {self._weights_at(trainer)[0]}", tuple(folds), data_of(trainer)


def data_of(trainer: Trainer) -> tuple[str, ...]:
    """Return what tells the data from others, a text a store; nothing where the data module does not say."""
    return tuple(getattr(getattr(trainer, "datamodule", None), "data_identity", ()))


def _folds(trainer: Trainer) -> Mapping[str, Any] | None:
    folds: Mapping[str, Any] | None = getattr(getattr(trainer, "datamodule", None), "folds", None)
    return folds
