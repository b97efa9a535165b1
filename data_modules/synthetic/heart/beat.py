"""The shape of a beat: the Gaussian waves of P, QRS, ST and T, as vectors of the heart's dipole.

QRS has four waves (septum, free wall, base, and what is activated last), each at a place within the QRS complex that is
given as a share of its duration, so that a longer QRS is a slower one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from data_modules.synthetic.heart.dipole import FRONTAL_MATRIX, Floats, Waves

SEPTUM, FREE_WALL, BASE, LAST = range(4)
"""Rows of the arrays about QRS."""

_P_CENTRES: Final = np.array([0.036, 0.071])  # seconds from the onset: right atrium, left atrium; P lasts 0.11 s
_P_WIDTHS: Final = np.array([0.0165, 0.0175])
_P_VECTORS: Final = np.array([[0.06, 0.085, -0.06], [0.09, 0.065, 0.04]])
_ECTOPIC_P: Final = np.array([[0.06, -0.04, 0.04], [0.02, -0.05, 0.05]])
_T_WIDTH: Final = 0.1  # of QT, standard deviation of the later half of T
_T_PARTS: Final = ((3.2, 1.4, 0.35), (2.0, 1.0, 0.9))
"""T is not symmetric: how many widths before its end, how wide and how high its two waves are. The tangent at the steep
side of a Gaussian meets the baseline two widths after its centre, which is where T ends."""
_SYMMETRIC_T: Final = ((2.0, 1.0, 1.15), (2.0, 1.0, 0.0))
_ST_CENTRES: Final = (0.08, 0.48, 0.88)  # shares of the ST segment: three waves that together are level
_ST_WIDTH: Final = 0.24
_ST_HEIGHT: Final = 0.665  # of each wave, so that their sum is as high as asked for
_T_BEGINS: Final = 4.5
"""Widths before its end at which T begins."""
_SPIKE: Final = (-0.02, 0.003)  # seconds from the onset of QRS to a pacemaker's spike, and its width


@dataclass(frozen=True)
class Beat:
    """The shape of one kind of beat; its times are shares of QRS and of QT.

    Args:
        qrs: Seconds.
        qt: Seconds.
        places: (4,) centres of the waves of QRS as shares of its duration.
        widths: (4,) their standard deviations, likewise.
        vectors: (4, 3) their heights, millivolts.
        st: (3,) height of the ST segment.
        t: (3,) height of T.
        symmetric_t: From 0, T as steep as usual, to 1, as steep on both sides.
        spike: (3,) height of a pacemaker's spike.
    """

    qrs: float
    qt: float
    places: Floats
    widths: Floats
    vectors: Floats
    st: Floats
    t: Floats
    symmetric_t: float
    spike: Floats

    @property
    def main(self) -> float:
        """Seconds from the onset of QRS to its main wave."""
        return float(self.places[FREE_WALL]) * self.qrs

    @property
    def begins(self) -> float:
        """Seconds from the onset of QRS to that of a pacemaker's spike before it; 0 where there is none."""
        centre, width = _SPIKE
        return centre - 3 * width if self.spike.any() else 0.0

    @property
    def t_onset(self) -> float:
        """Seconds from the onset of QRS."""
        return self.qt * (1 - _T_BEGINS * _T_WIDTH)


NORMAL_BEAT: Final = Beat(
    qrs=0.09,
    qt=0.4,
    places=np.array([0.19, 0.45, 0.72, 0.86]),
    widths=np.array([0.085, 0.115, 0.1, 0.08]),
    vectors=np.array([[-0.15, -0.05, -0.30], [1.1, 0.9, 0.5], [-0.25, -0.20, 0.50], [0.0, 0.0, 0.0]]),
    st=np.zeros(3),
    t=np.array([0.25, 0.22, -0.20]),
    symmetric_t=0.0,
    spike=np.zeros(3),
)
"""Of a man of 60; with a small q in the lateral leads, rS in V1, and R growing up to V5."""


def turned(vectors: Floats, degrees: Floats | float) -> Floats:
    """Return (..., 3) vectors turned in the frontal plane, to the feet if positive; ``degrees`` broadcasts to (...)."""
    angle = np.radians(degrees)
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack(np.broadcast_arrays(x * cosine - y * sine, x * sine + y * cosine, z), axis=-1)


def with_axis(beat: Beat, axis: float) -> Beat:
    """Return a beat turned so that the limb leads see its QRS at an axis in degrees; T follows it by half."""
    x, y, z = (beat.vectors * beat.widths[:, None]).sum(axis=0)
    # The limb leads see the frontal plane distorted, so the turn is not the difference of two angles. What they see at
    # a right angle to the axis is along * cos(turn) + across * sin(turn) + rest, and has to vanish.
    left, down, back = np.array([-np.sin(np.radians(axis)), np.cos(np.radians(axis))]) @ FRONTAL_MATRIX
    along, across, rest = left * x + down * y, down * x - left * y, back * z
    turn = np.arctan2(across, along) - np.arccos(np.clip(-rest / np.hypot(along, across), -1, 1))
    return replace(beat, vectors=turned(beat.vectors, np.degrees(turn)), t=turned(beat.t, np.degrees(turn) / 2))


def ventricular_waves(onsets: Floats, beat: Beat, sizes: Floats, turns: Floats) -> Waves:
    """Return the waves of QRS, ST and T, and of a spike.

    Args:
        onsets: (K,) onsets of QRS, seconds.
        beat: Its shape.
        sizes: (K,) factor on the height of each beat.
        turns: (K,) by how many degrees breathing turns each.
    """
    st_length, t_width = beat.t_onset - beat.qrs, _T_WIDTH * beat.qt
    t_parts = (1 - beat.symmetric_t) * np.array(_T_PARTS) + beat.symmetric_t * np.array(_SYMMETRIC_T)
    centres = [
        *(beat.places * beat.qrs),
        *(beat.qrs + share * st_length for share in _ST_CENTRES),
        *(beat.qt - t_parts[:, 0] * t_width),
        _SPIKE[0],
    ]
    widths = [*(beat.widths * beat.qrs), *[_ST_WIDTH * st_length] * 3, *(t_parts[:, 1] * t_width), _SPIKE[1]]
    vectors = np.array([*beat.vectors, *[_ST_HEIGHT * beat.st] * 3, *(t_parts[:, 2, None] * beat.t), beat.spike])
    beats = onsets.size
    drawn = sizes[:, None, None] * turned(vectors, turns[:, None])
    return Waves(onsets, np.tile(centres, (beats, 1)), np.tile(widths, (beats, 1)), drawn)


def atrial_waves(onsets: Floats, ectopic: Floats, voltage: float, stretch: float = 1.0) -> Waves:
    """Return the P waves.

    Args:
        onsets: (K,) seconds.
        ectopic: (K,) whether each begins elsewhere than in the sinus node.
        voltage: Factor on their height.
        stretch: Factor on their duration.
    """
    count = onsets.size
    vectors = voltage * np.where(ectopic.astype(np.bool_)[:, None, None], _ECTOPIC_P, _P_VECTORS)
    return Waves(onsets, np.tile(stretch * _P_CENTRES, (count, 1)), np.tile(stretch * _P_WIDTHS, (count, 1)), vectors)
