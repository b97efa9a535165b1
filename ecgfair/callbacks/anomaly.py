"""Measures at each validation and test epoch how well anomaly scores tell abnormal records from normal ones."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from ecgfair.anomaly.protocols import NORMAL_LABEL, Selection
from ecgfair.callbacks.anomaly_calibration import Calibration
from ecgfair.callbacks.anomaly_examples import Examples, draw_examples
from ecgfair.callbacks.anomaly_records import data_labels, no_scored_records, scored_records, scorer
from ecgfair.callbacks.anomaly_report import Measured, normal_and_abnormal, run_protocol, tell
from ecgfair.callbacks.anomaly_scalars import anomaly_scalars
from ecgfair.callbacks.epoch_measurement import EpochMeasurement
from ecgfair.callbacks.history import Stage
from ecgfair.callbacks.log_figures import log_figures
from ecgfair.callbacks.measured import patients_of, records_table
from ecgfair.callbacks.run_folder import leaves_files, run_folder
from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.groups import DEFAULT_AGE_EDGES, group_by_demographics
from ecgfair.metrics.fairness import FairnessConfig
from ecgfair.training import PretrainModule

MAPS_FOLDER: Final = "maps"
MOST_MAPS: Final = 16
"""Figures an epoch; each takes a fraction of a second."""


class AnomalyDetection(EpochMeasurement[Calibration]):
    """Log how well anomaly scores do, calibrate them on normals, draw a few maps; at a test, print the whole table.

    The module has ``anomaly_scores(batch, maps=…)`` and ``anomaly_parts`` (see ``PretrainModule``); where its steps
    return a mapping with ``anomaly``, these scores are taken. The labels are the data module's: they are looked at to
    measure, never to learn. A record is normal that is positive for the normal label and for no other one, abnormal
    that is not but is positive for at least one other; the rest is in no statistic and is counted.

    Every rank logs the same keys with the same values, of all records of all ranks, each once:
    ``val/anomaly/auroc``; ``val/anomaly/age_stratified_auroc``, over pairs of the same stratum of age alone
    (``groups.age_strata``), because old people have more diseases and other ECGs; ``val/anomaly/<part>/auroc`` of each
    term of the score, over the records that have it; and how many records are ``normals``, ``abnormals``,
    ``neither`` and ``without_beat``. ``test/`` likewise. Undefined is NaN. The sanity check is not measured.

    Normals of validation make percentiles of scores (``anomaly.calibration``), and thresholds are chosen between
    normals and abnormals, anew at each validation epoch. Both are in every checkpoint; ``test`` takes them from there,
    and refuses those that were made on what is tested.

    At the end of ``validate`` and ``test`` the scores are evaluated in full (``anomaly.evaluation``): a table is
    printed, and all rows go to ``anomaly.parquet`` in the run folder.

    Args:
        normal_label: The label of normal records.
        calibrate_by: ``sex``, ``age`` or ``sex_x_age``: a record is then held against the normals of its own group.
            ``None`` for all normals together.
        age_edges: First year of each age band but the youngest, for that.
        maps: Validation records whose maps are drawn at every epoch, half of them abnormal, always the same: as PNG
            files in ``maps/`` of the run folder, and as figures for TensorBoard and Weights & Biases. 0 for none.
        smoothing: Seconds, standard deviation of a Gaussian that smooths these maps; 0 for none, since scoring has
            smoothed them (``scoring.smoothing_seconds``).
        resamples: Of the patients, for the intervals of the table; 0 for none.
        seed: Of the resamples.

    Raises:
        ConfigurationError: A value is impossible; or, on running, module, data or batch lack what is needed.
    """

    def __init__(
        self,
        normal_label: str = NORMAL_LABEL,
        calibrate_by: str | None = None,
        age_edges: tuple[int, ...] = DEFAULT_AGE_EDGES,
        maps: int = 4,
        smoothing: float = 0.0,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__("calibration", Calibration.from_dict, logged="anomaly")
        if not 0 <= maps <= MOST_MAPS:
            raise ConfigurationError(f"maps is {maps}: expected 0 to {MOST_MAPS} figures an epoch.")
        if not 0 <= smoothing < math.inf:
            raise ConfigurationError(f"smoothing is {smoothing}: expected 0 or more seconds.")
        FairnessConfig(resamples=resamples)  # what the table would refuse, before a training instead of after it
        if calibrate_by is not None:
            group_by_demographics(calibrate_by, torch.zeros(0), torch.zeros(0, dtype=torch.int64), age_edges)
        self.normal_label = normal_label
        self.calibrate_by = calibrate_by
        self.age_edges = tuple(age_edges)
        self.smoothing = smoothing
        self.resamples = resamples
        self.seed = seed
        self._examples = Examples(maps)
        self._labels: list[str] = []
        self._measured: Measured | None = None

    @property
    def calibration(self) -> Calibration | None:
        """What the latest validation made, or what came with the weights."""
        return self.chosen

    @calibration.setter
    def calibration(self, calibration: Calibration | None) -> None:
        self.chosen = calibration

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew, and refuse a run whose module or labels can't be measured, before it starts."""
        self._measured = None
        super().setup(trainer, pl_module, stage)
        if stage == TrainerFn.PREDICTING:
            return
        scorer(pl_module)
        self._labels = data_labels(trainer, pl_module)
        if not self._labels:
            raise ConfigurationError(
                "AnomalyDetection compares normal records with abnormal ones, and the data have no labels: leave the "
                "callback out, or choose a label set with data.labels. Labels measure scores; nothing learns from them."
            )
        if self.normal_label not in self._labels:
            raise ConfigurationError(
                f"AnomalyDetection takes {self.normal_label!r} for the label of normal records, which the data do not "
                f"have.{did_you_mean(self.normal_label, self._labels)} Name it as normal_label, choose a label set "
                "that has it with data.labels, or leave the callback out."
            )

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the module training records, if its scores are told in their spread; the first process does.

        The others get what it took of them by the module's own hook, which follows this one.
        """
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or not trainer.is_global_zero:
            return
        sample = getattr(getattr(trainer, "datamodule", None), "training_sample", None)
        if isinstance(pl_module, PretrainModule) and sample is not None:
            batches = sample(pl_module.scoring.reference_records)
            pl_module.fit_reference([move_data_to_device(batch, trainer.strategy.root_device) for batch in batches])

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
        """Score the batch, and keep its records that are to be drawn."""
        if trainer.sanity_checking:
            return
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        if trainer.is_global_zero:
            kinds = normal_and_abnormal(self._batches[-1]["targets"], self._labels, self.normal_label)
            self._examples.offer(batch, kinds.normal, kinds.abnormal)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Evaluate in full, print the table and write it, after the progress bar has left the terminal."""
        measured, self._measured = self._measured, None
        if measured is not None:
            tell(measured, trainer)

    @override
    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super()._start(trainer, pl_module)
        self._examples.forget()

    @override
    def _no_rows(self, pl_module: LightningModule) -> dict[str, Tensor]:
        return no_scored_records(len(self._labels), len(scorer(pl_module).anomaly_parts))

    @override
    def _rows(
        self, step: str, pl_module: LightningModule, outputs: Any, batch: Any, dataloader_idx: int
    ) -> dict[str, Tensor]:
        return scored_records(step, pl_module, outputs, batch, len(self._labels), dataloader_idx)

    @override
    def _measure(self, records: dict[str, Tensor], trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        kinds = normal_and_abnormal(records["targets"], self._labels, self.normal_label)
        self._log(pl_module, anomaly_scalars(records, kinds, scorer(pl_module).anomaly_parts, stage))
        if stage == "val":
            self.calibration = self._calibrated(records, kinds, trainer)
            self._draw(trainer, pl_module)
        if trainer.state.fn != TrainerFn.FITTING:
            self._remember(records, trainer, pl_module, stage)

    def _calibrated(self, records: dict[str, Tensor], kinds: Selection, trainer: Trainer) -> Calibration | None:
        if not kinds.normal.any() or not records["score"][~kinds.neither].isfinite().all():
            return None  # the logged AUROC is NaN, too, or there was a warning
        calibrated_on, folds, data = self._validation_records(trainer)
        return Calibration.fit(
            records,
            kinds.normal,
            kinds.abnormal,
            by=self.calibrate_by,
            age_edges=self.age_edges,
            calibrated_on=calibrated_on,
            folds=folds,
            data=data,
            normal_label=self.normal_label,
        )

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        batch = self._examples.batch()
        self._examples.forget()
        if batch is None or not trainer.is_global_zero:
            return
        figures = draw_examples(batch, trainer, pl_module, self._labels, self.calibration, self.smoothing)
        epoch = folder / MAPS_FOLDER / f"epoch-{self._weights_at(trainer)[0]:03d}"
        log_figures(trainer, "val/anomaly/maps", figures, epoch if leaves_files(trainer) else None)

    def _remember(self, records: dict[str, Tensor], trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        """Keep what the table at the end is made of, on the first process."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        part, at_test = ("test", self.calibration) if stage == "test" else ("validation", None)
        calibrated = () if at_test is None else at_test.normals.folds
        self._measured = Measured(
            records,
            patients_of(records_table(records, trainer)),
            self._labels,
            self.normal_label,
            None if at_test is None else at_test.thresholds,
            run_protocol(getattr(trainer, "datamodule", None), part, calibrated, self.normal_label),
            f"{type(pl_module).__name__} at epoch {self._weights_at(trainer)[0]}",
            folder,
            self.resamples,
            self.seed,
        )
