"""Measures at each validation and test epoch how well the labels are found, for all records and for each group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pandas as pd
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from ecgfair.callbacks.epoch_measurement import EpochMeasurement
from ecgfair.callbacks.fairness_record import Evaluation, FairnessRecord
from ecgfair.callbacks.history import Moment, Stage
from ecgfair.callbacks.kept_records import KeptRecords, kept_until
from ecgfair.callbacks.measured import (
    DEFAULT_ATTRIBUTES,
    Attributes,
    patients_of,
    predictions_of,
    records_table,
)
from ecgfair.callbacks.outputs import label_description, no_records, step_records
from ecgfair.callbacks.run_folder import run_folder
from ecgfair.errors import ConfigurationError
from ecgfair.groups import DEFAULT_AGE_EDGES
from ecgfair.metrics.fairness import FairnessConfig, evaluate
from ecgfair.metrics.kernels.operating_points import OperatingPoints, Rule, check_rule, choose
from ecgfair.metrics.long_tail import DEFAULT_HEAD, DEFAULT_TAIL, LongTail


class Fairness(EpochMeasurement[OperatingPoints]):
    """Log how well labels are found overall, along the long tail and by group; keep all values; print a table.

    The module has ``label_names`` and ``label_prevalence`` (share of the records it was trained on that are positive,
    one a label; where all are 0, because a test without training records can't tell, there is no long tail), and its
    ``validation_step`` and ``test_step`` return a mapping with ``probabilities`` (B, C) in [0, 1]. A batch is an
    ``EcgBatch``; its ``index`` tells a record that a padding sampler repeats from a new one, so the values are those of
    one process under any sharding. A rank may have fewer records than another, or none if its loader has no length. The
    sanity check is not measured.

    Every rank logs the same keys with the same values: ``val/auroc/macro``, ``head``, ``medium``, ``tail``,
    ``common_rare_gap``, and for each attribute ``val/fair/<attribute>/auroc_gap``, ``tpr_gap``, ``fpr_gap``,
    ``ece_gap`` (worst group minus best, of the bias-corrected calibration error) and ``worst_auroc``; see
    ``metrics.fairness.evaluate``; with ``bound`` also ``val/fair/bounded_macro``. ``test/`` likewise; undefined is NaN.

    Thresholds for TPR and FPR are chosen anew at each validation epoch, on its records, and are in every checkpoint;
    ``test`` takes them from there and never chooses any.

    All rows go to ``fairness.parquet`` in the run folder (the first logger's, else ``default_root_dir``), each with its
    epoch and step, and with the reason where a value is undefined; means and extremes go to loggers that keep tables.
    At the end of ``fit`` for its best epoch, and of ``validate`` and ``test``, the rows have 95 % intervals and
    compare label by label, and ``fairness_tests.parquet`` says of the largest gaps whether they could be chance. A
    resumed run keeps the rows from before the checkpoint and ends with the tables of one that was never stopped: the
    records of its best epoch lie in ``best_evaluation/`` until then. A fresh run replaces the file.

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
        bound: The least AUROC that the worst group of each attribute may have. ``val/fair/bounded_macro`` is then
            logged, which a sweep or ``BestCheckpoint`` can maximise: ``val/auroc/macro`` where the bound is kept, below
            0 where it is not, see ``metrics.worst_group_bound``.

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
        bound: float | None = None,
    ) -> None:
        super().__init__("operating_points", OperatingPoints.from_dict, logged="(auroc|fair)")
        self.attributes = Attributes(attributes, age_edges)
        final = FairnessConfig(
            min_support,
            min_support_overall,
            LongTail(head, tail),
            reference or {},
            details=True,
            resamples=resamples,
            seed=seed,
            bound=bound,
        )
        self.config = replace(final, details=False, resamples=0)
        of_columns = {name: (group,) for name, group in self.config.reference.items() if name in self.attributes.names}
        self.config.check_reference(of_columns | self.attributes.groups())
        check_rule(threshold_rule, threshold_level)
        self.threshold_rule: Rule = threshold_rule
        self.threshold_level = threshold_level
        self._record = FairnessRecord(final, permutations)
        self._has_begun = False

    @property
    def operating_points(self) -> OperatingPoints | None:
        """Thresholds of the latest validation, or those that came with the weights."""
        return self.chosen

    @operating_points.setter
    def operating_points(self, points: OperatingPoints | None) -> None:
        self.chosen = points

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew."""
        self._record.forget()
        self._has_begun = False
        super().setup(trainer, pl_module, stage)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a history, or take up that of a resumed run."""
        self._begin(trainer, pl_module, resumed=trainer.current_epoch > 0 or trainer.global_step > 0)

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
        if stage == TrainerFn.FITTING and self._loaded_moment is not None and not self._has_begun:
            # Of a run that was interrupted behind its last epoch: there was nothing left to train.
            self._begin(trainer, pl_module, resumed=True)
        if trainer.is_global_zero:
            self._record.finish(trainer)
            self._record.forget()

    def _begin(self, trainer: Trainer, pl_module: LightningModule, *, resumed: bool) -> None:
        self._has_begun = True
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        if not resumed:
            self._record.begin(folder)
            return
        kept = kept_until(folder, trainer.global_step)
        best = None if kept is None else self._evaluation(kept, trainer, pl_module)
        self._record.go_on(trainer, folder, best)

    @override
    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super()._start(trainer, pl_module)
        # What is wrong with labels and columns shows without records, hence before the first epoch of training.
        nobody = self._no_rows(pl_module)
        table = self._columns(nobody, trainer)
        predictions = predictions_of(nobody, pl_module, self.attributes, table)
        evaluate(predictions, replace(self.config, reference={}))

    @override
    def _no_rows(self, pl_module: LightningModule) -> dict[str, Tensor]:
        return no_records(len(label_description(pl_module)[0]))

    @override
    def _rows(
        self, step: str, pl_module: LightningModule, outputs: Any, batch: Any, dataloader_idx: int
    ) -> dict[str, Tensor]:
        return step_records(step, pl_module, outputs, batch, dataloader_idx)

    def _columns(self, records: dict[str, Tensor], trainer: Trainer) -> pd.DataFrame | None:
        columns = self.attributes.columns
        return records_table(records, trainer, columns) if columns else None

    @override
    def _measure(self, records: dict[str, Tensor], trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        with _told_of(pl_module):
            if stage == "val":
                self.operating_points = self._choose(records, trainer, pl_module)
            kept = KeptRecords(Moment(*self._weights_at(trainer), stage), records, self.operating_points)
            evaluation = self._evaluation(kept, trainer, pl_module)
        self._log(pl_module, evaluation.report.scalars(stage))
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            self._record.add(trainer, folder, evaluation)

    def _evaluation(self, kept: KeptRecords, trainer: Trainer, pl_module: LightningModule) -> Evaluation:
        records = kept.records
        table = self._columns(records, trainer)
        predictions = predictions_of(records, pl_module, self.attributes, table, kept.operating_points)
        report = evaluate(predictions, self.config)
        if trainer.is_global_zero:
            predictions = replace(predictions, patients=patients_of(records_table(records, trainer)))
        return Evaluation(kept.moment, report, predictions, records)

    def _choose(self, records: dict[str, Tensor], trainer: Trainer, pl_module: LightningModule) -> OperatingPoints:
        chosen_on, folds, data = self._validation_records(trainer)
        return choose(
            records["probabilities"],
            records["targets"],
            self.threshold_rule,
            self.threshold_level,
            label_names=label_description(pl_module)[0],
            chosen_on=chosen_on,
            folds=folds,
            data=data,
        )


@contextmanager
def _told_of(pl_module: LightningModule) -> Iterator[None]:
    """Say whose values they are that can't be measured."""
    try:
        yield
    except ValueError as error:
        name = type(pl_module).__name__
        raise ConfigurationError(f"What {name} returned, or its batches, can't be measured: {error}") from error
