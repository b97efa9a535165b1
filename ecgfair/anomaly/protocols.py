"""Which records an anomaly score is learnt on, chosen on and tested on, and which of them are normal.

Two protocols for PTB-XL, to be named wherever a number of theirs is printed: that of the published method, and one
without its faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.metrics.kernels.checks import refuse

Mixed = Literal["neither", "first by name"]
NEITHER: Final = "neither"
FIRST_BY_NAME: Final = "first by name"

Part = Literal["train", "choose", "test"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

NORMAL: Final = "normal"
ABNORMAL: Final = "abnormal"
MIXED: Final = "normal and another label"
UNLABELLED: Final = "no label"
NO_BEAT: Final = "no beat"
KINDS: Final = (NORMAL, ABNORMAL, MIXED, UNLABELLED, NO_BEAT)
"""What a record can be; only the first two take part."""

NORMAL_LABEL: Final = "NORM"


@dataclass(frozen=True)
class Protocol:
    """Folds, and what becomes of the records that are not plainly normal or abnormal.

    Args:
        name: As it is printed beside every number.
        train_folds: Their normal records are what a score is learnt on.
        choose_folds: Their records choose the epoch and the thresholds.
        test_folds: Their records are what is reported.
        mixed: What a record is that is positive for the normal label and for another one: ``"neither"``, or what the
            first of its labels says, in the order of their names.
        drops_without_beat: Leave out records in which no R peak was found.
        description: Where it comes from and what is to be known of it, in a sentence or two.

    Raises:
        ConfigurationError: A part has no fold, the model would be tested or chosen on what it is trained on, or
            ``mixed`` is not one of its values.
    """

    name: str
    train_folds: tuple[int, ...]
    choose_folds: tuple[int, ...]
    test_folds: tuple[int, ...]
    mixed: Mixed
    drops_without_beat: bool
    description: str

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        empty = [part for part in PARTS if not self.folds(part)]
        if empty:
            raise ConfigurationError(f"The protocol {self.name!r} has no fold to {empty[0]}: expected one or more.")
        shared = sorted(set(self.train_folds) & {*self.choose_folds, *self.test_folds})
        if shared:
            raise ConfigurationError(
                f"The protocol {self.name!r} trains on the folds {shared}, which it chooses or tests on: expected "
                "other folds."
            )
        if self.mixed not in get_args(Mixed):
            raise ConfigurationError(
                f"mixed of the protocol {self.name!r} is {self.mixed!r}.{did_you_mean(self.mixed, get_args(Mixed))}"
            )

    def folds(self, part: Part) -> tuple[int, ...]:
        """Return the folds of a part."""
        return {"train": self.train_folds, "choose": self.choose_folds, "test": self.test_folds}[part]

    @property
    def chooses_on_test(self) -> bool:
        """Whether records that are reported also chose what is reported: the numbers are then too good."""
        return bool(set(self.choose_folds) & set(self.test_folds))

    @property
    def title(self) -> str:
        """Name and folds, as every table carries them."""
        train, choose, test = (in_words(self.folds(part)) for part in PARTS)
        chosen = f"chosen and tested on {test}" if choose == test else f"chosen on {choose}, tested on {test}"
        return f"{self.name} protocol: trained on the normals of {train}, {chosen}"


CORRECTED: Final = Protocol(
    name="corrected",
    train_folds=tuple(range(1, 9)),
    choose_folds=(9,),
    test_folds=(10,),
    mixed=NEITHER,
    drops_without_beat=False,
    description=(
        "Trained on records that are normal and nothing else; chosen on fold 9, which is not tested on. Records that "
        "are normal and something else, and those without a label, are in no statistic and are counted."
    ),
)
PUBLISHED: Final = Protocol(
    name="published",
    train_folds=tuple(range(1, 10)),
    choose_folds=(10,),
    test_folds=(10,),
    mixed=FIRST_BY_NAME,
    drops_without_beat=True,
    description=(
        "As the authors of the published method do it: the epoch is chosen on the test fold itself, so results are "
        "too good; records without a beat are dropped; of the labels of a record one counts. There it is taken from an "
        "unordered set and changes between runs; here it is the first by name, so that every run is the same."
    ),
)
PROTOCOLS: Final = {protocol.name: protocol for protocol in (CORRECTED, PUBLISHED)}


def protocol_named(name: str) -> Protocol:
    """Return one of ``PROTOCOLS``.

    Raises:
        ConfigurationError: There is none of this name.
    """
    if name not in PROTOCOLS:
        raise ConfigurationError(f"There is no protocol {name!r}.{did_you_mean(name, PROTOCOLS)}")
    return PROTOCOLS[name]


@dataclass(frozen=True, eq=False)
class Selection:
    """What a protocol makes of N records.

    Args:
        protocol: Which.
        kind: (N,) int64, position in ``KINDS``.
        folds: (N,) int64.
        mixed: (N,) bool, positive for the normal label and for another one, whatever the protocol makes of it.
    """

    protocol: Protocol
    kind: Tensor
    folds: Tensor
    mixed: Tensor

    @property
    def normal(self) -> Tensor:
        """(N,) bool, in all folds."""
        return self.kind == KINDS.index(NORMAL)

    @property
    def abnormal(self) -> Tensor:
        """(N,) bool, in all folds."""
        return self.kind == KINDS.index(ABNORMAL)

    @property
    def neither(self) -> Tensor:
        """(N,) bool, in all folds: in no part."""
        return ~(self.normal | self.abnormal)

    @property
    def train(self) -> Tensor:
        """(N,) bool: the normal records of the training folds."""
        return self.normal & self.in_folds_of("train")

    @property
    def choose(self) -> Tensor:
        """(N,) bool: normal and abnormal records of the folds that choose."""
        return ~self.neither & self.in_folds_of("choose")

    @property
    def test(self) -> Tensor:
        """(N,) bool: normal and abnormal records of the folds that are reported."""
        return ~self.neither & self.in_folds_of("test")

    def in_folds_of(self, part: Part) -> Tensor:
        """Return (N,) bool: records of a part's folds, of every kind."""
        return torch.isin(self.folds, torch.tensor(self.protocol.folds(part), device=self.folds.device))

    def counts(self, part: Part) -> dict[str, int]:
        """Return how many records of each of ``KINDS`` lie in the folds of a part."""
        counted = torch.bincount(self.kind[self.in_folds_of(part)], minlength=len(KINDS)).tolist()
        return dict(zip(KINDS, counted, strict=True))

    def left_out(self, part: Part) -> dict[str, Tensor]:
        """Return the positions of the records of a part's folds that are neither normal nor abnormal, by kind."""
        within = self.in_folds_of(part)
        return {
            kind: (within & (self.kind == code)).nonzero()[:, 0]
            for code, kind in enumerate(KINDS)
            if kind not in (NORMAL, ABNORMAL)
        }

    def lines(self) -> tuple[str, ...]:
        """Say in sentences what is trained on, chosen on and tested on, and what is left out."""
        told = [f"{self.protocol.title}.", self.protocol.description]
        for part in PARTS:
            counts = self.counts(part)
            normal, abnormal = counts.pop(NORMAL), counts.pop(ABNORMAL)
            if part == "train":  # they are there, but nothing is learnt from them
                counts = {ABNORMAL: abnormal, **counts}
            taken = f"{normal:,} normal" + f" and {abnormal:,} abnormal" * (part != "train")
            rest = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
            told.append(f"{part}: {taken} records" + (f"; left out: {rest}." if rest else "."))
        told += self._resolved()
        parts = torch.stack([self.in_folds_of(part) for part in PARTS]).any(0)
        if elsewhere := int((~parts).sum()):
            told.append(f"{elsewhere:,} records are of no fold of this protocol.")
        return tuple(told)

    def _resolved(self) -> list[str]:
        """Say what became of mixed records that do take part."""
        within = self.in_folds_of("test") & self.mixed
        normal, abnormal = int((within & self.normal).sum()), int((within & self.abnormal).sum())
        if not normal + abnormal:
            return []
        return [
            f"test: {normal + abnormal:,} records have the normal label and another one; by the first of their names "
            f"{normal:,} count as normal and {abnormal:,} as abnormal."
        ]


def select(
    protocol: Protocol,
    labels: Tensor,
    label_names: Sequence[str],
    folds: Tensor,
    has_beat: Tensor | None = None,
    *,
    normal_label: str = NORMAL_LABEL,
) -> Selection:
    """Say of each record what it is.

    A record is normal that is positive for the normal label and for no other one of ``label_names``, abnormal that is
    not positive for it but for at least one other. Hence the label set has to be one whose labels exclude the normal
    one in principle, such as the superdiagnostic classes: with rhythms among them, every healthy person in sinus rhythm
    would be normal and something else.

    Args:
        protocol: Which.
        labels: (N, C), 0 or 1, of any type.
        label_names: C names.
        folds: (N,) whole numbers; one of no part, such as -1, where unknown.
        has_beat: (N,) bool, whether an R peak is known; ``None`` if nobody looked, which a protocol that drops records
            without a beat refuses.
        normal_label: The label of the normal records.

    Raises:
        ConfigurationError: There is no such label, or beats are needed and not given.
        ValueError: Shapes do not fit, or a label is neither 0 nor 1.
    """
    names = list(label_names)
    if normal_label not in names:
        raise ConfigurationError(
            f"The protocol {protocol.name!r} takes {normal_label!r} for the normal label, and the label set has none "
            f"of this name.{did_you_mean(normal_label, names)}"
        )
    if protocol.drops_without_beat and has_beat is None:
        raise ConfigurationError(
            f"The protocol {protocol.name!r} drops records without a beat, and has_beat is not given: expected one "
            "truth value a record."
        )
    _check(labels, names, folds, has_beat)
    positive = labels == 1
    at = names.index(normal_label)
    is_normal = positive[:, at]
    has_other = torch.cat([positive[:, :at], positive[:, at + 1 :]], 1).any(1)
    mixed = is_normal & has_other
    kind = torch.full_like(folds, KINDS.index(UNLABELLED), dtype=torch.int64)
    kind[is_normal & ~has_other] = KINDS.index(NORMAL)
    kind[has_other & ~is_normal] = KINDS.index(ABNORMAL)
    kind[mixed] = KINDS.index(MIXED)
    if protocol.mixed == FIRST_BY_NAME:
        earlier = [column for column, name in enumerate(names) if name < normal_label]
        other_first = positive[:, earlier].any(1)
        kind[mixed & ~other_first] = KINDS.index(NORMAL)
        kind[mixed & other_first] = KINDS.index(ABNORMAL)
    if protocol.drops_without_beat and has_beat is not None:
        kind[~has_beat] = KINDS.index(NO_BEAT)
    return Selection(protocol, kind, folds, mixed)


def in_words(folds: Sequence[int]) -> str:
    """Write folds as people do: ``fold 9``, ``folds 1-8``, ``folds 1, 3``."""
    ordered = sorted(set(folds))
    first, last = ordered[0], ordered[-1]
    if len(ordered) == 1:
        return f"fold {first}"
    if len(ordered) > 2 and ordered == list(range(first, last + 1)):
        return f"folds {first}-{last}"
    return f"folds {', '.join(map(str, ordered))}"


def _check(labels: Tensor, names: Sequence[str], folds: Tensor, has_beat: Tensor | None) -> None:
    """Refuse what is not one of each for every record and label."""
    if labels.ndim != 2 or labels.shape[1] != len(names):
        raise ValueError(
            f"labels have the shape {tuple(labels.shape)} and there are {len(names)} label names: expected (records, "
            "labels), and a name for each label."
        )
    for name, column in {"folds": folds, "has_beat": has_beat}.items():
        if column is None:
            continue
        is_bool, wanted = column.dtype == torch.bool, name == "has_beat"
        if column.shape != labels.shape[:1] or column.is_floating_point() or is_bool != wanted:
            raise ValueError(
                f"{name} is {column.dtype} of the shape {tuple(column.shape)}: expected one "
                f"{'truth value' if wanted else 'whole number'} for each of {len(labels)} records."
            )
    refuse(((labels != 0) & (labels != 1), "labels are neither 0 nor 1", "0 or 1; leave uncertain records out"))
