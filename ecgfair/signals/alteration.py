"""Random generic alterations of real signals: the material of a task that needs no diagnosis.

A network that is to tell altered from unaltered records, and where they were altered, learns what belongs to an ECG. It
is the idea of learning from cut and pasted (CutPaste, Li 2021, arXiv 2104.04015) and from synthesised anomalies
(DRAEM, Zavrtanik 2021, arXiv 2108.07610), brought to ECGs by changes of the waves, the times and the leads. No change
imitates a diagnosis, and the anomalies that localisation is tested on are others (``ecgfair.anomaly.planting``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.errors import ConfigurationError, did_you_mean
from ecgfair.signals.alteration_kinds import KINDS
from ecgfair.signals.alteration_records import FAR, Records, ordered_peaks
from ecgfair.signals.draws import Randomness, rows_of

LONGEST_GAP: Final = 0.04
"""Seconds. A changed stretch is one, also where altered and original cross for no longer than this."""


def _default_kinds() -> dict[str, float]:
    often = {"turn": 4.0, "bump": 2.0, "plateau": 2.0, "scale": 2.0, "warp": 2.0}
    return {name: often.get(name, 1.0) for name in KINDS}


class Altered(NamedTuple):
    """Altered records."""

    signal: Tensor
    """(B, leads, time) millivolts."""
    changed: Tensor
    """(B, leads, time) bool: where it differs by more than ``Alteration.least_change``. A record in which it is False
    everywhere was not altered to speak of: its factor was close to 1, or none of the kinds can be had of it."""


@dataclass(frozen=True)
class Alteration:
    """Alters every record of a batch at random in one kind or two.

    Args:
        kinds: Relative frequency of each kind, by name; a kind that is not named does not occur. ``bump``, ``plateau``,
            ``scale`` and ``turn`` change the voltage of beats, ``warp``, ``rhythm``, ``jitter`` and ``rate`` their
            time, ``leads``, ``amplitude`` and ``noise`` leads and records; ``signals.alteration_kinds`` says how. A
            record with fewer beats than a kind needs gets another one of those named.
        twice: Share of records that are altered in two different kinds.
        some_beats: Share of records of which only some beats are altered (each with one chance of 0.1 to 0.5), where
            the kind is one of beats; at least one beat always is.
        least_change: Millivolts by which a sample must differ to count as changed.

    Raises:
        ConfigurationError: A kind is unknown, or a value can't work.
    """

    kinds: dict[str, float] = field(default_factory=_default_kinds)
    twice: float = 0.3
    some_beats: float = 0.3
    least_change: float = 0.05

    def __post_init__(self) -> None:
        """Refuse unknown kinds and values that can't work."""
        for name, frequency in self.kinds.items():
            if name not in KINDS:
                raise ConfigurationError(f"Alteration.kinds has {name!r}.{did_you_mean(name, KINDS)}")
            if not 0 <= frequency < math.inf:
                raise ConfigurationError(f"Alteration.kinds has {name}: {frequency}: expected 0 or more.")
        if not sum(self.kinds.values()) > 0:
            raise ConfigurationError(
                f"Alteration.kinds is {self.kinds}: expected at least one kind with a frequency above 0, such as "
                "bump: 1."
            )
        for name in ("twice", "some_beats"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"Alteration.{name} is {getattr(self, name)}: expected a share from 0 to 1.")
        if not 0 < self.least_change < math.inf:
            raise ConfigurationError(
                f"Alteration.least_change is {self.least_change}: expected millivolts above 0, such as 0.05."
            )

    def __call__(self, signal: Tensor, beats: Tensor, sampling_rate: float, generator: Randomness = None) -> Altered:
        """Return an altered copy, and where it was altered.

        Args:
            signal: (B, leads, time) millivolts. Twelve leads are taken for ``ecg.LEADS``, in that order.
            beats: (B, K) int64 sample index of the R peaks, padded with -1.
            sampling_rate: Hz.
            generator: Source of randomness, on the device of the signal; the default one if None.
        """
        peaks = ordered_peaks(beats, signal.shape[-1])
        everyone = Records(signal, peaks, peaks < FAR, sampling_rate, generator)
        chosen = self._choose_beats(everyone)
        drawn = self._draw_kinds(everyone)
        altered = signal.clone()
        for number, kind in enumerate(KINDS.values()):
            rows = (drawn == number).any(dim=1).nonzero()[:, 0]
            # Also where no record asks for this kind: what the others draw later must not depend on it.
            source = rows_of(generator, rows)
            if len(rows):
                some = Records(altered[rows], peaks[rows], chosen[rows], sampling_rate, source)
                some = kind.alter(some)
                altered[rows], peaks[rows] = some.signal.to(signal.dtype), some.peaks
        changed = close_gaps((altered - signal).abs() > self.least_change, round(LONGEST_GAP * sampling_rate))
        return Altered(altered, changed)

    def _choose_beats(self, records: Records) -> Tensor:
        """Draw which beats are altered, (B, K) bool."""
        draw = torch.where(records.chosen, records.uniform(0, 1, records.chosen.shape[1]), 2.0)
        some = (draw < records.uniform(0.1, 0.5, 1)) | (draw == draw.amin(dim=1, keepdim=True))
        return records.chosen & (some | ~records.chance(self.some_beats, 1))

    def _draw_kinds(self, records: Records) -> Tensor:
        """Draw the kinds of each record, (B, 2) numbers within ``KINDS``; -1 where there is no (second) one.

        The two greatest of u ** (1 / frequency), u uniform, are a draw by frequency without replacement
        (Efraimidis and Spirakis 2006, doi 10.1016/j.ipl.2005.11.003); here as log(u) / frequency.
        """
        device = records.signal.device
        most = max(self.kinds.values())
        frequency = torch.tensor([self.kinds.get(name, 0.0) / most for name in KINDS], device=device)
        needed = torch.tensor([kind.least_beats for kind in KINDS.values()], device=device)
        count = records.chosen.sum(dim=1, keepdim=True)
        possible = (count >= needed) & (frequency > 0)
        tiny = torch.finfo(torch.float32).tiny
        draw = records.uniform(0, 1, len(KINDS)).clamp_min(tiny).log()
        order = torch.where(possible, draw / frequency.clamp_min(1e-30), -math.inf)
        best = order.topk(2, dim=1)
        drawn = torch.where(best.values > -math.inf, best.indices, -1)
        drawn[:, 1] = torch.where(records.chance(self.twice), drawn[:, 1], -1)
        return drawn


def close_gaps(changed: Tensor, longest: int) -> Tensor:
    """Fill the gaps between two changed samples of a lead.

    Args:
        changed: (B, leads, time) bool.
        longest: Samples in the longest gap to fill.

    Returns:
        (B, leads, time) bool. What lies before the first and after the last changed sample is no gap.
    """
    # A sample stays unchanged if any window of longest + 1 samples around it has no change. Windows that reach over
    # the ends see nothing there.
    any_in_window = F.max_pool1d(F.pad(changed.float(), (longest, longest)), longest + 1, stride=1)
    return -F.max_pool1d(-any_in_window, longest + 1, stride=1) > 0
