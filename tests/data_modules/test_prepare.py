"""Prepare: every record the source lists is in the store or among the rejected, whatever the number of processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_modules import prepare as prepare_module
from data_modules.prepare import condition, prepare, prepare_ptbxl
from data_modules.readers.ptbxl import DATABASE, PtbXlReader
from data_modules.records import LabelSets, Record, Rejected
from data_modules.store import RecordStore
from data_modules.summary import print_summary
from data_modules.synthetic_ecg import to_signal, truth
from ecgfair.ecg import LEADS, Preprocessing
from ecgfair.errors import ConfigurationError, RecordError, SourceError, StoreError

PREPROCESSING = Preprocessing()


def signal_file(number: int) -> Path:
    return Path(f"records100/00000/{number:05d}_lr.dat")


def made(signal: np.ndarray, *, leads: Sequence[str] = LEADS, sampling_rate: float = 100) -> Record:
    return Record("1", "1", signal.astype(np.float32), tuple(leads), sampling_rate)


@dataclass
class Given:
    """A reader of what it is given; it may lose some."""

    outcomes: list[Record | Rejected]
    listed: int | None = None
    source_name: str = "given"
    label_sets: LabelSets = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.outcomes) if self.listed is None else self.listed

    def read(self, positions: Sequence[int]) -> Iterator[Record | Rejected]:
        yield from (self.outcomes[position] for position in positions if position < len(self.outcomes))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_store_holds_every_record_as_it_was_made(source: Path, tmp_path: Path):
    summary = prepare(PtbXlReader(source), tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    store = RecordStore(tmp_path / "store")
    assert (summary.found, summary.read, summary.rejected) == (20, 20, {})
    assert store.records.column("record_id").to_pylist() == [str(number) for number in range(1, 21)]
    expected = np.stack([to_signal(truth(number)) for number in range(1, 21)])
    assert np.array_equal(store.gather(np.arange(20)), expected)


def test_beats_and_heart_rate_are_those_of_the_stored_samples(source: Path, tmp_path: Path):
    prepare(PtbXlReader(source), tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    for number, row in enumerate(RecordStore(tmp_path / "store").records.to_pylist(), start=1):
        asked = truth(number)
        inside = asked.beats[(asked.beats > 0.3) & (asked.beats < 9.7)] * 100
        assert np.abs(np.array(row["beats"])[:, None] - inside).min(axis=0).max() <= 4  # samples, 40 ms
        assert row["heart_rate"] == pytest.approx(60 / np.diff(inside).mean() * 100, rel=0.08)


def test_read_and_rejected_make_what_was_found_and_nothing_is_lost_in_silence(source: Path, tmp_path: Path):
    (source / signal_file(3)).unlink()
    os.truncate(source / signal_file(7), 100)
    table = pd.read_csv(source / DATABASE, dtype=str, keep_default_na=False)
    table.loc[0, ["age", "sex"]] = ["-5", "2"]
    table.loc[1, "age"] = ""
    table.loc[4, "scp_codes"] = "{'NORM': 100.0, 'XYZ': 0.0}"
    table.loc[9, "ecg_id"] = "9"
    table.to_csv(source / DATABASE, index=False)
    summary = prepare(PtbXlReader(source), tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    assert (summary.found, summary.read) == (20, 17)
    assert summary.rejected == {"file missing": 1, "samples missing or left over": 1, "ecg_id there twice": 1}
    assert summary.notes == {"age implausible": 1, "sex unknown": 1, "unknown code": 1}
    assert summary.missing["age"] == 2 + sum(truth(number).age is None for number in range(3, 21))
    store = RecordStore(tmp_path / "store")
    assert store.rejected.column("record_id").to_pylist() == ["3", "7", "9"]
    assert {"3", "7"}.isdisjoint(store.records.column("record_id").to_pylist())
    assert store.records.column("notes").to_pylist()[0][0].startswith("age implausible: -5")


def test_one_and_two_processes_write_the_same_bytes(source: Path, tmp_path: Path):
    (source / signal_file(5)).unlink()
    reader = PtbXlReader(source)
    for jobs in (1, 2):
        prepare(reader, tmp_path / f"store{jobs}", PREPROCESSING, jobs=jobs, progress=False)
    assert contents(tmp_path / "store1") == contents(tmp_path / "store2")


def test_leads_in_another_order_give_the_same_row(source: Path, tmp_path: Path):
    order = [3, 11, 0, 7, 1, 2, 10, 4, 9, 5, 8, 6]
    header = (source / signal_file(1)).with_suffix(".hea")
    lines = header.read_text().splitlines()
    signals = np.fromfile(source / signal_file(1), "<i2").reshape(-1, 12)
    prepare(PtbXlReader(source), tmp_path / "before", PREPROCESSING, jobs=1, progress=False)
    header.write_text("\n".join([lines[0], *(lines[1 + row] for row in order)]) + "\n")
    (source / signal_file(1)).write_bytes(np.ascontiguousarray(signals[:, order]).tobytes())
    prepare(PtbXlReader(source), tmp_path / "after", PREPROCESSING, jobs=1, progress=False)
    assert contents(tmp_path / "before") == contents(tmp_path / "after")


def test_a_reader_that_loses_a_record_is_an_error_and_nothing_is_written(tmp_path: Path):
    reader = Given([made(np.zeros((12, 1000)))], listed=2)
    with pytest.raises(SourceError, match="lists 2 records, but its reader gave 1 and rejected 0"):
        prepare(reader, tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_if_all_are_rejected_the_commonest_reason_is_told_and_nothing_is_written(tmp_path: Path):
    reader = Given([Rejected("1", "rare: x"), Rejected("2", "often: y"), Rejected("3", "often: z")])
    with pytest.raises(SourceError, match=r"all 3 records were rejected.*2 times: often: y"):
        prepare(reader, tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_source_is_an_error(tmp_path: Path):
    with pytest.raises(SourceError, match="lists no record"):
        prepare(Given([]), tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_nothing_half_written_stays_after_an_error_in_the_middle(
    whole_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
):
    calls = iter(range(100))

    def fail(*arguments: object) -> None:
        if next(calls) == 5:
            raise error
        return original(*arguments)

    original = prepare_module.measure
    monkeypatch.setattr(prepare_module, "measure", fail)
    with pytest.raises(error):
        prepare(PtbXlReader(whole_source), tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_refused_before_anything_is_read(tmp_path: Path):
    (tmp_path / "store").mkdir()
    with pytest.raises(StoreError, match="there already"):
        prepare(Given([], listed=10**9), tmp_path / "store", PREPROCESSING, jobs=1)


def test_a_negative_number_of_processes_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="jobs is -1"):
        prepare(Given([]), tmp_path / "store", PREPROCESSING, jobs=-1)


def test_another_sampling_rate_is_resampled_along_time_only():
    seconds = np.arange(2500) / 500
    waves = np.stack([np.sin(2 * np.pi * rate * seconds) + rate for rate in range(1, 13)])
    resampled = condition(made(waves, sampling_rate=500), Preprocessing(length=500))
    expected = waves[:, ::5]
    assert resampled.shape == (12, 500)
    assert np.abs(resampled - expected)[:, 20:-20].max() < 0.01


def test_a_longer_record_keeps_its_first_samples():
    signal = np.random.default_rng(0).normal(size=(12, 1300))
    kept = condition(made(signal), PREPROCESSING)
    assert np.array_equal(kept, signal[:, :1000].astype(np.float32))


@pytest.mark.parametrize(("samples", "sampling_rate", "found"), [(999, 100, 999), (4990, 500, 998)])
def test_a_shorter_record_is_rejected(samples: int, sampling_rate: int, found: int):
    with pytest.raises(RecordError, match=f"too short: {found} samples at 100 Hz, expected 1000"):
        condition(made(np.zeros((12, samples)), sampling_rate=sampling_rate), PREPROCESSING)


def test_leads_are_chosen_by_name():
    signal = np.repeat(np.arange(12.0)[:, None], 1000, axis=1)
    preprocessing = Preprocessing(leads=("V6", "I"))
    assert condition(made(signal, leads=LEADS[::-1]), preprocessing)[:, 0].tolist() == [0.0, 11.0]


@pytest.mark.parametrize(
    ("leads", "reason"),
    [
        ((*LEADS[:11], "X"), "lead missing: V6"),
        ((*LEADS[:11], "I"), "lead there twice"),
        (LEADS[:11], "leads unclear: 12 rows of signal, 11 names"),
    ],
)
def test_unclear_leads_are_rejected(leads: tuple[str, ...], reason: str):
    with pytest.raises(RecordError, match=reason):
        condition(made(np.zeros((12, 1000)), leads=leads), PREPROCESSING)


def test_the_band_is_passed_along_time_and_in_phase():
    seconds = np.arange(1000) / 100
    heart, drift = np.sin(2 * np.pi * 8 * seconds), 2 + 0.3 * np.sin(2 * np.pi * 0.05 * seconds)
    signal = np.zeros((12, 1000))
    signal[4] = heart + drift
    passed = condition(made(signal), Preprocessing(band_pass=(0.5, 40.0)))
    assert np.abs(passed[4] - heart)[200:-200].max() < 0.05
    assert np.abs(np.delete(passed, 4, axis=0)).max() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_number_are_rejected_by_lead(tmp_path: Path, value: float):
    broken = np.zeros((12, 1000))
    broken[7, 10:13] = value
    reader = Given([made(broken), made(np.zeros((12, 1000)))])
    prepare(reader, tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    (reason,) = RecordStore(tmp_path / "store").rejected.column("reason").to_pylist()
    assert reason.startswith("samples not a number: 3 samples in V2")


def test_the_value_wfdb_keeps_for_no_sample_is_rejected(source: Path, tmp_path: Path):
    samples = np.fromfile(source / signal_file(2), "<i2").reshape(-1, 12)
    header = (source / signal_file(2)).with_suffix(".hea")
    lines = header.read_text().splitlines()
    fields = lines[12].split()
    fields[6] = str((int(fields[6]) - 32768 - int(samples[5, 11])) % 65536)
    header.write_text("\n".join([*lines[:12], " ".join(fields)]) + "\n")
    samples[5, 11] = -32768
    (source / signal_file(2)).write_bytes(samples.tobytes())
    summary = prepare(PtbXlReader(source), tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    assert summary.rejected == {"samples not a number": 1}


def test_a_record_that_would_be_clipped_is_rejected(tmp_path: Path):
    reader = Given([made(np.full((12, 1000), 40.0)), made(np.zeros((12, 1000)))])
    summary = prepare(reader, tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    assert (summary.read, summary.rejected) == (1, {"voltage too high": 1})


def test_the_summary_counts_groups_labels_and_folds(whole_source: Path, tmp_path: Path):
    summary = prepare(PtbXlReader(whole_source), tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    truths = [truth(number) for number in range(1, 21)]
    sexes = {"male": 0, "female": 1, "unknown": None}
    assert summary.by_sex == {name: sum(one.sex == sex for one in truths) for name, sex in sexes.items()}
    assert sum(summary.by_age.values()) == 20
    assert summary.by_age["80+"] == sum(one.age is not None and one.age >= 80 for one in truths)
    assert summary.label_set == "superdiagnostic"
    assert summary.labels["NORM"] == sum("NORM" in one.codes for one in truths)
    assert sum(summary.folds.values()) == 20


def test_the_verb_prepares_and_prints_a_summary(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (source / signal_file(4)).unlink()
    prepare_ptbxl(str(source), str(tmp_path / "store"), jobs=1)
    printed = capsys.readouterr().out
    assert "19 of 20 records read, 1 rejected" in printed
    assert "file missing 1" in printed
    assert str(tmp_path / "store") in printed.replace("\n", "")
    assert RecordStore(tmp_path / "store").preprocessing == PREPROCESSING


def test_progress_is_shown_on_stderr_so_that_stdout_stays_clean(
    whole_source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    summary = prepare(PtbXlReader(whole_source), tmp_path / "store", PREPROCESSING, jobs=1)
    assert capfd.readouterr().out == ""
    print_summary(summary)
    assert "20 of 20" in capfd.readouterr().out


@pytest.mark.data
def test_real_records_are_stored_bit_by_bit(ptbxl_source: Path, tmp_path: Path):
    reader = PtbXlReader(ptbxl_source)
    positions = [0, 1500, len(reader) - 1]
    chosen = Given(list(reader.read(positions)), label_sets=reader.label_sets)
    prepare(chosen, tmp_path / "store", PREPROCESSING, jobs=1, progress=False)
    names = pd.read_csv(ptbxl_source / DATABASE)["filename_lr"].iloc[positions]
    raw = np.stack([np.fromfile(ptbxl_source / f"{name}.dat", "<i2").reshape(1000, 12).T for name in names])
    assert np.array_equal(RecordStore(tmp_path / "store").gather(np.arange(3)), raw)
