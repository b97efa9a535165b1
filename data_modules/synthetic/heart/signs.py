"""The signs of each condition in the shape of a beat, by its strength.

A condition of strength s brings what it acts on by the share s from where it is to where a textbook has it in a plain
case (Surawicz and Knilans, Chou's Electrocardiography in Clinical Practice, 6th ed. 2008). Conditions act one after the
other, in the order of ``SHAPES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from data_modules.synthetic.heart.asked import Asked, Strength
from data_modules.synthetic.heart.beat import BASE, FREE_WALL, LAST, NORMAL_BEAT, SEPTUM, Beat, turned, with_axis
from data_modules.synthetic.heart.dipole import Floats
from data_modules.synthetic.people.constitution import Constitution


def _towards(
    beat: Beat,
    strength: float,
    vectors: Mapping[int, tuple[float, float, float]] | None = None,
    st: tuple[float, float, float] | None = None,
    t: tuple[float, float, float] | None = None,
    places: Mapping[int, float] | None = None,
    widths: Mapping[int, float] | None = None,
    symmetric_t: float | None = None,
) -> Beat:
    """Bring what is named by a share of the way to where it is to be."""

    def rows(values: Floats, targets: Mapping[int, float | tuple[float, float, float]] | None) -> Floats:
        moved = values.copy()
        for row, target in (targets or {}).items():
            moved[row] += strength * (np.array(target) - moved[row])
        return moved

    return replace(
        beat,
        vectors=rows(beat.vectors, vectors),
        places=rows(beat.places, places),
        widths=rows(beat.widths, widths),
        st=beat.st if st is None else beat.st + strength * (np.array(st) - beat.st),
        t=beat.t if t is None else beat.t + strength * (np.array(t) - beat.t),
        symmetric_t=beat.symmetric_t + (0 if symmetric_t is None else strength * (symmetric_t - beat.symmetric_t)),
    )


def _with(
    beat: Beat,
    strength: float,
    vectors: Mapping[int, tuple[float, float, float]] | None = None,
    st: tuple[float, float, float] = (0.0, 0.0, 0.0),
    t: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Beat:
    """Add to what is named, so that the signs of what came before stay: an infarction does not end a hypertrophy."""
    added = np.zeros_like(beat.vectors)
    for row, vector in (vectors or {}).items():
        added[row] = vector
    return replace(
        beat,
        vectors=beat.vectors + strength * added,
        st=beat.st + strength * np.array(st),
        t=beat.t + strength * np.array(t),
    )


def _left_bundle(beat: Beat, s: float) -> Beat:
    """No septal q; the left wall is activated late and slowly, in two steps (the notch); ST and T point away."""
    return _towards(
        beat,
        s,
        vectors={
            SEPTUM: (0.10, 0.10, 0.12),
            FREE_WALL: (0.95, 0.45, 0.95),
            BASE: (0.85, 0.0, 0.85),
            LAST: (0.3, 0.0, 0.3),
        },
        places={SEPTUM: 0.17, FREE_WALL: 0.37, BASE: 0.63, LAST: 0.77},
        widths={SEPTUM: 0.07, FREE_WALL: 0.11, BASE: 0.11, LAST: 0.06},
        st=(-0.08, -0.025, -0.12),
        t=(-0.28, -0.08, -0.40),
    )


def _right_bundle(beat: Beat, s: float) -> Beat:
    """The left ventricle as usual in the first two thirds, then the right one alone: R' in V1, broad S in I and V6."""
    slower = _towards(
        beat,
        s,
        vectors={LAST: (-0.62, -0.12, -0.85)},
        places={SEPTUM: 0.13, FREE_WALL: 0.30, BASE: 0.46, LAST: 0.74},
        widths={SEPTUM: 0.055, FREE_WALL: 0.075, BASE: 0.065, LAST: 0.115},
    )
    return _with(slower, s, t=(0.03, -0.02, 0.34))


def _left_hypertrophy(beat: Beat, s: float) -> Beat:
    """High voltage to the left and back, and strain: ST and T against QRS, so upright in V1 and V2."""
    higher = beat.vectors * np.where(np.arange(4)[:, None] == SEPTUM, 1.0, [[1.75, 1.0, 2.0]])
    grown = replace(beat, vectors=beat.vectors + s * (higher - beat.vectors))
    return _towards(grown, s, st=(-0.10, -0.02, -0.05), t=(-0.24, 0.03, -0.15))


def _right_hypertrophy(beat: Beat, s: float) -> Beat:
    """The right ventricle outweighs the left: to the right and to the front."""
    return _towards(
        beat,
        s,
        vectors={SEPTUM: (0.30, 0.10, -0.20), FREE_WALL: (-0.45, 0.85, -0.65), BASE: (-0.65, 0.25, 0.05)},
        st=(0.02, 0.02, 0.09),
        t=(0.22, 0.12, 0.34),
    )


def _anterior_infarction(beat: Beat, s: float) -> Beat:
    """What lay in front is lost: QS in V1 to V3, raised ST and inverted T there."""
    lost = _with(
        beat,
        s,
        vectors={SEPTUM: (0.20, 0.10, 0.80), FREE_WALL: (-0.25, -0.05, 0.45)},
        st=(0.02, 0.0, -0.17),
        t=(-0.27, -0.02, 0.60),
    )
    return _towards(lost, s, widths={SEPTUM: 0.10}, symmetric_t=1.0)


def _inferior_infarction(beat: Beat, s: float) -> Beat:
    """What lay below is lost: broad Q in II, III and aVF, raised ST and inverted T there."""
    lost = _with(
        beat,
        s,
        vectors={SEPTUM: (0.10, -0.67, 0.08), FREE_WALL: (0.0, -0.40, 0.0)},
        st=(-0.02, 0.12, 0.02),
        t=(-0.05, -0.52, 0.0),
    )
    return _towards(lost, s, places={SEPTUM: 0.24, FREE_WALL: 0.52}, widths={SEPTUM: 0.12}, symmetric_t=1.0)


def _lateral_infarction(beat: Beat, s: float) -> Beat:
    """What lay to the left is lost: broad Q in I, aVL, V5 and V6, slightly raised ST and inverted T there."""
    lost = _with(
        beat,
        s,
        vectors={SEPTUM: (-0.53, 0.20, 0.0), FREE_WALL: (-0.40, -0.05, -0.15)},
        st=(0.12, -0.03, 0.03),
        t=(-0.57, -0.04, -0.05),
    )
    return _towards(lost, s, places={SEPTUM: 0.24, FREE_WALL: 0.52}, widths={SEPTUM: 0.12}, symmetric_t=1.0)


def _anterior_fascicle(beat: Beat, s: float) -> Beat:
    """First downwards (r in the inferior leads), then upwards to the left."""
    raised = beat.vectors.copy()
    x, y, _ = raised[FREE_WALL]
    raised[FREE_WALL] = turned(raised[FREE_WALL], s * (-40 - np.degrees(np.arctan2(y, x))))
    return _with(replace(beat, vectors=raised), s, vectors={SEPTUM: (0.0, 0.35, 0.06), BASE: (0.4, -0.35, -0.05)})


def _preexcitation(beat: Beat, s: float) -> Beat:
    """A delta wave before the QRS complex, and T against it."""
    return _towards(
        beat,
        s,
        vectors={SEPTUM: (0.42, 0.24, -0.02), FREE_WALL: (0.95, 0.80, 0.45)},
        places={SEPTUM: 0.31, FREE_WALL: 0.56, BASE: 0.78},
        widths={SEPTUM: 0.135, FREE_WALL: 0.105, BASE: 0.075},
        st=(-0.06, -0.03, 0.0),
        t=(-0.08, 0.02, -0.10),
    )


def _paced(beat: Beat, s: float) -> Beat:
    """From the tip of the right ventricle to the left and upwards, slowly, after a spike."""
    shaped = _towards(
        beat,
        s,
        vectors={
            SEPTUM: (0.25, -0.30, 0.20),
            FREE_WALL: (0.75, -0.95, 0.85),
            BASE: (0.40, -0.70, 0.70),
            LAST: (0.1, -0.2, 0.2),
        },
        places={SEPTUM: 0.18, FREE_WALL: 0.42, BASE: 0.68, LAST: 0.84},
        widths={SEPTUM: 0.08, FREE_WALL: 0.12, BASE: 0.11, LAST: 0.07},
        st=(-0.08, 0.12, -0.12),
        t=(-0.25, 0.42, -0.40),
    )
    return replace(shaped, spike=s * np.array([0.35, -0.85, 0.5]))


def _st_depression(beat: Beat, s: float) -> Beat:
    return _with(beat, s, st=(-0.15, -0.13, 0.04))


def _inverted_t(beat: Beat, s: float) -> Beat:
    return _towards(beat, s, t=(-0.30, -0.16, -0.08), symmetric_t=1.0)


SHAPES: Final[Mapping[str, Callable[[Beat, float], Beat]]] = {
    "LVH": _left_hypertrophy,
    "RVH": _right_hypertrophy,
    "LAFB": _anterior_fascicle,
    "AMI": _anterior_infarction,
    "IMI": _inferior_infarction,
    "LMI": _lateral_infarction,
    "STD_": _st_depression,
    "INVT": _inverted_t,
    "CRBBB": _right_bundle,
    "CLBBB": _left_bundle,
    "WPW": _preexcitation,
    "PACE": _paced,
}
"""Code -> what it does to the shape of a beat."""

_TURNED: Final = {"CLBBB": 50.0, "PACE": 26.0}
"""Code of what replaces QRS -> axis of a person whose QRS is as ``SHAPES`` has it; that of others is turned."""
_TURNED_BY: Final = 0.4  # of the difference of axes; without it all people with the condition would have the same one
_LOW_VOLTAGE: Final = 0.24
_LOW_T: Final = 0.7


def shape(asked: Asked, constitution: Constitution, strength: Strength) -> Beat:
    """Return the shape of a record's usual beat."""
    beat = with_axis(NORMAL_BEAT, constitution.axis)
    for code, change in SHAPES.items():
        if strength[code] > 0:
            beat = change(beat, strength[code])
            if code in _TURNED:
                degrees = strength[code] * _TURNED_BY * (constitution.axis - _TURNED[code])
                beat = replace(beat, vectors=turned(beat.vectors, degrees))
    low = strength["LVOLT"]
    voltage = constitution.voltage * np.array([1 - low * (1 - _LOW_VOLTAGE), 1 - low * (1 - _LOW_T)])
    return replace(
        beat,
        qrs=asked.qrs / 1000,
        qt=asked.qt / 1000,
        vectors=beat.vectors * voltage[0],
        st=beat.st * voltage[1],
        t=beat.t * voltage[1],
    )


def ectopic_shape(beat: Beat, chance: float) -> Beat:
    """Return the shape of a premature beat of the ventricles: from the right one, or from the left one.

    Args:
        beat: The record's usual beat.
        chance: Uniform between 0 and 1; chooses.
    """
    side = np.array([1.0, 0.8, 1.0]) if chance < 0.5 else np.array([-0.9, 0.9, -0.9])
    vectors = np.array([[0.3, 0.3, 0.3], [1.25, 0.9, 1.1], [0.9, 0.4, 0.9], [0.2, 0.1, 0.2]]) * side
    return replace(
        beat,
        qrs=0.16,
        qt=max(beat.qt, 0.36) + 0.03,
        places=np.array([0.17, 0.40, 0.68, 0.84]),
        widths=np.array([0.075, 0.12, 0.11, 0.07]),
        vectors=vectors,
        st=np.array([-0.15, -0.1, -0.15]) * side,
        t=np.array([-0.5, -0.3, -0.45]) * side,
        symmetric_t=0.0,
        spike=np.zeros(3),
    )
