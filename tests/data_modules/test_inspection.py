"""What ``inspect STORE`` shows is what is in the store."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from data_modules.inspection import Description, describe, print_description
from data_modules.stores.schema import MEASUREMENTS, StoreRow
from data_modules.stores.store import RecordStore
from data_modules.summary import count
from ecgfair.errors import ConfigurationError
from tests.data_modules.flagged_store import PREPROCESSING, ROWS, write


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    return write(tmp_path_factory.mktemp("flagged") / "store")


@pytest.fixture(scope="module")
def description(store: RecordStore) -> Description:
    return describe(store)


def printed(store: RecordStore, width: int = 300, label_set: str | None = None) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_description(store, console, label_set)
    return console.file.getvalue()


def line_of(text: str, title: str) -> str:
    """A line of what was printed, its blanks as one."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"{title}  "))
    return " ".join(line.removeprefix(title).split())


def test_the_counts_are_those_of_a_preparation(store: RecordStore, description: Description):
    for name, value in vars(count(store)).items():
        assert getattr(description, name) == value


def test_patients_and_durations_equal_a_plain_loop(description: Description):
    seconds = [row.seconds for row in ROWS if row.seconds is not None]
    assert description.patients == len({row.patient_id for row in ROWS})
    assert description.hours == pytest.approx(sum(seconds) / 3600)
    assert description.durations.median == pytest.approx(np.median(seconds))
    assert description.durations.missing == len(ROWS) - len(seconds)


def test_the_store_is_described_by_its_manifest(store: RecordStore, description: Description):
    assert (description.store, description.source, description.shards) == (str(store.path), "made", 3)
    assert description.preprocessing == PREPROCESSING
    files = [path for path in store.path.iterdir() if path.name != "manifest.json"]
    assert description.bytes_on_disk == sum(path.stat().st_size for path in files)
    assert description.fingerprint == store.fingerprint
    assert description.label_sets == {"all": 4, "grouped": 2, "none": 0}


@pytest.mark.parametrize("name", [*MEASUREMENTS, "signal_quality"])
def test_spreads_equal_numpy_over_what_is_known(description: Description, name: str):
    values = [getattr(row, name) for row in ROWS if getattr(row, name) is not None]
    spread = description.quality if name == "signal_quality" else description.measurements[name]
    assert spread.missing == len(ROWS) - len(values)
    expected = np.quantile(values, (0.05, 0.5, 0.95)) if values else [np.nan] * 3
    assert (spread.low, spread.median, spread.high) == pytest.approx(tuple(expected), rel=1e-6, nan_ok=True)


def test_every_kind_of_rejection_has_its_first_record_as_example(description: Description):
    assert description.examples == {
        "file missing": ("r90", "file missing: r90.dat is not there."),
        "too [bold]odd[/]": ("r91", "too [bold]odd[/]: a reason with brackets."),
    }


def test_what_is_printed_names_every_fact(store: RecordStore):
    text = printed(store)
    assert f"Store: {store.path}" in text
    assert line_of(text, "source") == "made"
    assert line_of(text, "records") == "13 of 7 patients; 3 rejected"
    assert line_of(text, "signals") == "3 leads at 100 Hz, 50 samples each"
    assert line_of(text, "leads") == "I II V1"
    assert line_of(text, "band") == "as recorded"
    assert line_of(text, "other lengths") == "cropped (center) 2 (15.4 %) padded (start) 2 (15.4 %)"
    assert line_of(text, "scale") == "0.001 mV a step of int16"
    assert line_of(text, "fingerprint") == store.fingerprint[:12]
    assert line_of(text, "label sets") == "all 4 grouped 2 none 0"
    assert line_of(text, "sex") == "male 6 (46.2 %) female 5 (38.5 %) unknown 2 (15.4 %)"
    assert line_of(text, "labels (all)") == "A 5 (38.5 %) B 5 (38.5 %) C 3 (23.1 %) (1 label in no record)"
    assert line_of(text, "records with a lead").startswith("derived 1 (7.7 %) missing 0 flat 3 (23.1 %)")
    assert line_of(text, "signal quality").endswith("1 records without")
    assert line_of(text, "qrs") == "90 ms 90 to 90 ms 0"
    assert line_of(text, "rr_variability") == "- - 13 (100.0 %)"
    assert line_of(text, "too [bold]odd[/]") == "1 r91: too [bold]odd[/]: a reason with brackets."


def test_another_label_set_can_be_chosen(store: RecordStore):
    assert line_of(printed(store, label_set="grouped"), "labels (grouped)") == "AB 8 (61.5 %) C 3 (23.1 %)"
    with pytest.raises(ConfigurationError, match="no label set 'x'"):
        printed(store, label_set="x")


def test_a_store_of_which_nothing_is_known_is_described_too(tmp_path: Path):
    store = write(tmp_path / "store", (StoreRow("1", "1"),), ())
    text = printed(store)
    assert line_of(text, "duration") == "0 h as recorded; not known"
    assert line_of(text, "sex") == "male 0 female 0 unknown 1 (100.0 %)"
    assert line_of(text, "signal quality") == "not known"
    assert "for example" not in text


def test_only_columns_are_read_and_never_the_whole_table(store: RecordStore, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(RecordStore, "records", property(fail))
    monkeypatch.setattr(RecordStore, "gather", fail)
    assert describe(store).read == len(ROWS)
