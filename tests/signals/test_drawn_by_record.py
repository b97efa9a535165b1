"""Every function that draws makes the same of a record in every batch, where records draw for themselves."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest
import torch

import ecgfair.signals
from ecgfair.signals.alteration import Alteration
from ecgfair.signals.alteration_kinds import KINDS
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.beat_view import augmented_view, beat_view
from ecgfair.signals.beats import random_beat
from ecgfair.signals.disturbance import kept_leads, mains, wander, warped_times
from ecgfair.signals.draws import Draws
from ecgfair.signals.mask_schemes import SCHEMES, MaskScheme, hide
from ecgfair.signals.masking import beat_mask, lead_mask, patch_mask, phase_mask, span_mask
from ecgfair.signals.mixup import own_weights
from ecgfair.training.single_beat_task import hidden_places
from tests.signals.altered_cases import made

RECORDS, LEADS, TIME, RATE = 8, 12, 500, 100
INDEX = torch.tensor([40, 3, 11, 5, 0, 77, 6, 9])
BEATS = torch.tensor([4, 0, 5, 2, 1, 5, 3, 4])
"""How many of a record are known."""
STRONG = Augmentation(3.0, 0.3, 0.2, 0.1, 0.2, 0.1, 0.2)


def cohort(dtype=torch.float32):
    """Signals, R peaks that are padded, and what was recorded."""
    signal, peaks = made(RECORDS, LEADS, RATE, TIME)
    signal = signal + 0.02 * torch.randn(signal.shape, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    width = int(BEATS.max())
    beats = torch.where(torch.arange(width) < BEATS[:, None], peaks[:, :width], -1)
    recorded = torch.ones(RECORDS, LEADS, TIME, dtype=torch.bool)
    recorded[2, 4], recorded[5, :, 400:] = False, False
    return signal.to(dtype), torch.where(beats < TIME, beats, -1), recorded


def cut(rows, dtype=torch.float32):
    """Some of them, as a batch of their own: with no more columns for beats than they need."""
    signal, beats, recorded = (part[rows] for part in cohort(dtype))
    return signal, beats[:, : max(int((beats >= 0).sum(dim=1).max()), 1)], recorded


def shape_of(signal):
    return tuple(signal.shape)


def of_view(signal, beats, recorded, draws):
    view = augmented_view(beat_view(signal, recorded, beats, RATE), STRONG, draws)
    columns = view.rhythm.shape[-1]
    rhythm = torch.nn.functional.pad(view.rhythm, (0, int(BEATS.max()) - columns))
    slots = 6 - view.each.shape[1]
    each = torch.nn.functional.pad(view.each, (0, 0, 0, 0, 0, slots))
    return torch.cat([part.flatten(1) for part in (view.shape, rhythm, each)], dim=1)


DRAWING = {
    "patch_mask": lambda s, _b, _r, d: patch_mask(shape_of(s), 40, 0.3, generator=d),
    "span_mask": lambda s, _b, _r, d: span_mask(shape_of(s), 0.3, generator=d),
    "lead_mask": lambda s, _b, r, d: lead_mask(shape_of(s), 0.3, r.any(dim=-1), generator=d),
    "beat_mask": lambda s, b, _r, d: beat_mask(shape_of(s), b, 0.4, 20, 30, generator=d),
    "phase_mask": lambda s, b, _r, d: phase_mask(shape_of(s), b, 0.3, 28, generator=d),
    "hide": lambda s, b, r, d: hide(shape_of(s), {name: MaskScheme() for name in SCHEMES}, RATE, b, r, generator=d),
    "random_beat": lambda s, b, _r, d: random_beat(s, b, 20, 30, generator=d)[0],
    "wander": lambda s, _b, _r, d: wander(shape_of(s), 0.3, RATE, generator=d),
    "mains": lambda s, _b, _r, d: mains(shape_of(s), 0.3, 500, generator=d),
    "warped_times": lambda s, _b, _r, d: warped_times((len(s), TIME), 0.2, RATE, generator=d),
    "kept_leads": lambda _s, _b, r, d: kept_leads(tuple(r.shape[:2]), 0.5, r.any(dim=-1), generator=d),
    "Augmentation": lambda s, _b, r, d: STRONG(s, RATE, d, r),
    "augmented_view": of_view,
    "Alteration": lambda s, b, _r, d: Alteration()(s, b, RATE, d).signal,
    "own_weights": lambda s, _b, _r, d: own_weights(len(s), 0.4, generator=d),
    "hidden_places": lambda s, _b, _r, d: hidden_places(s.shape, s.device, d),
} | {
    f"Alteration: {kind}": lambda s, b, _r, d, kind=kind: (
        Alteration({kind: 1.0, "amplitude": 0.1}, 0.5)(s, b, RATE, d).signal
    )
    for kind in KINDS
}
SPLITS = {
    "halves": [range(4), range(4, 8)],
    "uneven": [range(3), range(3, 7), range(7, 8)],
    "every other": [range(0, 8, 2), range(1, 8, 2)],
    "turned": [range(7, -1, -1)],
    "alone": [[row] for row in range(8)],
}


def run(name, rows, dtype=torch.float32):
    draws = Draws.of(5, 9, INDEX[rows])
    return DRAWING[name](*cut(rows, dtype), draws), draws.uniform(3)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", DRAWING)
def test_a_record_becomes_the_same_in_every_batch(name, split):
    whole, later = run(name, list(range(RECORDS)))
    for rows in map(list, SPLITS[split]):
        part, own_later = run(name, rows)
        assert torch.equal(part, whole[rows])
        assert torch.equal(own_later, later[rows]), "what is drawn behind it does not depend on the batch either"


@pytest.mark.parametrize("name", DRAWING)
def test_another_step_makes_something_else_of_most_records(name):
    rows = list(range(RECORDS))
    one, other = (DRAWING[name](*cut(rows), Draws.of(5, step, INDEX)) for step in (9, 10))
    differ = (one != other).reshape(RECORDS, -1).any(dim=1)
    assert differ.sum() >= RECORDS / 2


@pytest.mark.parametrize("name", DRAWING)
def test_it_works_in_double_precision_and_draws_the_same(name):
    rows = list(range(RECORDS))
    single = run(name, rows)[0]
    torch.set_default_dtype(torch.float64)
    try:
        double = run(name, rows, torch.float64)[0]
    finally:
        torch.set_default_dtype(torch.float32)
    assert double.isfinite().all()
    if name in ("Alteration: turn", "augmented_view"):
        return  # the sign of an eigenvector, and whether a voltage is exactly 0, are up to the last bits
    torch.testing.assert_close(double.to(single.dtype), single, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("generator", [None, torch.Generator()])
@pytest.mark.parametrize("drawn", [wander, mains])
def test_disturbances_are_single_precision_in_double_precision_by_a_generator_too(drawn, generator):
    torch.set_default_dtype(torch.float64)
    try:
        assert drawn((4, 12, 100), 0.1, 500.0, generator=generator).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_no_function_that_draws_is_left_out():
    known = {name.split(":")[0] for name in DRAWING} | {"mixup"}  # whose partners are of its batch
    for found in pkgutil.iter_modules(ecgfair.signals.__path__):
        module = import_module(f"ecgfair.signals.{found.name}")
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            call = value.__call__ if inspect.isclass(value) and "__call__" in vars(value) else value
            if callable(call) and "generator" in inspect.signature(call).parameters and name != "Records":
                assert name in known, f"{module.__name__}.{name}"
