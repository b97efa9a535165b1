"""What a store holds is counted as a plain loop over its records counts it."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from data_modules.stores.schema import LEAD_FLAGS, MEASUREMENTS, StoreRow
from data_modules.stores.store import RecordStore
from data_modules.summary import Counts, count, kinds, listed_labels, print_summary, summarize
from ecgfair.errors import ConfigurationError
from tests.data_modules.flagged_store import LABEL_SETS, REJECTED, ROWS, write


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    return write(tmp_path_factory.mktemp("flagged") / "store")


@pytest.fixture(scope="module")
def counts(store: RecordStore) -> Counts:
    return count(store)


def printed(store: RecordStore, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_summary(summarize(store, len(store) + store.rejected.num_rows, 1.5), console)
    return console.file.getvalue()


def line_of(text: str, title: str) -> str:
    """A line of the summary, its blanks as one."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"{title}  "))
    return " ".join(line.removeprefix(title).split())


def test_read_and_rejected_are_all_there_is(store: RecordStore, counts: Counts):
    assert (counts.read, sum(counts.rejected.values())) == (len(ROWS), len(REJECTED))
    assert counts.rejected == {"file missing": 2, "too [bold]odd[/]": 1}
    assert summarize(store, 16, 1.5).found == 16


def test_sex_age_and_folds_equal_a_plain_loop(counts: Counts):
    names = {0: "male", 1: "female", None: "unknown"}
    assert counts.by_sex == Counter(names[row.sex] for row in ROWS)

    def band(row: StoreRow) -> str:
        ends = {"<40": 40, "40-64": 65, "65-79": 80, "80+": 1000}
        return "unknown" if row.age is None else next(name for name, end in ends.items() if row.age < end)

    assert {name: number for name, number in counts.by_age.items() if number} == Counter(map(band, ROWS))
    assert counts.folds == Counter("unknown" if row.fold is None else str(row.fold) for row in ROWS)


def test_what_is_missing_is_counted_for_demographics_and_every_measurement(counts: Counts):
    assert counts.missing == {
        name: sum(getattr(row, name) is None for row in ROWS) for name in ("age", "sex", *MEASUREMENTS)
    }
    assert counts.missing["rr_variability"] == len(ROWS)


def test_lengths_flags_beats_and_gaps_equal_a_plain_loop(counts: Counts):
    samples = [None if row.seconds is None else round(100 * row.seconds) for row in ROWS]
    assert counts.fitted == {
        "cropped": sum(number is not None and number > 50 for number in samples),
        "padded": sum(number is not None and number < 50 for number in samples),
    }
    assert counts.flags == {flag: sum(bool(getattr(row, f"{flag}_leads")) for row in ROWS) for flag in LEAD_FLAGS}
    assert counts.flags["flat"] == 3
    assert counts.without_beats == sum(not row.beats for row in ROWS) == 2
    assert counts.incomplete == sum(not row.complete for row in ROWS) == 4


@pytest.mark.parametrize("label_set", LABEL_SETS)
def test_labels_are_counted_as_the_store_gives_them(store: RecordStore, label_set: str):
    names, positive = store.labels(label_set)
    counts = count(store, label_set)
    assert counts.label_set == label_set
    assert counts.labels == dict(zip(names, positive.sum(axis=0).astype(int).tolist(), strict=True))


def test_a_record_with_two_codes_of_a_label_is_one_positive(store: RecordStore):
    # The fourth record of five states A and B.
    assert count(store, "grouped").labels["AB"] == sum("A" in row.codes or "B" in row.codes for row in ROWS)


def test_the_first_label_set_is_counted_if_none_is_named(counts: Counts):
    assert counts.label_set == "all"


def test_an_unknown_label_set_is_an_error_with_the_nearest_name(store: RecordStore):
    with pytest.raises(ConfigurationError, match=r"no label set 'groupd'\. Did you mean 'grouped'"):
        count(store, "groupd")


def test_kinds_are_what_stands_before_the_first_colon_the_commonest_first():
    assert kinds(["b: 1: 2", "a: \n3", "a", "c : x"]) == {"a": 2, "b": 1, "c ": 1}
    assert list(kinds(["b: 1", "a: 3", "a"])) == ["a", "b"]
    assert kinds([]) == {}


def test_notes_are_counted_by_kind(counts: Counts):
    assert counts.notes == {"age implausible": 3, "unknown code": 3}


def test_the_summary_prints_every_count(store: RecordStore):
    text = printed(store)
    assert text.startswith("13 of 16 records read, 3 rejected, in 1.5 s.")
    assert line_of(text, "rejected") == "file missing 2 too [bold]odd[/] 1"
    assert line_of(text, "length") == "cropped 2 padded 2"
    assert line_of(text, "records with a lead") == "derived 1 flat 3"
    assert line_of(text, "records with") == "no beat 2 samples missing 4"
    assert line_of(text, "labels (all)") == "A 5 B 5 C 3 (1 label in no record)"
    assert line_of(text, "taken as missing or in no label set") == "age implausible 3 unknown code 3"
    assert f"Store: {store.location}" in text


def test_what_did_not_occur_is_not_printed(tmp_path: Path):
    plain = StoreRow("1", "1", age=50.0, sex=0, seconds=0.5, beats=[1], **dict.fromkeys(MEASUREMENTS, 1.0))
    text = printed(write(tmp_path / "store", (plain,), ()))
    assert "rejected" not in text.partition("\n")[2]
    for title in ("length", "records with", "without", "taken as missing"):
        assert title not in text


def test_a_narrow_terminal_breaks_lines_between_counts(store: RecordStore):
    lines = [line.rstrip() for line in printed(store, width=60).splitlines()]
    assert any(line.endswith("age implausible 3") for line in lines)
    assert any(line.endswith("unknown code 3") for line in lines)


def test_labels_without_a_record_are_counted_not_listed():
    assert listed_labels({"A": 2, "B": 0, "C": 1, "D": 0}, 4) == [
        "A 2 (50.0 %)",
        "C 1 (25.0 %)",
        "(2 labels in no record)",
    ]
    assert listed_labels({"A": 2}) == ["A 2"]
