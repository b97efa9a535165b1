"""Any population at all: what is not refused with a reason draws lawful records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.synthetic.heart.signs import shape
from data_modules.synthetic.people.circumstances import circumstances
from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.oracle import expected_auroc, expected_prevalence
from data_modules.synthetic.people.person import OLDEST, YOUNGEST
from data_modules.synthetic.people.population import Disparity, Population
from data_modules.synthetic.people.truth import Truth
from data_modules.synthetic.signals.recording import SECONDS, Recording, record
from ecgfair.ecg import MISSING_SAMPLE
from ecgfair.errors import ConfigurationError

CODES = st.sampled_from(list(CONDITIONS))
SHARES = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
AGES = st.tuples(st.integers(0, OLDEST), st.integers(YOUNGEST, 200)).map(lambda one: (min(one), max(one) + 1))
GROUPS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"sex": st.sampled_from(["female", "male"])}, optional={"age": AGES}),
    st.fixed_dictionaries({"age": AGES}),
)


@st.composite
def disparities(draw: st.DrawFn) -> Disparity:
    kind = draw(st.sampled_from(["prevalence", "training_records", "noise", "signs", "label_errors"]))
    group = draw(GROUPS)
    strength = draw(st.floats(0, 1000) if kind == "noise" else SHARES)
    labels = () if kind in ("training_records", "noise") else tuple(draw(st.lists(CODES, max_size=3)))
    return Disparity(kind, strength, labels=labels, **group)


def labels_can_be_wrong_so_often(population: Population) -> bool:
    """Tell whether there are enough records on which a label can be stated in error; all else is refused earlier."""
    try:
        circumstances(population)
    except ConfigurationError:
        return False
    return True


POPULATIONS = st.builds(
    Population,
    prevalence=st.dictionaries(CODES, st.one_of(st.sampled_from([0.0, 0.5]), st.floats(0, 0.999))),
    separation=st.dictionaries(CODES, st.one_of(st.sampled_from([0.0, 12.0, 100.0]), st.floats(0, 100))).map(
        lambda asked: {code: value if CONDITIONS[code].graded else max(value, 4.0) for code, value in asked.items()}
    ),
    disparities=st.lists(disparities(), max_size=4).map(tuple),
    missing_age=SHARES,
    missing_sex=SHARES,
    noise=st.one_of(st.sampled_from([0.0, 1.0, 50.0]), st.floats(0, 1000)),
).filter(labels_can_be_wrong_so_often)


def check_truth(asked: Truth) -> None:
    numbers = [*asked.severity.values(), *asked.strength.values(), *asked.oracle.values(), asked.noise]
    assert all(map(math.isfinite, numbers))
    assert all(0 <= share <= 1 for share in (*asked.strength.values(), *asked.oracle.values()))
    for code in (*asked.present, *asked.stated):
        if code in CONDITIONS:
            assert not set(CONDITIONS[code].hidden_by) & set(asked.present)


def check_beats(asked: Truth, made: Recording) -> None:
    drawn = made.asked
    beat = shape(drawn, asked.constitution, asked.strength)
    assert 40 <= drawn.heart_rate <= 150
    assert drawn.pr is None or 80 < drawn.pr < 310
    assert 0 < beat.qrs < beat.t_onset < beat.qt < min(0.75, 60 / drawn.heart_rate)
    assert np.diff(made.beats).min() > 0.2
    # A blocked beat of a slow heart leaves the longest pause.
    edges = np.concatenate([[0], made.beats, [SECONDS]])
    assert np.diff(edges).max() < 3.5
    for mask in made.masks:
        assert mask.code in asked.present
        assert 0 <= mask.start < mask.end <= SECONDS
        assert mask.leads


def check_signal(made: Recording) -> None:
    one, two, three, avr, avl, avf = made.signal[:6].astype(int)
    assert np.array_equal(three, two - one)
    assert np.array_equal(2 * np.stack([avr, avl, avf]), np.stack([-(one + two), one - three, two + three]))
    assert MISSING_SAMPLE not in made.signal


@settings(deadline=None, max_examples=60)
@given(population=POPULATIONS, seed=st.integers(0, 2**70), number=st.integers(1, 10**9))
def test_whatever_is_asked_for_a_record_is_lawful(population: Population, seed: int, number: int):
    asked = truth(number, seed, population)
    made = record(asked)
    check_truth(asked)
    check_beats(asked, made)
    check_signal(made)
    plain = truth(number, seed)
    for name in ("patient", "age", "sex", "fold", "recorded_at", "constitution"):
        assert getattr(asked, name) == getattr(plain, name)


@settings(deadline=None, max_examples=30)
@given(population=POPULATIONS, code=CODES, group=GROUPS)
def test_whatever_is_asked_for_what_is_expected_is_a_share_or_undefined(
    population: Population, code: str, group: dict[str, Any]
):
    share, area = expected_prevalence(population, code, **group), expected_auroc(population, code, **group)
    assert np.isnan(share) or 0 <= share <= 1
    assert np.isnan(area) or 0 <= area <= 1
    if share == 0:
        assert np.isnan(area)
