"""A record's page shows this record, and says what is not known of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_modules.record_page import find_record, header_lines, record_page
from data_modules.stores.schema import StoreRow
from data_modules.stores.store import RecordStore
from ecgfair.ecg import AGE_OVER_89
from ecgfair.errors import ConfigurationError
from ecgfair.report.ecg_page import draw_page
from tests.data_modules.flagged_store import ROWS, signal, write


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    return write(tmp_path_factory.mktemp("flagged") / "store")


@pytest.mark.parametrize("number", [0, 4, 5, 12])
def test_a_page_holds_the_signal_and_beats_of_its_record(store: RecordStore, number: int):
    page = record_page(store, f"r{number}")
    steps = signal(number).astype(np.float32)
    expected = np.where(steps == -32768, np.nan, steps * np.float32(0.001))
    assert np.array_equal(page.signal, expected, equal_nan=True)
    assert page.beats.tolist() == list(ROWS[number].beats)
    assert (page.leads, page.sampling_rate) == (("I", "II", "V1"), 100)
    assert page.title == f"made: r{number}"


def test_a_page_is_what_the_drawing_takes(store: RecordStore):
    page = record_page(store, "r0")
    figure = draw_page(**vars(page))
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert page.title in texts
    (strip,) = (line for line in figure.axes[0].lines if line.get_gid() == "strip-II")
    assert np.flatnonzero(np.isnan(strip.get_ydata())).tolist() == list(range(10, 20))


def test_a_record_is_found_by_its_id(store: RecordStore):
    assert [find_record(store, row.record_id) for row in ROWS] == list(range(len(ROWS)))


@pytest.mark.parametrize(
    ("record_id", "told"),
    [
        ("r123", r"Did you mean 'r12'"),
        ("r", "Did you mean 'r"),
        ("x", r"ids such as 'r0', 'r1', 'r2'"),
        ("", "such as"),
    ],
)
def test_an_unknown_id_is_an_error_with_the_nearest(store: RecordStore, record_id: str, told: str):
    with pytest.raises(ConfigurationError, match=f"has no record '{record_id}'.*{told}"):
        find_record(store, record_id)


def test_an_id_that_was_rejected_says_why(store: RecordStore):
    with pytest.raises(ConfigurationError, match=r"no record 'r90': it was rejected: file missing: r90\.dat"):
        find_record(store, "r90")


def test_the_lines_tell_what_is_known_and_what_is_not(store: RecordStore):
    assert header_lines(store, 0) == [
        "Patient p0   Age 30 years   Sex male   Fold 1",
        "Heart rate 60 /min   RR variability not measured   Axis -30°",
        "PR 160 ms (quality 0.25)   QRS 90 ms   QT 400 ms   QTc 410 ms",
        "Codes A 100 %",
        "Signal quality 0   Leads flat I, V1   Samples missing",
        "age implausible: -3.; unknown code: X.",
    ]
    assert header_lines(store, 3) == [
        "Patient p1   Age unknown   Sex female   Recorded 1999-12-31 23:59:58   Fold 1",
        "Heart rate 63 /min   RR variability not measured   Axis -30°",
        "PR 163 ms (quality 0.25)   QRS 90 ms   QT 400 ms   QTc 410 ms",
        "Codes A 30 %, B 80 %",
        "Signal quality 0.25   No lead flagged   12 s recorded, 0.5 s stored",
    ]
    assert header_lines(store, 1)[2:] == [
        "PR not measured   QRS 90 ms   QT 400 ms   QTc 410 ms",
        "Codes B 50 %, C",
        "No lead flagged",
    ]
    assert "No beat found" in header_lines(store, 5)[-1]
    assert "Leads derived V1" in header_lines(store, 2)[-1]


def test_an_age_over_89_is_told_as_such_and_nothing_else_is_made_up(tmp_path: Path):
    rows = (replace(ROWS[0], age=AGE_OVER_89), StoreRow("bare", "p"))
    store = write(tmp_path / "store", rows, ())
    assert "Age over 89 years" in header_lines(store, 0)[0]
    assert header_lines(store, 1) == [
        "Patient p   Age unknown   Sex unknown",
        "Heart rate not measured   RR variability not measured   Axis not measured",
        "PR not measured   QRS not measured   QT not measured   QTc not measured",
        "No lead flagged   No beat found",
    ]
