"""Measures at each validation and test epoch how well anomaly scores tell abnormal records from normal ones."""

from __future__ import annotations

import math
import warnings
from typing import Any, Final

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from ecgfair.anomaly.maps import PUBLISHED_SMOOTHING
from ecgfair.anomaly.protocols import NORMAL_LABEL
from ecgfair.callbacks.anomaly_calibration import Calibration
from ecgfair.callbacks.anomaly_examples import Examples, draw_examples
from ecgfair.callbacks.anomaly_records import data_labels, no_scored_records, scored_records, scorer
from ecgfair.callbacks.anomaly_report import Measured, normal_and_abnormal, patients_of, run_protocol, tell
from ecgfair.callbacks.fairness_record import run_folder
from ecgfair.callbacks.gather import gather_rows, refuse_skipped_ranks, unique_by_index
from ecgfair.callbacks.history import Stage
from ecgfair.callbacks.log_figures import log_figures
from ecgfair.callbacks.measured import records_table
from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.groups import DEFAULT_AGE_EDGES, age_strata, group_by_demographics
from ecgfair.metrics.fairness import FairnessConfig
from ecgfair.metrics.kernels.auroc import auroc
from ecgfair.metrics.kernels.stratified import stratified_auroc
from ecgfair.training import PretrainModule

MAPS_FOLDER: Final = "maps"
MOST_MAPS: Final = 16
"""Figures an epoch; each takes a fraction of a second."""


class AnomalyDetection(Callback):
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
        smoothing: Seconds, standard deviation of the Gaussian that smooths these maps; 0 for none.
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
        smoothing: float = PUBLISHED_SMOOTHING,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
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
        self.calibration: Calibration | None = None
        self._examples = Examples(maps)
        self._labels: list[str] = []
        self._batches: list[dict[str, Tensor]] = []
        self._measured: Measured | None = None
        self._checkpoint_epoch: int | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew, and refuse a run whose module or labels can't be measured, before it starts."""
        self._measured, self._checkpoint_epoch = None, None
        self._examples.forget()
        if stage == TrainerFn.FITTING:
            self.calibration = None
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
        refuse_skipped_ranks(trainer, pl_module)
        # Lightning advises to average over ranks what is logged; every rank has the value of all records already.
        warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\('(val|test)/anomaly/")

    @override
    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the calibration made with its weights."""
        return {} if self.calibration is None else {"calibration": self.calibration.to_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the calibration that was made with the weights."""
        if "calibration" in state_dict:
            self.calibration = Calibration.from_dict(state_dict["calibration"])

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note which epoch the weights are of; forget an older calibration."""
        self._checkpoint_epoch = checkpoint["epoch"]
        self.calibration = None

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
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the batches of an earlier epoch."""
        self._batches = []
        self._examples.forget()

    @override
    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the batches of an earlier epoch; refuse a calibration that was made on what is tested."""
        self._batches = []
        if trainer.ckpt_path is not None and self._checkpoint_epoch is None:
            # A checkpoint of weights alone: the calibration at hand is that of other weights.
            self.calibration = None
        folds = getattr(getattr(trainer, "datamodule", None), "folds", None)
        if self.calibration is not None and folds is not None:
            self.calibration.normals.require_disjoint(folds["test"])

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
        self._keep(pl_module, outputs, batch, dataloader_idx)
        if trainer.is_global_zero:
            kinds = normal_and_abnormal(self._batches[-1]["targets"], self._labels, self.normal_label)
            self._examples.offer(batch, kinds.normal, kinds.abnormal)

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
        """Score the batch."""
        self._keep(pl_module, outputs, batch, dataloader_idx)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, calibrate, log and draw, unless it is the sanity check."""
        if trainer.sanity_checking:
            return
        records = self._gathered(trainer, pl_module)
        self._log(records, pl_module, "val")
        self.calibration = self._calibrated(records, trainer)
        self._draw(trainer, pl_module)
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._remember(records, trainer, pl_module, "validation")

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log."""
        records = self._gathered(trainer, pl_module)
        self._log(records, pl_module, "test")
        self._remember(records, trainer, pl_module, "test")

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Evaluate in full, print the table and write it, after the progress bar has left the terminal."""
        measured, self._measured = self._measured, None
        if measured is not None:
            tell(measured, trainer)

    def _keep(self, pl_module: LightningModule, outputs: Any, batch: Any, dataloader_idx: int) -> None:
        self._batches.append(scored_records(pl_module, outputs, batch, len(self._labels), dataloader_idx))

    def _gathered(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Tensor]:
        """Put the records of all ranks together, each once, in the order of the store; every rank has to call this."""
        own = [no_scored_records(len(self._labels), len(scorer(pl_module).anomaly_parts)), *self._batches]
        self._batches = []
        return unique_by_index(gather_rows({name: torch.cat([part[name] for part in own]) for name in own[0]}, trainer))

    def _log(self, records: dict[str, Tensor], pl_module: LightningModule, stage: Stage) -> None:
        kinds = normal_and_abnormal(records["targets"], self._labels, self.normal_label)
        compared, abnormal = ~kinds.neither, kinds.abnormal
        score, age = records["score"], records["age"]
        if count := int(score.isnan().sum()):
            warnings.warn(
                f"The anomaly score is NaN for {count} of {len(score)} records: {stage}/anomaly/auroc is NaN.",
                stacklevel=2,
            )
        values = {
            "auroc": _auroc(score[compared], abnormal[compared]),
            "age_stratified_auroc": _within_ages(score[compared], abnormal[compared], age[compared]),
            "normals": float(kinds.normal.sum()),
            "abnormals": float(abnormal.sum()),
            "neither": float(kinds.neither.sum()),
            "without_beat": float((records["has_beat"] == 0).sum()),
        }
        for column, name in enumerate(scorer(pl_module).anomaly_parts):
            part = records["parts"][:, column]
            there = compared & ~part.isnan()
            values[f"{name}/auroc"] = _auroc(part[there], abnormal[there])
        for key, value in values.items():
            pl_module.log(
                f"{stage}/anomaly/{key}",
                value,
                on_step=False,
                on_epoch=True,
                batch_size=1,
                sync_dist=False,
                rank_zero_only=False,
            )

    def _calibrated(self, records: dict[str, Tensor], trainer: Trainer) -> Calibration | None:
        kinds = normal_and_abnormal(records["targets"], self._labels, self.normal_label)
        if not kinds.normal.any() or not records["score"][~kinds.neither].isfinite().all():
            return None  # the logged AUROC is NaN, too, or there was a warning
        return Calibration.fit(
            records,
            kinds.normal,
            kinds.abnormal,
            by=self.calibrate_by,
            age_edges=self.age_edges,
            calibrated_on=f"validation records at epoch {self._epoch(trainer)}",
            folds=getattr(getattr(trainer, "datamodule", None), "folds", {}).get("validation", ()),
            normal_label=self.normal_label,
        )

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        batch = self._examples.batch()
        self._examples.forget()
        if batch is None or not trainer.is_global_zero:
            return
        figures = draw_examples(batch, trainer, pl_module, self._labels, self.calibration, self.smoothing)
        leaves_files = not getattr(trainer, "fast_dev_run", False)
        epoch = folder / MAPS_FOLDER / f"epoch-{self._epoch(trainer):03d}"
        log_figures(trainer, "val/anomaly/maps", figures, epoch if leaves_files else None)

    def _remember(self, records: dict[str, Tensor], trainer: Trainer, pl_module: LightningModule, part: str) -> None:
        """Keep what the table at the end is made of, on the first process."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        at_test = self.calibration if part == "test" else None
        calibrated = () if at_test is None else at_test.normals.folds
        self._measured = Measured(
            records,
            patients_of(records_table(records, trainer)),
            self._labels,
            self.normal_label,
            None if at_test is None else at_test.thresholds,
            run_protocol(getattr(trainer, "datamodule", None), part, calibrated, self.normal_label),
            f"{type(pl_module).__name__} at epoch {self._epoch(trainer)}",
            folder,
            self.resamples,
            self.seed,
        )

    def _epoch(self, trainer: Trainer) -> int:
        """The epoch of the weights, which Lightning restores for ``fit`` alone."""
        if trainer.state.fn != TrainerFn.FITTING and self._checkpoint_epoch is not None:
            return self._checkpoint_epoch
        return trainer.current_epoch


def _auroc(score: Tensor, abnormal: Tensor) -> float:
    """AUROC of (N,) scores; NaN without both classes, or where a score is NaN."""
    if not len(score) or bool(score.isnan().any()):
        return math.nan
    return float(auroc(score[:, None], abnormal[:, None].long()).auroc)


def _within_ages(score: Tensor, abnormal: Tensor, age: Tensor) -> float:
    """AUROC over pairs of records of the same stratum of age."""
    if not len(score) or bool(score.isnan().any()):
        return math.nan
    nobody = torch.zeros(len(score), dtype=torch.int64)
    ones = torch.ones(1, len(score), dtype=torch.float64)
    return float(stratified_auroc(score[:, None], abnormal[:, None].long(), nobody, 1, age_strata(age), ones).auroc)
