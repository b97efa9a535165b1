"""The report at the end of an evaluation of anomaly scores: a table for the terminal, a file for the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from typing_extensions import override

from ecgfair.anomaly.evaluation.decisions import Thresholds
from ecgfair.anomaly.evaluation.evaluate import evaluate_anomaly
from ecgfair.anomaly.evaluation.report import AnomalyReport
from ecgfair.anomaly.protocols import CORRECTED, NEITHER, Protocol, Selection, in_words, select
from ecgfair.callbacks.log_tables import log_table
from ecgfair.callbacks.run_folder import leaves_files, write_table
from ecgfair.errors import ConfigurationError
from ecgfair.report.anomaly_table import anomaly_frame, render_anomaly
from ecgfair.report.fairness_table import console

FILE_NAME: Final = "anomaly.parquet"


@dataclass(frozen=True)
class RunProtocol(Protocol):
    """What a run did, whatever that is: there is nothing to refuse.

    Args:
        trained_on: Which records of the training folds, in words.
    """

    trained_on: str = "all records"

    def __post_init__(self) -> None:
        """Take any folds, none included."""

    @property
    @override
    def title(self) -> str:
        train, choose, test = (_folds(folds) for folds in (self.train_folds, self.choose_folds, self.test_folds))
        return (
            f"{self.name} protocol: trained on {self.trained_on} of {train}, calibrated on {choose}, tested on {test}"
        )


def normal_and_abnormal(targets: Tensor, label_names: list[str], normal_label: str) -> Selection:
    """Say of each record whether it is normal, abnormal or neither, see ``anomaly.protocols.select``."""
    nowhere = torch.full((len(targets),), -1, dtype=torch.int64)
    return select(CORRECTED, targets, label_names, nowhere, normal_label=normal_label)


def run_protocol(data: Any, tested: str, calibrated: tuple[int, ...], normal_label: str) -> RunProtocol:
    """Describe a run by its data module.

    Args:
        data: The data module; one without folds is of unknown ones.
        tested: The part whose records were measured, ``test`` or ``validation``.
        calibrated: The folds that the thresholds are from.
        normal_label: The label of the normal records.
    """
    folds: Mapping[str, Any] = getattr(data, "folds", None) or {}
    only = getattr(data, "train_only", None)
    train, test = tuple(folds.get("train", ())), tuple(folds.get(tested, ()))
    is_corrected = (only, set(train), set(calibrated), set(test)) == (
        normal_label,
        *(set(CORRECTED.folds(part)) for part in ("train", "choose", "test")),
    )
    return RunProtocol(
        CORRECTED.name if is_corrected else "run's own",
        train,
        calibrated,
        test,
        NEITHER,
        drops_without_beat=False,
        description=f"Normal: positive for {normal_label} and nothing else. The folds are those of this run's data.",
        trained_on="all records" if only is None else f"the {only}-only records",
    )


@dataclass(frozen=True, eq=False)
class Measured:
    """An evaluation to be reported.

    Args:
        records: The columns of ``anomaly_records.no_scored_records``, of all records.
        patients: (N,) int64, -1 where unknown; ``None`` if unknown throughout.
        label_names: C names.
        normal_label: One of them.
        thresholds: Chosen on other records; ``None`` for none.
        protocol: What the run did.
        heading: Whose scores they are, for the title and the file.
        folder: Of the run.
        resamples: Of the patients, for the intervals.
        seed: Of the resamples.
    """

    records: dict[str, Tensor]
    patients: Tensor | None
    label_names: list[str]
    normal_label: str
    thresholds: Thresholds | None
    protocol: RunProtocol
    heading: str
    folder: Path
    resamples: int
    seed: int

    def report(self) -> AnomalyReport:
        """Evaluate the records that are normal or abnormal.

        Raises:
            ConfigurationError: A score is not finite; or see ``evaluate_anomaly``.
        """
        strange = (~self.records["score"].isfinite()).nonzero()[:, 0]
        if len(strange):
            raise ConfigurationError(
                f"The anomaly scores of {len(strange)} of {len(self.records['score'])} records are NaN or infinite, "
                f"the first of the record at {int(self.records['index'][strange[0]])} in the store: expected finite "
                "ones. Look at that record with `inspect`, or test the checkpoint of another epoch."
            )
        kinds = normal_and_abnormal(self.records["targets"], self.label_names, self.normal_label)
        compared = ~kinds.neither
        return evaluate_anomaly(
            self.records["score"][compared],
            kinds.abnormal[compared],
            patients=None if self.patients is None else self.patients[compared],
            age=self.records["age"][compared],
            sex=self.records["sex"][compared],
            labels=self.records["targets"][compared],
            label_names=self.label_names,
            threshold=self.thresholds,
            normal_label=self.normal_label,
            resamples=self.resamples,
            seed=self.seed,
        )

    def left_out(self) -> str:
        """Say which records are in no statistic, and which have a score without a beat."""
        kinds = normal_and_abnormal(self.records["targets"], self.label_names, self.normal_label)
        without_beat = int((self.records["has_beat"] == 0).sum())
        counts = {
            "are normal and have another label": int((kinds.neither & kinds.mixed).sum()),
            "have no label": int((kinds.neither & ~kinds.mixed).sum()),
        }
        told = [f"{count:,} {what} and are left out" for what, count in counts.items() if count]
        told += [f"{without_beat:,} have no beat; their score is of the other parts alone"] if without_beat else []
        return f"Of {len(kinds.kind):,} records {'; '.join(told)}." if told else ""


def tell(measured: Measured, trainer: Trainer) -> None:
    """Print the report, write its file and hand its table to the loggers. On the first process alone."""
    report, folder = measured.report(), measured.folder
    frame = anomaly_frame(report, measured.protocol, measured.heading)
    if leaves_files(trainer):
        write_table(frame, folder / FILE_NAME)
    log_table(trainer, "anomaly", frame)
    out = console()
    out.print(render_anomaly(report, measured.protocol, measured.heading))
    for line in (measured.left_out(), f"Run folder: {folder}"):
        if line:
            out.print(line, markup=False, highlight=False, soft_wrap=True)


def _folds(folds: tuple[int, ...]) -> str:
    return in_words(folds) if folds else "unknown folds"
