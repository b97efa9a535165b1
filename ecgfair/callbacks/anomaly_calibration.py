"""What validation records say of anomaly scores, for records that come later: it travels in the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ecgfair.anomaly.calibration import MIN_NORMALS, NormalCalibration
from ecgfair.anomaly.evaluation.decisions import LEVEL, Thresholds, choose_thresholds
from ecgfair.errors import CheckpointError, ConfigurationError
from ecgfair.groups import DEFAULT_AGE_EDGES, Grouping, group_by_demographics


@dataclass(frozen=True)
class Calibration:
    """How strange normal records are, and thresholds, both of the same validation records.

    Args:
        normals: The scores of the normal ones.
        thresholds: Chosen between the normal and the abnormal ones.
        age_edges: First year of each age band but the youngest, if the calibration is by age.
        normal_label: The label of the normal ones.
    """

    normals: NormalCalibration
    thresholds: Thresholds
    age_edges: tuple[int, ...] = DEFAULT_AGE_EDGES
    normal_label: str = "NORM"

    @classmethod
    def fit(
        cls,
        records: Mapping[str, Tensor],
        normal: Tensor,
        abnormal: Tensor,
        *,
        by: str | None,
        age_edges: Sequence[int],
        calibrated_on: str,
        folds: Iterable[int],
        data: Iterable[str] = (),
        normal_label: str,
        level: float = LEVEL,
    ) -> Calibration:
        """Calibrate on gathered validation records.

        Args:
            records: The columns of ``anomaly_records.no_scored_records``.
            normal: (N,) bool.
            abnormal: (N,) bool.
            by: ``sex``, ``age`` or ``sex_x_age``, to hold a record against the normals of its group; ``None`` for all.
            age_edges: See above.
            calibrated_on: The records in words.
            folds: Their folds; none if unknown.
            data: Their data, see ``NormalCalibration``; none if unknown.
            normal_label: See above.
            level: The specificity of one of the thresholds.

        Raises:
            ConfigurationError: There is no normal record.
            ValueError: A score is not finite.
        """
        age, sex, score = (records[name][normal] for name in ("age", "sex", "score"))
        groups = None if by is None else group_by_demographics(by, age, sex, age_edges)
        compared = normal | abnormal
        return cls(
            NormalCalibration.fit(score, groups, MIN_NORMALS, calibrated_on=calibrated_on, folds=folds, data=data),
            choose_thresholds(records["score"][compared], abnormal[compared], chosen_on=calibrated_on, level=level),
            tuple(age_edges),
            normal_label,
        )

    def percentile(self, score: Tensor, age: Tensor, sex: Tensor) -> Tensor:
        """Return (N,) the share of normals that each record is stranger than; NaN where the score is.

        Args:
            score: (N,) of the weights that the calibration was made with.
            age: (N,) years; NaN where missing.
            sex: (N,) codes of ``ecg``.
        """
        return self.normals.percentile(score, self._groups(age, sex))

    def require_disjoint(self, test_folds: Iterable[int], test_data: Iterable[str] = ()) -> None:
        """Refuse to be used on the records that it was made of, see ``NormalCalibration``."""
        self.normals.require_disjoint(test_folds, test_data)

    def _groups(self, age: Tensor, sex: Tensor) -> Grouping | None:
        by = self.normals.attribute
        return group_by_demographics(by, age, sex, self.age_edges) if by else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for a checkpoint that is read with ``weights_only=True``."""
        return {
            "normals": self.normals.to_dict(),
            "thresholds": self.thresholds._asdict(),
            "age_edges": list(self.age_edges),
            "normal_label": self.normal_label,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Read what ``to_dict`` wrote.

        Raises:
            CheckpointError: It is something else.
        """
        try:
            return cls(
                NormalCalibration.from_dict(values["normals"]),
                Thresholds(**values["thresholds"]),
                tuple(int(edge) for edge in values["age_edges"]),
                str(values["normal_label"]),
            )
        except (ConfigurationError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint's calibration of anomaly scores can't be read ({error}): expected what "
                "AnomalyDetection keeps. Validate again, or train again with this version of ecgfair."
            ) from error
