"""Anomaly scores as percentiles of normal records: 0.99 means stranger than 99 % of the normals.

A score has the scale of its model. Its percentile has that of the people whose ECG is normal: all of them, or those of
the same group. What is usual at 80 is strange at 20; with the normals of all ages in one, more of the healthy old than
of the healthy young are told that they are strange. ``false_alarms`` measures whether that is so, and what calibration
by group changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.groups import CROSS, DEMOGRAPHICS, UNKNOWN, Grouping
from ecgfair.metrics.kernels.operating_points import are_other_data

MIN_NORMALS: Final = 50
"""Of a group, for percentiles of its own: with n normals they come in steps of 1 / (n + 1)."""


@dataclass(frozen=True)
class NormalCalibration:
    """The scores of normal validation records, against which other records are held; made by ``fit``.

    Args:
        scores: Of n normals, finite, rising.
        calibrated_on: These records in words: ``"fold 9, epoch 3"``.
        folds: Their folds; empty if unknown.
        data: What tells their data from others, a text a store; empty if unknown.
        attribute: By which groups, such as ``"sex_x_age"``; empty for all normals together.
        names: The groups; empty for all normals together.
        codes: The group of each of the n normals, a position in ``names``; empty for all normals together.
        min_normals: A group with fewer is held against all normals.

    Raises:
        ConfigurationError: A field is not as described.
    """

    scores: tuple[float, ...]
    calibrated_on: str
    folds: tuple[int, ...] = ()
    attribute: str = ""
    names: tuple[str, ...] = ()
    codes: tuple[int, ...] = ()
    min_normals: int = MIN_NORMALS
    data: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself; make all values plain, so that equal calibrations compare equal."""
        plain = {
            "scores": tuple(float(score) for score in self.scores),
            "folds": tuple(sorted({int(fold) for fold in self.folds})),
            "data": tuple(sorted({str(one) for one in self.data})),
            "names": tuple(str(name) for name in self.names),
            "codes": tuple(int(code) for code in self.codes),
        }
        for name, values in plain.items():
            object.__setattr__(self, name, values)
        if not self.scores:
            raise ConfigurationError(
                f"There is no normal record to calibrate on in {self.calibrated_on}: expected some, at best "
                f"{MIN_NORMALS} or more a group. Choose another part of the data, or the label that means normal."
            )
        if not all(math.isfinite(score) for score in self.scores) or list(self.scores) != sorted(self.scores):
            raise ConfigurationError(
                "The scores of the normals do not rise, or are not finite: expected what fit made."
            )
        if bool(self.attribute) != bool(self.names) or len(self.codes) != (len(self.scores) if self.names else 0):
            raise ConfigurationError(
                f"The calibration by {self.attribute or 'no attribute'} has {len(self.names)} groups and the group of "
                f"{len(self.codes)} of {len(self.scores)} normals: expected the group of each, or none of these."
            )
        if any(not 0 <= code < len(self.names) for code in self.codes):
            raise ConfigurationError(f"A normal is of no group: expected codes from 0 to {len(self.names) - 1}.")
        if self.min_normals < 1:
            raise ConfigurationError(f"min_normals is {self.min_normals}: expected 1 or more, such as {MIN_NORMALS}.")

    @classmethod
    def fit(
        cls,
        scores: Tensor,
        groups: Grouping | None = None,
        min_normals: int = MIN_NORMALS,
        *,
        calibrated_on: str = "normals of unknown folds",
        folds: Iterable[int] = (),
        data: Iterable[str] = (),
    ) -> NormalCalibration:
        """Calibrate on the scores of normal records.

        Args:
            scores: (N,) of normals alone, finite.
            groups: Of the same N records, to hold each record against the normals of its own group; ``None`` for all.
            min_normals: A group with fewer, and the one of unknown attributes, is held against all normals.
            calibrated_on: The records in words, see ``NormalCalibration``.
            folds: Their folds.
            data: Their data, see ``NormalCalibration``.

        Raises:
            ConfigurationError: There is no normal, or ``min_normals`` is below 1.
            ValueError: A score is not finite, or the groups are not those of the records.
        """
        _check_scores(scores, groups)
        if count := int((~scores.isfinite()).sum()):
            raise ValueError(
                f"The scores of {count} of {len(scores)} normals are NaN or infinite: expected finite ones; look for "
                "the records that the model fails on."
            )
        ranked, order = scores.detach().double().sort(stable=True)
        found = cls(tuple(ranked.tolist()), calibrated_on, tuple(folds), min_normals=min_normals, data=tuple(data))
        if groups is None:
            return found
        codes = groups.codes.to(order.device)[order]
        return replace(found, attribute=groups.attribute, names=groups.names, codes=tuple(codes.tolist()))

    @property
    def normals(self) -> dict[str, int]:
        """How many each group has, in the order of ``names``."""
        counts = torch.bincount(self._codes, minlength=len(self.names)).tolist()
        return dict(zip(self.names, counts, strict=True)) if self.names else {}

    @property
    def fallback(self) -> dict[str, int]:
        """The groups that are held against all normals, with how many of their own they have."""
        return {name: count for name, count in self.normals.items() if name == UNKNOWN or count < self.min_normals}

    def ungrouped(self) -> NormalCalibration:
        """Return the calibration by the same normals, all together."""
        return replace(self, attribute="", names=(), codes=())

    def percentile(self, scores: Tensor, groups: Grouping | None = None) -> Tensor:
        """Return the share of normals that a record is stranger than.

        It is (r + 1/2) / (n + 1), where r of n normals have a lower score, one with the same score counting half. If
        the record were a normal like the n others, r would be any of 0 to n with the same chance: so a share q of new
        normals exceeds 1 - q, up to half a step of 1 / (n + 1). It is never 0 or 1, since n normals can't tell what
        one in more than n is like. Records beyond all normals are tied at (n + 1/2) / (n + 1): rank records by scores,
        not by percentiles.

        Args:
            scores: (N,), of the model that the calibration was made with; NaN where undefined.
            groups: Of these N records, if the calibration is by group.

        Returns:
            (N,) float64 above 0 and below 1; NaN where the score is.

        Raises:
            ConfigurationError: The groups are not those of the calibration.
            ValueError: The groups are not those of the records.
        """
        _check_scores(scores, groups)
        self._check_grouping(groups)
        values = scores.detach().double()
        result = _percentile(values, self._scores.to(values.device))
        if groups is None:
            return result
        codes, enough = groups.codes.to(values.device), set(self.names) - set(self.fallback)
        for code, name in enumerate(groups.names):
            if name in enough:
                members = codes == code
                own = self._scores[self._codes == self.names.index(name)]
                result[members] = _percentile(values[members], own.to(values.device))
        return result

    def require_disjoint(self, test_folds: Iterable[int], test_data: Iterable[str] = ()) -> None:
        """Refuse to tell how strange the very records are that say what is normal.

        Where the data are not known on both sides, they are taken to be the same.

        Args:
            test_folds: Folds of the test.
            test_data: As ``data``, of the test.

        Raises:
            ConfigurationError: A fold of the test is among ``folds``, or it is not known on which ones it was made.
        """
        if are_other_data(self.data, test_data):
            return
        advice = "expected validation folds alone. Calibrate on other folds."
        if not self.folds:
            raise ConfigurationError(
                f"The anomaly scores were calibrated on {self.calibrated_on}, of unknown folds, which may be those of "
                f"the test: {advice}"
            )
        shared = sorted(set(self.folds) & set(test_folds))
        if shared:
            raise ConfigurationError(
                f"The anomaly scores were calibrated on {self.calibrated_on}, with the test folds {shared} among them: "
                f"{advice}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON and for a checkpoint loaded with ``weights_only=True``."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NormalCalibration:
        """Read what ``to_dict`` wrote.

        Raises:
            ConfigurationError: A field is missing, unknown or not as described.
        """
        values = {"data": (), **values}  # earlier versions did not keep it
        names = [each.name for each in fields(cls)]
        missing, unknown = [name for name in names if name not in values], sorted(set(values) - set(names))
        if missing or unknown:
            raise ConfigurationError(
                f"The calibration lacks {', '.join(missing) or 'nothing'} and has unknown "
                f"{', '.join(unknown) or 'nothing'}: expected {', '.join(names)}."
            )
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"The calibration can't be read ({error}): expected lists of numbers for scores, folds and codes, a "
                "list of texts for names, and a whole number for min_normals."
            ) from error

    @cached_property
    def _scores(self) -> Tensor:
        return torch.tensor(self.scores, dtype=torch.float64)

    @cached_property
    def _codes(self) -> Tensor:
        return torch.tensor(self.codes, dtype=torch.int64)

    def _check_grouping(self, groups: Grouping | None) -> None:
        """Refuse groups by another attribute, or cut in another way."""
        attribute = groups.attribute if groups else ""
        if attribute != self.attribute:
            raise ConfigurationError(
                f"The calibration is by {self.attribute or 'no attribute'} and the groups of the records by "
                f"{attribute or 'no attribute'}: expected the same. Calibrate again, or use ungrouped()."
            )
        # Those of age and sex are fixed by configuration. A column may have values that no calibrating record has.
        fixed = set(attribute.split(CROSS)) <= set(DEMOGRAPHICS)
        strange = [name for name in groups.names if name not in self.names] if groups and fixed else []
        if strange:
            raise ConfigurationError(
                f"The calibration by {attribute} knows no group {strange[0]!r}: expected groups with the same edges."
                f"{did_you_mean(strange[0], self.names)}"
            )


def _percentile(values: Tensor, normals: Tensor) -> Tensor:
    """(N,) percentiles of float64 values among rising normals."""
    low, high = (torch.searchsorted(normals, values, right=right) for right in (False, True))
    return ((low + high + 1).double() / (2 * (len(normals) + 1))).masked_fill(values.isnan(), torch.nan)


def _check_scores(scores: Tensor, groups: Grouping | None) -> None:
    """Refuse scores that are not one a record, and groups of other records."""
    if scores.ndim != 1 or not scores.is_floating_point():
        raise ValueError(f"scores are {scores.dtype} of the shape {tuple(scores.shape)}: expected one number a record.")
    if groups is not None and groups.codes.shape != scores.shape:
        raise ValueError(
            f"There are {len(scores)} scores and groups of {len(groups.codes)} records: expected a group for each."
        )
