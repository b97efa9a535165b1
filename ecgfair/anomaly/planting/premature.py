"""A premature beat of the ventricles, made of the record's own beats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ecgfair.anomaly.planting.subject import (
    EARLIEST,
    Change,
    Draw,
    Planting,
    Subject,
    between,
    stretched,
    swell,
    unchanged,
)
from ecgfair.anomaly.planting.waves import Floats, Waves, above_line

_T_TURN: Final = 0.04  # seconds after the wide QRS complex in which a premature beat turns to its opposite T wave
_HIGHER: Final = 1.3  # times as high as the usual beat is a premature one, before its notches are taken off
_ROUNDING: Final = 0.012  # seconds, standard deviation of the Gaussian that takes the notches off a premature beat
_QUIET: Final = 0.10  # seconds between two beats that are enough to tell how the pause of a premature one looks
_AFTER_QRS: Final = 0.04  # seconds after the QRS complex, where nothing of it is left
_SLOW: Final = 0.02  # seconds, standard deviation of a Gaussian that keeps the course of T and P waves


def premature_beat(subject: Subject, planting: Planting, random: Draw) -> Change | str:
    """Let a beat come early from the ventricles: no P wave, wide QRS complex, opposite T wave, compensatory pause.

    The beat that was due is taken away. Truth is the premature beat from QRS onset to the end of its T wave in all
    leads, as in the masks of synthetic records; the pause behind it, in which nothing is to be seen, is changed but no
    part of it.
    """
    waves = subject.waves
    if isinstance(waves, str):
        return waves
    usual = set(subject.beats(waves.qrs_onset, waves.t_end).tolist())
    rooms = {
        number: room
        for number in range(1, len(subject.peaks) - 1)
        if {number - 1, number} <= usual and (room := _room(subject, waves, number, planting, random)) is not None
    }
    if not rooms:
        return "no usual beat between two others leaves room for one that comes early"
    change = unchanged(subject)
    wanted = max(1, round(planting.beats_share * len(rooms)))
    taken: set[int] = set()
    for number in random.permutation(np.array(sorted(rooms))).tolist():
        if len(taken) < wanted and not taken & {number - 1, number + 1}:
            taken.add(number)
    for number in sorted(taken):
        _move_forward(subject, waves, change, number, rooms[number])
    return change


@dataclass(frozen=True)
class _Room:
    """Where a premature beat goes: from ``start`` to ``end`` the record is rewritten, its QRS begins at ``onset``."""

    start: int
    end: int
    onset: int
    wide: int


def _room(subject: Subject, waves: Waves, number: int, planting: Planting, random: Draw) -> _Room | None:
    """Return where the beat comes early, None where it can't by ``EARLIEST`` of the interval."""
    before, due, following = (int(peak) for peak in subject.peaks[number - 1 : number + 2])
    factor, share = between(planting.premature_qrs_factor, random), between(planting.premature, random)
    wide = round(factor * (waves.qrs_end - waves.qrs_onset))
    r_within = round(-factor * waves.qrs_onset)
    start = before + waves.t_end
    end = following + (waves.p_onset if waves.p_onset is not None else waves.qrs_onset)
    onset = max(due - round(share * (due - before)) - r_within, start + 1)
    early = (due - onset - r_within) / (due - before)
    fits = early >= EARLIEST and onset + wide + waves.t_end - waves.qrs_end < end
    recorded = end < subject.signal.shape[1] and subject.recorded[:, start : end + 1].all()
    return _Room(start, end, onset, wide) if fits and recorded else None


def _move_forward(subject: Subject, waves: Waves, change: Change, number: int, room: _Room) -> None:
    """Write the premature beat and its pause into ``change``."""
    due = int(subject.peaks[number])
    qrs, after = waves.qrs_end - waves.qrs_onset, waves.t_end - waves.qrs_end
    own = above_line(subject.signal[:, due + waves.qrs_onset : due + waves.t_end + 1])
    beat = stretched(own, 0, qrs, room.wide, own.shape[1] - 1, after)
    # Led from muscle cell to muscle cell, a beat of the ventricles has no notches and is higher.
    beat = np.asarray(gaussian_filter1d(beat, _ROUNDING * subject.rate, axis=1))
    turn = room.wide + _T_TURN * subject.rate
    opposite = np.interp(np.arange(beat.shape[1]), (room.wide, turn), (_HIGHER, -1))
    size = room.end - room.start + 1
    share = np.linspace(0, 1, size)
    line = subject.signal[:, [room.start]] * (1 - share) + subject.signal[:, [room.end]] * share
    pause = line + _texture(subject, waves, size)
    at = room.onset - room.start
    pause[:, at : at + beat.shape[1]] += above_line(beat * opposite)
    change.signal[:, room.start : room.end + 1] = pause
    change.truth[:, room.onset : room.onset + beat.shape[1]] = True
    change.peaks[number] = room.onset + round(-waves.qrs_onset * room.wide / max(qrs, 1))


def _texture(subject: Subject, waves: Waves, size: int) -> Floats:
    """Return (leads, size) of what the record shows between its beats, forth and back; 0 at both ends.

    All leads take the same samples, so that what they have in common stays. Where beats follow one another without a
    pause it is what is left of ST segments and T waves without their slow course.
    """
    ahead = waves.p_onset if waves.p_onset is not None else waves.qrs_onset
    quiet = _longest(subject, waves.t_end, ahead)
    if quiet.shape[1] < _QUIET * subject.rate:
        quiet = _longest(subject, waves.qrs_end + round(_AFTER_QRS * subject.rate), ahead)
        if quiet.shape[1] < _QUIET * subject.rate:
            return np.zeros((len(quiet), size))
        quiet = quiet - gaussian_filter1d(quiet, _SLOW * subject.rate, axis=1)
    tiled = np.pad(above_line(quiet), ((0, 0), (0, size)), mode="reflect")[:, :size]
    return np.asarray(tiled * swell(size, 3))


def _longest(subject: Subject, start: int, end: int) -> Floats:
    """Return (leads, N) of the longest stretch from ``start`` after one R peak to ``end`` after the next."""
    stretches = [
        subject.signal[:, first:last]
        for first, last in zip(subject.peaks[:-1] + start, subject.peaks[1:] + end, strict=True)
        if 0 <= first < last and subject.recorded[:, first:last].all()
    ]
    empty = np.zeros((len(subject.signal), 0))
    return max(stretches, key=lambda stretch: stretch.shape[1], default=empty)
