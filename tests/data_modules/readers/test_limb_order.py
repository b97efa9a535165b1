"""limb_order: it doubts six rows in a wrong order, and not those of real recordings in the right one."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from data_modules.leads import LIMB_LEADS
from data_modules.readers.limb_order import doubt
from data_modules.readers.wfdb_signal import read_signal
from ecgfair.ecg import LEADS
from ecgfair.errors import RecordError
from tests.data_modules.code15_source import tracing

EXCHANGES = {"aVL and aVF": (0, 1, 2, 3, 5, 4), "aVR and aVL": (0, 1, 2, 4, 3, 5), "I and II": (1, 0, 2, 3, 4, 5)}


@pytest.fixture
def signal() -> np.ndarray:
    return tracing(1).T


def test_the_right_order_is_not_doubted(signal):
    assert doubt(signal) is None


@pytest.mark.parametrize("order", [order for order in permutations(range(6)) if order != tuple(range(6))][::7])
def test_any_other_order_is_doubted_and_the_right_one_named(signal, order):
    found = doubt(signal[list(order)])
    assert found is not None
    assert found.endswith("in the order " + ", ".join(LIMB_LEADS[lead] for lead in order))


def test_the_unit_and_an_offset_do_not_matter(signal):
    assert doubt(signal * 1e-3 + np.arange(12)[:, None]) is None
    assert doubt((signal * 1e3)[[0, 1, 2, 3, 5, 4]] + 7) is not None


def test_arms_exchanged_on_the_patient_are_not_a_wrong_order_of_rows(signal):
    i, ii, iii, avr, avl, avf = signal[:6]
    assert doubt(np.stack((-i, iii, ii, avl, avr, avf))) is None


def test_six_unrelated_rows_fit_no_order():
    found = doubt(np.random.default_rng(0).standard_normal((12, 1000)))
    assert found is not None
    assert "in the order" not in found


def test_samples_that_were_not_recorded_are_left_out(signal):
    signal[4, 100:300] = np.nan
    assert doubt(signal) is None
    signal[4] = np.nan
    assert doubt(signal) is None


def test_rows_without_any_voltage_tell_nothing():
    assert doubt(np.ones((12, 100))) is None


def test_real_recordings_are_not_doubted_but_with_two_leads_exchanged(real_data: Path):
    """103 recordings at 400 Hz from CODE-15 % and SaMi-Trop, 200 of PTB-XL at 500 Hz."""
    headers = [*(real_data / "code400").glob("*.hea"), *(real_data / "ptbxl" / "records500").glob("*/*.hea")]
    recordings = []
    for header in sorted(headers):
        try:
            recorded = read_signal(header.parent, header.stem)
        except RecordError:
            continue
        if recorded.leads == LEADS:
            recordings.append(recorded.signal)
    assert len(recordings) > 250
    assert sum(doubt(recording) is not None for recording in recordings) == 0
    for order in EXCHANGES.values():
        found = sum(doubt(recording[list(order)]) is not None for recording in recordings)
        assert found >= 0.99 * len(recordings)
