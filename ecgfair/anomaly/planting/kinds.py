"""The anomalies that can be planted, each into one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np
from scipy import signal as sps

from ecgfair.anomaly.planting.premature import premature_beat
from ecgfair.anomaly.planting.subject import Change, Draw, Planting, Subject, between, some, stretched, swell, unchanged
from ecgfair.anomaly.planting.waves import Flags, Floats, Samples, above_line

VISIBLE: Final = 0.02
"""Millivolts from which a change belongs to the truth: a fifth of a small square of the paper."""

_P_JITTER: Final = 0.02  # seconds by which a P wave may lie off where R peaks put it
_P_GAIN: Final = 0.5, 1.5  # times the usual P wave that one of a single beat is
_ST_RISE: Final = 0.04  # seconds in which the ST segment leaves the QRS complex
_NOISE_EDGE: Final = 0.1  # seconds in which a burst swells and fades
_NOISE_BAND: Final = 15.0, 150.0  # Hz, of muscle

Kind: TypeAlias = Callable[[Subject, Planting, Draw], Change | str]


def missing_p(subject: Subject, planting: Planting, random: Draw) -> Change | str:
    """Take the P wave away: what it has above the line between its ends, so that the noise on it stays.

    It goes in all leads, as an atrium that stands still would have it. Truth is from its begin to its end in the leads
    where it exceeded ``VISIBLE``.
    """
    waves = subject.waves
    if isinstance(waves, str):
        return waves
    if waves.p_onset is None or waves.p_end is None:
        return "no P wave was found"
    jitter = round(_P_JITTER * subject.rate)
    candidates = subject.beats(waves.p_onset - jitter, waves.p_end + jitter)
    if not candidates.size:
        return "no usual beat with its P wave lies inside the record"
    # A mean, not the median of the usual beat: it keeps what leads have in common, as that II is the sum of I and III.
    wave = above_line(
        np.mean(
            [subject.signal[:, peak + waves.p_onset : peak + waves.p_end + 1] for peak in subject.peaks[candidates]],
            axis=0,
        )
    )
    energy = max(float(np.square(wave).sum()), 1e-12)
    change = unchanged(subject)
    for number in some(candidates, planting.beats_share, random):
        start = int(subject.peaks[number]) + waves.p_onset
        # The P wave may lie a little off and be a little larger or smaller than the usual one.
        fits = {
            lag: float((above_line(subject.signal[:, start + lag : start + lag + wave.shape[1]]) * wave).sum()) / energy
            for lag in range(-jitter, jitter + 1)
        }
        lag = max(fits, key=lambda place: fits[place])
        here = slice(start + lag, start + lag + wave.shape[1])
        removed = float(np.clip(fits[lag], *_P_GAIN)) * wave
        change.signal[:, here] -= removed
        # The ends lie on the line, so nothing was taken there.
        change.truth[:, here.start + 1 : here.stop - 1] = np.abs(removed).max(axis=1, keepdims=True) > VISIBLE
    return change


def widened_qrs(subject: Subject, planting: Planting, random: Draw) -> Change | str:
    """Stretch the QRS complex; what follows is pressed together, so that the T wave ends when it did.

    Truth is from QRS onset to its new end, in all leads. The ST segment and T wave are changed as well, but are no part
    of it: they are only later.
    """
    waves = subject.waves
    if isinstance(waves, str):
        return waves
    candidates = subject.beats(waves.qrs_onset, waves.t_end)
    if not candidates.size:
        return "no usual beat with its T wave lies inside the record"
    change = unchanged(subject)
    qrs, whole = waves.qrs_end - waves.qrs_onset, waves.t_end - waves.qrs_onset
    for number in some(candidates, planting.beats_share, random):
        start = int(subject.peaks[number]) + waves.qrs_onset
        wide = min(round(between(planting.qrs_factor, random) * qrs), whole - 2)
        change.signal[:, start : start + whole + 1] = stretched(
            subject.signal, start, qrs, wide, start + whole, whole - wide
        )
        change.truth[:, start + 1 : start + wide + 1] = True  # the onset itself stays where it was
    return change


def st_elevation(subject: Subject, planting: Planting, random: Draw) -> Change | str:
    """Raise the ST segment of some leads: it leaves the end of the QRS complex high and returns by the end of T.

    Truth is from the J point to the end of the T wave in those leads.
    """
    waves = subject.waves
    if isinstance(waves, str):
        return waves
    rows = [subject.leads.index(lead) for lead in planting.st_leads if lead in subject.leads]
    if not rows:
        return f"none of the leads {', '.join(planting.st_leads)} was recorded"
    rise = min(round(_ST_RISE * subject.rate), max(waves.qrs_end, 1))
    candidates = subject.beats(waves.qrs_onset, waves.t_end)
    if not candidates.size:
        return "no usual beat with its T wave lies inside the record"
    change = unchanged(subject)
    place = np.arange(waves.qrs_end - rise, waves.t_end + 1)
    up = np.interp(place, (waves.qrs_end - rise, waves.qrs_end), (0, 1))
    down = np.interp(place, (waves.t_peak, waves.t_end), (1, 0))
    course = (1 - np.cos(np.pi * up)) / 2 * (1 - np.cos(np.pi * down)) / 2
    height = between(planting.st_elevation, random)  # one a record: all of its beats are of one heart
    for number in some(candidates, planting.beats_share, random):
        peak = int(subject.peaks[number])
        change.signal[rows, peak + place[0] : peak + place[-1] + 1] += height * course
        change.truth[rows, peak + waves.qrs_end : peak + waves.t_end] = True  # at its end nothing is raised
    return change


def lead_inversion(subject: Subject, planting: Planting, random: Draw) -> Change | str:
    """Turn one whole lead upside down. Truth is all of it that was recorded."""
    lead = planting.inverted_lead
    if lead is not None and lead not in subject.leads:
        return f"the lead {lead} was not recorded"
    row = int(random.integers(len(subject.leads))) if lead is None else subject.leads.index(lead)
    change = unchanged(subject)
    change.signal[row] = np.where(subject.recorded[row], -subject.signal[row], subject.signal[row])
    change.truth[row] = subject.recorded[row]
    return change


_ELECTRODES: Final[Mapping[str, Mapping[str, float]]] = {
    "RA": {"I": -1, "II": -1, "aVR": 1, "aVL": -0.5, "aVF": -0.5},
    "LA": {"I": 1, "III": -1, "aVR": -0.5, "aVL": 1, "aVF": -0.5},
    "LL": {"II": 1, "III": 1, "aVR": -0.5, "aVL": -0.5, "aVF": 1},
}
_CHEST: Final = ("V1", "V2", "V3", "V4", "V5", "V6")

LIMB_ELECTRODES: Final = tuple(_ELECTRODES)
"""Electrodes that are no lead; all others are named as the lead that they are for."""


def _disturbed(electrode: str, leads: tuple[str, ...]) -> Floats:
    """Return (leads,) the share of an electrode's noise in each lead.

    A chest lead is against the mean of the three limb electrodes (Wilson), so each of these has a third of a say there.
    """
    limb = {**_ELECTRODES.get(electrode, {electrode: 1.0})}
    if electrode in _ELECTRODES:
        limb.update(dict.fromkeys(_CHEST, -1 / 3))
    return np.array([limb.get(lead, 0.0) for lead in leads])


def noise_burst(subject: Subject, planting: Planting, random: Draw) -> Change | str:
    """Disturb an electrode for a while, as a muscle or a loose contact does.

    Truth is the whole burst in the leads where its standard deviation is at least ``VISIBLE``.
    """
    # Limb electrodes disturb any lead they are part of; leads of other names are electrodes of their own.
    of_limbs = {lead for shares in _ELECTRODES.values() for lead in shares}
    names = [name for name in _ELECTRODES if {"I", "II"} <= set(subject.leads)]
    names += [lead for lead in subject.leads if not (names and lead in of_limbs)]
    electrode = planting.noise_electrode if planting.noise_electrode is not None else str(random.choice(names))
    shares = _disturbed(electrode, subject.leads)
    if not shares.any():
        return f"no lead that was recorded shows the electrode {electrode}"
    rows = np.flatnonzero(shares)
    size = round(between(planting.noise_seconds, random) * subject.rate)
    level = between(planting.noise, random)
    starts = _starts(np.asarray(subject.recorded[rows].all(axis=0)), size)
    if not starts.size:
        return f"no stretch of {size / subject.rate:.1f} s was recorded without a gap"
    start = int(random.choice(starts))
    low, high = min(_NOISE_BAND[0], 0.15 * subject.rate), min(_NOISE_BAND[1], 0.45 * subject.rate)
    band = sps.butter(2, (low, high), "bandpass", fs=subject.rate, output="sos")
    noise = np.asarray(sps.sosfilt(band, random.standard_normal(2 * size)))[size:]  # the filter has settled by then
    noise *= level / max(float(noise.std()), 1e-12) * swell(size, round(_NOISE_EDGE * subject.rate))
    change = unchanged(subject)
    change.signal[rows, start : start + size] += shares[rows, None] * noise
    change.truth[np.flatnonzero(np.abs(shares) * level >= VISIBLE), start : start + size] = True
    return change


def _starts(recorded: Flags, size: int) -> Samples:
    """Return (N,) where a stretch of ``size`` samples may begin that was wholly recorded."""
    if size > recorded.size:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.lib.stride_tricks.sliding_window_view(recorded, size).all(axis=1)).astype(np.int64)


KINDS: Final[Mapping[str, Kind]] = {
    "missing_p": missing_p,
    "widened_qrs": widened_qrs,
    "st_elevation": st_elevation,
    "premature_beat": premature_beat,
    "lead_inversion": lead_inversion,
    "noise_burst": noise_burst,
}
"""What can be planted, by name."""
