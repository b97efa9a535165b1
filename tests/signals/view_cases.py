"""Records whose beats are known sample by sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ecgfair.signals.aligned_beats import POINTS

LEADS, BEATS = 3, 6
EVERYTHING = torch.ones(1, 1, 1, dtype=torch.bool)
"""Recorded."""


def sparse_records(records: int = 2) -> tuple[Tensor, Tensor]:
    """Beats a second apart, each of few samples unlike 0, so that the baseline is exactly 0.

    Each lead has ten samples of a beat that differ from 0, around what all beats of the record share.
    """
    generator = np.random.default_rng(3)
    signal = np.zeros((records, LEADS, 100 * BEATS + 20), dtype=np.float32)
    for row in range(records):
        for lead in range(LEADS):
            places = generator.choice(POINTS, 10, replace=False)
            shared = generator.standard_normal(10)
            for beat in range(BEATS):
                signal[row, lead, 100 * beat + 2 + places] = shared + 0.3 * generator.standard_normal(10)
    beats = torch.arange(BEATS).mul(100).add(30).repeat(records, 1)
    return torch.from_numpy(signal), beats
