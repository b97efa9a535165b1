"""Thresholds that make decisions of probabilities, and the error rates of these decisions, group by group.

Thresholds are chosen on validation records and travel with the model. On the records they are chosen on, every rate
looks better than it is; hence they know their data and folds, and ``require_disjoint`` refuses to be tested on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.metrics.kernels.checks import check_groups, check_predictions, check_targets
from ecgfair.metrics.kernels.weighted import bag_sums

Rule = Literal["youden", "specificity", "sensitivity"]
YOUDEN: Final = "youden"
SPECIFICITY: Final = "specificity"
SENSITIVITY: Final = "sensitivity"
RULES: Final[tuple[Rule, ...]] = get_args(Rule)

_NOTHING: Final = "inf"
"""How a threshold above every probability is written: JSON has no infinity, nor NaN, which is written as null."""


@dataclass(frozen=True)
class OperatingPoints:
    """A threshold for each label; a record is positive where ``probability >= threshold``.

    Args:
        rule: How they were chosen, see ``choose``.
        level: The specificity or sensitivity asked for; ``None`` for Youden's rule.
        label_names: C names, each once.
        thresholds: C scores; infinite where nothing is positive, NaN where there is no threshold.
        reasons: C texts: why a threshold is infinite or NaN; empty for the others.
        chosen_on: The records they were chosen on, in words: ``"fold 9, epoch 3"``.
        folds: The folds of these records; empty if unknown.
        data: What tells the data of these records from others, a text a store; empty if unknown.

    Raises:
        ConfigurationError: A field is not as described.
    """

    rule: Rule
    level: float | None
    label_names: tuple[str, ...]
    thresholds: tuple[float, ...]
    reasons: tuple[str, ...]
    chosen_on: str
    folds: tuple[int, ...] = ()
    data: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself; make all values plain, so that equal points compare equal."""
        check_rule(self.rule, self.level)
        plain = {
            "label_names": tuple(self.label_names),
            # One and the same NaN: tuples that hold it are equal.
            "thresholds": tuple(math.nan if math.isnan(value) else float(value) for value in self.thresholds),
            "reasons": tuple(self.reasons),
            "folds": tuple(sorted({int(fold) for fold in self.folds})),
            "data": tuple(sorted({str(one) for one in self.data})),
        }
        for name, values in plain.items():
            object.__setattr__(self, name, values)
        sizes = {name: len(plain[name]) for name in ("label_names", "thresholds", "reasons")}
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{size} {name}" for name, size in sizes.items())
            raise ConfigurationError(f"The operating points have {found}: expected one of each for every label.")
        twice = {name for name in self.label_names if self.label_names.count(name) > 1}
        if twice:
            raise ConfigurationError(f"Labels named more than once: {', '.join(sorted(twice))}. Expected each once.")
        for name, value, reason in zip(self.label_names, self.thresholds, self.reasons, strict=True):
            if not 0 <= value <= 1 and value != math.inf and not math.isnan(value):
                raise ConfigurationError(
                    f"The threshold of {name} is {value}: expected one in [0, 1], infinity or NaN."
                )
            if not math.isfinite(value) and not reason:
                raise ConfigurationError(f"The threshold of {name} is {value} without a reason: expected one in words.")

    def for_labels(self, label_names: Sequence[str]) -> OperatingPoints:
        """Return the points of these labels, in their order.

        Raises:
            ConfigurationError: There is no threshold for a label, or it is asked for twice.
        """
        position = {name: column for column, name in enumerate(self.label_names)}
        missing = [name for name in label_names if name not in position]
        if missing:
            raise ConfigurationError(
                f"The operating points chosen on {self.chosen_on} have no threshold for {', '.join(missing)}: expected "
                f"one for each label.{did_you_mean(missing[0], position)}"
            )
        columns = [position[name] for name in label_names]
        return replace(
            self,
            label_names=tuple(label_names),
            thresholds=tuple(self.thresholds[column] for column in columns),
            reasons=tuple(self.reasons[column] for column in columns),
        )

    def require_disjoint(self, test_folds: Iterable[int], test_data: Iterable[str] = ()) -> None:
        """Refuse to be measured on the records that chose the thresholds.

        Fold 9 of one source has nothing to do with fold 9 of another. Where the data are not known on both sides, they
        are taken to be the same.

        Args:
            test_folds: Folds of the test.
            test_data: As ``data``, of the test.

        Raises:
            ConfigurationError: A fold of the test is among ``folds``, or it is not known which folds chose.
        """
        if are_other_data(self.data, test_data):
            return
        advice = "expected validation folds alone. Choose the thresholds on other folds."
        if not self.folds:
            raise ConfigurationError(
                f"The thresholds were chosen on {self.chosen_on}, of unknown folds, which may be those of the test: "
                f"{advice}"
            )
        shared = sorted(set(self.folds) & set(test_folds))
        if shared:
            raise ConfigurationError(
                f"The thresholds were chosen on {self.chosen_on}, with the test folds {shared} among them: {advice}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON and for a checkpoint loaded with ``weights_only=True``."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        plain["thresholds"] = [
            None if math.isnan(value) else _NOTHING if math.isinf(value) else value for value in self.thresholds
        ]
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OperatingPoints:
        """Read what ``to_dict`` wrote.

        Raises:
            ConfigurationError: A field is missing, unknown or not as described.
        """
        values = {"data": (), **values}  # earlier versions did not keep it
        names = [field.name for field in fields(cls)]
        missing, unknown = [name for name in names if name not in values], sorted(set(values) - set(names))
        if missing or unknown:
            raise ConfigurationError(
                f"The operating points lack {', '.join(missing) or 'nothing'} and have unknown "
                f"{', '.join(unknown) or 'nothing'}: expected {', '.join(names)}."
            )
        try:
            thresholds = tuple(math.nan if value is None else float(value) for value in values["thresholds"])
            return cls(**{**values, "thresholds": thresholds})
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"The operating points are {dict(values)!r}, which cannot be read ({error}): expected a list for each "
                f"plural field, with numbers, null or {_NOTHING!r} for thresholds."
            ) from error


def are_other_data(one: Iterable[str], other: Iterable[str]) -> bool:
    """Whether two lists of data, a text a store, are known and have nothing in common."""
    first, second = set(one), set(other)
    return bool(first and second) and first.isdisjoint(second)


def choose(
    probabilities: Tensor,
    targets: Tensor,
    rule: Rule = YOUDEN,
    level: float | None = None,
    weights: Tensor | None = None,
    *,
    label_names: Sequence[str],
    chosen_on: str,
    folds: Iterable[int] = (),
    data: Iterable[str] = (),
) -> OperatingPoints:
    """Choose a threshold for each label, on validation records.

    A threshold is one of the probabilities seen, and positive is what reaches it. The rules:

    - ``youden``: the largest sensitivity + specificity - 1 (Youden 1950). Of several equally good ones the lowest, so
      the most sensitive: a missed disease weighs more than a false alarm.
    - ``specificity``: the lowest one with a specificity of at least ``level``; infinite, so that nothing is positive,
      where the highest scores belong to too many negatives.
    - ``sensitivity``: the highest one with a sensitivity of at least ``level``.

    With whole-number weights all comparisons are exact, ties included.

    Args:
        probabilities: (N, C) in [0, 1]; a label with a NaN has no threshold.
        targets: (N, C), 0 or 1, of any type.
        rule: Which of the three.
        level: The specificity or sensitivity, above 0 and below 1; ``None`` for Youden's rule.
        weights: (N,), not negative; records of weight 0 are not there. ``None`` for ones.
        label_names: C names.
        chosen_on: The records in words, see ``OperatingPoints``.
        folds: Their folds.
        data: Their data, see ``OperatingPoints``.

    Raises:
        ConfigurationError: The rule is unknown, the level does not fit it, or the names do not fit the labels.
        ValueError: An input is not what it should be; see ``checks``.
    """
    check_rule(rule, level)
    failed = probabilities.isnan().sum(0)
    scores = probabilities.detach().double().nan_to_num(0.0)
    check_targets(probabilities, targets)
    check_predictions(scores, targets)
    if len(label_names) != scores.shape[1]:
        raise ConfigurationError(
            f"There are {len(label_names)} label names for {scores.shape[1]} labels: expected one for each."
        )
    mass = scores.new_ones(len(scores)) if weights is None else weights.double()
    check_groups(len(scores), torch.zeros(len(scores), dtype=torch.int64, device=scores.device), 1, mass[None])
    present = mass > 0
    thresholds = _thresholds(scores[present], targets[present] == 1, mass[present], rule, level or 0.0)
    positives = (targets[present] == 1).sum(0).tolist()
    reasons = [
        _reason(value, bad, len(scores), found, int(present.sum()) - found, f"{rule} of at least {level}")
        for value, bad, found in zip(thresholds.tolist(), failed.tolist(), positives, strict=True)
    ]
    thresholds = thresholds.masked_fill(failed > 0, torch.nan)
    return OperatingPoints(
        rule,
        level,
        tuple(label_names),
        tuple(thresholds.tolist()),
        tuple(reasons),
        chosen_on,
        tuple(folds),
        tuple(data),
    )


def rates(
    probabilities: Tensor, targets: Tensor, thresholds: Tensor, codes: Tensor, groups: int, weights: Tensor
) -> dict[str, Tensor]:
    """Compute the rates of right and wrong decisions at given thresholds.

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C), 0 or 1, of any type.
        thresholds: (C,); positive is ``probability >= threshold``. NaN where there is none.
        codes: (N,) int64 group of each record, 0 to ``groups`` - 1.
        groups: Number of groups, G.
        weights: (R, N), not negative.

    Returns:
        ``tpr`` (sensitivity), ``fpr`` (1 - specificity), ``fnr`` (1 - sensitivity) and ``ppv`` (precision), each
        (R, G, C) float64; NaN where a label has no threshold, or no record of the class (for ``ppv``: of the
        decision) weighs anything.

    Raises:
        ValueError: An input is not what it should be; see ``checks``.
    """
    check_predictions(probabilities, targets)
    check_groups(len(probabilities), codes, groups, weights)
    labels = probabilities.shape[1]
    if thresholds.shape != (labels,):
        raise ValueError(f"thresholds have the shape {tuple(thresholds.shape)}: expected ({labels},), one a label.")
    cutoffs = thresholds.to(device=probabilities.device, dtype=torch.float64)
    decided = (probabilities.double() >= cutoffs).long()
    # Four bags a label and group: true negatives, false positives, false negatives, true positives.
    cells = (torch.arange(labels, device=codes.device) * groups + codes[:, None]) * 4
    bags = cells + (targets == 1).long() * 2 + decided
    sums = bag_sums(bags, labels * groups * 4, weights.T.double().contiguous())
    sums = sums.reshape(labels, groups, 4, len(weights)).permute(2, 3, 1, 0)
    true_negative, false_positive, false_negative, true_positive = sums.masked_fill(cutoffs.isnan(), torch.nan)
    positive = true_positive + false_negative
    return {  # 0 / 0 is the NaN of an absent class
        "tpr": true_positive / positive,
        "fpr": false_positive / (false_positive + true_negative),
        "fnr": false_negative / positive,
        "ppv": true_positive / (true_positive + false_positive),
    }


def check_rule(rule: str, level: float | None) -> None:
    """Refuse a rule that does not exist, and a level that it can't work with."""
    if rule not in RULES:
        raise ConfigurationError(f"The rule for thresholds is {rule!r}.{did_you_mean(rule, RULES)}")
    if rule == YOUDEN:
        if level is not None:
            raise ConfigurationError(
                f"level is {level}: expected none, since Youden's rule has no level. Leave it out."
            )
    elif level is None or not 0 < level < 1:
        raise ConfigurationError(f"level is {level}: expected a {rule} above 0 and below 1, such as 0.9.")


def _thresholds(scores: Tensor, positive: Tensor, weights: Tensor, rule: Rule, level: float) -> Tensor:
    """(C,) thresholds of records that weigh something: NaN without both classes, infinite if only nothing fits."""
    if not len(scores):
        return scores.new_full(scores.shape[1:], torch.nan)
    ranked, order = scores.sort(0, descending=True)
    mass, is_positive = weights[order], positive.gather(0, order)
    # If the threshold is the score of a row: what reaches it. Right only in the last row of a tie.
    hits = mass.where(is_positive, 0.0).cumsum(0)
    alarms = mass.where(~is_positive, 0.0).cumsum(0)
    last = torch.ones_like(is_positive)
    last[:-1] = ranked[:-1] != ranked[1:]
    if rule == YOUDEN:
        # Times positives times negatives: with whole numbers no rounding, so equally good ones are equal.
        gain = (hits * alarms[-1] - alarms * hits[-1]).masked_fill(~last, -torch.inf)
        row = _last_row(gain == gain.amax(0))
    elif rule == SPECIFICITY:
        row = _last_row(last & ((alarms[-1] - alarms) / alarms[-1] >= level))
    else:
        row = (hits / hits[-1] >= level).long().argmax(0)  # within a tie, too, the score is that of the tie
    found = ranked.gather(0, row.clamp_min(0)[None])[0].masked_fill(row < 0, torch.inf)
    return found.masked_fill((hits[-1] == 0) | (alarms[-1] == 0), torch.nan)


def _last_row(holds: Tensor) -> Tensor:
    """(C,) the last row of (N, C) that is true, -1 without one."""
    rows = torch.arange(len(holds), device=holds.device)[:, None]
    return torch.where(holds, rows, -1).amax(0)


def _reason(threshold: float, failed: int, records: int, positives: int, negatives: int, wish: str) -> str:
    """Say why there is no finite threshold; empty if there is one."""
    if failed:
        return f"the probability is NaN for {failed} of {records} validation records"
    if math.isnan(threshold):
        lacking = [name for name, count in (("positive", positives), ("negative", negatives)) if not count]
        return f"no {' and no '.join(lacking)} validation record"
    return f"no threshold has a {wish} on the validation records: nothing is positive" if math.isinf(threshold) else ""
