"""Measures at each validation and test epoch how well the labels are found, for all records and for each group."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from ecgfair.callbacks.gather import all_records
from ecgfair.callbacks.history import History, Moment, Stage
from ecgfair.callbacks.outputs import label_description, no_records, step_records
from ecgfair.errors import ConfigurationError
from ecgfair.groups import DEFAULT_AGE_EDGES
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.fairness_report import FairnessReport
from ecgfair.metrics.long_tail import DEFAULT_HEAD, DEFAULT_TAIL, LongTail
from ecgfair.report.fairness_table import console, render

FILE_NAME: Final = "fairness.parquet"


class Fairness(Callback):
    """Log AUROC overall, along the long tail and by sex and age; keep every value in the run folder; print a table.

    The module has ``label_names`` and ``label_prevalence`` (share of the training records that are positive, one a
    label), and its ``validation_step`` and ``test_step`` return a mapping with ``probabilities`` (B, C) in [0, 1]. A
    batch is an ``EcgBatch``; its ``index`` tells a record that a padding sampler repeats from a new one, so the values
    are those of one process under any sharding. A rank may have fewer records than another, or none if its loader has
    no length. The sanity check is not measured.

    Every rank logs the same keys with the same values: ``val/auroc/macro``, ``head``, ``medium``, ``tail``,
    ``common_rare_gap`` and ``val/fair/<attribute>/auroc_gap``, ``worst_auroc`` (see ``metrics.fairness.evaluate``),
    ``test/`` likewise; undefined is NaN. All rows go to ``fairness.parquet`` in the run folder (the first logger's,
    else ``default_root_dir``), each with its epoch and step, and with the reason where a value is undefined. A resumed
    run keeps the rows from before the checkpoint; a fresh one replaces the file.

    Args:
        age_edges: First year of each age band but the youngest.
        min_support: Positives and negatives a label needs in a group.
        min_support_overall: Positives and negatives a label needs among all records.
        head: A label is head from this share of positive training records upwards.
        tail: A label is tail below this share.
        reference: The group the others are compared with, by attribute, such as ``{"sex": "male"}``; by default the
            one with the most records.

    Raises:
        ConfigurationError: A value is impossible; or, on running, module, outputs or batch lack what is needed.
    """

    def __init__(
        self,
        age_edges: tuple[int, ...] = DEFAULT_AGE_EDGES,
        min_support: int = 5,
        min_support_overall: int = 1,
        head: float = DEFAULT_HEAD,
        tail: float = DEFAULT_TAIL,
        reference: dict[str, str] | None = None,
    ) -> None:
        self.config = FairnessConfig(
            tuple(age_edges), min_support, min_support_overall, LongTail(head, tail), reference or {}
        )
        self._batches: list[dict[str, Tensor]] = []
        self._history = History()
        self._folder = Path()
        self._latest: tuple[Moment, FairnessReport] | None = None
        self._checkpoint_moment: tuple[int, int] | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew, and refuse the one set-up in which ranks would wait for each other forever."""
        self._latest = None
        self._checkpoint_moment = None
        # Lightning advises to average over ranks what is logged; every rank has the value of all records already.
        warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\('(val|test)/(auroc|fair)/")
        flag = "allow_zero_length_dataloader_with_multiple_devices"
        owners = (pl_module, getattr(trainer, "datamodule", None))
        if trainer.world_size > 1 and any(getattr(owner, flag, False) for owner in owners):
            raise ConfigurationError(
                f"{flag} is set: Lightning then skips the evaluation on a rank without records, and the other ranks "
                "wait for its part. Unset it, and give every rank a record or a loader without a length."
            )

    @override
    def on_load_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Note which epoch the weights are of: Lightning restores it for ``fit`` alone."""
        self._checkpoint_moment = (checkpoint["epoch"], checkpoint["global_step"])

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the history of a resumed run."""
        path = _run_folder(trainer) / FILE_NAME
        resumed = trainer.current_epoch > 0 or trainer.global_step > 0
        self._history = History.read(path) if resumed and trainer.is_global_zero else History()

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the batches of an earlier epoch."""
        self._start(pl_module)

    @override
    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the batches of an earlier epoch."""
        self._start(pl_module)

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
        self._batches.append(step_records("validation_step", pl_module, outputs, batch, dataloader_idx))

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
        self._batches.append(step_records("test_step", pl_module, outputs, batch, dataloader_idx))

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, log and write, unless it is the sanity check."""
        if trainer.sanity_checking:
            self._batches = []
        else:
            self._measure(trainer, pl_module, "val")

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, log and write."""
        self._measure(trainer, pl_module, "test")

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the table: of the best epoch after ``fit``, of this evaluation otherwise.

        It is the last of the hooks, after the progress bar has left the terminal.
        """
        if self._latest is None or not trainer.is_global_zero:
            return
        best = self._history.best() if stage == TrainerFn.FITTING else None
        moment, report = best or self._latest
        name = {"val": "Validation", "test": "Test"}[moment.stage]
        choice = ", the best of this run by val/auroc/macro" if best else ""
        title = f"{name} at epoch {moment.epoch}, step {moment.step}{choice}"
        out = console()
        out.print(render(report, title))
        out.print(f"Run folder: {self._folder}", markup=False, highlight=False, soft_wrap=True)

    def _start(self, pl_module: LightningModule) -> None:
        # What is wrong with the labels shows without records, hence before the first epoch of training.
        self._evaluate(no_records(len(label_description(pl_module)[0])), pl_module)
        self._batches = []

    def _measure(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        report = self._evaluate(all_records(self._batches, trainer, pl_module), pl_module)
        self._batches = []
        for key, value in report.scalars(stage).items():
            pl_module.log(key, value, on_step=False, on_epoch=True, batch_size=1, sync_dist=False, rank_zero_only=False)
        self._folder = _run_folder(trainer)
        self._latest = self._moment(trainer, stage), report
        if trainer.is_global_zero:
            self._keep(trainer, *self._latest)

    def _evaluate(self, records: dict[str, Tensor], pl_module: LightningModule) -> FairnessReport:
        arrays = (records["probabilities"], records["targets"], records["age"], records["sex"])
        try:
            return evaluate(*arrays, *label_description(pl_module), self.config)
        except ValueError as error:
            raise ConfigurationError(f"What {type(pl_module).__name__} returned can't be measured: {error}") from error

    def _moment(self, trainer: Trainer, stage: Stage) -> Moment:
        at = (trainer.current_epoch, trainer.global_step)
        if trainer.state.fn != TrainerFn.FITTING and self._checkpoint_moment is not None:
            at = self._checkpoint_moment
        return Moment(*at, stage)

    def _keep(self, trainer: Trainer, moment: Moment, report: FairnessReport) -> None:
        path = self._folder / FILE_NAME
        if trainer.state.fn == TrainerFn.FITTING:
            self._history = self._history.before(moment)
        elif not _leaves_no_files(trainer):
            self._history = History.read(path)
        self._history = self._history.with_report(moment, report)
        if not _leaves_no_files(trainer):
            self._history.write(path)


def _leaves_no_files(trainer: Trainer) -> bool:
    return bool(getattr(trainer, "fast_dev_run", False))


def _run_folder(trainer: Trainer) -> Path:
    """Every rank has to ask for it: Lightning sends rank 0's answer to all."""
    return Path(trainer.log_dir or trainer.default_root_dir)
