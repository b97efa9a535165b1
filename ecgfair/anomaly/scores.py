"""What scoring says of a batch of records."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class AnomalyScores(NamedTuple):
    """How strange each record is, why, and where."""

    score: Tensor
    """(B,) higher is stranger. Its scale is the model's own; ``calibration.NormalCalibration`` makes percentiles."""
    parts: dict[str, Tensor]
    """(B,) each: the terms that the score is made of; NaN where a record has no such term (the beat of one without)."""
    has_beat: Tensor
    """(B,) bool, False where no R peak is known: the score is then made of the other terms alone."""
    map: Tensor | None
    """(B, leads, time) higher is stranger, in the record's own time axis; NaN where nothing was recorded; ``None`` if
    it was not asked for."""
