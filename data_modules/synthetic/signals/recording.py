"""From what is true of a record to its signal: twelve leads in microvolts, and where its beats and signs are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_modules.synthetic.heart.asked import Asked, ask, conducted_pr
from data_modules.synthetic.heart.beat import Beat, atrial_waves, ventricular_waves
from data_modules.synthetic.heart.dipole import LEAD_MATRIX, Floats, moving_dipole
from data_modules.synthetic.heart.rhythm import MOST_BEATS, Pace, Rhythm, plan
from data_modules.synthetic.heart.signs import ectopic_shape, shape
from data_modules.synthetic.people.constitution import respiratory_arrhythmia
from data_modules.synthetic.people.streams import Purpose, stream
from data_modules.synthetic.people.truth import Truth
from data_modules.synthetic.signals.disturbances import Problems, disturb
from data_modules.synthetic.signals.electrodes import quantise, swap_arms, to_potentials
from data_modules.synthetic.signals.masks import Mask, masks_of

SECONDS: Final = 10

_BREATHING_TURNS: Final = 3.0  # degrees by which breathing turns the heart
_BREATHING_SIZES: Final = 0.04  # share by which it changes the height of the beats
_BEAT_TO_BEAT: Final = 0.012  # share by which beats differ otherwise
_FIBRILLATION: Final = np.array([[-0.035, 0.016, -0.030], [0.012, 0.0, 0.0], [0.0, 0.016, 0.007]])
"""Millivolts of waves in three directions; the first and largest is that in which V1 sees more than any other lead."""
_WAVELETS: Final = 7
_FLUTTER: Final = np.array([0.06, 0.13, 0.09])  # mV; downwards in the inferior leads and V6 while upwards in V1
_SLOWLY: Final = 0.75  # share of each wave of flutter in which it goes down
_SHORT_P: Final = 0.85  # duration of P before a delta wave, which would run into it otherwise


@dataclass(frozen=True)
class Recording:
    """One synthetic ECG of ten seconds.

    Args:
        signal: (12, 10 * sampling_rate) int16 microvolts in the order of ``ecgfair.ecg.LEADS``.
        beats: (K,) seconds of the main wave of each QRS complex.
        asked: Rate and intervals that it was drawn with.
        problems: Disturbances that a reader would note.
        masks: Where the signs of its conditions are.
    """

    signal: NDArray[np.int16] = field(repr=False)
    beats: Floats = field(repr=False)
    asked: Asked
    problems: Problems
    masks: tuple[Mask, ...] = field(repr=False)


def record(truth: Truth, sampling_rate: int = 100) -> Recording:
    """Draw a record's ECG; it depends on nothing but what is true of it and the sampling rate.

    Args:
        truth: As ``draw.truth`` draws it.
        sampling_rate: Hz.
    """
    rng = stream(truth.seed, Purpose.RHYTHM, truth.number)
    breath, phase, side = rng.random(3)
    wavelets = rng.random(1 + 3 * _WAVELETS)
    deviates = rng.standard_normal(MOST_BEATS)
    asked = ask(truth.constitution, truth.strength)
    pace = Pace(
        heart_rate=asked.heart_rate,
        pr=conducted_pr(truth.constitution, truth.strength) / 1000,
        seconds=SECONDS,
        respiration=0.18 + 0.14 * breath,  # Hz, 11 to 19 breaths a minute
        arrhythmia=respiratory_arrhythmia(truth.age),
    )
    rhythm = plan(pace, truth.strength, rng)
    usual = shape(asked, truth.constitution, truth.strength)
    ectopic = ectopic_shape(usual, side)
    breathing = np.sin(2 * np.pi * (pace.respiration * rhythm.beats + phase))
    sizes = 1 + _BREATHING_SIZES * breathing + _BEAT_TO_BEAT * deviates[: rhythm.beats.size]
    dipole = _dipole(truth, rhythm, usual, ectopic, sizes, _BREATHING_TURNS * breathing, sampling_rate)
    dipole += _atria(truth, rhythm, wavelets, np.arange(dipole.shape[1]) / sampling_rate)
    potentials = to_potentials(LEAD_MATRIX @ dipole)
    if truth.strength["ALR"] > 0:
        potentials = swap_arms(potentials)
    noise = stream(truth.seed, Purpose.DISTURBANCES, truth.number)
    disturbed = disturb(potentials, noise, sampling_rate, truth.noise, pace.respiration)
    return Recording(
        signal=quantise(disturbed.potentials),
        beats=rhythm.beats[(rhythm.beats >= 0) & (rhythm.beats < SECONDS)],
        asked=asked,
        problems=disturbed.problems,
        masks=masks_of(truth, rhythm, usual, ectopic, SECONDS),
    )


def to_signal(truth: Truth, sampling_rate: int = 100) -> NDArray[np.int16]:
    """Return the signal of ``record``: (12, 10 * sampling_rate) int16 microvolts."""
    return record(truth, sampling_rate).signal


def _dipole(
    truth: Truth, rhythm: Rhythm, usual: Beat, ectopic: Beat, sizes: Floats, turns: Floats, sampling_rate: int
) -> Floats:
    """Return (3, time) millivolts of all beats."""
    main = np.where(rhythm.ventricular, ectopic.main, usual.main)
    onsets = rhythm.beats - main
    groups = [
        ventricular_waves(onsets[chosen], beat, sizes[chosen], turns[chosen])
        for beat, chosen in ((usual, ~rhythm.ventricular), (ectopic, rhythm.ventricular))
        if chosen.any()
    ]
    conducted = ~np.isnan(rhythm.pr)
    p_onsets = np.concatenate([(onsets - rhythm.pr)[conducted], rhythm.blocked - usual.main - rhythm.usual_pr])
    if p_onsets.size:
        other = np.concatenate([rhythm.atrial[conducted], np.zeros(rhythm.blocked.size, dtype=np.bool_)])
        stretch = 1 - (1 - _SHORT_P) * truth.strength["WPW"]
        groups.append(atrial_waves(p_onsets, other, truth.constitution.voltage, stretch))
    return moving_dipole(groups, SECONDS * sampling_rate, sampling_rate)


def _atria(truth: Truth, rhythm: Rhythm, chances: Floats, seconds: Floats) -> Floats:
    """Return (3, time) or (3, 1) millivolts of atria that flutter or fibrillate."""
    if rhythm.flutter:
        # A saw-tooth: slowly down and quickly up in the inferior leads.
        saw = np.interp((rhythm.flutter * seconds + chances[0]) % 1, [0, _SLOWLY, 1], [1, -1, 1])
        return truth.constitution.voltage * np.outer(_FLUTTER, saw)
    if truth.strength["AFIB"] > 0:
        # Waves of many frequencies in every direction: none is like the one before, as wavelets that wander make them.
        parts = np.arange(_WAVELETS)
        frequencies = 4.2 + 0.7 * parts + 0.6 * chances[0]  # Hz
        angles = 2 * np.pi * (frequencies * seconds[:, None, None] + chances[1:].reshape(3, _WAVELETS))
        waves = (np.sin(angles) * 0.85**parts).sum(axis=2).T
        fibrillation: Floats = truth.constitution.voltage * (_FIBRILLATION.T @ waves)
        return fibrillation
    return np.zeros((3, 1))
