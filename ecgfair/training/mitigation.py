"""What stage 2 can do against being worse for some groups: settings, and the label loss under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ecgfair.ecg import ATTRIBUTES, EcgBatch
from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.groups import CROSS, DEFAULT_AGE_EDGES, DEMOGRAPHICS, age_bands, group_by_demographics
from ecgfair.losses.group_robust import GroupRobustLoss
from ecgfair.losses.mean import Mean
from ecgfair.losses.reweighting import LabelReweighting


@runtime_checkable
class GroupCounts(Protocol):
    """A data module that can count its training records by group."""

    def group_counts(self, attribute: str, age_edges: Sequence[int], *, as_drawn: bool) -> tuple[Tensor, Tensor]:
        """Return the training records (G,) and the positives (G, C) of each group of a demographic.

        Args:
            attribute: ``sex``, ``age`` or ``sex_x_age``.
            age_edges: See ``groups.age_bands``.
            as_drawn: Count a record as often as an epoch draws it on average, not once.
        """
        ...


@dataclass
class Mitigation:
    """What training does against being worse for some groups; all off by default.

    Each can be combined with the others, and with group-balanced sampling (``data.init_args.sampling``) and with a
    checkpoint chosen by the worst group (``BestCheckpoint``). With ``reweighting_cap`` and ``robust_step`` both, losses
    are reweighted first, so that the groups' losses differ by how well they are served, not by their prevalence. They
    change training alone: the loss of validation stays as it is without.

    Args:
        groups: Demographic whose groups are meant by ``robust_step`` and ``reweighting_cap``: ``sex``, ``age`` or
            ``sex_x_age``; records that lack it are a group of their own.
        age_edges: First year of each age band but the youngest.
        robust_step: Step size of group distributionally robust optimisation, see ``losses.group_robust``; 0 is off,
            0.01 is usual.
        robust_adjustment: Its generalisation adjustment; needs ``robust_step``.
        reweighting_cap: Greatest weight of label-wise reweighting, see ``losses.reweighting``; 0 is off, 10 is usual.
        adversary_strength: Factor of the reversed gradient of an adversary on the pooled features, see
            ``models.adversary``; 0 is off, 1 is usual. What it predicts is no auxiliary target of ``attribute_weight``
            then: the two would pull the encoder in opposite directions.
        adversary_attributes: What it predicts: ``age``, ``sex`` or both.
        adversary_hidden: Units of its hidden layer.
        adversary_steps: Its own steps a batch; with fewer it lags behind, and nothing is hidden.
        adversary_learning_rate: Of its own optimiser; it hides more the further it is above the encoder's.

    Raises:
        ConfigurationError: A value can't work, or two contradict each other.
    """

    groups: str = "sex_x_age"
    age_edges: tuple[int, ...] = DEFAULT_AGE_EDGES
    robust_step: float = 0.0
    robust_adjustment: float = 0.0
    reweighting_cap: float = 0.0
    adversary_strength: float = 0.0
    adversary_attributes: tuple[str, ...] = DEMOGRAPHICS
    adversary_hidden: int = 64
    adversary_steps: int = 10
    adversary_learning_rate: float = 0.01

    def __post_init__(self) -> None:
        """Refuse values that can't work; lists, as YAML has them, become tuples."""
        self.age_edges, self.adversary_attributes = tuple(self.age_edges), tuple(self.adversary_attributes)
        age_bands(self.age_edges)
        parts = self.groups.split(CROSS)
        if not set(parts) <= set(DEMOGRAPHICS) or len(set(parts)) < len(parts):
            raise ConfigurationError(
                f"mitigation.groups is {self.groups!r}: expected sex, age or both, joined as sex_x_age."
            )
        for name in ("robust_step", "robust_adjustment", "adversary_strength"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigurationError(f"mitigation.{name} is {getattr(self, name)}: expected 0 (off) or more.")
        if self.robust_adjustment and not self.robust_step:
            raise ConfigurationError(
                f"mitigation.robust_adjustment is {self.robust_adjustment} while robust_step is 0, which is off: set "
                "robust_step, such as 0.01, or leave the adjustment out."
            )
        if self.reweighting_cap and not 1 <= self.reweighting_cap < float("inf"):
            raise ConfigurationError(
                f"mitigation.reweighting_cap is {self.reweighting_cap}: expected 0 (off) or a greatest weight of at "
                "least 1, such as 10."
            )
        self._check_adversary()

    def _check_adversary(self) -> None:
        for name in self.adversary_attributes:
            if name not in DEMOGRAPHICS:
                raise ConfigurationError(
                    f"mitigation.adversary_attributes has {name!r}.{did_you_mean(name, DEMOGRAPHICS)}"
                )
        if not self.adversary_attributes or len(set(self.adversary_attributes)) < len(self.adversary_attributes):
            raise ConfigurationError(
                f"mitigation.adversary_attributes is {list(self.adversary_attributes)}: expected age, sex or both, "
                "each once. adversary_strength 0 trains without an adversary."
            )
        for name in ("adversary_hidden", "adversary_steps"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"mitigation.{name} is {getattr(self, name)}: expected 1 or more.")
        if not 0 < self.adversary_learning_rate < float("inf"):
            raise ConfigurationError(
                f"mitigation.adversary_learning_rate is {self.adversary_learning_rate}: expected a positive number."
            )

    @property
    def changes_label_loss(self) -> bool:
        """Whether the loss of the labels is another one than without."""
        return self.robust_step > 0 or self.reweighting_cap > 0

    @property
    def hidden_attributes(self) -> tuple[str, ...]:
        """What the features are not to tell; nothing without an adversary."""
        return self.adversary_attributes if self.adversary_strength else ()

    def switched_on(self) -> dict[str, Any]:
        """Return the settings that have an effect, plain values as a checkpoint keeps them."""
        of_adversary = ("adversary_attributes", "adversary_hidden", "adversary_steps", "adversary_learning_rate")
        effective = {
            "groups": self.changes_label_loss,
            "age_edges": self.changes_label_loss and "age" in self.groups,
            **dict.fromkeys(of_adversary, self.adversary_strength > 0),
        }
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if effective.get(name, bool(value))
        }


class MitigatedLoss(nn.Module):
    """The label loss under ``robust_step`` and ``reweighting_cap``.

    Args:
        mitigation: The settings.
        labels: Number of labels.
    """

    def __init__(self, mitigation: Mitigation, labels: int) -> None:
        super().__init__()
        self.mitigation = mitigation
        groups = len(self._codes(torch.zeros(0), torch.zeros(0, dtype=torch.int64))[1])
        self.reweighting: LabelReweighting | None = None
        self.robust: GroupRobustLoss | None = None
        if mitigation.reweighting_cap:
            self.reweighting = LabelReweighting(groups, labels, mitigation.reweighting_cap)
        if mitigation.robust_step:
            self.robust = GroupRobustLoss(groups, mitigation.robust_step, mitigation.robust_adjustment)

    def count(self, source: object) -> None:
        """Ask the data how many training records and positives each group has.

        Args:
            source: The data module.

        Raises:
            ConfigurationError: It can't say, or its counts are impossible.
        """
        if not isinstance(source, GroupCounts):
            raise ConfigurationError(
                "model.mitigation needs the training records of each group; "
                f"{'no data module was given' if source is None else f'{type(source).__name__} has no group_counts'}. "
                "Expected a data module of ecgfair, or one with group_counts(attribute, age_edges, as_drawn)."
            )
        settings = self.mitigation
        if self.reweighting is not None:
            # What the loss averages over is what is drawn.
            self.reweighting.count(*source.group_counts(settings.groups, settings.age_edges, as_drawn=True))
        if self.robust is not None:
            # How much a group is overfitted depends on how many records there are, however often they come.
            self.robust.count(source.group_counts(settings.groups, settings.age_edges, as_drawn=False)[0])

    def forward(self, losses: Tensor, batch: EcgBatch) -> Mean:
        """Return what is to be minimised; the robust loss of a step, which is that of all processes, counts once.

        Args:
            losses: (B, C) loss of each record and label.
            batch: The records.
        """
        codes, _ = self._codes(batch["age"], batch["sex"])
        if self.reweighting is not None:
            losses = self.reweighting(losses, batch["labels"], codes)
        if self.robust is None:
            return Mean.of(losses)
        return Mean.over(self.robust(losses.mean(1), codes), 1)

    def _codes(self, age: Tensor, sex: Tensor) -> tuple[Tensor, tuple[str, ...]]:
        grouping = group_by_demographics(self.mitigation.groups, age, sex, self.mitigation.age_edges)
        return grouping.codes, grouping.names


def without(attributes: Tensor, names: Sequence[str]) -> Tensor:
    """Return attributes (B, A) with these columns missing: no loss asks for them."""
    if not names:
        return attributes
    kept = torch.tensor([name not in names for name in ATTRIBUTES], device=attributes.device)
    return attributes.masked_fill(~kept, torch.nan)
