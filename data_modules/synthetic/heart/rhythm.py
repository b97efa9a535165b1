"""When the atria and the ventricles beat: sinus rhythm and its disturbances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_modules.synthetic.heart.asked import conducted_flutter
from data_modules.synthetic.heart.dipole import Floats

MARGIN: Final = 2.0
"""Seconds before and after the recording in which beats are planned too, so that none is cut off."""

MOST_BEATS: Final = 64
"""More than there can be in ten seconds and the margins."""

_SLOW_WAVE: Final = 0.1  # Hz of the slower of the two peaks of heart rate variability (McSharry 2003)
_PREMATURE: Final = 0.36  # of an RR interval by which an ectopic beat comes early
_WHOLE: Final = (0.8, 1.2)  # seconds at both ends in which no beat comes early, so that it and its pause are seen whole
_LATE: Final = 1.06  # RR intervals from a premature atrial beat to the next one
_DIGITS: Final = 6
_WENCKEBACH: Final = np.array([0.0, 0.075, 0.11, 0.13])  # seconds by which PR grows from beat to beat


@dataclass(frozen=True)
class Rhythm:
    """When what beats, in seconds of the recording.

    Args:
        beats: (K,) main wave of each QRS complex, ascending; some lie outside the recording.
        ventricular: (K,) whether it comes from the ventricles, prematurely.
        atrial: (K,) whether it comes from the atria, prematurely.
        pr: (K,) onset of P to onset of QRS, seconds; NaN where no P wave belongs to the beat.
        usual_pr: Seconds from the onset of P to that of QRS in an undisturbed beat.
        blocked: (B,) times at which a beat would have come had its P wave been conducted in ``usual_pr``.
        flutter: Frequency of the atria in Hz if they flutter, 0 if not.
    """

    beats: Floats
    ventricular: NDArray[np.bool_]
    atrial: NDArray[np.bool_]
    pr: Floats
    usual_pr: float
    blocked: Floats
    flutter: float = 0.0


@dataclass(frozen=True)
class Pace:
    """What the rhythm is to be.

    Args:
        heart_rate: Mean, beats per minute; of the atria in AV block.
        pr: Seconds.
        seconds: Of the recording.
        respiration: Breaths per second.
        arrhythmia: By which share respiration changes RR intervals.
    """

    heart_rate: float
    pr: float
    seconds: float
    respiration: float
    arrhythmia: float


def plan(pace: Pace, strength: Mapping[str, float], rng: np.random.Generator) -> Rhythm:
    """Plan the beats of a recording.

    Args:
        pace: Rate, PR interval and breathing.
        strength: Code -> how plainly its signs are drawn.
        rng: The same numbers are drawn from it whatever the rhythm.

    Returns:
        Times are whole microseconds, so that they are the same on machines whose sine differs in the last bit.
    """
    rhythm = _plan(pace, strength, rng.standard_normal(MOST_BEATS), rng.random(16))
    return replace(
        rhythm,
        beats=rhythm.beats.round(_DIGITS),
        pr=rhythm.pr.round(_DIGITS),
        usual_pr=round(rhythm.usual_pr, _DIGITS),
        blocked=rhythm.blocked.round(_DIGITS),
    )


def _plan(pace: Pace, strength: Mapping[str, float], deviates: Floats, chances: Floats) -> Rhythm:
    if strength["AFIB"] > 0:
        return _without_p(_irregular(pace, deviates, chances[0]))
    if strength["AFLT"] > 0:
        return _fluttering(pace, chances)
    sinus = _sinus(pace, deviates, chances, paced=strength["PACE"] > 0)
    if strength["PACE"] > 0:
        return _without_p(sinus)
    rhythm = replace(_without_p(sinus), pr=np.full(sinus.size, pace.pr), usual_pr=pace.pr)
    if strength["2AVB"] > 0:
        return _blocked(rhythm, pace, chances)
    if strength["PAC"] > 0:
        # One alone where others of the ventricles have to find room, which they would not always in a slow rhythm.
        most = 1 if strength["PVC"] > 0 else 3
        rhythm = _premature(rhythm, pace, chances[4:8], most, ventricular=False)
    if strength["PVC"] > 0:
        rhythm = _premature(rhythm, pace, chances[8:12], 3, ventricular=True)
    return rhythm


def _sinus(pace: Pace, deviates: Floats, chances: Floats, *, paced: bool) -> Floats:
    """Return the beats of the sinus node, which follow breathing and a slower wave, or those of a pacemaker."""
    mean = 60 / pace.heart_rate
    start = -MARGIN + chances[0] * mean
    around = start + mean * np.arange(MOST_BEATS)
    change = 0.0 if paced else pace.arrhythmia
    breathing = np.sin(2 * np.pi * (pace.respiration * around + chances[1]))
    slow = np.sin(2 * np.pi * (_SLOW_WAVE * around + chances[2]))
    steps = mean * (1 + change * (breathing + 0.5 * slow + 0.25 * deviates))
    return _within(start + np.cumsum(steps), pace)


def _irregular(pace: Pace, deviates: Floats, chance: float) -> Floats:
    """Return beats of which none follows from the one before: log-normal RR intervals of 0.36 to 2 s."""
    mean = 60 / pace.heart_rate
    steps = np.clip(mean * np.exp(0.2 * deviates - 0.02), 0.36, 2.0)
    return _within(-MARGIN + chance * mean + np.cumsum(steps), pace)


def _within(beats: Floats, pace: Pace) -> Floats:
    return beats[beats < pace.seconds + MARGIN]


def _without_p(beats: Floats) -> Rhythm:
    no = np.zeros(beats.size, dtype=np.bool_)
    return Rhythm(beats, no, no, np.full(beats.size, np.nan), np.nan, np.zeros(0))


def _fluttering(pace: Pace, chances: Floats) -> Rhythm:
    """Let every second, third or fourth wave of the atria through."""
    interval = 60 / pace.heart_rate
    beats = -MARGIN + chances[1] * interval + interval * np.arange(MOST_BEATS)
    flutter = conducted_flutter(pace.heart_rate) / interval
    return replace(_without_p(_within(beats, pace)), flutter=flutter)


def _blocked(rhythm: Rhythm, pace: Pace, chances: Floats) -> Rhythm:
    """Leave out every third or fourth QRS complex; PR grows before it (Wenckebach), or does not (Mobitz II)."""
    cycle = 3 + int(chances[4] < 0.5)
    place = (np.arange(rhythm.beats.size) + int(chances[5] * cycle)) % cycle
    growth = _WENCKEBACH[place] if chances[6] < 0.5 else np.zeros(place.size)
    kept = place < cycle - 1
    return replace(
        rhythm,
        beats=(rhythm.beats + growth)[kept],
        ventricular=rhythm.ventricular[kept],
        atrial=rhythm.atrial[kept],
        pr=(pace.pr + growth)[kept],
        blocked=rhythm.beats[~kept],
    )


def _premature(rhythm: Rhythm, pace: Pace, chances: Floats, most: int, *, ventricular: bool) -> Rhythm:
    """Let one to ``most`` beats, no two in a row, come early.

    After one of the ventricles the sinus node goes on as if nothing had been: the pause makes up for it in full. One of
    the atria resets the sinus node: what follows comes one RR interval and a little later.
    """
    mean = 60 / pace.heart_rate
    inside = np.flatnonzero((rhythm.beats > _WHOLE[0] + mean) & (rhythm.beats < pace.seconds - _WHOLE[1]))
    free = inside[~(rhythm.atrial[inside] | rhythm.atrial[inside - 1] | rhythm.atrial[inside + 1])]
    if not free.size:
        return rhythm
    count = 1 + int(chances[0] * most)
    spots = np.unique((free[0] + (chances[1:] * (free[-1] - free[0] + 1)).astype(np.int64))[:count])
    spots = np.intersect1d(spots, free)
    spots = spots[np.diff(spots, prepend=-2) > 1]
    if not spots.size:
        spots = free[:1]
    beats, ectopic, pr = rhythm.beats.copy(), np.zeros(rhythm.beats.size, dtype=np.bool_), rhythm.pr.copy()
    ectopic[spots] = True
    for spot in spots:
        if ventricular:
            beats[spot] -= _PREMATURE * (beats[spot] - beats[spot - 1])
            pr[spot] = np.nan
        else:
            early = beats[spot - 1] + (1 - _PREMATURE) * (beats[spot] - beats[spot - 1])
            beats[spot + 1 :] += early + _LATE * mean - beats[spot + 1]
            beats[spot] = early
    if ventricular:
        return replace(rhythm, beats=beats, ventricular=ectopic, pr=pr)
    return replace(rhythm, beats=beats, atrial=ectopic)
