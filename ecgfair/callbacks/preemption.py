"""Ends a training that is asked to, with nothing lost: SIGTERM and SIGUSR1, as clusters send them."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Final

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from ecgfair.callbacks.checkpoints import LAST
from ecgfair.errors import PreemptedError

SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)  # Windows has no SIGUSR1


class Preemption(Callback):
    """Writes ``checkpoints/last.ckpt`` at the end of the running batch and stops, when a signal asks for it.

    A signal alone never interrupts anything: it is noted, and looked at where a checkpoint is exact. That is the end of
    a batch after which the optimiser has stepped; where a validation follows, the end of that. So a signal has to come
    as early as a batch and a validation take (``--signal`` of sbatch). Further signals change nothing.

    Of several processes it is enough that one gets the signal: that costs one reduction of one number a batch. All
    write the checkpoint together and stop. ``PreemptedError`` has the exit status 75, on which a batch script requeues
    its job; Lightning's own answers to these signals, which send a collective from within a signal handler and requeue
    by themselves under SLURM, are replaced while training runs, and put back after it.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, Any] = {}
        self._is_saved = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Come last: what others do at the end of a batch, such as averaging weights, belongs into the checkpoint."""
        self._received, self._is_saved = None, False
        others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]
        # A list of its own, since Lightning is walking through the other one.
        trainer.callbacks = [*others, self]  # type: ignore[attr-defined]  # set in the trainer's constructor

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen; Lightning has set its own handlers by now."""
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here, unless gradients are still gathered or a validation follows."""
        is_asked = self._is_asked(trainer)
        has_stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if is_asked and has_stepped and not trainer.is_last_batch and not _validation_follows(trainer):
            self._save(trainer)
            self._stop(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after a validation; the last one of an epoch is followed by the end of it once training goes on."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and self._is_asked(trainer):
            self._save(trainer)
            self._stop(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the end of an epoch without a validation, whose metrics are logged only after this."""
        if self._is_asked(trainer):
            self._save(trainer)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after such an epoch."""
        if self._is_saved:
            self._stop(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave signals to whom they were before."""
        self._forget()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self._forget()

    def _note(self, number: int, _: FrameType | None) -> None:
        self._received = self._received or number

    def _is_asked(self, trainer: Trainer) -> bool:
        """Whether any process got a signal; every process has to ask."""
        return bool(trainer.strategy.reduce_boolean_decision(self._received is not None, all=False))

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / LAST)
        self._is_saved = True

    def _stop(self, trainer: Trainer) -> None:
        asked = "another process" if self._received is None else signal.Signals(self._received).name
        raise PreemptedError(
            f"Stopped after epoch {trainer.current_epoch}, step {trainer.global_step}, as asked by {asked}; "
            f"{Path(trainer.default_root_dir) / LAST} holds it. The same command goes on from there."
        )

    def _forget(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def _validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning will validate after this batch; who resumes from a checkpoint before would never do it."""
    loop = trainer.fit_loop
    # Its own rule, of batches, epochs and minutes; there is no public way to it.
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]  # noqa: SLF001
