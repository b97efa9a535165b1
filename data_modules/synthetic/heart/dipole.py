"""The heart as a moving dipole: Gaussian waves on the phase of a beat, seen through a published lead matrix.

McSharry et al. (IEEE TBME 50:289, 2003) draw one lead as a sum of Gaussian waves on the phase of the beat; Sameni et
al. (EURASIP J. Adv. Signal Process. 2007:043407) let the waves be vectors, of which every lead sees a projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAD_MATRIX: Final = np.array(
    [
        [0.632, -0.235, 0.059],  # I
        [0.235, 1.066, -0.132],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],  # V6
    ]
)
"""Dower et al. (J. Electrocardiol. 13:173, 1980): the eight independent leads I, II, V1 to V6 of a dipole in millivolts
along X (to the left), Y (to the feet) and Z (to the back)."""

FRONTAL_MATRIX: Final = np.array([LEAD_MATRIX[0], (2 * LEAD_MATRIX[1] - LEAD_MATRIX[0]) / np.sqrt(3)])
"""What the limb leads see to the left (I) and to the feet (2 / sqrt(3) times aVF), of which the axis is the angle."""

_BEFORE: Final = 0.1
_AFTER: Final = 0.9
"""Seconds around an onset in which its waves are drawn; what is left of them outside is far below a microvolt."""


@dataclass(frozen=True)
class Waves:
    """Gaussian waves of the dipole that belong to the same moments, the onsets of beats or of P waves.

    Args:
        onsets: (E,) seconds.
        centres: (E, W) seconds from the onset.
        widths: (E, W) standard deviations, seconds.
        vectors: (E, W, 3) heights, millivolts.
    """

    onsets: Floats
    centres: Floats
    widths: Floats
    vectors: Floats


def moving_dipole(groups: list[Waves], samples: int, sampling_rate: float) -> Floats:
    """Return (3, samples) millivolts: the sum of all waves."""
    before, window = round(_BEFORE * sampling_rate), round((_BEFORE + _AFTER) * sampling_rate)
    margin = window + before
    dipole = np.zeros((3, samples + 2 * margin))
    for waves in groups:
        starts = np.floor(waves.onsets * sampling_rate).astype(np.int64) - before
        seconds = (starts[:, None] + np.arange(window)) / sampling_rate - waves.onsets[:, None]
        heights = np.exp(-0.5 * ((seconds[:, None, :] - waves.centres[..., None]) / waves.widths[..., None]) ** 2)
        drawn = np.einsum("ewt,ewk->ekt", heights, waves.vectors)
        for start, piece in zip(starts + margin, drawn, strict=True):
            if 0 <= start <= dipole.shape[1] - window:
                dipole[:, start : start + window] += piece
    return dipole[:, margin : margin + samples]
