"""Measures at each validation and test epoch how well the labels are found, for all records and for each group."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from ecgfair.callbacks.fairness_record import Evaluation, FairnessRecord, run_folder
from ecgfair.callbacks.gather import all_records, refuse_skipped_ranks
from ecgfair.callbacks.history import Moment, Stage
from ecgfair.callbacks.measured import (
    DEFAULT_ATTRIBUTES,
    Attributes,
    predictions_of,
    records_table,
    with_patients,
)
from ecgfair.callbacks.outputs import label_description, no_records, step_records
from ecgfair.errors import ConfigurationError
from ecgfair.groups import DEFAULT_AGE_EDGES
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.kernels.operating_points import OperatingPoints, Rule, check_rule, choose
from ecgfair.metrics.long_tail import DEFAULT_HEAD, DEFAULT_TAIL, LongTail


class Fairness(Callback):
    """Log how well labels are found overall, along the long tail and by group; keep all values; print a table.

    The module has ``label_names`` and ``label_prevalence`` (share of the training records that are positive, one a
    label), and its ``validation_step`` and ``test_step`` return a mapping with ``probabilities`` (B, C) in [0, 1]. A
    batch is an ``EcgBatch``; its ``index`` tells a record that a padding sampler repeats from a new one, so the values
    are those of one process under any sharding. A rank may have fewer records than another, or none if its loader has
    no length. The sanity check is not measured.

    Every rank logs the same keys with the same values: ``val/auroc/macro``, ``head``, ``medium``, ``tail``,
    ``common_rare_gap``, and for each attribute ``val/fair/<attribute>/auroc_gap``, ``tpr_gap``, ``fpr_gap``,
    ``ece_gap`` (worst group minus best, of the bias-corrected calibration error) and ``worst_auroc``; see
    ``metrics.fairness.evaluate``. ``test/`` likewise; undefined is NaN.

    Thresholds for TPR and FPR are chosen anew at each validation epoch, on its records, and are in every checkpoint;
    ``test`` takes them from there and never chooses any.

    All rows go to ``fairness.parquet`` in the run folder (the first logger's, else ``default_root_dir``), each with its
    epoch and step, and with the reason where a value is undefined; means and extremes go to loggers that keep tables.
    At the end of ``fit`` for its best epoch, and of ``validate`` and ``test``, the rows have 95 % intervals and
    compare label by label, and ``fairness_tests.parquet`` says of the largest gaps whether they could be chance. A
    resumed run keeps the rows from before the checkpoint; a fresh one replaces the file.

    Args:
        attributes: Whose groups are compared: ``sex``, ``age``, any column of the records table, and intersections to
            any depth, such as ``sex_x_age``.
        age_edges: First year of each age band but the youngest.
        min_support: Positives and negatives a label needs in a group.
        min_support_overall: Positives and negatives a label needs among all records.
        head: A label is head from this share of positive training records upwards.
        tail: A label is tail below this share.
        reference: The group the others are compared with, by attribute, such as ``{"sex": "male"}``; by default the
            one with the most records.
        threshold_rule: How thresholds are chosen: the largest sum of sensitivity and specificity (``youden``), or
            the ``threshold_level`` of one of the two.
        threshold_level: The specificity or sensitivity to keep; none for ``youden``.
        resamples: Of the patients, for the intervals at the end; 0 for none.
        permutations: For the tests of the largest gaps at the end; 0 for none.
        seed: Of resamples and permutations.

    Raises:
        ConfigurationError: A value is impossible; or, on running, module, outputs or batch lack what is needed.
    """

    def __init__(
        self,
        attributes: tuple[str, ...] = DEFAULT_ATTRIBUTES,
        age_edges: tuple[int, ...] = DEFAULT_AGE_EDGES,
        min_support: int = 5,
        min_support_overall: int = 1,
        head: float = DEFAULT_HEAD,
        tail: float = DEFAULT_TAIL,
        reference: dict[str, str] | None = None,
        threshold_rule: Rule = "youden",
        threshold_level: float | None = None,
        resamples: int = 1000,
        permutations: int = 1000,
        seed: int = 0,
    ) -> None:
        self.attributes = Attributes(attributes, age_edges)
        final = FairnessConfig(
            min_support,
            min_support_overall,
            LongTail(head, tail),
            reference or {},
            details=True,
            resamples=resamples,
            seed=seed,
        )
        self.config = replace(final, details=False, resamples=0)
        of_columns = {name: (group,) for name, group in self.config.reference.items() if name in self.attributes.names}
        self.config.check_reference(of_columns | self.attributes.groups())
        check_rule(threshold_rule, threshold_level)
        self.threshold_rule: Rule = threshold_rule
        self.threshold_level = threshold_level
        self.operating_points: OperatingPoints | None = None
        self._record = FairnessRecord(final, permutations)
        self._batches: list[dict[str, Tensor]] = []
        self._checkpoint_moment: tuple[int, int] | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew, and refuse the one set-up in which ranks would wait for each other forever."""
        self._record.forget()
        self._checkpoint_moment = None
        if stage == TrainerFn.FITTING:
            self.operating_points = None
        # Lightning advises to average over ranks what is logged; every rank has the value of all records already.
        warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\('(val|test)/(auroc|fair)/")
        refuse_skipped_ranks(trainer, pl_module)

    @override
    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the thresholds chosen with its weights."""
        return {} if self.operating_points is None else {"operating_points": self.operating_points.to_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the thresholds that were chosen with the weights."""
        if "operating_points" in state_dict:
            self.operating_points = OperatingPoints.from_dict(state_dict["operating_points"])

    @override
    def on_load_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Note which epoch the weights are of, which Lightning restores for ``fit`` alone; forget older thresholds."""
        self._checkpoint_moment = (checkpoint["epoch"], checkpoint["global_step"])
        self.operating_points = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the history of a resumed run."""
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            self._record.begin(folder, resumed=trainer.current_epoch > 0 or trainer.global_step > 0)

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the batches of an earlier epoch."""
        self._start(trainer, pl_module)

    @override
    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the batches of an earlier epoch; refuse thresholds that were chosen on what is tested."""
        self._start(trainer, pl_module)
        if trainer.ckpt_path is not None and self._checkpoint_moment is None:
            # A checkpoint of weights alone: thresholds at hand are those of other weights.
            self.operating_points = None
        folds = getattr(getattr(trainer, "datamodule", None), "folds", None)
        if self.operating_points is not None and folds is not None:
            self.operating_points.require_disjoint(folds["test"])

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
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Print the table after Ctrl-C, too, which Lightning ends without ``teardown``; without intervals."""
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            self._record.finish(trainer)
            self._record.forget()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the table: of the best epoch after ``fit``, of this evaluation otherwise; with intervals.

        It is the last of the hooks, after the progress bar has left the terminal.
        """
        if trainer.is_global_zero:
            self._record.finish(trainer)
            self._record.forget()

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # What is wrong with labels and columns shows without records, hence before the first epoch of training.
        nobody = no_records(len(label_description(pl_module)[0]))
        table = self._columns(nobody, trainer)
        predictions = predictions_of(nobody, pl_module, self.attributes, table)
        evaluate(predictions, replace(self.config, reference={}))
        self._batches = []

    def _columns(self, records: dict[str, Tensor], trainer: Trainer) -> pd.DataFrame | None:
        columns = self.attributes.columns
        return records_table(records, trainer, columns) if columns else None

    def _measure(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        records = all_records(self._batches, trainer, pl_module)
        self._batches = []
        table = self._columns(records, trainer)
        with _told_of(pl_module):
            if stage == "val":
                self.operating_points = self._choose(records, trainer, pl_module)
            predictions = predictions_of(records, pl_module, self.attributes, table, self.operating_points)
            report = evaluate(predictions, self.config)
        for key, value in report.scalars(stage).items():
            pl_module.log(key, value, on_step=False, on_epoch=True, batch_size=1, sync_dist=False, rank_zero_only=False)
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            predictions = with_patients(predictions, records_table(records, trainer))
            self._record.add(trainer, folder, Evaluation(self._moment(trainer, stage), report, predictions))

    def _choose(self, records: dict[str, Tensor], trainer: Trainer, pl_module: LightningModule) -> OperatingPoints:
        folds = getattr(getattr(trainer, "datamodule", None), "folds", {}).get("validation", ())
        return choose(
            records["probabilities"],
            records["targets"],
            self.threshold_rule,
            self.threshold_level,
            label_names=label_description(pl_module)[0],
            chosen_on=f"validation records at epoch {trainer.current_epoch}",
            folds=folds,
        )

    def _moment(self, trainer: Trainer, stage: Stage) -> Moment:
        at = (trainer.current_epoch, trainer.global_step)
        if trainer.state.fn != TrainerFn.FITTING and self._checkpoint_moment is not None:
            at = self._checkpoint_moment
        return Moment(*at, stage)


@contextmanager
def _told_of(pl_module: LightningModule) -> Iterator[None]:
    """Say whose values they are that can't be measured."""
    try:
        yield
    except ValueError as error:
        name = type(pl_module).__name__
        raise ConfigurationError(f"What {name} returned, or its batches, can't be measured: {error}") from error
