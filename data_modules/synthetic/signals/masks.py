"""Where on the ECG the signs of a condition are: which leads, from when to when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_modules.synthetic.heart.beat import Beat
from data_modules.synthetic.heart.rhythm import Rhythm
from data_modules.synthetic.people.conditions import CONDITIONS, Segment
from data_modules.synthetic.people.truth import Truth
from ecgfair.ecg import LEADS

_ARMS_REVERSED: Final = {"II": "III", "III": "II", "aVR": "aVL", "aVL": "aVR"}

_Span = tuple[float, float]


@dataclass(frozen=True)
class Mask:
    """A stretch of some leads in which a condition shows.

    Args:
        code: Of the condition.
        leads: Names of the leads.
        start: Seconds, included.
        end: Seconds, excluded.
    """

    code: str
    leads: tuple[str, ...]
    start: float
    end: float


def masks_of(truth: Truth, rhythm: Rhythm, usual: Beat, ectopic: Beat, seconds: float) -> tuple[Mask, ...]:
    """Return where each condition that is present shows, none for one whose signs are not drawn.

    The parts of a beat and the leads of a condition are those of a textbook, see ``Condition``; the times those that
    the record is drawn with. Where the arms are reversed the leads are those that show the sign on this record.

    Args:
        truth: The record.
        rhythm: Its beats.
        usual: Shape of its usual beat.
        ectopic: Shape of its premature beats of the ventricles.
        seconds: Of the recording.
    """
    reversed_arms = truth.strength["ALR"] > 0
    found = []
    for code in truth.present:
        if truth.strength[code] == 0:
            continue
        leads = CONDITIONS[code].leads
        if reversed_arms and code != "ALR":
            shown = {_ARMS_REVERSED.get(lead, lead) for lead in leads}
            leads = tuple(lead for lead in LEADS if lead in shown)
        for segment in CONDITIONS[code].segments:
            for start, end in _spans(code, segment, rhythm, usual, ectopic, seconds):
                if start < seconds and end > 0:
                    found.append(Mask(code, leads, max(start, 0.0), min(end, seconds)))
    return tuple(sorted(found, key=lambda mask: (mask.code, mask.start)))


def _spans(code: str, segment: Segment, rhythm: Rhythm, usual: Beat, ectopic: Beat, seconds: float) -> Iterator[_Span]:
    """Yield from when to when a segment of a beat lasts, for all beats that it is part of."""
    if segment == "record":
        yield 0.0, seconds
        return
    if segment == "pause":
        for blocked in rhythm.blocked:
            p_onset = blocked - usual.main - rhythm.usual_pr
            later = rhythm.beats[rhythm.beats > blocked]
            yield p_onset, float(later.min()) - usual.main if later.size else seconds
        return
    for beat, ventricular, atrial, pr in zip(rhythm.beats, rhythm.ventricular, rhythm.atrial, rhythm.pr, strict=True):
        drawn = ectopic if ventricular else usual
        onset = float(beat) - drawn.main
        if segment == "beat":
            if (code == "PVC" and ventricular) or (code == "PAC" and atrial):
                yield onset - (float(pr) if atrial else 0.0), onset + drawn.qt
        elif not ventricular:
            yield from _part(segment, onset, float(pr), drawn)


def _part(segment: Segment, onset: float, pr: float, beat: Beat) -> Iterator[_Span]:
    """Yield the span of one part of a usual beat, none where the beat has no such part."""
    after = {"QRS": (beat.begins, beat.qrs), "ST": (beat.qrs, beat.t_onset), "T": (beat.t_onset, beat.qt)}
    if segment in after:
        start, end = after[segment]
        yield onset + start, onset + end
    elif not np.isnan(pr):
        yield onset - pr, onset


def mask_array(masks: Iterable[Mask], code: str, length: int, sampling_rate: float) -> NDArray[np.bool_]:
    """Return (12, length) where a condition shows, leads in the order of ``ecgfair.ecg.LEADS``.

    Args:
        masks: Of one record.
        code: Of the condition.
        length: Samples.
        sampling_rate: Hz.
    """
    shown = np.zeros((len(LEADS), length), dtype=np.bool_)
    for mask in masks:
        if mask.code == code:
            start, end = (max(0, int(np.ceil(time * sampling_rate - 1e-9))) for time in (mask.start, mask.end))
            shown[[LEADS.index(lead) for lead in mask.leads], start:end] = True
    return shown
