"""Potentials of nine electrodes, and the twelve leads between them."""

from __future__ import annotations

import numpy as np
import pytest

from data_modules.leads import with_derived
from data_modules.synthetic.signals.electrodes import (
    CHEST_LIMIT,
    ELECTRODES,
    LIMB_LIMIT,
    quantise,
    swap_arms,
    to_leads,
    to_potentials,
)
from ecgfair.ecg import LEADS, MISSING_SAMPLE

INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def voltages(size: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, size, (8, 400))


def lead(leads: np.ndarray, name: str) -> np.ndarray:
    """A lead as Python's whole numbers, or NumPy's floats, that don't overflow."""
    row = leads[LEADS.index(name)]
    return row.astype(np.int64) if row.dtype == np.int16 else row


def broken_laws(leads: np.ndarray) -> list[str]:
    one, two, three = (lead(leads, name) for name in ("I", "II", "III"))
    laws = {
        "Einthoven": three - (two - one),
        "aVR": 2 * lead(leads, "aVR") + one + two,
        "aVL": 2 * lead(leads, "aVL") - one + three,
        "aVF": 2 * lead(leads, "aVF") - two - three,
    }
    return [name for name, difference in laws.items() if np.any(difference != 0)]


def test_leads_of_the_potentials_are_those_that_the_potentials_were_made_of():
    independent = voltages()
    leads = to_leads(to_potentials(independent))
    reference, names, _ = with_derived(independent, INDEPENDENT)
    assert np.allclose(leads, reference[[names.index(name) for name in LEADS]], rtol=0, atol=1e-6)


def test_zero_is_the_mean_of_the_limb_electrodes():
    assert np.allclose(to_potentials(voltages())[:3].sum(axis=0), 0, rtol=0, atol=1e-12)


def test_a_potential_that_all_electrodes_share_is_seen_in_no_lead():
    potentials = to_potentials(voltages())
    assert np.allclose(to_leads(potentials + 1.5), to_leads(potentials), rtol=0, atol=1e-12)


def test_an_arm_has_its_textbook_part_in_each_lead():
    left_arm = np.zeros((len(ELECTRODES), 1))
    left_arm[ELECTRODES.index("LA")] = 6
    assert to_leads(left_arm)[:, 0].tolist() == [6, 0, -6, -3, 6, -3, *[-2] * 6]


def test_exchanged_arms_turn_lead_i_and_exchange_the_others_but_not_the_chest_leads():
    potentials = to_potentials(voltages())
    usual, swapped = to_leads(potentials), to_leads(swap_arms(potentials))
    changed = {"I": -lead(usual, "I"), "II": lead(usual, "III"), "III": lead(usual, "II")}
    changed |= {"aVR": lead(usual, "aVL"), "aVL": lead(usual, "aVR"), "aVF": lead(usual, "aVF")}
    for name in LEADS:
        assert np.allclose(lead(swapped, name), changed.get(name, lead(usual, name)), rtol=0, atol=1e-12), name


def test_exchanging_the_arms_leaves_the_given_potentials_as_they_are():
    potentials = to_potentials(voltages())
    before = potentials.copy()
    swap_arms(potentials)[:] = 0
    assert np.array_equal(potentials, before)


@pytest.mark.parametrize("size", [0.001, 1.0, 10.0, 1e4])
def test_laws_hold_exactly_in_whole_microvolts_also_where_leads_are_cut_off(size: float):
    written = quantise(to_potentials(voltages(size)))
    assert written.dtype == np.int16
    assert broken_laws(written) == []


def test_whole_microvolts_are_within_rounding_of_the_voltage():
    potentials = to_potentials(voltages())
    error = np.abs(quantise(potentials) - to_leads(potentials) * 1000).max(axis=1)
    assert error[LEADS.index("I")] <= 1 + 1e-9
    assert error[LEADS.index("II")] <= 1 + 1e-9
    assert error[:6].max() <= 2 + 1e-9
    assert error[6:].max() <= 0.5 + 1e-9


@pytest.mark.parametrize("sign", [1, -1])
def test_beyond_its_range_a_lead_stays_at_the_limit_and_no_sample_is_taken_for_missing(sign: int):
    independent = sign * np.array([[100.0], [-100], *[[100]] * 6])
    written = quantise(to_potentials(independent))[:, 0].astype(int)
    assert written[:3].tolist() == [sign * LIMB_LIMIT, -sign * LIMB_LIMIT, -2 * sign * LIMB_LIMIT]
    assert written[6:].tolist() == [sign * CHEST_LIMIT] * 6
    assert MISSING_SAMPLE not in written
