"""The encoder of two scales: the record as a whole, and its beats."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from ecgfair.models.beat_branches import EachBeatBranch, RhythmBranch, ShapeBranch
from ecgfair.models.residual import ResidualEncoder
from ecgfair.signals.beat_view import BeatView


class TwoScaleEncoder(ResidualEncoder):
    """The default of stage 2: residual branches over the signal and its trend, and branches over its beats.

    Beats are laid on each other, so that each wave is at its place, and few records teach much. One branch reads the
    median beat, how single beats differ from it and the rhythm they make; another reads every beat by itself and puts
    them together. The signal tells what no R peak leads to. All are read by heads of their own, see
    ``DiagnosisNetwork``.

    Args:
        leads: Number of leads.
        widths: See ``ResidualEncoder``.
        trend_widths: Likewise.
        trend_window: Likewise.
        dropout: Likewise.
        shape_widths: Of the branch over the median beat, see ``ShapeBranch``.
        rhythm_width: See ``RhythmBranch``.
        beat_widths: Of the branch over every beat, see ``EachBeatBranch``.
        beat_embedding: Likewise.

    Raises:
        ConfigurationError: The branches of the signal shorten time differently, or widths are too few or not positive.
    """

    def __init__(
        self,
        leads: int = 12,
        widths: Sequence[int] = (32, 48, 48, 96, 96, 128),
        trend_widths: Sequence[int] = (16, 32, 48, 64),
        trend_window: int = 2,
        dropout: float = 0.1,
        shape_widths: Sequence[int] = (48, 48, 48, 96, 96),
        rhythm_width: int = 48,
        beat_widths: Sequence[int] = (32, 32, 64, 64),
        beat_embedding: int = 96,
    ) -> None:
        super().__init__(leads, widths, trend_widths, trend_window, dropout)
        self.shape_branch = ShapeBranch(2 * leads, shape_widths, dropout)
        self.rhythm_branch = RhythmBranch(rhythm_width)
        self.beat_branch = EachBeatBranch(leads, beat_widths, beat_embedding, dropout)
        self.beat_embedding = beat_embedding
        self.beat_features = (self.shape_branch.features + self.rhythm_branch.features, self.beat_branch.features)

    @override
    def taught_by_labels(self, *, single_beats: bool) -> list[nn.Module]:
        """Return the branch over median beat and rhythm, and what puts single beats together or all that reads them."""
        return [self.shape_branch, self.rhythm_branch, self.beat_branch.mix if single_beats else self.beat_branch]

    @override
    def embed_beats(self, beats: Tensor) -> Tensor:
        return self.beat_branch.embed_beats(beats)

    @override
    def encode_beats(self, view: BeatView) -> tuple[Tensor, ...]:
        shape = torch.cat([self.shape_branch(view.shape), self.rhythm_branch(view.rhythm)], dim=1)
        return shape, self.beat_branch(view)

    @override
    def layers(self) -> list[list[nn.Module]]:
        """Return the blocks of all branches; those of the beats end with the last group, the rhythm is the first's."""
        groups = super().layers()
        each = self.beat_branch
        of_shape, of_beat = self.shape_branch.layers(), [*each.shape.layers(), [each.embed, each.mix]]
        of_shape[0].append(self.rhythm_branch)
        for branch in (of_shape, of_beat):
            groups = [*([] for _ in range(len(branch) - len(groups))), *groups]
            for group, modules in zip(groups[-len(branch) :], branch, strict=True):
                group.extend(modules)
        return groups
