"""One record into which an anomaly is planted, how strongly, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from scipy import signal as sps
from scipy.interpolate import CubicSpline

from ecgfair.anomaly.planting.waves import Flags, Floats, Samples, Waves
from ecgfair.errors import ConfigurationError

EARLIEST: Final = 0.20
"""Share of the RR interval below which a beat is not premature."""

_SAME_SHAPE: Final = 0.8  # correlation with the usual beat below which a beat is none and is left alone


@dataclass(frozen=True)
class Planting:
    """What is planted and how strongly; each range is drawn from uniformly.

    Args:
        beats_share: Share of the beats that can take it which do, at least one. A third leaves usual beats to compare
            with in every record. Premature beats are never neighbours, so they may be fewer.
        qrs_factor: Times that a widened QRS complex lasts. 90 ms become 126 to 162.
        premature_qrs_factor: Likewise, of a premature beat.
        st_elevation: Millivolts; 0.1 is what is called significant in most leads.
        st_leads: Leads whose ST segment is raised.
        premature: Share of the RR interval by which a premature beat comes early. A later one is taken where there is
            no room behind the T wave before, down to 0.2.
        noise: Standard deviation in millivolts, of the electrode.
        noise_seconds: How long a burst of noise lasts.
        noise_electrode: The electrode that is disturbed, one of ``RA``, ``LA``, ``LL``, ``V1`` to ``V6``, or a lead;
            None draws one. An arm or the leg disturbs all leads that it is part of.
        inverted_lead: None draws one.

    Raises:
        ConfigurationError: A value is impossible.
    """

    beats_share: float = 1 / 3
    qrs_factor: tuple[float, float] = (1.4, 1.8)
    premature_qrs_factor: tuple[float, float] = (1.6, 2.2)
    st_elevation: tuple[float, float] = (0.1, 0.3)
    st_leads: tuple[str, ...] = ("V2", "V3", "V4")
    premature: tuple[float, float] = (0.25, 0.45)
    noise: tuple[float, float] = (0.1, 0.3)
    noise_seconds: tuple[float, float] = (1.0, 2.0)
    noise_electrode: str | None = None
    inverted_lead: str | None = None

    def __post_init__(self) -> None:
        """Refuse strengths that can't be planted; lists, as YAML has them, become tuples."""
        limits = {
            "qrs_factor": (1.0, 2.5),
            "premature_qrs_factor": (1.0, 3.0),
            "st_elevation": (-2.0, 2.0),
            "premature": (EARLIEST, 0.6),
            "noise": (0.0, 10.0),
            "noise_seconds": (0.3, 60.0),
        }
        for name, (least, most) in limits.items():
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) != 2 or not least <= values[0] <= values[1] <= most:
                raise ConfigurationError(
                    f"Planting.{name} is {values}: expected the lowest and the highest value, {least} to {most}."
                )
        object.__setattr__(self, "st_leads", tuple(self.st_leads))
        if not 0 < self.beats_share <= 1:
            raise ConfigurationError(f"Planting.beats_share is {self.beats_share}: expected 0 < share <= 1.")


@dataclass(frozen=True)
class Subject:
    """One record into which something is planted.

    Args:
        signal: (leads, time) millivolts, leads that were recorded alone.
        recorded: (leads, time).
        leads: Their names.
        peaks: (K,) ascending sample index of the R peaks.
        rate: Hz.
        waves: Of its usual beat, or the clause that says why they could not be found.
    """

    signal: Floats
    recorded: Flags
    leads: tuple[str, ...]
    peaks: Samples
    rate: float
    waves: Waves | str

    def beats(self, start: int, end: int) -> Samples:
        """Return which R peaks look like the usual beat and were wholly recorded between two places after R."""
        waves = self.waves
        if isinstance(waves, str):
            return np.zeros(0, dtype=np.int64)
        usual = waves.part(waves.qrs_onset, waves.t_end)
        usual = usual - usual.mean(axis=1, keepdims=True)
        fit = []
        for number, peak in enumerate(self.peaks):
            first, last = peak + min(start, waves.qrs_onset), peak + max(end, waves.t_end)
            if first < 1 or last + 1 >= self.signal.shape[1] or not self.recorded[:, first - 1 : last + 2].all():
                continue
            following = number + 1 < len(self.peaks) and self.peaks[number + 1] + waves.qrs_onset <= last
            own = self.signal[:, peak + waves.qrs_onset : peak + waves.t_end + 1]
            own = own - own.mean(axis=1, keepdims=True)
            alike = (own * usual).sum() / max(np.linalg.norm(own) * np.linalg.norm(usual), 1e-12)
            if alike > _SAME_SHAPE and not following:
                fit.append(number)
        return np.array(fit, dtype=np.int64)


@dataclass(frozen=True)
class Change:
    """A record with something planted into it.

    Args:
        signal: (leads, time) millivolts; where nothing was planted the very numbers of before.
        truth: (leads, time) where the anomaly is.
        peaks: (K,) the R peaks, of which a premature beat has moved one.
    """

    signal: Floats
    truth: Flags
    peaks: Samples


Draw: TypeAlias = np.random.Generator


def unchanged(subject: Subject) -> Change:
    """Return a record with nothing planted yet, in copies that a kind may write into."""
    return Change(subject.signal.copy(), np.zeros(subject.signal.shape, dtype=np.bool_), subject.peaks.copy())


def some(candidates: Samples, share: float, random: Draw) -> Samples:
    """Return a share of the candidates, at least one, ascending."""
    count = max(1, round(share * candidates.size))
    return np.sort(random.permutation(candidates)[:count])


def between(bounds: tuple[float, float], random: Draw) -> float:
    """Return a number drawn uniformly between two bounds."""
    return float(random.uniform(*bounds))


def stretched(rows: Floats, start: int, qrs: int, wide: int, last: int, after: int) -> Floats:
    """Return (leads, wide + after + 1) read from ``rows`` faster or slower.

    The QRS complex, ``qrs`` samples from ``start`` on, takes ``wide`` samples; what follows it until ``last`` takes
    ``after``.
    """
    margin = 1  # what lies farther off may not have been recorded
    first = max(start - margin, 0)
    piece = rows[:, first : last + margin + 1]
    spline: Any = CubicSpline(np.arange(first, first + piece.shape[1]), piece, axis=1)
    places = np.interp(np.arange(wide + after + 1), (0, wide, wide + after), (start, start + qrs, last))
    return np.asarray(spline(places), dtype=np.float64)


def swell(size: int, edge: int) -> Floats:
    """Return a window of 1 that rises from 0 and falls to 0 within ``edge`` samples."""
    return np.asarray(sps.windows.tukey(size, min(1.0, 2 * edge / size)), dtype=np.float64)
