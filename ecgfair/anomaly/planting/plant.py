"""Anomalies planted into real records, with their exact place: the test of where a map points, never trained on."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ecgfair.anomaly.planting.kinds import KINDS, LIMB_ELECTRODES
from ecgfair.anomaly.planting.subject import Change, Planting, Subject
from ecgfair.anomaly.planting.waves import Waves, find_waves
from ecgfair.errors import ConfigurationError, did_you_mean

PLANTED: Final = tuple(KINDS)
"""The kinds that can be planted; ``kinds`` says of each what it does and what counts as its place."""

_SLOWEST: Final = 50.0  # Hz; at fewer a QRS complex is two samples
_FLAT: Final = 1e-6  # mV between highest and lowest sample; such a lead shows nothing that could be changed


class Planted(NamedTuple):
    """Records with something planted into them."""

    signal: Tensor
    """(B, leads, time) millivolts. Where ``changed`` is False these are the very numbers that came in."""
    truth: Tensor
    """(B, leads, time) bool: where the anomaly is, as a reader would mark it. All False where ``has`` is."""
    has: Tensor
    """(B,) bool: False where a record could not take it and was left as it is."""
    beats: Tensor
    """(B, K) int64 R peaks, those of premature beats moved."""
    changed: Tensor
    """(B, leads, time) bool: where the signal is another than before. Beyond ``truth`` this is what an anomaly brings
    with it: the pause behind a premature beat, the pressed ST segment behind a wide QRS complex, a rest in other leads
    that nobody would see. An evaluation may leave ``changed & ~truth`` out, being neither."""
    kind: tuple[str, ...]
    """What was planted into each record, ``""`` for nothing."""
    why: tuple[str, ...]
    """Why a record was left as it is, ``""`` where it was not."""


def plant(
    kind: str,
    signal: Tensor,
    beats: Tensor,
    sampling_rate: float,
    leads: tuple[str, ...],
    generator: torch.Generator,
    *,
    recorded: Tensor | None = None,
    intervals: Tensor | None = None,
    planting: Planting | None = None,
) -> Planted:
    """Plant one kind of anomaly into each record.

    What becomes of a record follows from the generator's state, its position in the batch and itself, not from the
    other records. Leads that were not recorded, or are flat, are left as they are and are no part of the truth.

    Args:
        kind: One of ``PLANTED``.
        signal: (B, leads, time) millivolts, of normal records.
        beats: (B, K) int64 sample index of each R peak, padded with -1.
        sampling_rate: Hz, 50 or more.
        leads: Their names.
        generator: Source of randomness, on the CPU.
        recorded: (B, leads, time) bool or one that broadcasts to it; None if all was. Samples that are not a number
            were not recorded either.
        intervals: (B, 3) PR, QRS and QT in milliseconds, NaN where they are to be found here; None finds all.
        planting: How strongly; None for the usual strengths.

    Returns:
        All tensors on the device of ``signal``.

    Raises:
        ConfigurationError: The kind, or a lead or electrode of ``planting``, is unknown.
        ValueError: Shapes do not fit, a beat lies outside the record, or the rate is too low.
    """
    _check_kinds((kind,))
    return _plant(
        [(kind,)] * len(signal), signal, beats, sampling_rate, leads, generator, recorded, intervals, planting
    )


def planted_benchmark(
    signal: Tensor,
    beats: Tensor,
    sampling_rate: float,
    leads: tuple[str, ...],
    generator: torch.Generator,
    *,
    kinds: tuple[str, ...] = PLANTED,
    recorded: Tensor | None = None,
    intervals: Tensor | None = None,
    planting: Planting | None = None,
) -> Planted:
    """Plant one kind into each record, the kinds in turn: the abnormal half of a benchmark whose normal half came in.

    A record that can't take the kind whose turn it is takes the next that it can; ``Planted.kind`` tells which.

    Args:
        signal: As for ``plant``, and so are all others.
        beats: See there.
        sampling_rate: See there.
        leads: See there.
        generator: See there.
        kinds: Those that take turns.
        recorded: See ``plant``.
        intervals: See there.
        planting: See there.

    Returns:
        See ``plant``. Where no kind could be planted, ``why`` has the reason of the one whose turn it was.

    Raises:
        ConfigurationError: As ``plant``, or ``kinds`` is empty.
        ValueError: As ``plant``.
    """
    _check_kinds(kinds)
    turns = [kinds[first:] + kinds[:first] for first in (position % len(kinds) for position in range(len(signal)))]
    return _plant(turns, signal, beats, sampling_rate, leads, generator, recorded, intervals, planting)


def _check_kinds(kinds: tuple[str, ...]) -> None:
    if not kinds:
        raise ConfigurationError(f"kinds is empty: expected some of {', '.join(PLANTED)}.")
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigurationError(f"Can't plant {kind!r}: there is no such kind.{did_you_mean(kind, PLANTED)}")


def _check_names(planting: Planting, leads: tuple[str, ...]) -> None:
    """Refuse leads and electrodes that no record has; those that one record lacks are told record by record."""
    named = {
        "st_leads": (planting.st_leads, leads),
        "inverted_lead": ((planting.inverted_lead,), leads),
        "noise_electrode": ((planting.noise_electrode,), (*LIMB_ELECTRODES, *leads)),
    }
    for field, (names, valid) in named.items():
        if field == "st_leads" and planting.st_leads == Planting().st_leads:
            continue  # not asked for, so their lack is told by ``Planted.why``
        for name in names:
            if name is not None and name not in valid:
                raise ConfigurationError(f"Planting.{field} has {name!r}: no such lead.{did_you_mean(name, valid)}")


def _check(signal: Tensor, beats: Tensor, rate: float, leads: tuple[str, ...], intervals: Tensor | None) -> None:
    if signal.ndim != 3 or signal.shape[1] != len(leads) or len(set(leads)) != len(leads):
        raise ValueError(
            f"signal is {tuple(signal.shape)} and leads are {leads}: expected (records, {len(leads)} leads, time) and "
            "no lead twice."
        )
    if beats.ndim != 2 or len(beats) != len(signal):
        raise ValueError(f"beats is {tuple(beats.shape)}: expected ({len(signal)}, K), a row a record.")
    if beats.numel() and (int(beats.max()) >= signal.shape[2] or int(beats.min()) < -1):
        raise ValueError(
            f"beats are from {int(beats.min())} to {int(beats.max())}: expected samples 0 to {signal.shape[2] - 1}, "
            "or -1 for none."
        )
    if not rate >= _SLOWEST:
        raise ValueError(f"sampling_rate is {rate} Hz: expected {_SLOWEST:g} or more, to find the waves of a beat.")
    if intervals is not None and intervals.shape != (len(signal), 3):
        raise ValueError(f"intervals is {tuple(intervals.shape)}: expected ({len(signal)}, 3), PR, QRS and QT in ms.")


def _plant(
    turns: list[tuple[str, ...]],
    signal: Tensor,
    beats: Tensor,
    sampling_rate: float,
    leads: tuple[str, ...],
    generator: torch.Generator,
    recorded: Tensor | None,
    intervals: Tensor | None,
    planting: Planting | None,
) -> Planted:
    """Plant into each record the first kind of its turn that it can take."""
    strengths = Planting() if planting is None else planting
    _check(signal, beats, sampling_rate, leads, intervals)
    _check_names(strengths, leads)
    # A seed a record, so that how many numbers one of them draws changes nothing for the next.
    seeds = torch.randint(2**31, (len(signal),), generator=generator).tolist()
    known = (torch.isfinite(signal) if recorded is None else torch.isfinite(signal) & recorded).cpu()
    out = signal.cpu().clone()
    truth = torch.zeros(signal.shape, dtype=torch.bool)
    moved = beats.cpu().clone()
    given = torch.full((len(signal), 3), torch.nan) if intervals is None else intervals.cpu()
    done, why = [], []
    for row, (kinds, seed, ms) in enumerate(zip(turns, seeds, given.tolist(), strict=True)):
        subject, used, columns = _subject(out[row], known[row], moved[row], sampling_rate, leads, ms)
        kind, change = _first(kinds, subject, strengths, seed)
        if isinstance(change, str):
            done.append("")
            why.append(change)
            continue
        done.append(kind)
        why.append("")
        # Float32 to float64 and back is exact, so what was not touched keeps its bits.
        out[row, used] = torch.where(known[row, used], torch.from_numpy(change.signal).to(out.dtype), out[row, used])
        truth[row, used] = torch.from_numpy(change.truth)
        moved[row, columns] = torch.from_numpy(change.peaks)
    device = signal.device
    out = out.to(device)
    changed = (out != signal) & known.to(device)
    has = torch.tensor([bool(kind) for kind in done], dtype=torch.bool, device=device)
    return Planted(out, truth.to(device), has, moved.to(device), changed, tuple(done), tuple(why))


def _subject(
    signal: Tensor, known: Tensor, beats: Tensor, sampling_rate: float, leads: tuple[str, ...], ms: list[float]
) -> tuple[Subject, Tensor, Tensor]:
    """Return one record as the kinds take it, the leads (N,) that it has of all, and the columns (K,) of its beats."""
    values = torch.where(known, signal, 0.0)
    # A lead of which half is missing would leave hardly a beat that all leads recorded.
    shows = (known.float().mean(dim=1) > 0.5) & (values.amax(dim=1) - values.amin(dim=1) > _FLAT)
    used = torch.nonzero(shows)[:, 0]
    given = torch.nonzero(beats >= 0)[:, 0]
    # A peak that is named twice is one; its first column is the one that moves.
    columns = given[torch.from_numpy(np.unique(beats[given].numpy(), return_index=True)[1])]
    rows = values[used].double().numpy()
    peaks = beats[columns].numpy().astype(np.int64)
    flags = known[used].numpy()
    waves: Waves | str
    if not used.numel():
        waves = "no lead was recorded"
    elif not peaks.size:
        waves = "no R peak is known"
    else:
        waves = find_waves(rows, flags, peaks, sampling_rate, (ms[0], ms[1], ms[2]))
    names = tuple(leads[place] for place in used.tolist())
    return Subject(rows, flags, names, peaks, sampling_rate, waves), used, columns


def _first(kinds: tuple[str, ...], subject: Subject, planting: Planting, seed: int) -> tuple[str, Change | str]:
    """Return the first kind that the record can take and the change, or the first reason why it can't."""
    reasons = []
    if not subject.leads:
        return "", "no lead was recorded"
    for kind in kinds:
        change = KINDS[kind](subject, planting, np.random.default_rng(seed))
        if isinstance(change, Change) and change.truth.any():
            return kind, change
        reasons.append(change if isinstance(change, str) else "what was planted is too weak to be seen")
    return "", reasons[0]
